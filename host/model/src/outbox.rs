//! The outbox: mails and requests that leave after the commit of the attempt that staged them.
//!
//! ```text
//!   commit ──► ready ──► leased ──► sent
//!                ▲        │  │
//!            due │        │  └────► dead ──► (replay) ready
//!             waiting ◄───┘
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Mask, REDACTED, WebRequest, url_parts};

/// The state of an outbox item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutboxState {
    /// May be sent now.
    Ready,
    /// Its worker has it.
    Leased,
    /// Is sent again after its back-off.
    Waiting,
    /// The other side took it.
    Sent,
    /// Given up.
    Dead,
}

impl OutboxState {
    /// Every state, in the order in which people read them.
    pub const ALL: [Self; 5] = [Self::Ready, Self::Leased, Self::Waiting, Self::Sent, Self::Dead];

    /// The name of the state.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Leased => "leased",
            Self::Waiting => "waiting",
            Self::Sent => "sent",
            Self::Dead => "dead",
        }
    }

    /// The state with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

impl fmt::Display for OutboxState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
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

/// A thing that leaves after the commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum OutboxItem {
    /// A mail.
    Mail(Mail),
    /// An HTTP request.
    Request(WebRequest),
}

impl OutboxItem {
    /// The item's kind.
    pub fn kind(&self) -> OutboxKind {
        match self {
            Self::Mail(_) => OutboxKind::Mail,
            Self::Request(_) => OutboxKind::Request,
        }
    }

    /// The Message-ID of a mail, the Idempotency-Key of a request.
    pub fn key(&self) -> &str {
        match self {
            Self::Mail(mail) => &mail.message_id,
            Self::Request(request) => &request.key,
        }
    }

    /// The parts of the item that a list shows.
    pub fn head(&self) -> OutboxHead {
        match self {
            Self::Mail(mail) => OutboxHead::Mail {
                from: mail.from.clone(),
                to: mail.to.iter().chain(&mail.cc).chain(&mail.bcc).cloned().collect(),
                reply_to: mail.reply_to.clone(),
                subject: mail.subject.clone(),
            },
            Self::Request(request) => {
                OutboxHead::Request { method: request.method.clone(), url: request.url.clone() }
            }
        }
    }
}

/// The parts of an outbox item that a list shows: never a text, a header or a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutboxHead {
    /// Of a mail.
    Mail {
        /// The sender.
        from: String,
        /// All recipients, with those of copies.
        to: Vec<String>,
        /// The address for replies.
        reply_to: Option<String>,
        /// The subject.
        subject: String,
    },
    /// Of an HTTP request.
    Request {
        /// The method.
        method: String,
        /// The whole URL. A query may contain a secret, so [`summary`](Self::summary) leaves it out.
        url: String,
    },
    /// The store could not read the item, for this reason.
    Unreadable(String),
}

impl OutboxHead {
    /// The name of the item's kind; `unknown` if the item is unreadable.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Mail { .. } => OutboxKind::Mail.as_str(),
            Self::Request { .. } => OutboxKind::Request.as_str(),
            Self::Unreadable(_) => "unknown",
        }
    }

    /// A line for people: sender, recipients and subject of a mail; method and URL of a request, with `…` for
    /// its query.
    pub fn summary(&self) -> String {
        match self {
            Self::Mail { from, to, subject, .. } => format!("{from} → {}: {subject}", to.join(", ")),
            Self::Request { method, url } => match url.split_once('?') {
                Some((before, _)) => format!("{method} {before}?…"),
                None => format!("{method} {url}"),
            },
            Self::Unreadable(error) => error.clone(),
        }
    }

    /// The same with everything masked that the plugin chose. The sender's address and the origin of a URL
    /// stay, because the configuration grants them.
    #[must_use]
    pub fn redacted(&self) -> Self {
        match self {
            Self::Mail { from, to, .. } => Self::Mail {
                from: address(from).to_owned(),
                to: vec![match to.len() {
                    1 => REDACTED.to_owned(),
                    many => format!("{many} × {REDACTED}"),
                }],
                reply_to: None,
                subject: REDACTED.to_owned(),
            },
            Self::Request { method, url } => {
                Self::Request { method: method.clone(), url: format!("{}/{REDACTED}", url_parts(url).0) }
            }
            Self::Unreadable(_) => Self::Unreadable("unknown".to_owned()),
        }
    }

    /// Masks the hidden values of payloads in each part.
    pub fn mask(&mut self, mask: &Mask) {
        match self {
            Self::Mail { from, to, reply_to, subject } => {
                [from, subject].into_iter().chain(to).chain(reply_to).for_each(|text| mask.values(text));
            }
            Self::Request { method, url } => [method, url].into_iter().for_each(|text| mask.values(text)),
            Self::Unreadable(error) => mask.values(error),
        }
    }

    /// The parts that the plugin chose, as texts that an error may quote.
    pub fn chosen(&self) -> Vec<String> {
        match self {
            Self::Mail { from, to, reply_to, subject } => {
                let whole = to.iter().chain(reply_to).chain([subject]).map(String::as_str);
                let parts = to.iter().chain([from]).flat_map(|mailbox| {
                    [address(mailbox), mailbox.split('<').next().unwrap_or_default().trim_matches([' ', '"'])]
                });
                let sender = address(from);
                whole.chain(parts).filter(|text| *text != sender).map(str::to_owned).collect()
            }
            Self::Request { url, .. } => {
                let (_, rest) = url_parts(url);
                let parts = rest.split(['/', '?', '&', '=', '#']).filter(|part| part.len() > 3);
                parts.chain([rest]).map(str::to_owned).collect()
            }
            Self::Unreadable(_) => Vec::new(),
        }
    }
}

