//! Order: the part of an event that says which other events it is kept in order with.
//!
//! Deliveries of one plugin with the same key run one at a time, in the order of their arrival. An event
//! without a key runs whenever there is room.

use std::{borrow::Cow, collections::HashMap, fmt, sync::Arc};

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::{
    NewEvent, PluginId,
    json::{member, scalar},
};

/// The longest key that is kept unchanged, in bytes. Of a longer one the SHA-256 is kept.
const LONGEST: usize = 255;

/// The value that deliveries kept in order have in common, such as a user's id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OrderKey(Arc<str>);

impl OrderKey {
    /// The key of this text. None if the text is empty.
    pub fn new(text: &str) -> Option<Self> {
        match text.len() {
            0 => None,
            1..=LONGEST => Some(Self(text.into())),
            _ => Some(Self(format!("sha256:{}", hex::encode(Sha256::digest(text))).into())),
        }
    }

    /// The text of the key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The part of an event that a plugin's deliveries are ordered by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderBy {
    /// The organization that the event concerns.
    Organization,
    /// The user that the event is about, by the sender's id.
    User,
    /// The text or number at this JSON pointer (RFC 6901) into the body.
    Pointer(String),
}

/// The text is not an order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an order; use \"organization\", \"user\" or a JSON pointer such as \"/data/user/id\"")]
pub struct InvalidOrder(String);

/// The order of each plugin that has one.
pub type Orders = HashMap<PluginId, OrderBy>;

impl OrderBy {
    /// Reads `organization`, `user`, or a JSON pointer.
    ///
    /// # Errors
    /// [`InvalidOrder`] if it is none of these.
    pub fn new(text: &str) -> Result<Self, InvalidOrder> {
        let escapes = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        match text {
            "organization" => Ok(Self::Organization),
            "user" => Ok(Self::User),
            pointer if pointer.starts_with('/') && escapes => Ok(Self::Pointer(pointer.to_owned())),
            other => Err(InvalidOrder(other.to_owned())),
        }
    }

    /// The key of an event. None if the event has no text and no number there.
    pub fn key(&self, event: &NewEvent) -> Option<OrderKey> {
        match self {
            Self::Organization => event.organization.as_deref().and_then(OrderKey::new),
            Self::User => user(event).as_deref().and_then(OrderKey::new),
            Self::Pointer(pointer) => {
                let steps = pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~"));
                let body = std::str::from_utf8(&event.body).ok()?;
                scalar(steps.into_iter().try_fold(body, |part, step| member(part, &step))?)
                    .as_deref()
                    .and_then(OrderKey::new)
            }
        }
    }
}

impl fmt::Display for OrderBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Organization => "organization",
            Self::User => "user",
            Self::Pointer(pointer) => pointer,
        })
    }
}

impl Serialize for OrderBy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The places of a user's id below `data`, in the events that Scalekit sends and in those of its page. The
/// first one that exists counts.
const USERS: [&[&str]; 9] = [
    &["user", "id"],
    &["directory_user", "id"],
    &["membership", "user_id"],
    &["membership", "user", "id"],
    &["session", "user_id"],
    &["session", "user", "id"],
    &["user_session", "user_id"],
    &["user_id"],
    &["id"],
];

/// Families of event types whose `data` is the user itself.
const OF_A_USER: [&str; 2] = ["user.", "organization.directory.user_"];

