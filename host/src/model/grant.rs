//! Grants: what the operator lets a plugin do. Nothing is granted by default.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{EventType, Pattern};

/// What a plugin can ask for in its manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// Mail through the outbox.
    Mail,
    /// SQL on one database.
    Sql,
    /// HTTP requests, now or later.
    Http,
    /// Derived events.
    Emit,
}

impl Capability {
    /// The key and an example of its value below `[plugin.<name>.grants]`.
    pub fn example(self) -> &'static str {
        match self {
            Self::Mail => r#"mail = { from = ["team@example.com"], to = ["*"] }"#,
            Self::Sql => r#"database = "app""#,
            Self::Http => r#"http = ["https://api.example.com"]"#,
            Self::Emit => r#"emit = ["seat.*"]"#,
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mail => "mail",
            Self::Sql => "sql",
            Self::Http => "http",
            Self::Emit => "emit",
        })
    }
}

/// Mail a plugin may send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailGrant {
    /// Addresses it may send from; the first is the default. `Name <address>` is allowed.
    pub from: Vec<String>,
    /// To whom: an address, `*@example.com` for a domain, or `*` for everybody.
    pub to: Vec<String>,
}

/// What one plugin may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grants {
    /// Mail, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail: Option<MailGrant>,
    /// The types of events it may emit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub emit: Vec<Pattern>,
}

impl Grants {
    /// Whether it covers the capability.
    pub fn allows(&self, capability: Capability) -> bool {
        match capability {
            Capability::Mail => self.mail.is_some(),
            Capability::Emit => !self.emit.is_empty(),
            Capability::Sql | Capability::Http => false,
        }
    }

    /// Whether it may emit events of this type.
    pub fn allows_emitting(&self, event_type: &EventType) -> bool {
        self.emit.iter().any(|pattern| pattern.matches(event_type))
    }
}
