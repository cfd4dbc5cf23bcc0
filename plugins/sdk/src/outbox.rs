//! What leaves after the attempt has committed, and only then.

use std::fmt;

use serde::Serialize;

use crate::{
    bindings::posthouse::plugin::outbox::{Derived as HostDerived, Error as HostError, Mail as HostMail},
    host,
    http::Request,
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

/// Stages a request that is made later, at least once, and returns its Idempotency-Key, which is the same
/// in every attempt and every sending. A status of 2xx ends it; 408, 425, 429 and 5xx are tried again, as
/// is what brought no response; any other is given up.
///
/// # Errors
/// See [`Error`].
pub fn send_request(request: &Request) -> Result<String, Error> {
    Ok(host::outbox::send_request(&request.0)?)
}

/// An event for other plugins, derived from the one at hand, such as `seat.changed`.
#[derive(Debug, Clone, PartialEq)]
pub struct Derived(HostDerived);

impl Derived {
    /// An event of this type about the organization of the event at hand, with `data` as JSON.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there is no JSON for `data`.
    pub fn new<T: Serialize + ?Sized>(event_type: &str, data: &T) -> Result<Self, Error> {
        let data = serde_json::to_string(data).map_err(|error| Error::Invalid(format!("data: {error}")))?;
        Ok(Self(HostDerived { event_type: event_type.to_owned(), organization_id: None, data }))
    }

    /// Makes it about this organization.
    pub fn organization(mut self, id: impl Into<String>) -> Self {
        self.0.organization_id = Some(id.into());
        self
    }

    /// Stages it, and returns its id, which is the same in every attempt.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn emit(&self) -> Result<String, Error> {
        Ok(host::outbox::emit(&self.0)?)
    }
}

/// What came of staging something that the plugin can do without: none where it is not granted.
///
/// # Errors
/// Any other [`Error`].
pub fn if_granted(staged: Result<String, Error>) -> Result<Option<String>, Error> {
    match staged {
        Err(Error::Denied(_)) => Ok(None),
        other => other.map(Some),
    }
}

/// Why a mail, a request or an event was not staged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Not granted; the message names the line of config.toml that would allow it.
    Denied(String),
    /// Not a mail, a request or an event: the message names the field.
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
