//! Handshakes: the requests with which senders test a URL before they use it. They are answered at once and are no
//! events.
//!
//! Whoever knows the URL can send one, unless the scheme says that it is signed or shows the source's
//! `verify_token`. So an answer tells a stranger nothing but what the stranger sent. Where the answer has an HMAC of
//! a text of the request, the text has letters that no body of an event has: otherwise the answer to a handshake
//! would be the signature of a forged event. A handshake that brings the key of the source is answered only if the
//! key is taken; see [`super::learning`].

use std::borrow::Cow;

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
};
use http_body_util::Full;
use ipnet::IpNet;
use posthouse_model::config::{
    Secret,
    scheme::{Encoding, Fetchable, Guard, Handshake, ReplyPart, ReplyValue, Row},
};
use subtle::Choice;
use url::Url;

use super::{
    crypto::{SharedKey, Value},
    form,
    members::{Found, Wanted},
    plan::{At, Compiler},
    request::Head,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

/// The longest text of a request that an answer repeats, in bytes.
const MAX_ECHO: usize = 1024;
/// The longest text of a request that an answer has an HMAC of, in bytes.
const MAX_SIGNED: usize = 256;

/// A handshake of a row, compiled.
pub(super) struct Shake {
    method: Option<Method>,
    place: Option<(At, Option<String>)>,
    absent: Option<At>,
    guard: Guarded,
    confirm: Option<(At, Vec<Fetchable>)>,
    wanted: Wanted,
    status: StatusCode,
    text: Option<Vec<Say>>,
    json: Vec<(String, SayValue)>,
    headers: Vec<(HeaderName, Vec<Say>)>,
}

enum Guarded {
    Open,
    Verified,
    Secret(At),
    Learn(At),
}

enum Say {
    Literal(String),
    Place(At),
    Hmac(Encoding, At),
}

enum SayValue {
    Number(i64),
    Text(Vec<Say>),
}

/// The answer to a handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// Whether anybody gets it.
    pub(super) open: bool,
    status: StatusCode,
    /// The content type and the body.
    content: Option<(&'static str, String)>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Answer {
    /// The response for the sender.
    pub(super) fn response(&self) -> Response<Full<Bytes>> {
        let (kind, body) = match &self.content {
            Some((kind, body)) => (Some(*kind), Bytes::from(body.clone())),
            None => (None, Bytes::new()),
        };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(kind) = kind {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        headers.extend(self.headers.iter().cloned());
        // What the body repeats is text, whatever a browser makes of it.
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}

/// What a request is, as a handshake.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shaken {
    /// No handshake.
    No,
    /// A handshake that shows another text than the source's `verify_token`, or wants a URL fetched that the row does
    /// not allow.
    Refused,
    /// A handshake that brings the source's key, and its answer if the key is taken.
    Key(Secret, Answer),
    Answer(Answer),
    Confirm(Confirmation),
}

/// A URL that posthouse fetches before it gives this answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Confirmation {
    pub(super) url: Url,
    pub(super) addresses: Vec<IpNet>,
    pub(super) answer: Answer,
}

/// A request that may be a handshake.
pub(super) struct Test<'r> {
    pub(super) head: Head<'r>,
    /// The body, if it was read.
    pub(super) body: Option<&'r [u8]>,
    /// Whether its signature is valid.
    pub(super) verified: bool,
}

impl Shake {
    /// Compiles the handshakes of a row.
    pub(super) fn all(row: &Row) -> Vec<Self> {
        row.handshakes.iter().filter_map(Self::new).collect()
    }

