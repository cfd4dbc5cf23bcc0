//! Typed access to events. A plugin asks for the user, the organization or the session of an event. It need
//! not know which of the two formats the sender uses: wrapped (`data.user`) or `data` itself.
//!
//! Unknown members are skipped unread, whatever they contain. Members that are absent, null, empty or of
//! another type than expected are `None`, unless the type requires them.
//!
//! The result for odd JSON is defined. Of several members with one name the last counts. A number keeps its
//! text, so that large ids keep every digit (and `1e2` is another id than `100`). In a text, a lone surrogate
//! and U+0000 become U+FFFD. In an id they are an error, because two ids could become equal.

mod directory;
mod json;
mod node;
mod people;
mod settings;
mod tidy;

use std::fmt;

pub use directory::{Directory, DirectoryGroup, DirectoryUser};
pub use people::{Membership, Organization, Session, User};
use serde::de::DeserializeOwned;
pub use settings::{ConnectedAccount, Connection, Domain, Permission, Role};

use crate::{Event, Failure, Timestamp};

impl Event {
    /// The time at which the event happened, according to the sender; without one, the time at which
    /// posthouse received it.
    ///
    /// If the event names no time, only the time of its arrival is known. That is the arrival of the
    /// successful attempt, so an event that a sender retries late looks new.
    pub fn time(&self) -> Timestamp {
        self.occurred_at.unwrap_or(self.received_at)
    }

    /// A version number. Of two events about the same object, the one with the greater number is newer, in
    /// whatever order they arrive. A repeated event has the same number. So a plugin that keeps the newest
    /// state can ignore older events with
    /// `ON CONFLICT (id) DO UPDATE SET … WHERE users.version <= excluded.version`.
    ///
    /// The number is the time in nanoseconds. Its last two bits order events with the same time: deletions
    /// after updates, and updates after the rest. Of two updates with the same time the later arrival is the
    /// best guess, and is right under `order_by`. Therefore the comparison is `<=`.
    pub fn version(&self) -> i64 {
        let kind = match self.event_type.rsplit(['.', '_']).next() {
            Some("deleted") => 2,
            Some("updated") => 1,
            _ => 0,
        };
        i64::try_from(self.time() & !3).map_or(i64::MAX, |time| time | kind)
    }

    /// Returns the first value of a header of the request. None if the request had none, or the source does not list
    /// it. `name` is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| &**value)
    }

    /// Returns `data` as the plugin's own type.
    ///
    /// Members that the type does not name are not read. Of several members with one name the last counts,
    /// and a lone surrogate becomes U+FFFD. A type that contains all of `data`, such as `serde_json::Value`,
    /// reads all of it. Then a number beyond the range of `f64`, and more than 128 levels, are errors.
    ///
    /// # Errors
    /// [`Malformed`] if it is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Malformed> {
        serde_json::from_str(&self.data)
            .or_else(|_| serde_json::from_str(&tidy::tidy(&self.data)))
            .map_err(|error| Malformed::new(self, format!("`data`: {error}")))
    }

    /// Returns the error that this member is missing, for a plugin that requires it.
    pub fn missing(&self, member: &str) -> Malformed {
        Malformed::new(self, format!("it has no `{member}`"))
    }
}

macro_rules! accessors {
    ($($(#[$doc:meta])* $name:ident: $entity:ty;)+) => {
        impl Event {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// [`Malformed`] names the event and the missing member.
                pub fn $name(&self) -> Result<$entity, Malformed> {
                    node::read(self)
                }
            )+
        }
    };
}

accessors! {
    /// The user of `user.*`, and of any other event with a `data.user`.
    user: User;
    /// The organization of `organization.created`, `.updated` and `.deleted`, and of any other event with a
    /// `data.organization`.
    organization: Organization;
    /// The membership of `membership.*`, `user.organization_membership_*`, `user.organization_invitation`
    /// and `user.signup`.
    membership: Membership;
    /// The session of `session.*`, `user.login` and `user.logout`.
    session: Session;
    /// The directory of `organization.directory_enabled` and `organization.directory_disabled`.
    directory: Directory;
    /// The user of `organization.directory.user_*`.
    directory_user: DirectoryUser;
    /// The group of `organization.directory.group_*`.
    directory_group: DirectoryGroup;
    /// The SSO connection of `organization.sso_*`.
    connection: Connection;
    /// The domain of `organization.domain_*`.
    domain: Domain;
    /// The role of `role.*`.
    role: Role;
    /// The permission of `permission.*`.
    permission: Permission;
    /// The account of `connected_account.*`.
    connected_account: ConnectedAccount;
}

/// The event lacks data that the plugin requires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    event_type: String,
    event_id: String,
    problem: String,
}

impl Malformed {
    pub(crate) fn new(event: &Event, problem: String) -> Self {
        Self { event_type: event.event_type.clone(), event_id: event.id.clone(), problem }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` event `{}` is not usable: {}", self.event_type, self.event_id, self.problem)
    }
}

impl std::error::Error for Malformed {}

impl From<Malformed> for Failure {
    /// Another attempt would not change the event.
    fn from(malformed: Malformed) -> Self {
        Self::reject(malformed.to_string())
    }
}

#[cfg(test)]
mod tests;
