//! Events as types. A plugin asks for the user, the organization, the session an event is about, and
//! need not know in which of the two shapes the sender put it: wrapped (`data.user`) or as `data` itself.
//!
//! Members that are unknown are passed over; those that are absent, null, empty or of another type than
//! expected are `None`, unless the type cannot do without them.

mod directory;
mod node;
mod people;
mod settings;

use std::fmt;

pub use directory::{Directory, DirectoryGroup, DirectoryUser};
pub use people::{Membership, Organization, Session, User};
use serde::de::DeserializeOwned;
pub use settings::{ConnectedAccount, Connection, Domain, Permission, Role};

use crate::{Event, Failure, Timestamp};

impl Event {
    /// When it happened: by the sender's word, or else when posthouse took it in.
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
    /// # Errors
    /// [`Malformed`] where it is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Malformed> {
        serde_json::from_str(&self.data).map_err(|error| Malformed::new(self, format!("`data`: {error}")))
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
