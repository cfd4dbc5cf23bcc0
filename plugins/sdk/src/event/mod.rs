//! Events as types. A plugin asks for the user, the organization, the session an event is about, and
//! need not know in which of the two shapes the sender put it: wrapped (`data.user`) or as `data` itself.
//!
//! Members that are unknown are passed over unread, whatever they contain; those that are absent, null, empty
//! or of another type than expected are `None`, unless the type cannot do without them.
//!
//! What is read of odd JSON is defined. Of several members with one name the last counts. A number is its own
//! text, so that large ids keep every digit (and `1e2` is another id than `100`). In a text, half of a
//! surrogate pair and U+0000 become U+FFFD; in an id they are an error, because two ids could become one.

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
    /// When it happened: by the sender's word, or else when posthouse took it in.
    ///
    /// For an event that names no time, the time of its arrival is all there is. It is that of the attempt that
    /// got through, so an event that a sender retries late looks new.
    pub fn time(&self) -> Timestamp {
        self.occurred_at.unwrap_or(self.received_at)
    }

    /// A number that tells which of two events about the same thing is the newer: the one with the greater
    /// number, in whatever order they come. An event that comes again has the number it had. So a plugin
    /// that keeps the newest state passes over what is old with
    /// `ON CONFLICT (id) DO UPDATE SET … WHERE users.version <= excluded.version`.
    ///
    /// It is the time in nanoseconds; its last two bits put what is deleted after what is updated, and that
    /// after the rest, where a sender gives them the same time. Of two updates at the same time the one that
    /// came last is as good a guess as any, and right under `order_by`: therefore `<=`.
    pub fn version(&self) -> i64 {
        let kind = match self.event_type.rsplit(['.', '_']).next() {
            Some("deleted") => 2,
            Some("updated") => 1,
            _ => 0,
        };
        i64::try_from(self.time() & !3).map_or(i64::MAX, |time| time | kind)
    }

    /// `data` as a type of the plugin's own.
    ///
    /// Members that the type does not name are not read. Of several members with one name the last counts, and
    /// half of a surrogate pair becomes U+FFFD. A type that holds all of `data`, such as `serde_json::Value`,
    /// reads all of it: then a number beyond the range of `f64`, and more than 128 levels, are errors.
    ///
    /// # Errors
    /// [`Malformed`] where it is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Malformed> {
        serde_json::from_str(&self.data)
            .or_else(|_| serde_json::from_str(&tidy::tidy(&self.data)))
            .map_err(|error| Malformed::new(self, format!("`data`: {error}")))
    }

    /// The error that this member is missing, for a plugin that can't do without it.
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
                /// [`Malformed`] names the event and the member it lacks.
                pub fn $name(&self) -> Result<$entity, Malformed> {
                    node::read(self)
                }
            )+
        }
    };
}

accessors! {
    /// The user of `user.*`, and of whatever else carries a `data.user`.
    user: User;
    /// The organization of `organization.created`, `.updated` and `.deleted`, and of whatever else
    /// carries a `data.organization`.
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

/// The event does not hold what the plugin needs of it.
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
        write!(f, "`{}` event `{}` is of no use: {}", self.event_type, self.event_id, self.problem)
    }
}

impl std::error::Error for Malformed {}

impl From<Malformed> for Failure {
    /// The event will be no better at the next attempt.
    fn from(malformed: Malformed) -> Self {
        Self::reject(malformed.to_string())
    }
}

#[cfg(test)]
mod tests;
