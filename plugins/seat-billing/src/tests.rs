//! Each promise of the header, on a host in memory.

use posthouse_sdk::{
    Capability, Event, Failure,
    testing::{self, Host, RECEIVED_AT},
};

use crate::seats::SeatBilling;

const SECOND: u64 = 1_000_000_000;

fn host() -> Host {
    Host::new().grant(Capability::Sql)
}

/// An event about a membership, that many seconds after the first, in the format of the page.
fn page(event_type: &str, seconds: u64, user: u32, organization: u32) -> Event {
    let data = format!(
        r#"{{"membership": {{"id": "mem_1", "user_id": "usr_{user}", "organization_id": "org_{organization}",
            "roles": ["member"]}}}}"#
    );
    at(seconds, testing::event(&format!("membership.{event_type}"), &data))
}

/// The same in the format of real senders.
fn real(event_type: &str, seconds: u64, user: u32, organization: u32) -> Event {
    let data = format!(
        r#"{{"organization": {{"id": "org_{organization}", "display_name": "Acme Corp", "metadata": null}},
            "user": {{"id": "usr_{user}", "email": "ada@example.com", "user_profile": {{"groups": null}}}}}}"#
    );
    at(seconds, testing::event(&format!("user.organization_membership_{event_type}"), &data))
}

fn at(seconds: u64, mut event: Event) -> Event {
    event.occurred_at = Some(RECEIVED_AT + seconds * SECOND);
    event
}

fn deliver(host: &mut Host, events: impl IntoIterator<Item = Event>) {
    events.into_iter().for_each(|event| host.deliver::<SeatBilling>(event).unwrap());
}

fn counts(host: &Host) -> Vec<String> {
    host.rows("SELECT organization_id, seats, changes FROM seat_counts ORDER BY organization_id")
}

#[test]
fn seats_are_counted_for_each_organization() {
    let mut host = host();
    deliver(&mut host, [page("created", 0, 1, 1), page("created", 0, 2, 1), page("created", 0, 1, 2)]);
    assert_eq!(counts(&host), ["org_1|2|2", "org_2|1|1"]);
    deliver(&mut host, [page("updated", 10, 1, 1), page("deleted", 20, 1, 1)]);
    assert_eq!(counts(&host), ["org_1|1|3", "org_2|1|1"]);
}

#[test]
fn a_membership_told_of_in_both_shapes_is_one_seat() {
    let mut host = host();
    deliver(&mut host, [page("created", 0, 1, 1), real("created", 0, 1, 1), real("updated", 5, 1, 1)]);
    assert_eq!(counts(&host), ["org_1|1|1"]);
    deliver(&mut host, [real("deleted", 10, 1, 1), page("deleted", 10, 1, 1)]);
    assert_eq!(counts(&host), ["org_1|0|2"]);
}

#[test]
fn in_whatever_order_and_however_often_events_come_the_count_is_exact() {
    let (joined, changed, left, back) = (
        page("created", 0, 1, 1),
        page("updated", 10, 1, 1),
        page("deleted", 20, 1, 1),
        page("created", 30, 1, 1),
    );
    for (events, seats) in [
        ([&left, &joined, &changed], 0),
        ([&changed, &left, &joined], 0),
        ([&joined, &left, &changed], 0),
        ([&back, &left, &joined], 1),
        ([&left, &back, &joined], 1),
        ([&joined, &back, &left], 1),
    ] {
        let mut host = host();
        deliver(&mut host, events.into_iter().chain(events).cloned());
        assert_eq!(host.rows("SELECT sum(seat) FROM seat_members"), [seats.to_string()], "{events:?}");
        let counted = host.rows("SELECT sum(seats) FROM seat_counts");
        // An organization that never had a seat has no row.
        assert_eq!(counted[0].replace("NULL", "0"), seats.to_string(), "{events:?}");
    }
}

#[test]
fn billing_gets_each_new_count_and_others_hear_of_it() {
    let mut host = host()
        .grant(Capability::Http)
        .grant(Capability::Emit)
        .config("billing_url", "https://billing.example.com/v1/seats");
    deliver(&mut host, [page("created", 0, 1, 1), page("created", 0, 2, 1), page("updated", 5, 1, 1)]);
    deliver(&mut host, [page("deleted", 10, 2, 1), page("deleted", 10, 2, 1)]);
    let told: Vec<_> =
        host.requests().iter().map(|request| String::from_utf8_lossy(&request.body).into_owned()).collect();
    assert_eq!(
        told,
        [
            r#"{"organization_id":"org_1","seats":1,"change":1}"#,
            r#"{"organization_id":"org_1","seats":2,"change":2}"#,
            r#"{"organization_id":"org_1","seats":1,"change":3}"#,
        ]
    );
    let request = &host.requests()[0];
    assert_eq!((&*request.method, &*request.url), ("PUT", "https://billing.example.com/v1/seats/org_1"));
    let emitted: Vec<_> = host.emitted().iter().map(|event| (&*event.event_type, &*event.data)).collect();
    assert_eq!(emitted.len(), 3);
    assert_eq!(emitted[2], ("seat.changed", &*told[2]));
    assert_eq!(host.emitted()[0].organization_id.as_deref(), Some("org_1"));
}

#[test]
fn a_request_that_is_not_granted_leaves_no_seat() {
    let mut host = host().config("billing_url", "https://billing.example.com/v1/seats");
    let failure = host.deliver::<SeatBilling>(page("created", 0, 1, 1)).unwrap_err();
    assert!(matches!(&failure, Failure::Reject(reason) if reason.contains("http =")), "{failure:?}");
    assert!(host.rows("SELECT name FROM sqlite_schema").is_empty());
}
