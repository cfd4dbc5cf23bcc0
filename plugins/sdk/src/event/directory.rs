//! Directories that are synchronised by SCIM, with their users and groups.

use super::{
    Malformed,
    node::{Entity, Node},
};

/// A directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directory {
    /// The sender's id.
    pub id: String,
    /// The organization that owns it.
    pub organization_id: Option<String>,
    /// The provider, such as `OKTA`.
    pub provider: Option<String>,
    /// The protocol of synchronisation, such as `SCIM`.
    pub directory_type: Option<String>,
    /// Whether it is enabled.
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

/// A user in a directory, who may not have logged in yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirectoryUser {
    /// The sender's id.
    pub id: String,
    /// The organization that owns the directory.
    pub organization_id: Option<String>,
    /// The id in the directory.
    pub directory_provider_id: Option<String>,
    /// The mail address.
    pub email: Option<String>,
    /// The given name.
    pub first_name: Option<String>,
    /// The family name.
    pub last_name: Option<String>,
    /// The full name.
    pub name: Option<String>,
    /// The user name for the login.
    pub preferred_username: Option<String>,
    /// Whether the user may log in.
    pub active: Option<bool>,
    /// The job title.
    pub title: Option<String>,
    /// The department.
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
    /// The organization that owns the directory.
    pub organization_id: Option<String>,
    /// The directory.
    pub directory_id: Option<String>,
    /// The id in the directory.
    pub directory_provider_id: Option<String>,
    /// The id in the operator's own system.
    pub external_id: Option<String>,
    /// The name.
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

/// The organization that the object names, or the one of the event.
///
/// # Errors
/// The object's own organization id is invalid.
pub(super) fn organization_id(node: &Node<'_>) -> Result<Option<String>, Malformed> {
    Ok(node.id(&["organization_id"])?.or_else(|| node.event.organization_id.clone()))
}
