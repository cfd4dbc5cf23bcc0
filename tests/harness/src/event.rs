//! A webhook's body, in the shape of real ones.

use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering},
};

use serde_json::{Value, json};

use crate::unix_now;

/// An event to post, about a user and an organization that do not exist, with a test's changes.
#[derive(Debug, Clone)]
pub struct Event {
    /// The sender's id of the event.
    pub id: String,
    /// The type, such as `user.created`.
    pub event_type: String,
    /// The `data` member of the body.
    pub data: Value,
    /// When it happened, in RFC 3339.
    pub occurred_at: String,
    /// The organization in the envelope, whatever `data` contains.
    pub organization_id: String,
}

impl Event {
    /// An event of this type with a new id, about Ada of Example Corp.
    pub fn new(event_type: &str) -> Self {
        let data = json!({
            "user": {
                "id": "usr_102701193205121289",
                "email": "ada@example.com",
                "first_name": "Ada",
                "last_name": "Example",
                "email_verified": true,
            },
            "organization": { "id": "org_102690563312124938", "display_name": "Example Corp" },
        });
        Self {
            id: fresh_id(),
            event_type: event_type.into(),
            data,
            occurred_at: "2026-01-15T10:30:00.123456789Z".into(),
            organization_id: "org_102690563312124938".into(),
        }
    }

    /// Sets the id.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// Sets `data`.
    pub fn data(mut self, data: Value) -> Self {
        self.data = data;
        self
    }

    /// Sets the time to this many seconds after that of [`Event::new`].
    ///
    /// # Panics
    /// If that is a day later or more.
    pub fn later(mut self, seconds: u32) -> Self {
        let of_day = 10 * 3600 + 30 * 60 + seconds;
        assert!(of_day < 86_400, "{seconds} s lead to another day");
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        self.occurred_at = format!("2026-01-15T{hour:02}:{minute:02}:{second:02}.123456789Z");
        self
    }

    /// Sets the organization in the envelope.
    pub fn organization(mut self, id: impl Into<String>) -> Self {
        self.organization_id = id.into();
        self
    }

    /// The bytes to sign and post.
    pub fn body(&self) -> Vec<u8> {
        let body = json!({
            "spec_version": "1",
            "id": self.id,
            "type": self.event_type,
            "object": "User",
            "occurred_at": self.occurred_at,
            "environment_id": "env_96736846679245078",
            "organization_id": self.organization_id,
            "data": self.data,
        });
        body.to_string().into_bytes()
    }
}

/// An id that no other event of this process has. Later ids are greater, like those of real senders.
pub fn fresh_id() -> String {
    static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| AtomicU64::new((unix_now() as u64) << 26));
    format!("evt_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_fresh_and_grow() {
        let (first, second) = (fresh_id(), fresh_id());
        assert!(first < second, "{first} {second}");
    }
}
