//! Users, organizations, memberships and sessions.

use super::{
    Malformed,
    directory::organization_id,
    node::{Entity, Node},
};

/// A user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// The sender's id.
    pub id: String,
    /// The id in the operator's own system.
    pub external_id: Option<String>,
    /// The mail address.
    pub email: Option<String>,
    /// Whether the address was verified.
    pub email_verified: Option<bool>,
    /// The given name.
    pub first_name: Option<String>,
    /// The family name.
    pub last_name: Option<String>,
    /// The full name, as the sender has it.
    pub name: Option<String>,
}

impl User {
    /// The name to display: the full name, or the known part of it.
    pub fn display_name(&self) -> Option<String> {
        self.name.clone().or_else(|| match (&self.first_name, &self.last_name) {
            (Some(first), Some(last)) => Some(format!("{first} {last}")),
            (first, last) => first.clone().or_else(|| last.clone()),
        })
    }
}

impl Entity for User {
    const MEMBERS: &'static [&'static str] = &["user"];
    const WHOLE: &'static [&'static str] = &["user."];

    fn read(node: &Node<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            id: node.need(&["id"])?,
            external_id: node.text(&["external_id"]),
            email: node.text(&["email"]),
            email_verified: node.flag(&["email_verified", "user_profile.email_verified"]),
            first_name: node.text(&[
                "first_name",
                "given_name",
                "user_profile.given_name",
                "user_profile.first_name",
            ]),
            last_name: node.text(&[
                "last_name",
                "family_name",
                "user_profile.family_name",
                "user_profile.last_name",
            ]),
            name: node.text(&["name", "user_profile.name"]),
        })
    }
}

/// An organization.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Organization {
    /// The sender's id.
    pub id: String,
    /// The id in the operator's own system.
    pub external_id: Option<String>,
    /// The name.
    pub display_name: Option<String>,
    /// The region of its data.
    pub region_code: Option<String>,
}

impl Entity for Organization {
    const MEMBERS: &'static [&'static str] = &["organization"];
    const WHOLE: &'static [&'static str] =
        &["organization.created", "organization.updated", "organization.deleted"];

    fn read(node: &Node<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            id: node.need(&["id"])?,
            external_id: node.text(&["external_id"]),
            display_name: node.text(&["display_name", "name"]),
            region_code: node.text(&["region_code"]),
        })
    }
}

/// The membership of a user in an organization.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    /// The sender's id of the membership, if it has one.
    pub id: Option<String>,
    /// The user's id.
    pub user_id: String,
    /// The organization's id.
    pub organization_id: String,
    /// The names of the roles.
    pub roles: Vec<String>,
    /// The user, if the event contains more than the id.
    pub user: Option<User>,
    /// The organization, if the event contains more than the id.
    pub organization: Option<Organization>,
}

impl Entity for Membership {
    const MEMBERS: &'static [&'static str] = &["membership"];
    const WHOLE: &'static [&'static str] =
        &["membership.", "user.organization_membership_", "user.organization_invitation", "user.signup"];

    fn read(node: &Node<'_>) -> Result<Self, Malformed> {
        let user = node.child_or_sibling("user").and_then(|user| User::read(&user).ok());
        let organization = node
            .child_or_sibling("organization")
            .and_then(|organization| Organization::read(&organization).ok());
        let user_id = match (node.id(&["user_id"])?, &user) {
            (Some(id), _) => id,
            (None, Some(user)) => user.id.clone(),
            (None, None) => node.need(&["user_id"])?,
        };
        let organization_id = match (node.id(&["organization_id"])?, &organization) {
            (Some(id), _) => id,
            (None, Some(organization)) => organization.id.clone(),
            (None, None) => match &node.event.organization_id {
                Some(id) => id.clone(),
                None => node.need(&["organization_id"])?,
            },
        };
        Ok(Self {
            id: node.text(&["id", "membership_id"]),
            user_id,
            organization_id,
            roles: node.texts("roles", &["role_name", "name", "id"]),
            user,
            organization,
        })
    }
}

/// A session of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Session {
    /// The sender's id.
    pub id: String,
    /// The user's id.
    pub user_id: String,
    /// The organization's id.
    pub organization_id: Option<String>,
    /// The IP address of the login.
    pub ip: Option<String>,
    /// The location of the address, in words.
    pub location: Option<String>,
    /// The method of authentication.
    pub auth_method: Option<String>,
    /// The user agent of the browser.
    pub user_agent: Option<String>,
    /// `ACTIVE`, or the way the session ended.
    pub status: Option<String>,
    /// The user, if the event contains more than the id.
    pub user: Option<User>,
}

impl Entity for Session {
    const MEMBERS: &'static [&'static str] = &["session", "user_session"];
    const WHOLE: &'static [&'static str] = &["session."];

    fn read(node: &Node<'_>) -> Result<Self, Malformed> {
        let user = node.child_or_sibling("user").and_then(|user| User::read(&user).ok());
        let user_id = match (node.id(&["user_id"])?, &user) {
            (Some(id), _) => id,
            (None, Some(user)) => user.id.clone(),
            (None, None) => node.need(&["user_id"])?,
        };
        Ok(Self {
            id: node.need(&["id", "session_id"])?,
            user_id,
            organization_id: organization_id(node)?,
            ip: node.text(&["ip_address", "ip", "device.ip"]),
            location: node.text(&["location"]).or_else(|| {
                let at = |name| {
                    node.text(&[&format!("location.{name}") as &str, &format!("device.location.{name}")])
                };
                let parts: Vec<_> = [at("city"), at("region"), at("country")].into_iter().flatten().collect();
                (!parts.is_empty()).then(|| parts.join(", "))
            }),
            auth_method: node.text(&["auth_method"]),
            user_agent: node.text(&["user_agent", "device.user_agent"]),
            status: node.text(&["status"]),
            user,
        })
    }
}
