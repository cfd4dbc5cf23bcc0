//! HTTP requests to where config.toml allows: `http = ["https://api.example.com"]`.
//!
//! [`Request::fetch`] makes one now and returns the response. It can't be undone: an attempt that runs
//! again makes it again, with the same `Idempotency-Key`. Where the response does not matter,
//! [`Request::send_later`] is the better way: the request leaves after the attempt has committed, if it
//! does, and is tried until it arrives.
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

/// A request in the making.
#[derive(Debug, Clone, PartialEq)]
pub struct Request(pub(crate) HostRequest);

impl Request {
    /// A request with this method, such as `PUT`, and no body.
    pub fn new(method: &str, url: impl Into<String>) -> Self {
        Self(HostRequest {
            method: method.to_owned(),
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
        })
    }

    /// A `GET`.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// A `POST`.
    pub fn post(url: impl Into<String>) -> Self {
        Self::new("POST", url)
    }

    /// A `PUT`.
    pub fn put(url: impl Into<String>) -> Self {
        Self::new("PUT", url)
    }

    /// A `DELETE`.
    pub fn delete(url: impl Into<String>) -> Self {
        Self::new("DELETE", url)
    }

    /// Adds a header. The host sets `Host`, `Content-Length`, `Idempotency-Key` and what the grant adds.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.headers.push(Header { name: name.to_owned(), value: value.into() });
        self
    }

    /// Gives it a body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.0.body = body.into();
        self
    }

    /// Gives it a body of JSON, and says so in `Content-Type`.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there is no JSON for it.
    pub fn json<T: Serialize + ?Sized>(self, body: &T) -> Result<Self, Error> {
        let body = serde_json::to_vec(body).map_err(|error| Error::Invalid(format!("body: {error}")))?;
        Ok(self.header("content-type", "application/json").body(body))
    }

    /// Makes it now.
    ///
    /// # Errors
    /// See [`Error`]. That the status is no good one is no error: see [`Response::success`].
    pub fn fetch(&self) -> Result<Response, Error> {
        let response = host::http::fetch(&self.0)?;
        Ok(Response { response, request: format!("{} {}", self.0.method, self.0.url) })
    }

    /// Stages it: it is made after the attempt has committed, at least once, and returns its
    /// Idempotency-Key, which is the same in every attempt and every sending.
    ///
    /// # Errors
    /// See [`outbox::Error`].
    pub fn send_later(&self) -> Result<String, outbox::Error> {
        outbox::send_request(self)
    }
}

/// A text from outside as one segment of a URL's path: what could end or leave the segment is escaped.
pub fn segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => segment.push(byte.into()),
            b'.' if text.bytes().any(|byte| byte != b'.') => segment.push('.'),
            // `..` would lead upwards, and to a parser of URLs `%2E%2E` is the same.
            b'.' => segment.push_str("%252E"),
            other => segment.push_str(&format!("%{other:02X}")),
        }
    }
    segment
}

/// What came back.
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

    /// The first header of this name, in whatever case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.response.headers.iter();
        headers.find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value.as_str())
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.response.body
    }

    /// The body, which is JSON.
    ///
    /// # Errors
    /// [`Error::Failed`] where it is not such JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.response.body).map_err(|error| {
            Error::Failed(format!("the answer to `{}` is no such JSON: {error}", self.request))
        })
    }

    /// Itself, if the status is 2xx.
    ///
    /// # Errors
    /// [`Error::Status`] otherwise.
    pub fn success(self) -> Result<Self, Error> {
        match self.status() {
            200..=299 => Ok(self),
            status => {
                // A date in its place is as good as none: the plugin's own back-off holds.
                let retry_after = self.header("retry-after").and_then(seconds);
                Err(Error::Status { status, request: self.request, retry_after })
            }
        }
    }
}

/// The seconds of a `Retry-After`; as many as can be asked for, where it is more.
fn seconds(text: &str) -> Option<u32> {
    let digits = text.trim();
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u32::MAX))
}

/// Why there is no response, or none that is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Not granted; the message names the line of config.toml that would allow it.
    Denied(String),
    /// Not a request: the message names the field.
    Invalid(String),
    /// Request or response is larger than may be.
    Limit(String),
    /// No whole response came in time.
    Timeout(String),
    /// No response came, or one that can't be read.
    Failed(String),
    /// The status is none of 2xx.
    Status {
        /// Which it is.
        status: u16,
        /// Method and URL.
        request: String,
        /// How many seconds the other side asks to wait.
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
            Self::Status { status, request, .. } => write!(f, "the answer to `{request}` is {status}"),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests;
