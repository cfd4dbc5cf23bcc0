//! What leaves after the attempt has committed, and only then.

use std::fmt;

use crate::{
    bindings::posthouse::plugin::outbox::{Error as HostError, Mail as HostMail},
    host,
};

/// A mail. Addresses are as in RFC 5322: `ada@example.com` or `Ada <ada@example.com>`.
#[derive(Debug, Clone, PartialEq)]
pub struct Mail(HostMail);

impl Mail {
    /// A mail from the first address the grant allows.
    pub fn new(to: impl Into<String>, subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self(HostMail {
            from: None,
            to: vec![to.into()],
            cc: Vec::new(),
            bcc: Vec::new(),
            reply_to: None,
            subject: subject.into(),
            text: text.into(),
            html: None,
        })
    }

    /// Sends it from this address, which the grant must allow.
    pub fn from(mut self, address: impl Into<String>) -> Self {
        self.0.from = Some(address.into());
        self
    }

    /// Adds somebody to whom it goes.
    pub fn to(mut self, address: impl Into<String>) -> Self {
        self.0.to.push(address.into());
        self
    }

    /// Adds somebody who gets a copy.
    pub fn cc(mut self, address: impl Into<String>) -> Self {
        self.0.cc.push(address.into());
        self
    }

    /// Adds somebody who gets a copy unseen.
    pub fn bcc(mut self, address: impl Into<String>) -> Self {
        self.0.bcc.push(address.into());
        self
    }

    /// Where answers go.
    pub fn reply_to(mut self, address: impl Into<String>) -> Self {
        self.0.reply_to = Some(address.into());
        self
    }

    /// The same as HTML. Whatever comes from outside must be escaped in it.
    pub fn html(mut self, html: impl Into<String>) -> Self {
        self.0.html = Some(html.into());
        self
    }

    /// Stages it, and returns its Message-ID, which is the same in every attempt.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn send(&self) -> Result<String, Error> {
        Ok(host::outbox::send_mail(&self.0)?)
    }
}

/// Why a mail was not staged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Not granted; the message names the line of config.toml that would allow it.
    Denied(String),
    /// Not a mail: the message names the field.
    Invalid(String),
    /// The attempt has staged all it may.
    Limit(String),
}

impl From<HostError> for Error {
    fn from(error: HostError) -> Self {
        match error {
            HostError::Denied(message) => Self::Denied(message),
            HostError::Invalid(message) => Self::Invalid(message),
            HostError::Limit(message) => Self::Limit(message),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(message) | Self::Invalid(message) | Self::Limit(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}
