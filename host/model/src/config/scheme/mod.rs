//! Schemes: how senders sign their requests, and where a request says which event it is.
//!
//! A scheme is data. `senders.toml` lists those that posthouse ships, and `[scheme.NAME]` in config.toml adds one
//! of the same grammar. This folder reads and checks both; `ingress` of the daemon compiles a row once and
//! verifies requests with it. docs/senders.md explains the grammar.
//!
//! ```text
//! read      a table into a Row, with line and column of each error
//! fetched   the keys that a sender publishes, and the URLs that may be fetched for them
//! template  texts with places in braces
//! headers   the headers that describe an event or prove its sender
//! shipped   senders.toml, read once
//! ```

mod fetched;
mod headers;
mod read;
mod shipped;
mod template;

use std::{fmt, sync::Arc, time::Duration};

pub use self::{
    fetched::{Fetchable, KeySource, Required, Requirement, UrlPattern},
    shipped::{is_shipped, shipped},
};
pub(super) use self::{read::own_schemes, shipped::suggestion};

/// The most pieces of a template.
pub(super) const MAX_PIECES: usize = 16;
/// The deepest JSON pointer.
pub(super) const MAX_DEPTH: usize = 16;
/// The most texts in a list, and the most rows of an `any`.
pub(super) const MAX_LIST: usize = 16;

/// How a sender signs: one row, or several of which the headers of a request choose one.
#[derive(PartialEq)]
pub struct Scheme {
    /// The name in config.toml.
    pub name: Arc<str>,
    /// Its rows; at least one. Signing uses the first row for which the source has a secret.
    pub rows: Vec<Arc<Row>>,
    /// Whether the member `id` of a body names the same event whichever row signed it. Only for envelopes.
    pub body_id: bool,
    /// The API that lists the sender's events, if posthouse knows it.
    pub catch_up: Option<EventsApi>,
    /// Its description for people.
    pub about: About,
}

/// An API that lists a sender's events, so that posthouse can ask for what it missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventsApi {
    /// `POST /api/v1/events/paginated`, with a token by client credentials.
    Scalekit,
    /// `GET /v1/events`, with a secret key.
    Stripe,
}

impl EventsApi {
    /// The word in senders.toml.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scalekit => "scalekit",
            Self::Stripe => "stripe",
        }
    }
}

/// The description of a scheme for people.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct About {
    /// The sender's name, such as `Stripe`.
    pub title: Option<String>,
    /// The sender's page on its signatures, which the row follows.
    pub page: Option<String>,
    /// Instructions for the sender's dashboard: what to enter, and which of its secrets to copy.
    pub setup: Option<String>,
    /// The attack that the sender's signatures do not guard against, if any.
    pub caution: Option<String>,
}

impl Scheme {
    /// A shipped scheme by its name.
    pub fn named(name: &str) -> Option<Arc<Self>> {
        shipped().iter().find(|scheme| &*scheme.name == name).cloned()
    }

    /// The name in config.toml.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The name for people: the sender's, or else that in config.toml.
    pub fn title(&self) -> &str {
        self.about.title.as_deref().unwrap_or(&self.name)
    }

    /// How far a signed time may be off by default. None if no row signs a time.
    pub fn tolerance(&self) -> Option<Duration> {
        self.rows.iter().find_map(|row| Some(row.timestamp.as_ref()?.tolerance))
    }

    /// Whether a row signs the URL, so that the source has to name it.
    pub fn signs_url(&self) -> bool {
        let is_url = |piece: &Piece| matches!(piece, Piece::Url | Piece::UrlUnescaped);
        let is_required = |required: &Requirement| required.is == Required::Url;
        self.rows.iter().any(|row| row.signed.iter().any(is_url) || row.require.iter().any(is_required))
    }

    /// Whether a handshake shows the `verify_token` of the source.
    pub fn wants_verify_token(&self) -> bool {
        let mut handshakes = self.rows.iter().flat_map(|row| &row.handshakes);
        handshakes.any(|handshake| matches!(handshake.guard, Guard::Secret(_)))
    }

