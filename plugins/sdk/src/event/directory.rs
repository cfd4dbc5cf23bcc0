//! Directories that are synchronised by SCIM, and who is in them.

use super::{
    Malformed,
    node::{Entity, Node},
};

/// A directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directory {
    /// The sender's id.
    pub id: String,
    /// Whose it is.
    pub organization_id: Option<String>,
    /// Who keeps it, such as `OKTA`.
    pub provider: Option<String>,
    /// How it is synchronised, such as `SCIM`.
    pub directory_type: Option<String>,
    /// Whether it is in use.
    pub enabled: Option<bool>,
}

impl Entity for Directory {
    const MEMBERS: &'static [&'static str] = &["directory"];
    const WHOLE: &'static [&'static str] = &["organization.directory_"];

    fn read(node: &Node<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            id: node.need(&["id"])?,
            organization_id: organization_id(node)?,
            provider: node.text(&["provider"]),
            directory_type: node.text(&["directory_type"]),
            enabled: node.flag(&["enabled"]),
        })
    }
}

/// A user in a directory, who need not have logged in yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirectoryUser {
    /// The sender's id.
    pub id: String,
    /// Whose directory it is.
    pub organization_id: Option<String>,
    /// The id in the directory itself.
    pub directory_provider_id: Option<String>,
    /// The address.
    pub email: Option<String>,
    /// The given name.
    pub first_name: Option<String>,
    /// The family name.
    pub last_name: Option<String>,
    /// The whole name.
    pub name: Option<String>,
    /// The name to log in with.
    pub preferred_username: Option<String>,
    /// Whether the user may log in.
    pub active: Option<bool>,
    /// What the user does.
    pub title: Option<String>,
    /// Where the user works.
    pub department: Option<String>,
    /// The names of the groups.
    pub groups: Vec<String>,
    /// The names of the roles.
    pub roles: Vec<String>,
}

impl Entity for DirectoryUser {
    const MEMBERS: &'static [&'static str] = &["directory_user"];
    const WHOLE: &'static [&'static str] = &["organization.directory.user_"];

    fn read(node: &Node<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            id: node.need(&["id"])?,
            organization_id: organization_id(node)?,
            directory_provider_id: node.text(&["dp_id"]),
            email: node.text(&["email"]),
            first_name: node.text(&["given_name", "first_name"]),
            last_name: node.text(&["family_name", "last_name"]),
            name: node.text(&["name"]),
            preferred_username: node.text(&["preferred_username"]),
            active: node.flag(&["active"]),
            title: node.text(&["title"]),
            department: node.text(&["department"]),
            groups: node.texts("groups", &["name", "display_name", "id"]),
            roles: node.texts("roles", &["role_name", "name", "id"]),
        })
    }
}

/// A group in a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirectoryGroup {
    /// The sender's id.
    pub id: String,
    /// Whose directory it is.
    pub organization_id: Option<String>,
    /// In which directory.
    pub directory_id: Option<String>,
    /// The id in the directory itself.
    pub directory_provider_id: Option<String>,
    /// The id in the operator's own system.
    pub external_id: Option<String>,
    /// What it is called.
    pub display_name: Option<String>,
}

impl Entity for DirectoryGroup {
    const MEMBERS: &'static [&'static str] = &["directory_group"];
    const WHOLE: &'static [&'static str] = &["organization.directory.group_"];

    fn read(node: &Node<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            id: node.need(&["id"])?,
            organization_id: organization_id(node)?,
            directory_id: node.text(&["directory_id"]),
            directory_provider_id: node.text(&["dp_id"]),
            external_id: node.text(&["external_id"]),
            display_name: node.text(&["display_name", "name"]),
        })
    }
}

/// The organization the object names, or else the event.
///
/// # Errors
/// Where the object's own is none.
pub(super) fn organization_id(node: &Node<'_>) -> Result<Option<String>, Malformed> {
    Ok(node.id(&["organization_id"])?.or_else(|| node.event.organization_id.clone()))
}
