//! Keeps the roles of each user in each organization.
//!
//! | event | what happens |
//! | --- | --- |
//! | `membership.created`, `membership.updated`, `user.organization_membership_created`, `…_updated` | the user has the roles in the organization that the event names, and no others |
//! | `membership.deleted`, `user.organization_membership_deleted` | the user's roles in the organization are revoked; with the last membership, all grants of the user move to the archive |
//!
//! Events may arrive late, twice or in another order than they happened. The newest event wins, and an older
//! one changes nothing.
//!
//! ```toml
//! [plugin.access.grants]
//! database = "app"
//!
//! [plugin.access.config]                       # optional
//! default_role = "member"                      # if an event names no role
//! ```
//!
//! This query returns a user's roles: `SELECT role FROM access_grants WHERE organization_id = … AND user_id = …
//! AND revoked_at IS NULL`. The tables are in `migrations/`.

use std::collections::BTreeSet;

use posthouse_sdk::{
    Capability, Delivery, Event, Failure, Manifest, Plugin, config, debug,
    event::Membership,
    info, migrations,
    sql::{self, Micros, Migrations},
};

struct Access;

const TABLES: Migrations = migrations!["001_access"];

impl Plugin for Access {
    fn manifest() -> Manifest {
        Manifest::new("who may do what in which organization, and what is archived")
            .on(["membership.created", "membership.updated", "membership.deleted"])
            .on(["user.organization_membership_created", "user.organization_membership_updated"])
            .on(["user.organization_membership_deleted"])
            .requires(Capability::Sql)
    }

    fn handle(event: Event, _delivery: Delivery) -> Result<(), Failure> {
        let kind = event.event_type.trim_start_matches("user.organization_").replace('_', ".");
        let active = match kind.as_str() {
            "membership.created" | "membership.updated" => true,
            "membership.deleted" => false,
            _ => {
                debug!(
                    "`{}` is none of the events that change a membership; nothing to do",
                    event.event_type
                );
                return Ok(());
            }
        };
        let membership = event.membership()?;
        TABLES.apply()?;
        if !write(&event, &membership, active)? {
            info!("a newer event about {} has been here; nothing to do", shown(&membership));
            return Ok(());
        }
        let at = Micros::of(event.time());
        let roles = if active { roles(&membership) } else { BTreeSet::new() };
        grant(&membership, &roles, at)?;
        if !active && !belongs_anywhere(&membership.user_id)? {
            archive(&membership.user_id, at)?;
        }
        info!("{} holds {roles:?}", shown(&membership));
        Ok(())
    }
}

posthouse_sdk::plugin!(Access);

fn shown(membership: &Membership) -> String {
    format!("`{}` in `{}`", membership.user_id, membership.organization_id)
}

/// Writes the event's values to the membership. Returns false if the membership already has newer ones.
fn write(event: &Event, membership: &Membership, active: bool) -> Result<bool, Failure> {
    let written = sql::execute(
        "INSERT INTO access_memberships (organization_id, user_id, active, updated_at, version) \
         VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (organization_id, user_id) DO UPDATE SET active = excluded.active, \
             updated_at = excluded.updated_at, version = excluded.version \
         WHERE access_memberships.version <= excluded.version",
        &[
            &membership.organization_id,
            &membership.user_id,
            &active,
            &Micros::of(event.time()),
            &event.version(),
        ],
    )?;
    Ok(written > 0)
}

/// The roles of a member: those of the event, or the default role.
fn roles(membership: &Membership) -> BTreeSet<String> {
    if membership.roles.is_empty() {
        let role = config::get("default_role").unwrap_or_else(|| "member".to_owned());
        return BTreeSet::from([role]);
    }
    membership.roles.iter().cloned().collect()
}

/// Grants these roles, and revokes all others of the member.
fn grant(membership: &Membership, roles: &BTreeSet<String>, at: Micros) -> Result<(), Failure> {
    let (organization, user) = (&membership.organization_id, &membership.user_id);
    let rows = sql::query(
        "SELECT role FROM access_grants \
         WHERE organization_id = $1 AND user_id = $2 AND revoked_at IS NULL",
        &[organization, user],
    )?;
    let held = rows.iter().map(|row| row.get("role")).collect::<Result<BTreeSet<String>, _>>()?;
    for role in held.difference(roles) {
        sql::execute(
            "UPDATE access_grants SET revoked_at = $4 \
             WHERE organization_id = $1 AND user_id = $2 AND role = $3",
            &[organization, user, role, &at],
        )?;
    }
    for role in roles.difference(&held) {
        sql::execute(
            "INSERT INTO access_grants (organization_id, user_id, role, granted_at) \
             VALUES ($1, $2, $3, $4) \
             ON CONFLICT (organization_id, user_id, role) DO UPDATE SET \
                 granted_at = excluded.granted_at, revoked_at = NULL",
            &[organization, user, role, &at],
        )?;
    }
    Ok(())
}

/// Whether the user still has a membership.
fn belongs_anywhere(user: &str) -> Result<bool, Failure> {
    let left = "SELECT organization_id FROM access_memberships WHERE user_id = $1 AND active LIMIT 1";
    Ok(sql::query_row(left, &[&user])?.is_some())
}

/// Moves all grants of a user to the archive. All of them are revoked.
fn archive(user: &str, at: Micros) -> Result<(), Failure> {
    sql::execute(
        "INSERT INTO access_archive (user_id, archived_at, organization_id, role, granted_at, revoked_at) \
         SELECT user_id, $2, organization_id, role, granted_at, revoked_at FROM access_grants \
         WHERE user_id = $1",
        &[&user, &at],
    )?;
    sql::execute("DELETE FROM access_grants WHERE user_id = $1", &[&user])?;
    Ok(())
}

#[cfg(test)]
mod tests;