    /// What its signatures leave open: its caution, or what the rows themselves show. None if they cover the body and a
    /// time.
    pub fn weakness(&self) -> Option<&str> {
        let any = |open: fn(&Row) -> bool| self.rows.iter().any(|row| open(row));
        if let Some(caution) = &self.about.caution {
            return Some(caution);
        }
        if any(|row| row.signature.algorithm.is_bearer()) {
            return Some("The secret itself is sent. It covers neither the body nor a time.");
        }
        if any(|row| row.once.is_some()) {
            return Some("The signature does not cover the event. posthouse takes each token once.");
        }
        any(|row| row.timestamp.is_none()).then_some(
            "No time is signed. A request that is sent again is a duplicate only as long as its event is in the store.",
        )
    }

    /// Whether its sender brings the key, with a request before its first event.
    pub fn brings_key(&self) -> bool {
        let mut handshakes = self.rows.iter().flat_map(|row| &row.handshakes);
        handshakes.any(|handshake| matches!(handshake.guard, Guard::Learn(_)))
    }

    /// Whether its requests have the members of posthouse's own samples: id, type and data.
    pub fn has_envelope(&self) -> bool {
        self.rows.iter().all(|row| row.event.envelope)
    }
}

/// Shows only the name: the rows are long, and each name has one set of them.
impl fmt::Debug for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name)
    }
}

/// One way of signing.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The name of its table.
    pub name: Arc<str>,
    /// The prefixes that `*` in a header's name means: the row exists once for each. Empty: no name has a `*`.
    pub families: Vec<String>,
    /// The place and the form of the signature.
    pub signature: Signature,
    /// The signed text.
    pub signed: Vec<Piece>,
    /// How a secret of config.toml becomes a key.
    pub key: KeyForm,
    /// The signed time.
    pub timestamp: Option<SignedTime>,
    /// The place of the SHA-256 of the body, in hexadecimal, where the signed text does not contain the body.
    pub digest: Option<Place>,
    /// Where the sender publishes its public key. None: the secrets of the source are the keys.
    pub key_source: Option<KeySource>,
    /// Places, each with the only text that it may have.
    pub require: Vec<Requirement>,
    /// The member of the body with an encrypted body, which takes its place: base64 of 16 bytes and of AES-256 in CBC
    /// mode, whose key is the SHA-256 of a secret.
    pub encrypted: Option<Place>,
    /// A signed place whose value no sender uses twice, where the signature does not cover the event.
    pub once: Option<Place>,
    /// Where the event's members are.
    pub event: EventForm,
    /// How a body is read; in this order.
    pub body: Vec<BodyForm>,
    /// The requests with which the sender tests the URL.
    pub handshakes: Vec<Handshake>,
    /// The answer to an event, where the sender reads it.
    pub answer: Option<AnswerForm>,
}

/// A request with which a sender tests a URL. It is answered at once, and is no event.
#[derive(Debug, Clone, PartialEq)]
pub struct Handshake {
    /// The method, such as `GET`; any if it is none.
    pub method: Option<String>,
    /// A place that must be there, with this text if there is one.
    pub place: Option<(Place, Option<String>)>,
    /// A place that must not be there.
    pub absent: Option<Place>,
    /// What keeps strangers from using it.
    pub guard: Guard,
    /// The place of a URL that posthouse fetches before it answers, and the URLs that it may be.
    pub confirm: Option<(Place, Vec<Fetchable>)>,
    /// The answer.
    pub answer: Reply,
}

impl Handshake {
    /// The places that it reads.
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        let said = self.answer.parts().filter_map(|part| match part {
            ReplyPart::Literal(_) => None,
            ReplyPart::Place(place) | ReplyPart::Hmac(_, place) => Some(place),
        });
        let guard = match &self.guard {
            Guard::Secret(place) | Guard::Learn(place) => Some(place),
            Guard::Open | Guard::Verified => None,
        };
        let shown = self.place.iter().map(|(place, _)| place);
        let confirmed = self.confirm.iter().map(|(place, _)| place);
        shown.chain(&self.absent).chain(guard).chain(confirmed).chain(said)
    }

    /// Whether its answer has an HMAC.
    pub fn signs(&self) -> bool {
        self.answer.parts().any(|part| matches!(part, ReplyPart::Hmac(..)))
    }
}

/// What keeps strangers from using a handshake.
#[derive(Debug, Clone, PartialEq)]
pub enum Guard {
    /// Nothing: the answer is worth nothing to them.
    Open,
    /// The request is signed like an event.
    Verified,
    /// This place has the `verify_token` of the source.
    Secret(Place),
    /// This place has the key of the requests to come. It is taken only while an operator has the source await one.
    Learn(Place),
}

