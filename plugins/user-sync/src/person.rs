//! The user in an event, in either of two forms: a user, or a user of a directory.

use posthouse_sdk::{Event, Failure, debug};

/// A user, with the data that the event contains.
#[derive(Debug, Default)]
pub(crate) struct Person {
    pub(crate) id: String,
    pub(crate) external_id: Option<String>,
    pub(crate) email: Option<String>,
    pub(crate) email_verified: Option<bool>,
    pub(crate) first_name: Option<String>,
    pub(crate) last_name: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) active: bool,
    pub(crate) organization_id: Option<String>,
    pub(crate) deleted: bool,
}

impl Person {
    /// The user of an event, or none if the event is about something else.
    pub(crate) fn of(event: &Event) -> Result<Option<Self>, Failure> {
        let person = match event.event_type.as_str() {
            "user.deleted" => Self::deleted(event.user()?.id),
            "organization.directory.user_deleted" => Self::deleted(event.directory_user()?.id),
            "user.created" | "user.signup" | "user.updated" => Self::of_user(event)?,
            "organization.directory.user_created" | "organization.directory.user_updated" => {
                Self::of_directory(event)?
            }
            other => {
                debug!("`{other}` is none of the events that change a user; nothing to do");
                return Ok(None);
            }
        };
        Ok(Some(person))
    }

    /// A deleted user, without personal data.
    fn deleted(id: String) -> Self {
        Self { id, deleted: true, ..Self::default() }
    }

    fn of_user(event: &Event) -> Result<Self, Failure> {
        let user = event.user()?;
        let organization = event.organization().ok().map(|organization| organization.id);
        Ok(Self {
            name: user.display_name(),
            id: user.id,
            external_id: user.external_id,
            email: user.email,
            email_verified: user.email_verified,
            first_name: user.first_name,
            last_name: user.last_name,
            active: true,
            organization_id: organization.or_else(|| event.organization_id.clone()),
            deleted: false,
        })
    }

    fn of_directory(event: &Event) -> Result<Self, Failure> {
        let user = event.directory_user()?;
        Ok(Self {
            id: user.id,
            external_id: user.directory_provider_id,
            email: user.email,
            email_verified: None,
            first_name: user.first_name,
            last_name: user.last_name,
            name: user.name,
            active: user.active.unwrap_or(true),
            organization_id: user.organization_id,
            deleted: false,
        })
    }
}
