//! Settings of organizations and environments: SSO connections, domains, roles, permissions, third-party
//! accounts.

use super::{
    Malformed,
    directory::organization_id,
    node::{Entity, Node},
};

/// An SSO connection of an organization.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connection {
    /// The sender's id.
    pub id: String,
    /// The organization that owns it.
    pub organization_id: Option<String>,
    /// The protocol, such as `OIDC`.
    pub connection_type: Option<String>,
    /// The provider, such as `OKTA`.
    pub provider: Option<String>,
    /// Whether it is enabled.
    pub enabled: Option<bool>,
    /// The state of its setup.
    pub status: Option<String>,
}

impl Entity for Connection {
    const MEMBERS: &'static [&'static str] = &["connection"];
    const WHOLE: &'static [&'static str] = &["organization.sso_"];

    fn read(node: &Node<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            id: node.need(&["id"])?,
            organization_id: organization_id(node)?,
            connection_type: node.text(&["connection_type"]),
            provider: node.text(&["provider"]),
            enabled: node.flag(&["enabled"]),
            status: node.text(&["status"]),
        })
    }
}

/// A domain that an organization claims.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Domain {
    /// The sender's id.
    pub id: String,
    /// The organization that owns it.
    pub organization_id: Option<String>,
    /// The domain.
    pub domain: Option<String>,
    /// The purpose, such as `ORGANIZATION_DOMAIN`.
    pub domain_type: Option<String>,
    /// `PENDING`, `VERIFIED` or `FAILED`.
    pub verification_status: Option<String>,
    /// The method of verification, such as `DNS`.
    pub verification_method: Option<String>,
}

impl Entity for Domain {
    const MEMBERS: &'static [&'static str] = &["domain"];
    const WHOLE: &'static [&'static str] = &["organization.domain_"];

    fn read(node: &Node<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            id: node.need(&["id"])?,
            organization_id: organization_id(node)?,
            domain: node.text(&["domain"]),
            domain_type: node.text(&["domain_type"]),
            verification_status: node.text(&["verification_status"]),
            verification_method: node.text(&["verification_method"]),
        })
    }
}

/// A role that users can have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Role {
    /// The sender's id.
    pub id: String,
    /// The name for programs.
    pub name: Option<String>,
    /// The name for people.
    pub display_name: Option<String>,
    /// The description.
    pub description: Option<String>,
    /// The role that it extends.
    pub extends: Option<String>,
}

impl Entity for Role {
    const MEMBERS: &'static [&'static str] = &["role"];
    const WHOLE: &'static [&'static str] = &["role."];

    fn read(node: &Node<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            id: node.need(&["id"])?,
            name: node.text(&["name"]),
            display_name: node.text(&["display_name"]),
            description: node.text(&["description"]),
            extends: node.text(&["extends"]),
        })
    }
}

/// A permission of a role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permission {
    /// The sender's id.
    pub id: String,
    /// The name for programs.
    pub name: Option<String>,
    /// The description.
    pub description: Option<String>,
}

impl Entity for Permission {
    const MEMBERS: &'static [&'static str] = &["permission"];
    const WHOLE: &'static [&'static str] = &["permission."];

    fn read(node: &Node<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            id: node.need(&["id"])?,
            name: node.text(&["name"]),
            description: node.text(&["description"]),
        })
    }
}

/// A third-party account that is used on behalf of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectedAccount {
    /// The sender's id.
    pub id: String,
    /// The owner, as named by the operator.
    pub identifier: Option<String>,
    /// The connection.
    pub connection_id: Option<String>,
    /// The provider, such as `GMAIL`.
    pub provider: Option<String>,
    /// The type of authorization, such as `OAUTH`.
    pub authorization_type: Option<String>,
    /// The state, such as `ACTIVE`.
    pub status: Option<String>,
    /// The previous state.
    pub old_status: Option<String>,
    /// The time at which its token expires, as RFC 3339.
    pub token_expires_at: Option<String>,
}

impl Entity for ConnectedAccount {
    const MEMBERS: &'static [&'static str] = &["connected_account"];
    const WHOLE: &'static [&'static str] = &["connected_account."];

    fn read(node: &Node<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            id: node.need(&["id"])?,
            identifier: node.text(&["identifier"]),
            connection_id: node.text(&["connection_id"]),
            provider: node.text(&["provider"]),
            authorization_type: node.text(&["authorization_type"]),
            status: node.text(&["status"]),
            old_status: node.text(&["old_status"]),
            token_expires_at: node.text(&["token_expires_at"]),
        })
    }
}
