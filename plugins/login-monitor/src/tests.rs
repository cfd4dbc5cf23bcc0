//! Each promise of the header, on a host in memory.

use posthouse_sdk::testing::{self, Host, RECEIVED_AT};

use super::*;

const SECOND: u64 = 1_000_000_000;

fn host() -> Host {
    Host::new().grant(Capability::Mail).config("alert_to", "watch@example.com")
}

/// A login in the format of the page, that many seconds after the first, from 192.0.2.`ip`.
fn page(session: u32, seconds: u64, ip: u32) -> Event {
    let data = format!(
        r#"{{"session": {{"id": "ses_{session}", "user_id": "usr_1", "organization_id": "org_1",
            "ip_address": "192.0.2.{ip}", "auth_method": "password"}}}}"#
    );
    let mut event = testing::event("session.created", &data);
    event.id = format!("evt_{session}");
    event.occurred_at = Some(RECEIVED_AT + seconds * SECOND);
    event
}

/// The same as real senders have it.
fn real(event_type: &str, session: u32, seconds: u64, ip: u32) -> Event {
    let data = format!(
        r#"{{"user": {{"id": "usr_1", "email": "ada@example.com"}},
            "user_session": {{"session_id": "ses_{session}", "user_id": "usr_1", "organization_id": "org_1",
            "device": {{"ip": "192.0.2.{ip}", "user_agent": "Browser\nUser: root"}}}}}}"#
    );
    let mut event = testing::event(event_type, &data);
    event.id = format!("evt_{event_type}_{session}");
    event.occurred_at = Some(RECEIVED_AT + seconds * SECOND);
    event
}

fn subjects(host: &Host) -> Vec<&str> {
    host.mails().iter().map(|mail| mail.subject.as_str()).collect()
}

fn user(host: &Host) -> String {
    host.text("user/usr_1").unwrap()
}

