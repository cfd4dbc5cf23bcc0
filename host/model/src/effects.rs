//! The changes of an attempt. They are staged while the guest runs, and committed with "delivery done" or
//! dropped.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Derived, REDACTED, WebRequest};

/// The number that the store gave to the last write of a key. A key that was deleted and set again has
/// another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KvVersion(pub i64);

/// A read of an attempt that must still be valid when it commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvRead {
    /// This key had this version. None means that it did not exist.
    Key {
        /// The key.
        key: String,
        /// Its version when it was read.
        version: Option<KvVersion>,
    },
    /// A listing returned exactly these keys with these versions.
    List {
        /// The prefix of the keys.
        prefix: String,
        /// The key after which it began.
        after: Option<String>,
        /// The number of keys that was asked for.
        limit: u32,
        /// The result, in order.
        found: Vec<(String, KvVersion)>,
    },
}

/// A staged change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvWrite {
    /// The key gets this value.
    Set(Vec<u8>),
    /// The key is deleted.
    Delete,
    /// This is added to the key's decimal number. A key that does not exist counts as 0.
    Add(i64),
}

/// A mail that is complete and checked. Its addresses have the form of RFC 5322.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mail {
    /// The Message-ID in angle brackets, the same in every attempt and every sending.
    pub message_id: String,
    /// The sender.
    pub from: String,
    /// The recipients.
    pub to: Vec<String>,
    /// The recipients of a copy.
    pub cc: Vec<String>,
    /// The recipients of a blind copy.
    pub bcc: Vec<String>,
    /// The address for replies.
    pub reply_to: Option<String>,
    /// The subject.
    pub subject: String,
    /// The plain text.
    pub text: String,
    /// The same text as HTML.
    pub html: Option<String>,
}

impl Mail {
    /// All recipients, with those of copies.
    fn recipients(&self) -> impl Iterator<Item = &String> {
        self.to.iter().chain(&self.cc).chain(&self.bcc)
    }
}

/// A thing that leaves after the commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum OutboxItem {
    /// A mail.
    Mail(Mail),
    /// An HTTP request.
    Request(WebRequest),
}

/// The kind of an outbox item. Each kind has its own worker.
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

    /// The name of the kind.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mail => "mail",
            Self::Request => "request",
        }
    }
}

impl OutboxItem {
    /// The item's kind.
    pub fn kind(&self) -> OutboxKind {
        match self {
            Self::Mail(_) => OutboxKind::Mail,
            Self::Request(_) => OutboxKind::Request,
        }
    }

    /// A line about the item: sender, recipients and subject of a mail; method and URL of a request, without
    /// its query.
    pub fn summary(&self) -> String {
        match self {
            Self::Mail(mail) => {
                let to: Vec<_> = mail.recipients().map(String::as_str).collect();
                format!("{} → {}: {}", mail.from, to.join(", "), mail.subject)
            }
            Self::Request(request) => request.summary(),
        }
    }

    /// The same line with everything masked that the plugin chose. The sender's address and the origin of a
    /// URL are granted.
    pub fn outline(&self) -> String {
        match self {
            Self::Mail(mail) => {
                let to = match mail.recipients().count() {
                    1 => REDACTED.to_owned(),
                    many => format!("{many} × {REDACTED}"),
                };
                format!("{} → {to}: {REDACTED}", address(&mail.from))
            }
            Self::Request(request) => request.outline(),
        }
    }

    /// The parts that the plugin chose, as texts that an error may quote.
    pub fn chosen(&self) -> Vec<String> {
        match self {
            Self::Mail(mail) => {
                let whole =
                    mail.recipients().chain(&mail.reply_to).chain([&mail.subject]).map(String::as_str);
                let parts = mail.recipients().chain([&mail.from]).flat_map(|mailbox| {
                    let address = address(mailbox);
                    [address, mailbox.split('<').next().unwrap_or_default().trim_matches([' ', '"'])]
                });
                let sender = address(&mail.from);
                whole.chain(parts).filter(|text| *text != sender).map(str::to_owned).collect()
            }
            Self::Request(request) => {
                let (_, rest) = request.parts();
                let parts = rest.split(['/', '?', '&', '=', '#']).filter(|part| part.len() > 3);
                parts.chain([rest]).map(str::to_owned).collect()
            }
        }
    }
}

/// The address of a mailbox, without the name.
fn address(mailbox: &str) -> &str {
    mailbox.rsplit_once('<').map_or(mailbox, |(_, address)| address.trim_end_matches('>'))
}

/// Everything that an attempt changed, and the reads that it relied on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// Reads that must still be valid.
    pub reads: Vec<KvRead>,
    /// Changes, by key.
    pub writes: BTreeMap<String, KvWrite>,
    /// Items that leave after the commit, in the order staged.
    pub outbox: Vec<OutboxItem>,
    /// Derived events, in the order staged.
    pub emitted: Vec<Derived>,
    /// The most bytes that all keys and values of the plugin may have after the commit. None means no limit.
    pub kv_limit: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outline_shows_nothing_that_the_plugin_chose() {
        let mail = |to: &[&str]| {
            OutboxItem::Mail(Mail {
                message_id: String::new(),
                from: "Ada <team@example.com>".to_owned(),
                to: to.iter().map(|text| (*text).to_owned()).collect(),
                cc: Vec::new(),
                bcc: Vec::new(),
                reply_to: None,
                subject: "For Lovelace".to_owned(),
                text: String::new(),
                html: None,
            })
        };
        let one = mail(&["Ada Lovelace <ada@example.org>"]);
        assert_eq!(one.outline(), "team@example.com → [redacted]: [redacted]");
        assert_eq!(mail(&["a@b.c", "d@e.f"]).outline(), "team@example.com → 2 × [redacted]: [redacted]");
        for chosen in ["ada@example.org", "Ada Lovelace", "For Lovelace", "Ada"] {
            assert!(one.chosen().iter().any(|text| text == chosen), "{chosen}: {:?}", one.chosen());
        }
        assert!(!one.chosen().iter().any(|text| text == "team@example.com"));
        let request = OutboxItem::Request(WebRequest {
            key: String::new(),
            method: "PUT".to_owned(),
            url: "https://api.example.com:8443/users/ada?email=ada@example.org".to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        });
        assert_eq!(request.outline(), "PUT https://api.example.com:8443/[redacted]");
        assert!(request.chosen().iter().any(|text| text == "users"));
    }
}