/// The answer to a handshake.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The body as plain text.
    pub text: Option<Vec<ReplyPart>>,
    /// The body as an object: its members, in their order.
    pub json: Vec<(String, ReplyValue)>,
    /// Headers, by their names in lower case.
    pub headers: Vec<(String, Vec<ReplyPart>)>,
}

impl Reply {
    /// The parts of its texts.
    fn parts(&self) -> impl Iterator<Item = &ReplyPart> {
        let of_members = self.json.iter().filter_map(|(_, value)| match value {
            ReplyValue::Number(_) => None,
            ReplyValue::Text(parts) => Some(parts),
        });
        let of_headers = self.headers.iter().map(|(_, parts)| parts);
        self.text.iter().chain(of_members).chain(of_headers).flatten()
    }
}

/// A member of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum ReplyValue {
    /// A number, as it is.
    Number(i64),
    /// A text.
    Text(Vec<ReplyPart>),
}

/// A part of the text of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum ReplyPart {
    /// This text.
    Literal(String),
    /// The text of a place.
    Place(Place),
    /// The HMAC-SHA256 of the text of a place, by the first secret of the source.
    Hmac(Encoding, Place),
}

/// The answer to an event, where the sender reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerForm {
    /// The status of an accepted event.
    pub status: u16,
    /// Whether answers have no body, those to refused requests included.
    pub empty: bool,
}

/// The place and the form of the signature.
#[derive(Debug, Clone, PartialEq)]
pub struct Signature {
    /// Its header, or its member of the body. A step `*` is each element of an array: all of them are checked.
    pub at: Place,
    /// One signature or several.
    pub form: SignatureForm,
    /// How it is computed.
    pub algorithm: Algorithm,
    /// How it is written.
    pub encoding: Encoding,
    /// Further kinds of entries in the same header.
    pub also: Vec<Also>,
}

/// The form of the text with the signature.
#[derive(Debug, Clone, PartialEq)]
pub enum SignatureForm {
    /// One signature, after a prefix that may be empty.
    One {
        /// The text before the signature.
        prefix: String,
    },
    /// Any number of labelled entries.
    Entries {
        /// Separates two entries.
        between: char,
        /// Separates the label of an entry from its value.
        separator: char,
        /// The label of entries with a signature.
        label: String,
        /// Whether blanks around an entry are dropped.
        trim: bool,
    },
}

/// Another kind of entries: by another algorithm, with other keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Also {
    /// The label of its entries.
    pub label: String,
    /// How the signature is computed.
    pub algorithm: Algorithm,
    /// The prefix of its keys. The rest of the secret is base64.
    pub key: String,
}

/// How a signature is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RFC 2104 with SHA-1.
    HmacSha1,
    /// RFC 2104 with SHA-256.
    HmacSha256,
    /// RFC 2104 with SHA-512.
    HmacSha512,
    /// A bare SHA-256. The key is part of the text.
    Sha256,
    /// RFC 8032. The receiver has a public key.
    Ed25519,
    /// FIPS 186-5 over P-256 with SHA-256, in DER. The receiver has a public key.
    EcdsaP256,
    /// RSASSA-PKCS1-v1_5 (RFC 8017) with SHA-1. The sender publishes the public key.
    RsaSha1,
    /// RSASSA-PKCS1-v1_5 (RFC 8017) with SHA-256. The sender publishes the public key.
    RsaSha256,
    /// A JWT (RFC 7519) with ECDSA over P-256. The sender publishes the public key.
    JwtEs256,
    /// A JWT (RFC 7519) with HMAC-SHA256.
    JwtHs256,
    /// The secret itself. Nothing is signed.
    Token,
    /// RFC 7617: `user:password`. Nothing is signed.
    Basic,
}

impl Algorithm {
    /// Whether the receiver has a public key.
    pub fn is_public(self) -> bool {
        self.is_rsa() || matches!(self, Self::Ed25519 | Self::EcdsaP256 | Self::JwtEs256)
    }

    /// Whether the signature is RSA's, by a key in a certificate.
    pub fn is_rsa(self) -> bool {
        matches!(self, Self::RsaSha1 | Self::RsaSha256)
    }

