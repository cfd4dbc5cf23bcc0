//! Grants: what the operator allows a plugin. By default nothing is granted.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{EventType, HttpGrant, Pattern, SourceName};

/// A capability that a plugin can ask for in its manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// Mail through the outbox.
    Mail,
    /// SQL on one database.
    Sql,
    /// HTTP requests, during the attempt or through the outbox.
    Http,
    /// Derived events.
    Emit,
}

impl Capability {
    /// The key below `[plugin.<name>.grants]` with an example of its value.
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

/// The mail that a plugin may send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailGrant {
    /// Addresses that it may send from; the first is the default. `Name <address>` is allowed.
    pub from: Vec<String>,
    /// Recipients: an address, `*@example.com` for a domain, or `*` for everybody.
    pub to: Vec<String>,
}

/// Everything that one plugin may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Grants {
    /// Mail, or none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mail: Option<MailGrant>,
    /// The URLs that it may request, during the attempt and through the outbox.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<HttpGrant>,
    /// SQL on the database with this name, which `[databases.<name>]` describes, or none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// The event types that it may emit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub emit: Vec<Pattern>,
    /// The sources of which it gets the headers that prove who sent an event.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<SourceName>,
}

impl Grants {
    /// Whether the grants cover this capability.
    pub fn allows(&self, capability: Capability) -> bool {
        match capability {
            Capability::Mail => self.mail.is_some(),
            Capability::Http => !self.http.is_empty(),
            Capability::Emit => !self.emit.is_empty(),
            Capability::Sql => self.database.is_some(),
        }
    }

    /// Whether the plugin may emit events of this type.
    pub fn allows_emitting(&self, event_type: &EventType) -> bool {
        self.emit.iter().any(|pattern| pattern.matches(event_type))
    }
}
