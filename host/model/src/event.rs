//! An event: one verified webhook, known by its source and its id.

use std::{fmt, ops::Range, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{RequestParts, TraceContext};

/// A name that breaks its rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {problem}")]
pub struct InvalidName {
    what: &'static str,
    problem: String,
}

/// Checks that `text` has 1 to `most` bytes and that `allowed` accepts each character.
fn checked(
    what: &'static str,
    text: &str,
    most: usize,
    allowed: impl Fn(char) -> bool,
    grammar: &str,
) -> Result<Arc<str>, InvalidName> {
    let problem = if text.is_empty() {
        "is empty".to_owned()
    } else if text.len() > most {
        format!("is {} bytes long; the limit is {most}", text.len())
    } else if let Some(odd) = text.chars().find(|&c| !allowed(c)) {
        format!("holds {odd:?}; {grammar}")
    } else {
        return Ok(text.into());
    };
    Err(InvalidName { what, problem })
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $most:literal, $allowed:expr, $grammar:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the name.
            ///
            /// # Errors
            /// [`InvalidName`] says which rule it breaks.
            pub fn new(text: &str) -> Result<Self, InvalidName> {
                checked($what, text, $most, $allowed, $grammar).map(Self)
            }

            /// The text of the name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// The name of a `[[source]]`: 1 to 64 of `a-z A-Z 0-9 _ -`. A derived event has `plugin:` and the name
    /// of the plugin that emitted it, a request of an interceptor `interceptor:` and its name.
    SourceName, "source name", 76,
    |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':'),
    "letters, digits, `-` and `_` are allowed"
}

name! {
    /// The sender's id of an event: 1 to 255 bytes of visible ASCII. Unique within its source.
    EventId, "event id", 255,
    |c| c.is_ascii_graphic(),
    "only visible ASCII is allowed"
}

name! {
    /// For example `user.created`: 1 to 128 of `a-z A-Z 0-9 . _ - : /`.
    EventType, "event type", 128,
    |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '/'),
    "letters, digits and `. _ - : /` are allowed"
}

/// Another name of an event within its source, for senders whose ids do not tell two events apart, or tell one event
/// from itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecondKey([u8; 16]);

impl SecondKey {
    /// The name that is made of these parts. `kind` keeps names of different meaning apart.
    pub fn of(kind: &str, parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        hash.update(kind);
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut key = [0; 16];
        key.copy_from_slice(&hash.finalize()[..16]);
        Self(key)
    }

    /// The name of an event whose sender calls it by this id, whichever header its webhook names.
    pub fn of_id(id: &str) -> Self {
        Self::of("id", &[id.as_bytes()])
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key with these bytes. None if their number is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

/// How an event arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventOrigin {
    /// Its sender posted it, signed.
    Webhook,
    /// A plugin emitted it.
    Derived,
    /// posthouse asked its sender for what was missed, over TLS and with the operator's credentials.
    CatchUp,
}

impl EventOrigin {
    /// Every origin.
    pub const ALL: [Self; 3] = [Self::Webhook, Self::Derived, Self::CatchUp];

    /// The word in the API and on the pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Derived => "derived",
            Self::CatchUp => "catch-up",
        }
    }
}

/// The store's number of an event. It grows in the order in which events are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct EventSeq(pub i64);

/// A verified webhook that is not in the store yet.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The source that sent it.
    pub source: SourceName,
    /// The sender's id.
    pub id: EventId,
    /// The event's type.
    pub event_type: EventType,
    /// The organization that it concerns, at most 255 bytes.
    pub organization: Option<Arc<str>>,
    /// When it happened, according to the sender.
    pub occurred_at: Option<Timestamp>,
    /// When posthouse received it.
    pub received_at: Timestamp,
    /// Its distance from the webhook that began the chain: 0 for that webhook, 1 for an event derived from
    /// it.
    pub depth: u8,
    /// The trace that it belongs to, with the span that is the parent of all further work. None if the trace
    /// is not recorded.
    pub trace: Option<TraceContext>,
    /// The verified bytes: JSON, and so UTF-8.
    pub body: Bytes,
    /// The range of the value of `data` in the body. Empty if the body has no `data`.
    pub data: Range<u32>,
    /// What is kept of its request besides the body.
    pub request: RequestParts,
}

/// A verified webhook that is in the store.
#[derive(Debug, Clone)]
pub struct Event {
    /// The store's number.
    pub seq: EventSeq,
    /// The event itself.
    pub content: NewEvent,
}

impl NewEvent {
    /// The JSON text of `data`. `null` if the body has none.
    pub fn data(&self) -> &str {
        let Range { start, end } = self.data;
        self.body
            .get(start as usize..end as usize)
            .filter(|bytes| !bytes.is_empty())
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or("null")
    }
}

impl Event {
    /// The JSON text of `data`. `null` if the body has none.
    pub fn data(&self) -> &str {
        self.content.data()
    }
}