/// The address of a mailbox, without the name.
fn address(mailbox: &str) -> &str {
    mailbox.rsplit_once('<').map_or(mailbox, |(_, address)| address.trim_end_matches('>'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(to: &[&str]) -> OutboxHead {
        let [first, copies @ ..] = to else { panic!("a mail has a recipient") };
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        OutboxItem::Mail(Mail {
            message_id: "<1@example.com>".to_owned(),
            from: "Ada <team@example.com>".to_owned(),
            to: vec![(*first).to_owned()],
            cc: owned(copies),
            bcc: Vec::new(),
            reply_to: None,
            subject: "For Lovelace".to_owned(),
            text: "secret".to_owned(),
            html: None,
        })
        .head()
    }

    fn request(url: &str) -> OutboxHead {
        OutboxItem::Request(WebRequest {
            key: String::new(),
            method: "PUT".to_owned(),
            url: url.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        })
        .head()
    }

    #[test]
    fn each_state_has_a_name_and_is_found_by_it() {
        assert_eq!(OutboxState::ALL.map(OutboxState::as_str), ["ready", "leased", "waiting", "sent", "dead"]);
        for state in OutboxState::ALL {
            assert_eq!(OutboxState::named(state.as_str()), Some(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        assert_eq!(OutboxState::named("done"), None);
    }

    #[test]
    fn a_summary_shows_no_query_and_no_text() {
        let shown = mail(&["ada@example.org", "bob@example.org"]).summary();
        assert_eq!(shown, "Ada <team@example.com> → ada@example.org, bob@example.org: For Lovelace");
        assert_eq!(request("https://a.example/v1?key=1").summary(), "PUT https://a.example/v1?…");
        assert_eq!(request("https://a.example/v1").summary(), "PUT https://a.example/v1");
    }

    #[test]
    fn a_redacted_head_shows_nothing_that_the_plugin_chose() {
        let one = mail(&["Ada Lovelace <ada@example.org>"]);
        assert_eq!(one.redacted().summary(), "team@example.com → [redacted]: [redacted]");
        let two = mail(&["a@b.c", "d@e.f"]);
        assert_eq!(two.redacted().summary(), "team@example.com → 2 × [redacted]: [redacted]");
        for chosen in ["ada@example.org", "Ada Lovelace", "For Lovelace", "Ada"] {
            assert!(one.chosen().iter().any(|text| text == chosen), "{chosen}: {:?}", one.chosen());
        }
        assert!(!one.chosen().iter().any(|text| text == "team@example.com"));
        let request = request("https://api.example.com:8443/users/ada?email=ada@example.org");
        assert_eq!(request.redacted().summary(), "PUT https://api.example.com:8443/[redacted]");
        assert!(request.chosen().iter().any(|text| text == "users"));
        let broken = OutboxHead::Unreadable("missing field `to`".to_owned());
        assert_eq!((broken.summary().as_str(), broken.kind()), ("missing field `to`", "unknown"));
        assert_eq!(broken.redacted().summary(), "unknown");
    }

    #[test]
    fn hidden_values_are_masked_in_every_part() {
        let mut head = mail(&["ada@example.org"]);
        let hidden = ["ada@example.org", "Lovelace", "team@example.com"].map(str::to_owned);
        head.mask(&Mask::of_values(&hidden));
        assert_eq!(head.summary(), "Ada <[redacted]> → [redacted]: For [redacted]");
    }
}