#[test]
fn logins_are_counted_and_the_last_is_remembered() {
    let mut host = host();
    host.deliver::<LoginMonitor>(page(1, 0, 1)).unwrap();
    host.deliver::<LoginMonitor>(real("user.login", 2, 3600, 1)).unwrap();
    // This one happened before the two above.
    host.deliver::<LoginMonitor>(page(3, 60, 1)).unwrap();
    assert_eq!(host.text("logins/user/usr_1").as_deref(), Some("3"));
    assert_eq!(host.text("logins/organization/org_1").as_deref(), Some("3"));
    let last = RECEIVED_AT + 3600 * SECOND;
    assert!(
        user(&host).starts_with(&format!(r#"{{"last":{{"at":{last},"ip":"192.0.2.1""#)),
        "{}",
        user(&host)
    );
    assert!(subjects(&host).is_empty(), "{:?}", subjects(&host));
}

#[test]
fn a_session_told_of_twice_is_one_login() {
    let mut host = host();
    host.deliver::<LoginMonitor>(page(1, 0, 1)).unwrap();
    host.deliver::<LoginMonitor>(real("user.login", 1, 0, 1)).unwrap();
    assert_eq!(host.text("logins/user/usr_1").as_deref(), Some("1"));
}

#[test]
fn a_new_address_alerts_once_and_the_first_never() {
    let mut host = host();
    for (session, ip) in [(1, 1), (2, 1), (3, 2), (4, 2), (5, 1)] {
        host.deliver::<LoginMonitor>(real("user.login", session, u64::from(session) * 3600, ip)).unwrap();
    }
    assert_eq!(subjects(&host), ["Login alert for ada@example.com: login from the new address 192.0.2.2"]);
    let mail = &host.mails()[0];
    assert_eq!(mail.to, ["watch@example.com"]);
    for line in ["User: usr_1\n", "Time: 2026-01-02T06:04:05Z\n", "Browser: Browser User: root\n"] {
        assert!(mail.text.contains(line), "{line:?} in {}", mail.text);
    }
}

#[test]
fn only_so_many_addresses_are_remembered() {
    let mut host = host();
    for session in 0..120 {
        host.deliver::<LoginMonitor>(page(session, u64::from(session) * 3600, session)).unwrap();
    }
    assert_eq!(host.mails().len(), 119);
    assert_eq!(user(&host).matches("192.0.2.").count(), 50 + 1);
    host.deliver::<LoginMonitor>(page(200, 500 * 3600, 119)).unwrap();
    assert_eq!(host.mails().len(), 119, "the last is still known");
    host.deliver::<LoginMonitor>(page(201, 501 * 3600, 0)).unwrap();
    assert_eq!(host.mails().len(), 120, "the first is not");
}

#[test]
fn too_many_logins_alert_once_a_window() {
    let mut host = host().config("max_logins", "3").config("window_seconds", "60");
    let mut alerts_after = Vec::new();
    for (session, seconds) in
        [(1, 0), (2, 10), (3, 20), (4, 59), (5, 59), (6, 100), (7, 101), (8, 102), (9, 119)]
    {
        host.deliver::<LoginMonitor>(page(session, seconds, 1)).unwrap();
        alerts_after.push(host.mails().len());
    }
    assert_eq!(alerts_after, [0, 0, 0, 1, 1, 1, 1, 1, 2]);
    assert_eq!(subjects(&host)[0], "Login alert for usr_1: more than 3 logins within 60 s");
}

#[test]
fn logins_spread_wider_than_the_window_are_not_too_many() {
    let mut host = host().config("max_logins", "3").config("window_seconds", "60");
    for session in 0..50 {
        host.deliver::<LoginMonitor>(page(session, u64::from(session) * 20, 1)).unwrap();
    }
    assert!(host.mails().is_empty());
    assert!(user(&host).len() < 300, "{}", user(&host));
}

#[test]
fn an_ended_session_leaves_an_audit_record_and_nothing_else() {
    let mut host = host();
    host.deliver::<LoginMonitor>(real("user.login", 1, 0, 1)).unwrap();
    assert!(host.keys().contains(&"session/ses_1"));
    host.deliver::<LoginMonitor>(real("user.logout", 1, 60, 1)).unwrap();
    let mut expired = page(2, 30, 1);
    expired.event_type = "session.expired".to_owned();
    host.deliver::<LoginMonitor>(expired).unwrap();
    let keys = host.keys();
    assert!(!keys.iter().any(|key| key.starts_with("session/")), "{keys:?}");
    let audits: Vec<_> = keys.into_iter().filter(|key| key.starts_with("audit/")).collect();
    let at = |seconds: u64| RECEIVED_AT + seconds * SECOND;
    assert_eq!(
        audits,
        [format!("audit/0{}/evt_2", at(30)), format!("audit/0{}/evt_user.logout_1", at(60))],
        "in the order of time"
    );
    assert_eq!(
        host.text(audits[1]).unwrap(),
        r#"{"event":"user.logout","user":"usr_1","session":"ses_1","organization":"org_1","ip":"192.0.2.1","started":"2026-01-02T03:04:05Z","ended":"2026-01-02T03:05:05Z"}"#
    );
}

#[test]
fn old_audit_records_go() {
    let mut host = host().config("audit_days", "1");
    for day in 0..20 {
        let mut expired = page(day, u64::from(day) * 86_400, 1);
        expired.event_type = "session.expired".to_owned();
        expired.received_at += u64::from(day) * 86_400 * SECOND;
        host.deliver::<LoginMonitor>(expired).unwrap();
    }
    assert_eq!(host.keys().len(), 2);
}

#[test]
fn a_mistake_in_the_configuration_is_named_at_the_first_event() {
    let many = Host::new().config("alert_to", r#"["a@example.com","b@example.com"]"#).grant(Capability::Mail);
    for (mut host, key) in [
        (Host::new(), "alert_to"),
        (Host::new().config("alert_to", "[]"), "alert_to"),
        (host().config("max_logins", "many"), "max_logins"),
        (host().config("max_logins", "0"), "max_logins"),
        (host().config("window_seconds", "99999999999"), "window_seconds"),
    ] {
        let failure = host.deliver::<LoginMonitor>(page(1, 0, 1)).unwrap_err();
        let Failure::Reject(reason) = failure else { panic!("{failure:?}") };
        assert!(reason.contains(&format!("`{key}`")) && reason.contains("config.toml"), "{reason}");
    }
    let mut host = many;
    host.deliver::<LoginMonitor>(page(1, 0, 1)).unwrap();
    host.deliver::<LoginMonitor>(page(2, 0, 2)).unwrap();
    assert_eq!(host.mails()[0].to, ["a@example.com", "b@example.com"]);
}

#[test]
fn a_login_leaves_a_record_for_analytics() {
    let mut host = host();
    host.deliver::<LoginMonitor>(page(1, 0, 1)).unwrap();
    let mut login = real("user.login", 2, 60, 1);
    login.data =
        login.data.replace(r#""device": {"#, r#""device": {"location": {"city": "Patna", "region": "IN"}, "#);
    host.deliver::<LoginMonitor>(login).unwrap();
    let records: Vec<_> = host
        .keys()
        .into_iter()
        .filter(|key| key.starts_with("analytics/"))
        .map(|key| host.text(key).unwrap())
        .collect();
    assert_eq!(
        records,
        [
            r#"{"user_id":"usr_1","organization_id":"org_1","auth_method":"password","location":null,"at":"2026-01-02T03:04:05Z"}"#,
            r#"{"user_id":"usr_1","organization_id":"org_1","auth_method":null,"location":"Patna, IN","at":"2026-01-02T03:05:05Z"}"#,
        ]
    );
    assert!(host.requests().is_empty());
}

#[test]
fn the_record_is_sent_and_not_kept_where_analytics_has_an_url() {
    let mut host =
        host().grant(Capability::Http).config("analytics_url", "https://analytics.example.com/v1/logins");
    // The second event reports the same login.
    host.deliver::<LoginMonitor>(page(1, 0, 1)).unwrap();
    host.deliver::<LoginMonitor>(real("user.login", 1, 0, 1)).unwrap();
    let [request] = host.requests() else { panic!("{:?}", host.requests()) };
    assert_eq!((&*request.method, &*request.url), ("POST", "https://analytics.example.com/v1/logins"));
    assert!(request.body.starts_with(br#"{"user_id":"usr_1","organization_id":"org_1","#));
    assert!(!host.keys().iter().any(|key| key.starts_with("analytics/")), "{:?}", host.keys());
}

#[test]
fn old_records_for_analytics_go() {
    let mut host = host().config("analytics_days", "1").config("max_logins", "1000");
    for day in 0..20 {
        let mut login = page(day, u64::from(day) * 86_400, 1);
        login.received_at = login.occurred_at.unwrap();
        host.deliver::<LoginMonitor>(login).unwrap();
    }
    assert_eq!(host.keys().iter().filter(|key| key.starts_with("analytics/")).count(), 2);
}
