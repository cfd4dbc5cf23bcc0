//! What an attempt changed. Staged while the guest runs, committed with "delivery done", or dropped.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Derived, WebRequest};

/// The store's number of the last write to a key. A key that was deleted and set again has another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KvVersion(pub i64);

/// What an attempt saw, and what must still be so when it commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvRead {
    /// This key had this version; none: it was not there.
    Key {
        /// The key.
        key: String,
        /// Its version when it was read.
        version: Option<KvVersion>,
    },
    /// A listing gave exactly these keys with these versions.
    List {
        /// What the keys start with.
        prefix: String,
        /// After which key it began.
        after: Option<String>,
        /// How many were asked for.
        limit: u32,
        /// What came, in order.
        found: Vec<(String, KvVersion)>,
    },
}

/// A staged change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvWrite {
    /// It gets this value.
    Set(Vec<u8>),
    /// It goes.
    Delete,
    /// This is added to the decimal number that stands there, an absent one being 0.
    Add(i64),
}

/// A mail that is complete and checked, its addresses as in RFC 5322.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mail {
    /// The angle-bracketed Message-ID, the same in every attempt and every sending.
    pub message_id: String,
    /// Who it is from.
    pub from: String,
    /// To whom it goes.
    pub to: Vec<String>,
    /// Who gets a copy.
    pub cc: Vec<String>,
    /// Who gets a copy unseen.
    pub bcc: Vec<String>,
    /// Where answers go.
    pub reply_to: Option<String>,
    /// The subject.
    pub subject: String,
    /// The plain text.
    pub text: String,
    /// The same as HTML.
    pub html: Option<String>,
}

/// What leaves after the commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum OutboxItem {
    /// A mail.
    Mail(Mail),
    /// An HTTP request.
    Request(WebRequest),
}

/// What kind of thing leaves; each kind is sent by a desk of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutboxKind {
    /// Mail.
    Mail,
    /// HTTP requests.
    Request,
}

impl OutboxKind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Mail, Self::Request];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mail => "mail",
            Self::Request => "request",
        }
    }
}

impl OutboxItem {
    /// Its kind.
    pub fn kind(&self) -> OutboxKind {
        match self {
            Self::Mail(_) => OutboxKind::Mail,
            Self::Request(_) => OutboxKind::Request,
        }
    }
}

/// All that an attempt changed, and what it relied on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// What must still be so.
    pub reads: Vec<KvRead>,
    /// What changes, by key.
    pub writes: BTreeMap<String, KvWrite>,
    /// What leaves afterwards, in the order staged.
    pub outbox: Vec<OutboxItem>,
    /// What happens because of it, in the order staged.
    pub emitted: Vec<Derived>,
    /// The most bytes that all keys and values of the plugin may have after the commit; none: any.
    pub kv_limit: Option<u64>,
}
