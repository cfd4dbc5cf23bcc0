//! Each promise of the header, on a host in memory.

use posthouse_sdk::testing::{self, Host, RECEIVED_AT};

use super::*;

const SECOND: u64 = 1_000_000_000;
const ACCOUNTS: &str = "https://accounts.example.com/v1/accounts";

fn host() -> Host {
    Host::new().grant(Capability::Sql).config("settings", r#"{"language": "en", "beta": true}"#)
}

fn with_accounts() -> Host {
    host().grant(Capability::Http).config("accounts_url", ACCOUNTS)
}

/// An event about a user, that many seconds after the first, in the format of the page.
fn page(event_type: &str, seconds: u64, email: &str) -> Event {
    let data = format!(
        r#"{{"user": {{"id": "usr_1", "email": "{email}", "first_name": "Ada", "last_name": "Byron",
            "email_verified": true}}, "organization": {{"id": "org_1", "display_name": "Example Corp"}}}}"#
    );
    at(seconds, testing::event(event_type, &data))
}

/// The same about another user, in the format of real senders.
fn real(event_type: &str, seconds: u64) -> Event {
    let data = r#"{"organization": {"id": "org_2", "display_name": "", "external_id": null, "settings": {}},
        "user": {"id": "usr_2", "email": "grace@example.com", "external_id": "", "metadata": {},
            "create_time": "2025-12-09T12:04:41.39Z", "user_profile": {"given_name": "Grace",
            "family_name": "Hopper", "name": "Grace Hopper", "email_verified": true, "groups": null}}}"#;
    at(seconds, testing::event(event_type, data))
}

/// An event of an organization's directory.
fn directory(event_type: &str, data: &str) -> Event {
    let mut event = at(0, testing::event(&format!("organization.directory.{event_type}"), data));
    event.organization_id = Some("org_3".to_owned());
    event
}

fn at(seconds: u64, mut event: Event) -> Event {
    event.id = format!("evt_{}_{seconds}", event.event_type);
    event.occurred_at = Some(RECEIVED_AT + seconds * SECOND);
    event
}

fn users(host: &Host) -> Vec<String> {
    host.rows("SELECT id, email, name, organization_id, deleted_at IS NOT NULL FROM users ORDER BY id")
}

#[test]
fn users_of_both_shapes_become_rows_with_settings() {
    let mut host = host();
    host.deliver::<UserSync>(page("user.created", 0, "ada@example.com")).unwrap();
    host.deliver::<UserSync>(real("user.signup", 0)).unwrap();
    assert_eq!(
        users(&host),
        ["usr_1|ada@example.com|Ada Byron|org_1|0", "usr_2|grace@example.com|Grace Hopper|org_2|0"]
    );
    assert_eq!(
        host.rows("SELECT * FROM user_settings ORDER BY user_id, name"),
        ["usr_1|beta|true", "usr_1|language|en", "usr_2|beta|true", "usr_2|language|en"]
    );
    assert!(host.fetched().is_empty());
}

#[test]
fn in_whatever_order_and_however_often_events_come_the_newest_state_is_left() {
    let mut nowhere = page("user.updated", 20, "third@example.com");
    nowhere.data = r#"{"user": {"id": "usr_1", "email": "third@example.com"}}"#.to_owned();
    let events = [
        page("user.created", 0, "first@example.com"),
        page("user.updated", 10, "second@example.com"),
        nowhere,
        page("user.deleted", 30, "third@example.com"),
        page("user.created", 40, "fourth@example.com"),
    ];
    // The expected row after the first 1, 2, … of them.
    let left = [
        "usr_1|first@example.com|Ada Byron|org_1|0",
        "usr_1|second@example.com|Ada Byron|org_1|0",
        "usr_1|third@example.com|NULL|org_1|0",
        "usr_1|NULL|NULL|org_1|1",
        "usr_1|fourth@example.com|Ada Byron|org_1|0",
    ];
    for (count, left) in (1..).zip(left) {
        for order in orders(count) {
            let mut host = host();
            // Each event arrives once more at the end.
            for index in order.iter().chain(&order) {
                host.deliver::<UserSync>(events[*index].clone()).unwrap();
            }
            assert_eq!(users(&host), [left], "{order:?}");
            let settings = host.rows("SELECT count(*) FROM user_settings");
            assert_eq!(settings, [if count == 4 { "0" } else { "2" }], "{order:?}");
        }
    }
}

/// All permutations of that many things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1) else { return vec![Vec::new()] };
    let insert = |order: &Vec<usize>, place| {
        let mut order = order.clone();
        order.insert(place, last);
        order
    };
    orders(last).iter().flat_map(|order| (0..count).map(move |place| insert(order, place))).collect()
}

