//! How a request ends: the outcome for the ledger, and the response for the sender.
//!
//! The sender of a bad signature learns only that it is bad. The reason is for the operator.

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{ACCEPT_ENCODING, ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::Full;
use posthouse_model::RequestOutcome;
use posthouse_store::StoreError;

use super::{InvalidPayload, Refusal, body::BodyError, handshake::Answer, keychain::Unpublished};

/// How a request that reached a handler ended.
#[derive(Debug)]
pub(super) enum Ending {
    Accepted,
    Duplicate,
    Filtered,
    /// A test of the URL, which is no event.
    Answered(Answer),
    UnknownPath,
    WrongMethod,
    /// The `Content-Encoding` says that the body is compressed.
    Compressed,
    Unread(BodyError),
    Refused(Refusal),
    /// The signature can't be checked now, because a key can't be fetched.
    Unpublished(Unpublished),
    NoEvent(InvalidPayload),
    /// The signature is valid, but the source's rate is used up. The next request may follow in this many
    /// seconds.
    TooMany {
        seconds: u64,
    },
    /// `max_requests` requests are active already.
    Busy,
    NotStored(StoreError),
}

impl From<BodyError> for Ending {
    fn from(error: BodyError) -> Self {
        Self::Unread(error)
    }
}

impl From<Refusal> for Ending {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Unpublished> for Ending {
    fn from(why: Unpublished) -> Self {
        Self::Unpublished(why)
    }
}

impl From<InvalidPayload> for Ending {
    fn from(error: InvalidPayload) -> Self {
        Self::NoEvent(error)
    }
}

impl From<StoreError> for Ending {
    fn from(error: StoreError) -> Self {
        Self::NotStored(error)
    }
}

impl Ending {
    /// The outcome that the ledger counts.
    pub(super) fn outcome(&self) -> RequestOutcome {
        use RequestOutcome::{Failed, Rejected};
        match self {
            Self::Accepted => RequestOutcome::Accepted,
            Self::Duplicate => RequestOutcome::Duplicate,
            Self::Filtered | Self::Answered(_) => RequestOutcome::Filtered,
            Self::UnknownPath => Rejected("unknown-path"),
            Self::WrongMethod => Rejected("wrong-method"),
            Self::Compressed => Rejected("body-compressed"),
            Self::Unread(BodyError::TooLarge) => Rejected("body-too-large"),
            Self::Unread(BodyError::Slow) => Rejected("body-timeout"),
            Self::Unread(BodyError::Broken) => Rejected("body-broken"),
            Self::Unread(BodyError::Dropped) => Failed("body-dropped"),
            Self::Refused(refusal) => Rejected(refusal.label()),
            Self::Unpublished(_) => Failed("key-fetch"),
            Self::NoEvent(error) => Rejected(error.label()),
            Self::TooMany { .. } => Rejected("rate-limited"),
            Self::Busy => Failed("busy"),
            Self::NotStored(StoreError::Backlog(_)) => Failed("backlog"),
            Self::NotStored(StoreError::NoSpace { .. }) => Failed("disk-space"),
            Self::NotStored(StoreError::Poisoned(_)) => Failed("store-poisoned"),
            Self::NotStored(StoreError::Io(_)) => Failed("store-write"),
            Self::NotStored(StoreError::Closed) => Failed("store-closed"),
        }
    }

    /// The response for the sender.
    pub(super) fn response(&self) -> Response<Full<Bytes>> {
        match self {
            Self::Accepted => json(StatusCode::OK, r#"{"received":true}"#),
            Self::Duplicate => json(StatusCode::OK, r#"{"received":true,"duplicate":true}"#),
            Self::Filtered => json(StatusCode::OK, r#"{"received":true,"filtered":true}"#),
            Self::Answered(answer) => answer.response(),
            Self::UnknownPath => json(StatusCode::NOT_FOUND, r#"{"error":"Not found"}"#),
            Self::WrongMethod => {
                with(json(StatusCode::METHOD_NOT_ALLOWED, r#"{"error":"Method not allowed"}"#), ALLOW, "POST")
            }
            // RFC 9110, section 15.5.16, with the accepted encoding. The body is not read.
            Self::Compressed => {
                let answer = r#"{"error":"Unsupported media type","detail":"the body is compressed; send it without Content-Encoding"}"#;
                let response = json(StatusCode::UNSUPPORTED_MEDIA_TYPE, answer);
                with(with(response, ACCEPT_ENCODING, "identity"), CONNECTION, "close")
            }
            // The rest of the body is not read, so the connection cannot continue.
            Self::Unread(BodyError::TooLarge) => with(
                json(StatusCode::PAYLOAD_TOO_LARGE, r#"{"error":"Payload too large"}"#),
                CONNECTION,
                "close",
            ),
            Self::Unread(BodyError::Slow) => {
                with(json(StatusCode::REQUEST_TIMEOUT, r#"{"error":"Request timeout"}"#), CONNECTION, "close")
            }
            Self::Unread(BodyError::Broken) => {
                with(json(StatusCode::BAD_REQUEST, r#"{"error":"Incomplete body"}"#), CONNECTION, "close")
            }
            Self::Unread(BodyError::Dropped) => with(unavailable("1"), CONNECTION, "close"),
            Self::Refused(_) => json(StatusCode::UNAUTHORIZED, r#"{"error":"Invalid signature"}"#),
            Self::NoEvent(error) => {
                let body = serde_json::json!({ "error": "Invalid payload", "detail": error.to_string() });
                json(StatusCode::BAD_REQUEST, body.to_string())
            }
            Self::TooMany { seconds } => {
                let mut response = json(StatusCode::TOO_MANY_REQUESTS, r#"{"error":"Too many requests"}"#);
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(*seconds));
                response
            }
            Self::Unpublished(why) => {
                let mut response = unavailable("10");
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(why.seconds));
                response
            }
            Self::Busy => unavailable("1"),
            Self::NotStored(StoreError::Backlog(_) | StoreError::NoSpace { .. } | StoreError::Io(_)) => {
                unavailable("10")
            }
            Self::NotStored(StoreError::Closed) => unavailable("5"),
            Self::NotStored(StoreError::Poisoned(_)) => unavailable("60"),
        }
    }
}

/// A 503 that asks the sender to retry after this many seconds.
fn unavailable(seconds: &'static str) -> Response<Full<Bytes>> {
    with(json(StatusCode::SERVICE_UNAVAILABLE, r#"{"error":"Service unavailable"}"#), RETRY_AFTER, seconds)
}

/// A response with this JSON as its body.
pub(super) fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    with(response, CONTENT_TYPE, "application/json")
}

fn with(mut response: Response<Full<Bytes>>, name: HeaderName, value: &'static str) -> Response<Full<Bytes>> {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}