/// The id of the user that an event is about.
fn user(event: &NewEvent) -> Option<Cow<'_, str>> {
    let data = event.data();
    let whole = OF_A_USER.iter().any(|family| event.event_type.as_str().starts_with(family));
    USERS
        .iter()
        .filter(|path| whole || **path != ["id"])
        .find_map(|path| scalar(path.iter().try_fold(data, |part, step| member(part, step))?))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::testing;

    fn event(event_type: &str, data: &str) -> NewEvent {
        let head = format!(r#"{{"id":"evt_1","type":"{event_type}","data":"#);
        let (start, end) = (head.len() as u32, (head.len() + data.len()) as u32);
        NewEvent {
            data: start..end,
            body: format!("{head}{data}}}").into(),
            ..testing::event("evt_1", event_type, Timestamp::UNIX_EPOCH)
        }
    }

    fn key(order: &str, event: &NewEvent) -> Option<String> {
        OrderBy::new(order).unwrap().key(event).map(|key| key.as_str().to_owned())
    }

    #[test]
    fn a_users_id_is_found_in_each_shape_that_events_have() {
        let cases = [
            ("user.created", r#"{"user":{"id":"usr_1"},"organization":{"id":"org_1"}}"#, Some("usr_1")),
            ("user.updated", r#"{"id":"usr_1","email":"ada@example.com"}"#, Some("usr_1")),
            ("user.deleted", r#"{"id":17}"#, Some("17")),
            ("user.login", r#"{"user":{"id":"usr_1"},"user_session":{"id":"ses_1"}}"#, Some("usr_1")),
            ("user.logout", r#"{"user_session":{"id":"ses_1","user_id":"usr_1"}}"#, Some("usr_1")),
            ("membership.created", r#"{"membership":{"id":"mem_1","user_id":"usr_1"}}"#, Some("usr_1")),
            ("membership.updated", r#"{"membership":{"user":{"id":"usr_1"}}}"#, Some("usr_1")),
            ("user.organization_membership_created", r#"{"id":"mem_1","user_id":"usr_1"}"#, Some("usr_1")),
            ("session.created", r#"{"session":{"id":"ses_1","user_id":"usr_1"}}"#, Some("usr_1")),
            ("session.expired", r#"{"id":"ses_1","user_id":"usr_1"}"#, Some("usr_1")),
            ("organization.directory.user_deleted", r#"{"id":"diruser_1"}"#, Some("diruser_1")),
            (
                "organization.directory.user_created",
                r#"{"directory_user":{"id":"diruser_1"}}"#,
                Some("diruser_1"),
            ),
            ("organization.created", r#"{"id":"org_1"}"#, None),
            ("organization.directory.group_created", r#"{"id":"dirgroup_1"}"#, None),
            ("user.created", r#"{"user":{"id":""}}"#, None),
            ("user.created", r#"{"user":{"id":{}}}"#, None),
            ("user.created", r#"{"user":null}"#, None),
            ("user.created", r#""usr_1""#, None),
            ("user.created", "[]", None),
        ];
        for (event_type, data, expected) in cases {
            assert_eq!(key("user", &event(event_type, data)).as_deref(), expected, "{event_type} {data}");
        }
    }

    #[test]
    fn a_pointer_leads_through_objects_and_arrays() {
        let event = event("seat.added", r#"{"a/b":{"m~n":["x",{"":-1.5e3}]},"t":true,"twice":1,"twice":2}"#);
        let cases = [
            ("/type", Some("seat.added")),
            ("/data/a~1b/m~0n/0", Some("x")),
            ("/data/a~1b/m~0n/1/", Some("-1.5e3")),
            ("/data/a~1b/m~0n/2", None),
            ("/data/a~1b/m~0n/00", None),
            ("/data/a~1b/m~0n/-", None),
            ("/data/t", None),
            ("/data/twice", Some("2")),
            ("/data/none/at/all", None),
            ("/", None),
        ];
        for (pointer, expected) in cases {
            assert_eq!(key(pointer, &event).as_deref(), expected, "{pointer}");
        }
    }

    #[test]
    fn depth_and_length_are_no_matter() {
        let deep = format!("{{\"deep\":{}{},\"id\":\"usr_1\"}}", "[".repeat(50_000), "]".repeat(50_000));
        assert_eq!(key("user", &event("user.created", &deep)).as_deref(), Some("usr_1"));
        let long = |end| format!("{{\"id\":\"{}{end}\"}}", "x".repeat(5000));
        let [one, other] = ["1", "2"].map(|end| key("user", &event("user.created", &long(end))).unwrap());
        assert!(one != other && one.len() <= LONGEST, "{one} {other}");
        assert_eq!(key("organization", &event("user.created", "{}")).as_deref(), Some("org_1"));
    }

    #[test]
    fn what_means_no_order_is_refused() {
        for text in ["", "organisation", "data/user/id", "$.data.user", "/data/~2", "/a~"] {
            assert!(OrderBy::new(text).is_err(), "{text}");
        }
        assert!(OrderBy::new("users").unwrap_err().to_string().contains("/data/user/id"));
    }
}