#[test]
fn settings_that_the_user_changed_stay() {
    let mut host = host();
    host.deliver::<UserSync>(page("user.created", 0, "ada@example.com")).unwrap();
    let settings = "SELECT name FROM user_settings ORDER BY name";
    assert_eq!(host.rows(settings).len(), 2);
    // Changed by somebody else: the user's application.
    host.rows("DELETE FROM user_settings WHERE name = 'beta'");
    host.deliver::<UserSync>(page("user.updated", 10, "ada@example.com")).unwrap();
    assert_eq!(host.rows(settings), ["language"]);
}

#[test]
fn users_of_a_directory_are_users_until_they_are_deleted_from_it() {
    let mut host = host();
    let ada = r#"{"id": "diruser_1", "organization_id": "org_3", "dp_id": "x-1", "active": true,
        "email": "ada@example.com", "given_name": "Ada", "family_name": "Byron", "name": "Ada Byron",
        "groups": [], "roles": [{"role_name": "admin"}]}"#;
    let idle = ada.replace("true", "false");
    // All with the same time, as a directory sync may send them, and in the wrong order.
    host.deliver::<UserSync>(directory("user_updated", &idle)).unwrap();
    host.deliver::<UserSync>(directory("user_created", ada)).unwrap();
    let row = "SELECT id, external_id, email, active, organization_id FROM users";
    assert_eq!(host.rows(row), ["diruser_1|x-1|ada@example.com|0|org_3"]);
    let gone =
        r#"{"id": "diruser_1", "organization_id": "org_3", "dp_id": "x-1", "email": "ada@example.com"}"#;
    host.deliver::<UserSync>(directory("user_deleted", gone)).unwrap();
    assert_eq!(host.rows(row), ["diruser_1|NULL|NULL|0|org_3"]);
}

#[test]
fn the_account_elsewhere_follows_the_user_and_never_what_is_old() {
    let mut host = with_accounts().answer(201, r#"{"id": "acc_7"}"#).answer(204, "").answer(404, "");
    host.deliver::<UserSync>(page("user.created", 0, "ada@example.com")).unwrap();
    assert_eq!(host.rows("SELECT account_id FROM users"), ["acc_7"]);
    host.deliver::<UserSync>(page("user.updated", 20, "new@example.com")).unwrap();
    host.deliver::<UserSync>(page("user.updated", 10, "old@example.com")).unwrap();
    host.deliver::<UserSync>(page("user.deleted", 30, "new@example.com")).unwrap();
    let made: Vec<_> = host.fetched().iter().map(|made| (&*made.method, &*made.url)).collect();
    let url = format!("{ACCOUNTS}/usr_1");
    assert_eq!(made, [("PUT", &*url), ("PUT", &*url), ("DELETE", &*url)]);
    let body = String::from_utf8(host.fetched()[1].body.clone()).unwrap();
    assert!(body.contains(r#""email":"new@example.com","first_name":"Ada""#), "{body}");
    assert_eq!(host.rows("SELECT account_id FROM users"), ["NULL"]);
}

#[test]
fn without_the_account_there_is_no_user() {
    let mut host = with_accounts().answer(503, "").answer(403, "");
    let ada = || page("user.created", 0, "ada@example.com");
    assert!(matches!(host.deliver::<UserSync>(ada()), Err(Failure::Retry(_))));
    assert!(matches!(host.deliver::<UserSync>(ada()), Err(Failure::Reject(_))));
    assert!(host.rows("SELECT name FROM sqlite_schema").is_empty(), "not even the tables");
    host.deliver::<UserSync>(ada()).unwrap();
    assert_eq!(users(&host).len(), 1);
    assert_eq!(host.fetched().len(), 3);
}

#[test]
fn others_hear_of_a_new_user_where_that_is_granted() {
    let mut host = host().grant(Capability::Emit);
    for seconds in [0, 10] {
        host.deliver::<UserSync>(page("user.updated", seconds, "ada@example.com")).unwrap();
    }
    let [event] = host.emitted() else { panic!("{:?}", host.emitted()) };
    assert_eq!((&*event.event_type, &*event.data), ("user.onboarding", r#"{"user_id":"usr_1"}"#));
}

#[test]
fn an_event_without_a_user_is_refused_for_good() {
    let failure = host().deliver::<UserSync>(testing::event("user.created", r#"{"user": {}}"#)).unwrap_err();
    assert!(matches!(&failure, Failure::Reject(reason) if reason.contains("data.user.id")), "{failure:?}");
}
