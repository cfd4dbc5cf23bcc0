//! Each promise of the header, on a host in memory.

use posthouse_sdk::testing::{self, Host, RECEIVED_AT};

use super::*;

const SECOND: u64 = 1_000_000_000;

fn host() -> Host {
    Host::new().grant(Capability::Sql)
}

/// An event about a membership of `usr_1`, that many seconds after the first, in the format of the page.
fn page(event_type: &str, seconds: u64, organization: &str, roles: &[&str]) -> Event {
    let data = format!(
        r#"{{"membership": {{"id": "mem_1", "user_id": "usr_1", "organization_id": "{organization}",
            "roles": {roles:?}}}}}"#
    );
    at(seconds, testing::event(&format!("membership.{event_type}"), &data))
}

/// The same in the format of real senders, which name no roles.
fn real(event_type: &str, seconds: u64) -> Event {
    let data = r#"{"organization": {"id": "org_2", "display_name": "Acme Corp", "settings": {"features": []}},
        "user": {"id": "usr_1", "email": "ada@example.com", "external_id": "", "user_profile": {"groups": null}}}"#;
    at(seconds, testing::event(&format!("user.organization_membership_{event_type}"), data))
}

fn at(seconds: u64, mut event: Event) -> Event {
    event.occurred_at = Some(RECEIVED_AT + seconds * SECOND);
    event
}

fn deliver(host: &mut Host, events: impl IntoIterator<Item = Event>) {
    events.into_iter().for_each(|event| host.deliver::<Access>(event).unwrap());
}

/// The current roles.
fn held(host: &Host) -> Vec<String> {
    host.rows(
        "SELECT organization_id, role FROM access_grants WHERE user_id = 'usr_1' AND revoked_at IS NULL \
         ORDER BY organization_id, role",
    )
}

/// The former roles of users without any membership.
fn archived(host: &Host) -> Vec<String> {
    host.rows(
        "SELECT organization_id, role, (revoked_at - granted_at) / 1000000 FROM access_archive \
         WHERE user_id = 'usr_1' ORDER BY archived_at, organization_id, role",
    )
}

#[test]
fn roles_are_granted_changed_and_revoked() {
    let mut host = host();
    deliver(&mut host, [page("created", 0, "org_1", &["admin", "viewer"]), real("created", 0)]);
    assert_eq!(held(&host), ["org_1|admin", "org_1|viewer", "org_2|member"]);
    deliver(&mut host, [page("updated", 10, "org_1", &["viewer", "billing"])]);
    assert_eq!(held(&host), ["org_1|billing", "org_1|viewer", "org_2|member"]);
    deliver(&mut host, [page("deleted", 20, "org_1", &["viewer"])]);
    assert_eq!(held(&host), ["org_2|member"]);
    assert!(archived(&host).is_empty(), "one membership is left");
}

#[test]
fn with_the_last_membership_all_grants_are_archived() {
    let mut host = host();
    deliver(&mut host, [page("created", 0, "org_1", &["admin"]), real("created", 5)]);
    deliver(&mut host, [page("deleted", 10, "org_1", &[]), real("deleted", 20)]);
    assert!(held(&host).is_empty());
    assert_eq!(archived(&host), ["org_1|admin|10", "org_2|member|15"]);
    assert_eq!(host.rows("SELECT count(*) FROM access_grants"), ["0"]);
    // Added and removed again: both periods stay in the archive.
    deliver(&mut host, [page("created", 30, "org_1", &["admin"])]);
    assert_eq!(held(&host), ["org_1|admin"]);
    deliver(&mut host, [page("deleted", 40, "org_1", &[])]);
    assert_eq!(archived(&host), ["org_1|admin|10", "org_2|member|15", "org_1|admin|10"]);
}

#[test]
fn the_newest_event_holds_in_whatever_order_they_come() {
    let (created, changed, deleted) = (
        page("created", 0, "org_1", &["admin"]),
        page("updated", 10, "org_1", &["viewer"]),
        page("deleted", 20, "org_1", &[]),
    );
    for (events, wanted) in [
        ([&created, &changed, &changed], vec!["org_1|viewer"]),
        ([&changed, &created, &changed], vec!["org_1|viewer"]),
        ([&created, &deleted, &changed], vec![]),
        ([&deleted, &changed, &created], vec![]),
        ([&changed, &deleted, &created], vec![]),
        ([&deleted, &created, &deleted], vec![]),
    ] {
        let mut host = host();
        deliver(&mut host, events.into_iter().chain(events).cloned());
        assert_eq!(held(&host), wanted, "{events:?}");
    }
}

#[test]
fn a_real_membership_holds_the_role_that_config_toml_names() {
    let mut host = host().config("default_role", "guest");
    deliver(&mut host, [real("created", 0), real("updated", 10)]);
    assert_eq!(held(&host), ["org_2|guest"]);
    assert_eq!(host.rows("SELECT granted_at FROM access_grants"), [(RECEIVED_AT / 1000).to_string()]);
}
