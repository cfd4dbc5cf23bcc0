//! Mails, requests and events that are sent after the attempt has committed, and only then.

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
    /// Creates a mail from the first address that the grant allows.
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

    /// Sets the sender's address, which the grant must allow.
    pub fn from(mut self, address: impl Into<String>) -> Self {
        self.0.from = Some(address.into());
        self
    }

    /// Adds a recipient.
    pub fn to(mut self, address: impl Into<String>) -> Self {
        self.0.to.push(address.into());
        self
    }

    /// Adds a recipient of a copy.
    pub fn cc(mut self, address: impl Into<String>) -> Self {
        self.0.cc.push(address.into());
        self
    }

    /// Adds a recipient of a blind copy.
    pub fn bcc(mut self, address: impl Into<String>) -> Self {
        self.0.bcc.push(address.into());
        self
    }

    /// Sets the address for replies.
    pub fn reply_to(mut self, address: impl Into<String>) -> Self {
        self.0.reply_to = Some(address.into());
        self
    }

    /// Sets the HTML version. Escape all values from outside.
    pub fn html(mut self, html: impl Into<String>) -> Self {
        self.0.html = Some(html.into());
        self
    }

    /// Stages the mail and returns its Message-ID. The Message-ID is the same in every attempt.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn send(&self) -> Result<String, Error> {
        Ok(host::outbox::send_mail(&self.0)?)
    }
}

/// Stages a request and returns its Idempotency-Key. The key is the same in every attempt and every sending.
/// The host sends the request after the commit, at least once. A status of 2xx ends it. The host retries
/// after 408, 425, 429 and 5xx, and if there is no response. Any other status makes it a dead letter.
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
    /// Creates an event of this type about the organization of the event at hand, with `data` as JSON.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `data` cannot be represented as JSON.
    pub fn new<T: Serialize + ?Sized>(event_type: &str, data: &T) -> Result<Self, Error> {
        let data = serde_json::to_string(data).map_err(|error| Error::Invalid(format!("data: {error}")))?;
        Ok(Self(HostDerived { event_type: event_type.to_owned(), organization_id: None, data }))
    }

    /// Sets the organization that the event is about.
    pub fn organization(mut self, id: impl Into<String>) -> Self {
        self.0.organization_id = Some(id.into());
        self
    }

    /// Stages the event and returns its id. The id is the same in every attempt.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn emit(&self) -> Result<String, Error> {
        Ok(host::outbox::emit(&self.0)?)
    }
}

/// The result of staging something optional: none if it is not granted.
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
    /// Not granted; the message contains the line for config.toml that would allow it.
    Denied(String),
    /// Not a valid mail, request or event; the message names the field.
    Invalid(String),
    /// The item is too large; the message names the field.
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
