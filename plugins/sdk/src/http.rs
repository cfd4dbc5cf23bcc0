//! HTTP requests to the URLs that config.toml grants: `http = ["https://api.example.com"]`.
//!
//! [`Request::fetch`] sends a request immediately and returns the response. It cannot be undone: an attempt
//! that runs again sends it again, with the same `Idempotency-Key`. If the response does not matter, prefer
//! [`Request::send_later`]: the host sends the request after the commit, and only then, and retries until it
//! arrives.
//!
//! ```
//! use posthouse_sdk::{Failure, http::Request};
//! use serde::Deserialize;
//!
//! #[derive(Deserialize)]
//! struct Account {
//!     id: String,
//! }
//!
//! fn open_account(email: &str) -> Result<String, Failure> {
//!     let request = Request::post("https://accounts.example.com/v1/accounts")
//!         .json(&serde_json::json!({ "email": email }))?;
//!     let account: Account = request.fetch()?.success()?.json()?;
//!     Ok(account.id)
//! }
//! ```

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    bindings::posthouse::plugin::http::{
        Error as HostError, Header, Request as HostRequest, Response as HostResponse,
    },
    host, outbox,
};

/// A request that is being built.
#[derive(Debug, Clone, PartialEq)]
pub struct Request(pub(crate) HostRequest);

impl Request {
    /// Creates a request with this method, such as `PUT`, and no body.
    pub fn new(method: &str, url: impl Into<String>) -> Self {
        Self(HostRequest {
            method: method.to_owned(),
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
        })
    }

    /// Creates a `GET` request.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// Creates a `POST` request.
    pub fn post(url: impl Into<String>) -> Self {
        Self::new("POST", url)
    }

    /// Creates a `PUT` request.
    pub fn put(url: impl Into<String>) -> Self {
        Self::new("PUT", url)
    }

    /// Creates a `DELETE` request.
    pub fn delete(url: impl Into<String>) -> Self {
        Self::new("DELETE", url)
    }

    /// Adds a header. The host sets `Host`, `Content-Length`, `Idempotency-Key` and the headers of the grant.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.headers.push(Header { name: name.to_owned(), value: value.into() });
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.0.body = body.into();
        self
    }

    /// Sets the body to JSON, and sets `Content-Type`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the value cannot be represented as JSON.
    pub fn json<T: Serialize + ?Sized>(self, body: &T) -> Result<Self, Error> {
        let body = serde_json::to_vec(body).map_err(|error| Error::Invalid(format!("body: {error}")))?;
        Ok(self.header("content-type", "application/json").body(body))
    }

    /// Sends the request immediately.
    ///
    /// # Errors
    /// See [`Error`]. A status other than 2xx is not an error here: see [`Response::success`].
    pub fn fetch(&self) -> Result<Response, Error> {
        let response = host::http::fetch(&self.0)?;
        Ok(Response { response, request: format!("{} {}", self.0.method, self.0.url) })
    }

    /// Sends the request immediately, if its delivery is all that matters. The response has no body. A redirect that
    /// would change the method or drop the body is not followed but is the response.
    ///
    /// # Errors
    /// As for [`Request::fetch`].
    pub fn deliver(&self) -> Result<Response, Error> {
        let response = host::http::deliver(&self.0)?;
        Ok(Response { response, request: format!("{} {}", self.0.method, self.0.url) })
    }

    /// Stages the request and returns its Idempotency-Key. The host sends it after the attempt has committed,
    /// at least once. The key is the same in every attempt and every sending.
    ///
    /// # Errors
    /// See [`outbox::Error`].
    pub fn send_later(&self) -> Result<String, outbox::Error> {
        outbox::send_request(self)
    }
}

/// Escapes a text from outside as one segment of a URL's path, so that it cannot end or leave the segment.
pub fn segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => segment.push(byte.into()),
            b'.' if text.bytes().any(|byte| byte != b'.') => segment.push('.'),
            // `..` would lead upwards, and URL parsers treat `%2E%2E` in the same way.
            b'.' => segment.push_str("%252E"),
            other => segment.push_str(&format!("%{other:02X}")),
        }
    }
    segment
}

/// A response.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    response: HostResponse,
    request: String,
}

impl Response {
    /// The status, such as 200.
    pub fn status(&self) -> u16 {
        self.response.status
    }

    /// The first header of this name, case-insensitive.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.response.headers.iter();
        headers.find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value.as_str())
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.response.body
    }

    /// Returns the body, parsed as JSON.
    ///
    /// # Errors
    /// [`Error::Failed`] if it is not such JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.response.body).map_err(|error| {
            Error::Failed(format!("the response to `{}` is not the expected JSON: {error}", self.request))
        })
    }

    /// Returns the response itself if the status is 2xx.
    ///
    /// # Errors
    /// [`Error::Status`] otherwise.
    pub fn success(self) -> Result<Self, Error> {
        match self.status() {
            200..=299 => Ok(self),
            status => {
                // A date counts as absent: the plugin's usual back-off applies.
                let retry_after = self.header("retry-after").and_then(seconds);
                Err(Error::Status { status, request: self.request, retry_after })
            }
        }
    }
}

/// The seconds of a `Retry-After`, or the maximum if it is larger.
fn seconds(text: &str) -> Option<u32> {
    let digits = text.trim();
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u32::MAX))
}

/// Why there is no response, or no successful one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Not granted; the message contains the line for config.toml that would allow it.
    Denied(String),
    /// Not a valid request; the message names the field.
    Invalid(String),
    /// The request or the response is too large.
    Limit(String),
    /// No complete response arrived in time.
    Timeout(String),
    /// No response arrived, or it cannot be read.
    Failed(String),
    /// The status is not 2xx.
    Status {
        /// The status.
        status: u16,
        /// The method and the URL.
        request: String,
        /// The number of seconds that the other side asks to wait.
        retry_after: Option<u32>,
    },
}

impl From<HostError> for Error {
    fn from(error: HostError) -> Self {
        match error {
            HostError::Denied(message) => Self::Denied(message),
            HostError::Invalid(message) => Self::Invalid(message),
            HostError::Limit(message) => Self::Limit(message),
            HostError::Timeout(message) => Self::Timeout(message),
            HostError::Failed(message) => Self::Failed(message),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(message)
            | Self::Invalid(message)
            | Self::Limit(message)
            | Self::Timeout(message)
            | Self::Failed(message) => f.write_str(message),
            Self::Status { status, request, .. } => write!(f, "the response to `{request}` is {status}"),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests;
