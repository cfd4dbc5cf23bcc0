//! What organizations and environments set up: SSO connections, domains, roles, permissions, accounts
//! at third parties.

use super::{
    Malformed,
    directory::organization_id,
    node::{Entity, Node},
};

/// A way for an organization's users to log in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connection {
    /// The sender's id.
    pub id: String,
    /// Whose it is.
    pub organization_id: Option<String>,
    /// How it works, such as `OIDC`.
    pub connection_type: Option<String>,
    /// Who runs it, such as `OKTA`.
    pub provider: Option<String>,
    /// Whether it is in use.
    pub enabled: Option<bool>,
    /// How far its setting up is.
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

/// A domain that an organization says is its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Domain {
    /// The sender's id.
    pub id: String,
    /// Whose it is.
    pub organization_id: Option<String>,
    /// The domain.
    pub domain: Option<String>,
    /// What it is for, such as `ORGANIZATION_DOMAIN`.
    pub domain_type: Option<String>,
    /// `PENDING`, `VERIFIED` or `FAILED`.
    pub verification_status: Option<String>,
    /// How it is proven, such as `DNS`.
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
    /// What programs call it.
    pub name: Option<String>,
    /// What people call it.
    pub display_name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// The role it builds upon.
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

/// What a role allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permission {
    /// The sender's id.
    pub id: String,
    /// What programs call it.
    pub name: Option<String>,
    /// What it is for.
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

/// An account at a third party, used on a user's behalf.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectedAccount {
    /// The sender's id.
    pub id: String,
    /// Whose it is, in the operator's words.
    pub identifier: Option<String>,
    /// Through which connection.
    pub connection_id: Option<String>,
    /// At whose service, such as `GMAIL`.
    pub provider: Option<String>,
    /// How it was allowed, such as `OAUTH`.
    pub authorization_type: Option<String>,
    /// How it stands, such as `ACTIVE`.
    pub status: Option<String>,
    /// How it stood before.
    pub old_status: Option<String>,
    /// Until when its token holds, as RFC 3339.
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