    fn new(handshake: &Handshake) -> Option<Self> {
        let mut compiler = Compiler::new("");
        let method = match &handshake.method {
            Some(method) => Some(method.parse().ok()?),
            None => None,
        };
        let place = match &handshake.place {
            Some((place, is)) => Some((compiler.place(place)?, is.clone())),
            None => None,
        };
        let absent = match &handshake.absent {
            Some(place) => Some(compiler.place(place)?),
            None => None,
        };
        let guard = match &handshake.guard {
            Guard::Open => Guarded::Open,
            Guard::Verified => Guarded::Verified,
            Guard::Secret(place) => Guarded::Secret(compiler.place(place)?),
            Guard::Learn(place) => Guarded::Learn(compiler.place(place)?),
        };
        let confirm = match &handshake.confirm {
            Some((place, from)) => Some((compiler.place(place)?, from.clone())),
            None => None,
        };
        let mut say = |parts: &[ReplyPart]| {
            let part = |part: &ReplyPart| match part {
                ReplyPart::Literal(text) => Some(Say::Literal(text.clone())),
                ReplyPart::Place(place) => compiler.place(place).map(Say::Place),
                ReplyPart::Hmac(encoding, place) => compiler.place(place).map(|at| Say::Hmac(*encoding, at)),
            };
            parts.iter().map(part).collect::<Option<Vec<_>>>()
        };
        let text = match &handshake.answer.text {
            Some(parts) => Some(say(parts)?),
            None => None,
        };
        let member = |(name, value): &(String, ReplyValue)| {
            let value = match value {
                ReplyValue::Number(number) => SayValue::Number(*number),
                ReplyValue::Text(parts) => SayValue::Text(say(parts)?),
            };
            Some((name.clone(), value))
        };
        let json = handshake.answer.json.iter().map(member).collect::<Option<Vec<_>>>()?;
        let header =
            |(name, parts): &(String, Vec<ReplyPart>)| Some((name.parse::<HeaderName>().ok()?, say(parts)?));
        let headers = handshake.answer.headers.iter().map(header).collect::<Option<Vec<_>>>()?;
        let status = StatusCode::from_u16(handshake.answer.status).ok()?;
        let wanted = compiler.wanted();
        Some(Self { method, place, absent, guard, confirm, wanted, status, text, json, headers })
    }

    /// Whether the request has to be signed.
    pub(super) fn is_verified(&self) -> bool {
        matches!(self.guard, Guarded::Verified)
    }

