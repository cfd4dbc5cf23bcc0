//! The counting. A separate module, so that a guest of the tests can run it within another plugin.

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
pub(crate) struct SeatBilling;

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

/// Takes or frees the user's seat and returns the change of the count, or none if the row already has newer
/// values.
///
/// This is one statement without a query before it. So two attempts conflict only if they are about the same
/// user in the same organization.
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

/// The message to billing, and the data of `seat.changed`.
#[derive(Serialize)]
struct Count<'a> {
    organization_id: &'a str,
    seats: i64,
    /// The number of this change of the organization's count, from 1.
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