    /// Whether the signature is a JWT, which has a text of its own.
    pub fn is_jwt(self) -> bool {
        matches!(self, Self::JwtEs256 | Self::JwtHs256)
    }

    /// Whether nothing of the request is signed.
    pub fn is_bearer(self) -> bool {
        matches!(self, Self::Token | Self::Basic)
    }
}

/// How a signature is written. There is one valid spelling for each signature, except as noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 4648 section 8, in lower case.
    Hex,
    /// The same, in either case.
    HexAnyCase,
    /// RFC 4648 section 4, with padding; the spare bits are zero.
    Base64,
}

/// How a secret of config.toml becomes a key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KeyForm {
    /// A prefix that is dropped if it is there.
    pub prefix: String,
    /// How the rest is written.
    pub encoding: KeyEncoding,
}

/// How a key is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeyEncoding {
    /// The text is the key.
    #[default]
    Text,
    /// RFC 4648 section 4.
    Base64,
    /// RFC 4648 section 8.
    Hex,
    /// A SubjectPublicKeyInfo (RFC 5280) in base64.
    Spki,
}

/// The signed time.
#[derive(Debug, Clone, PartialEq)]
pub struct SignedTime {
    /// Its place.
    pub at: Place,
    /// Its unit.
    pub unit: TimeUnit,
    /// How far it may be off by default, either way.
    pub tolerance: Duration,
}

/// The unit of a signed time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds since 1970.
    Milliseconds,
    /// RFC 3339, in UTC.
    Rfc3339,
}

/// A piece of the signed text.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// This text.
    Literal(String),
    /// The body, byte for byte.
    Body,
    /// The time, as sent.
    Timestamp,
    /// The public URL of the source, and the query as received.
    Url,
    /// The same, with some escapes undone.
    UrlUnescaped,
    /// The path of that URL, and the query.
    Path,
    /// The method.
    Method,
    /// The key itself.
    Key,
    /// The names and values of a form, sorted and joined; empty if the body is no form.
    Form,
    /// The headers that this header lists, as `name:value`, joined by `;`.
    Headers(String),
    /// The CRC-32 of the body, in decimal digits.
    Crc32,
    /// The members of the body that Amazon SNS signs, each with its name, a line each.
    Sns,
    /// The text of a place.
    Place(Place),
}

/// A place in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `header:NAME`. The name may begin with `*`; see [`Row::families`].
    Header(String),
    /// `entry:LABEL`: the only entry with this label in the signature's header.
    Entry(String),
    /// `json:/POINTER`, by RFC 6901.
    Json(Vec<String>),
    /// `query:NAME`.
    Query(String),
    /// `form:NAME`.
    Form(String),
    /// `claim:NAME`, of a JWT.
    Claim(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => f.write_str(name),
            Self::Entry(label) => f.write_str(label),
            Self::Json(steps) => {
                f.write_str("json:")?;
                steps.iter().try_for_each(|step| write!(f, "/{}", step.replace('~', "~0").replace('/', "~1")))
            }
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Form(name) => write!(f, "form:{name}"),
            Self::Claim(name) => write!(f, "claim:{name}"),
        }
    }
}

/// A text with places in it. It has a value only if each of its places has one.
pub type Text = Vec<Part>;

/// A part of a [`Text`].
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// This text.
    Literal(String),
    /// The text of a place.
    Place(Place),
}

/// Where the members of an event are. Of several texts, the first with a value counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EventForm {
    /// The array whose elements are the events; no steps: the body itself, if it is an array. None: the body is one
    /// event.
    pub each: Option<Vec<String>>,
    /// Whether the body has posthouse's own members: `id`, `type`, the times and the organization.
    pub envelope: bool,
    /// The id. If no text has a value: that of the envelope, or the SHA-256 of the body.
    pub id: Vec<Text>,
    /// The type.
    pub event_type: Vec<Text>,
    /// The time.
    pub time: Vec<Text>,
    /// The organization.
    pub organization: Vec<Text>,
}

/// How a body is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyForm {
    /// As JSON.
    Json,
    /// As JSON values one after another, usually one a line. Each is an event, or an array of events.
    Lines,
    /// As a form; the event's body is an object of its fields.
    Form,
    /// As JSON in this field of a form.
    Field(String),
}
