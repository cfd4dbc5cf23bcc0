//! Counts the seats that each organization takes, and tells billing when the count changes.
//!
//! | event | what happens |
//! | --- | --- |
//! | `membership.created`, `membership.updated`, `user.organization_membership_created`, `…_updated` | the user takes a seat in the organization, if none is taken yet |
//! | `membership.deleted`, `user.organization_membership_deleted` | the user's seat is free again |
//!
//! When the count of an organization changes, billing gets the new one, and `seat.changed` is emitted where
//! that is granted.
//!
//! ```toml
//! [plugin.seat-billing.grants]
//! database = "app"
//! http = ["https://billing.example.com"]       # needed for billing_url alone
//! emit = ["seat.changed"]                      # may be left out: then nobody hears of it
//!
//! [plugin.seat-billing.config]                 # may be left out
//! billing_url = "https://billing.example.com/v1/seats"
//! ```
//!
//! The counts are exact whatever comes when: a seat is a row for the user and the organization, which holds
//! what the newest event says; only an event that changes that row changes the count, in the same
//! transaction. Two attempts that count for one organization at once end as if one came after the other:
//! the second runs again.
//!
//! Billing gets `PUT <billing_url>/<organization>` with the count, by the outbox, at least once and under one
//! `Idempotency-Key`. Two such requests may arrive in another order than they were sent: `change` in each
//! grows by one with every change of the organization's count, so that the greatest one holds.
//!
//! The tables are in `migrations/`.

use posthouse_sdk::{
    Capability, Delivery, Event, Failure, Manifest, Plugin, config, debug,
    event::Membership,
    http::{Request, segment},
    info, migrations,
    outbox::{Derived, if_granted},
    sql::{self, Migrations},
};
use serde::Serialize;

/// The plugin.
#[derive(Debug)]
pub struct SeatBilling;

const TABLES: Migrations = migrations!["001_seats"];

impl Plugin for SeatBilling {
    fn manifest() -> Manifest {
        Manifest::new("counts seats for each organization, and bills them")
            .on(["membership.created", "membership.updated", "membership.deleted"])
            .on(["user.organization_membership_created", "user.organization_membership_updated"])
            .on(["user.organization_membership_deleted"])
            .requires(Capability::Sql)
    }

    fn handle(event: Event, _delivery: Delivery) -> Result<(), Failure> {
        let seat = match event.event_type.rsplit(['.', '_']).next() {
            Some("created" | "updated") => 1,
            Some("deleted") => 0,
            _ => {
                debug!("`{}` is none of the events that change a seat; nothing to do", event.event_type);
                return Ok(());
            }
        };
        let membership = event.membership()?;
        TABLES.apply()?;
        let (user, organization) = (&membership.user_id, &membership.organization_id);
        match take(&event, &membership, seat)? {
            None => info!("a newer event about `{user}` in `{organization}` has been here; nothing to do"),
            Some(0) => info!("`{user}` in `{organization}` changes no seat"),
            Some(difference) => {
                let count = count(organization, difference)?;
                if let Some(url) = config::get("billing_url").filter(|url| !url.is_empty()) {
                    let url = format!("{}/{}", url.trim_end_matches('/'), segment(organization));
                    Request::put(url).json(&count)?.send_later()?;
                }
                if_granted(Derived::new("seat.changed", &count)?.organization(organization).emit())?;
                info!("`{organization}` takes {} seats", count.seats);
            }
        }
        Ok(())
    }
}

#[cfg(feature = "plugin")]
posthouse_sdk::plugin!(SeatBilling);

/// Takes or frees the user's seat and returns by how much that changes the count; none if something newer
/// is known of it.
///
/// One statement and no look before it: two attempts are in each other's way only if they are about the
/// same user in the same organization.
fn take(event: &Event, membership: &Membership, seat: i64) -> Result<Option<i64>, Failure> {
    let row = sql::query_row(
        "INSERT INTO seat_members (organization_id, user_id, seat, difference, version) \
         VALUES ($1, $2, $3, $3, $4) \
         ON CONFLICT (organization_id, user_id) DO UPDATE SET seat = excluded.seat, \
             difference = excluded.seat - seat_members.seat, version = excluded.version \
         WHERE seat_members.version <= excluded.version \
         RETURNING difference",
        &[&membership.organization_id, &membership.user_id, &seat, &event.version()],
    )?;
    Ok(row.map(|row| row.get("difference")).transpose()?)
}

/// What billing, and who listens for `seat.changed`, is told.
#[derive(Serialize)]
struct Count<'a> {
    organization_id: &'a str,
    seats: i64,
    /// Which change of this organization's count it is, from 1.
    change: i64,
}

/// Changes the organization's count and returns it.
fn count(organization: &str, difference: i64) -> Result<Count<'_>, Failure> {
    let row = sql::query_row(
        "INSERT INTO seat_counts (organization_id, seats, changes) VALUES ($1, $2, 1) \
         ON CONFLICT (organization_id) DO UPDATE SET seats = seat_counts.seats + excluded.seats, \
             changes = seat_counts.changes + 1 \
         RETURNING seats, changes",
        &[&organization, &difference],
    )?;
    let row = row.ok_or_else(|| Failure::retry("the database returned no count"))?;
    Ok(Count { organization_id: organization, seats: row.get("seats")?, change: row.get("changes")? })
}

#[cfg(test)]
mod tests;