    /// Whether the body shows it.
    pub(super) fn reads_body(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Whether the head may be that of this handshake.
    pub(super) fn may_be(&self, head: Head<'_>) -> bool {
        self.method.as_ref().is_none_or(|method| method.as_str() == head.method)
    }

    /// What the request is. `token` is the hash of the source's `verify_token`, `key` its first secret.
    pub(super) fn read(&self, test: &Test<'_>, token: Option<&Value>, key: Option<&SharedKey>) -> Shaken {
        // A sender may sign its test although it need not.
        let fits = match self.guard {
            Guarded::Verified => test.verified,
            Guarded::Learn(_) => !test.verified,
            Guarded::Open | Guarded::Secret(_) => true,
        };
        if !fits || !self.may_be(test.head) {
            return Shaken::No;
        }
        let found = match (self.reads_body(), test.body) {
            (false, _) => None,
            (true, None) => return Shaken::No,
            (true, Some(body)) => {
                let members = std::str::from_utf8(body).ok().and_then(|text| self.wanted.read(text).ok());
                match members.filter(|members| members.repeated.is_none()) {
                    Some(members) => Some(members),
                    None => return Shaken::No,
                }
            }
        };
        let text = |at: &At| text(test.head, found.as_ref(), at);
        let is_here = self
            .place
            .as_ref()
            .is_none_or(|(at, is)| text(at).is_some_and(|text| is.as_ref().is_none_or(|is| *is == text)));
        if !is_here || self.absent.as_ref().is_some_and(|at| exists(test.head, found.as_ref(), at)) {
            return Shaken::No;
        }
        if let Guarded::Secret(at) = &self.guard {
            let shown = text(at).map(|text| Value::of_token(text.as_bytes()));
            let fits = match (shown, token) {
                (Some(shown), Some(token)) => shown.fits(token),
                _ => Choice::from(0),
            };
            if !bool::from(fits) {
                return Shaken::Refused;
            }
        }
        let Some(answer) = self.answer(&text, key) else { return Shaken::No };
        if let Guarded::Learn(at) = &self.guard {
            return match text(at).filter(|text| text.len() <= MAX_ECHO) {
                Some(key) => Shaken::Key(Secret::new(key), answer),
                None => Shaken::No,
            };
        }
        let Some((at, from)) = &self.confirm else { return Shaken::Answer(answer) };
        let url = text(at).unwrap_or_default();
        match Fetchable::among(from, &url) {
            Some((fetchable, url)) => {
                Shaken::Confirm(Confirmation { url, addresses: fetchable.addresses.clone(), answer })
            }
            None => Shaken::Refused,
        }
    }

    /// The answer. None if a text that it repeats is missing, or may not be repeated.
    fn answer<'r>(
        &self,
        text: &impl Fn(&At) -> Option<Cow<'r, str>>,
        key: Option<&SharedKey>,
    ) -> Option<Answer> {
        let say = |parts: &[Say]| {
            let mut said = String::new();
            for part in parts {
                match part {
                    Say::Literal(literal) => said.push_str(literal),
                    Say::Place(at) => said.push_str(&text(at).filter(|text| text.len() <= MAX_ECHO)?),
                    Say::Hmac(encoding, at) => {
                        let text = text(at).filter(|text| self.is_verified() || is_no_body(text))?;
                        let value = key?.value(|_, sink| {
                            sink(text.as_bytes());
                            Ok::<(), std::convert::Infallible>(())
                        });
                        let Ok(value) = value;
                        said.push_str(&match encoding {
                            Encoding::Base64 => BASE64.encode(value.bytes()),
                            Encoding::Hex | Encoding::HexAnyCase => hex::encode(value.bytes()),
                        });
                    }
                }
            }
            Some(said)
        };
        let content = match (&self.text, self.json.as_slice()) {
            (Some(parts), _) => Some(("text/plain; charset=utf-8", say(parts)?)),
            (None, []) => None,
            (None, members) => {
                let mut object = serde_json::Map::new();
                for (name, value) in members {
                    let value = match value {
                        SayValue::Number(number) => serde_json::Value::from(*number),
                        SayValue::Text(parts) => serde_json::Value::from(say(parts)?),
                    };
                    object.insert(name.clone(), value);
                }
                Some(("application/json", serde_json::Value::Object(object).to_string()))
            }
        };
        let header = |(name, parts): &(HeaderName, Vec<Say>)| {
            Some((name.clone(), HeaderValue::from_str(&say(parts)?).ok()?))
        };
        let headers = self.headers.iter().map(header).collect::<Option<Vec<_>>>()?;
        Some(Answer { open: matches!(self.guard, Guarded::Open), status: self.status, content, headers })
    }
}

/// Whether no body of an event is equal to this text: it has neither braces nor quotes. config.toml allows a row
/// with such an answer only if bodies are JSON objects and part of the signed text.
fn is_no_body(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.~+/=-".contains(&byte);
    (1..=MAX_SIGNED).contains(&text.len()) && text.bytes().all(plain)
}

/// The text of a place that is there once.
fn text<'r>(head: Head<'r>, found: Option<&Found<'r>>, at: &At) -> Option<Cow<'r, str>> {
    let text = match at {
        At::Header(name) => {
            let mut values = head.headers.get_all(name).iter();
            let value = values.next()?.to_str().ok()?;
            values.next().is_none().then_some(Cow::Borrowed(value))
        }
        At::Json(number, _) => found?.text(*number),
        At::Query(name) => {
            let fields = form::fields(head.query.unwrap_or_default().as_bytes()).ok()?;
            let mut values = form::values(&fields, name);
            let value = values.next()?.clone();
            values.next().is_none().then_some(value)
        }
        At::Entry(_) | At::Form(_) | At::Claim(_) => None,
    };
    text.filter(|text| !text.is_empty())
}

/// Whether the request has a place, whatever is there.
fn exists(head: Head<'_>, found: Option<&Found<'_>>, at: &At) -> bool {
    match at {
        At::Header(name) => head.headers.contains_key(name),
        At::Json(number, _) => found.is_some_and(|found| found.json(*number).is_some()),
        _ => text(head, found, at).is_some(),
    }
}
