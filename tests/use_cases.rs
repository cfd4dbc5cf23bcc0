//! The use cases of Scalekit's page on webhooks, end to end. Its plugins run in the real daemon. Their rows
//! are in SQLite and then in PostgreSQL, their mail goes to a folder, and their requests to a web server.

#![allow(clippy::expect_used, reason = "what fails fails the test")]

use std::ops::Deref;

use posthouse_harness::{Builder, Daemon, Event, Postgres, WebReply, WebRequest, WebServer, wait_until};
use serde_json::{Value, json};

const PLUGINS: [&str; 6] =
    ["access", "login-monitor", "seat-billing", "user-sync", "welcome-email", "workspace"];

/// Accepts the requests of all plugins. An account gets an id.
fn web() -> WebServer {
    WebServer::start(|request| match request.path.starts_with("/accounts/") {
        true => {
            WebReply::text(format!(r#"{{"id": "acc_{}"}}"#, request.path.rsplit('/').next().unwrap_or("")))
        }
        false => WebReply::status(204),
    })
}

/// A daemon with the page's plugins, and the server of their rows if no file has them. The daemon must be
/// dropped first.
struct Page {
    daemon: Daemon,
    postgres: Option<Postgres>,
}

impl Page {
    fn rows(&self, query: &str) -> Vec<Vec<String>> {
        match &self.postgres {
            None => self.daemon.app_rows(query),
            Some(postgres) => postgres.query(query),
        }
    }
}

impl Deref for Page {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

/// Runs a story on each engine.
fn on_each(story: impl Fn(&Page, &WebServer)) {
    for postgres in [None, Some(Postgres::start())] {
        let web = web();
        let url = postgres.as_ref().map_or_else(|| "sqlite:data/app.db".to_owned(), Postgres::url);
        story(&Page { daemon: page(&web, &url).start(), postgres }, &web);
    }
}

/// A daemon with all of the page's plugins, each with the grants and settings that it can use.
fn page(web: &WebServer, database: &str) -> Builder {
    let url = web.url("");
    let mut builder = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"));
    for plugin in PLUGINS {
        builder = builder.guest(plugin);
    }
    builder.toml(&format!(
        r#"
        [databases.app]
        url = "{database}"

        [plugin.access.grants]
        database = "app"

        [plugin.login-monitor.grants]
        mail = {{ from = ["watch@example.com"], to = ["security@example.com"] }}
        http = ["{url}/analytics"]
        [plugin.login-monitor.config]
        alert_to = "security@example.com"
        analytics_url = "{url}/analytics"

        [plugin.seat-billing.grants]
        database = "app"
        http = ["{url}/seats/"]
        emit = ["seat.*"]
        [plugin.seat-billing.config]
        billing_url = "{url}/seats"

        [plugin.user-sync.grants]
        database = "app"
        http = ["{url}/accounts/"]
        [plugin.user-sync.config]
        accounts_url = "{url}/accounts"
        settings = {{ language = "en" }}

        [plugin.welcome-email]
        retry = {{ attempts = 20, base = "100ms", factor = 1.0 }}
        [plugin.welcome-email.grants]
        mail = {{ from = ["team@example.com"], to = ["*"] }}

        [plugin.workspace.grants]
        database = "app"
        mail = {{ from = ["team@example.com"], to = ["admins@example.com"] }}
        http = ["{url}/workspaces/"]
        [plugin.workspace.config]
        notify = "admins@example.com"
        provision_url = "{url}/workspaces"
        settings = {{ plan = "trial" }}
        "#
    ))
}

/// Posts these events, one after another, and waits until nothing is left to do.
fn post(daemon: &Daemon, events: &[Event]) {
    for event in events {
        assert!(daemon.post_event(event).accepted(), "{event:?}");
        daemon.wait_settled();
    }
    let stats = daemon.stats();
    assert_eq!(stats["store"]["states"]["dead"], json!(0), "{stats}");
}

/// The requests to paths below this one, in the order of their arrival, once there are `count`.
fn requests(web: &WebServer, path: &str, count: usize) -> Vec<WebRequest> {
    let below = || {
        let all = web.requests().into_iter();
        all.filter(|request| request.path.starts_with(path)).collect::<Vec<_>>()
    };
    wait_until(&format!("{count} requests to {path}"), || below().len() >= count);
    let found = below();
    assert_eq!(found.len(), count, "{found:?}");
    found
}

fn body(request: &WebRequest) -> Value {
    serde_json::from_slice(&request.body).expect("JSON")
}

fn row(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

fn subjects(daemon: &Daemon) -> Vec<String> {
    daemon.wait_mail_settled();
    let mut subjects: Vec<_> = daemon.mails().iter().map(|mail| mail.header("subject").to_owned()).collect();
    subjects.sort();
    subjects
}

#[test]
fn a_user_is_synced_welcomed_and_provisioned_and_goes_again() {
    on_each(|page, web| {
        let user = |event_type: &str, name: &str| {
            Event::new(event_type).data(json!({
                "user": { "id": "usr_1", "email": "ada@example.com", "first_name": name, "last_name": "Byron" },
                "organization": { "id": "org_1", "display_name": "Example Corp", "external_id": "ext_1" },
            }))
        };
        let (created, renamed) = (user("user.created", "Ada"), user("user.updated", "Augusta").later(60));
        // The change arrives first, and the creation twice.
        post(page, &[renamed.clone(), created]);
        let users = "SELECT id, email, first_name, organization_id, account_id FROM users";
        assert_eq!(page.rows(users), [row(&["usr_1", "ada@example.com", "Augusta", "org_1", "acc_usr_1"])]);
        assert_eq!(page.rows("SELECT * FROM user_settings"), [row(&["usr_1", "language", "en"])]);
        assert_eq!(subjects(page), ["Welcome to our service"]);
        let accounts = requests(web, "/accounts/", 1);
        assert_eq!(
            (accounts[0].method.as_str(), body(&accounts[0])["first_name"].as_str()),
            ("PUT", Some("Augusta"))
        );
        assert!(!accounts[0].key().is_empty());

        post(page, &[user("user.deleted", "Augusta").later(120)]);
        assert_eq!(page.rows(users), [row(&["usr_1", "", "", "org_1", ""])]);
        assert!(page.rows("SELECT * FROM user_settings").is_empty());
        assert_eq!(requests(web, "/accounts/", 2)[1].method, "DELETE");
    });
}

#[test]
fn an_organization_gets_a_workspace_which_the_team_hears_of_and_which_is_provisioned() {
    on_each(|page, web| {
        let organization = |event_type: &str, name: &str| {
            Event::new(event_type).data(json!({ "organization":
                { "id": "org_1", "display_name": name, "external_id": "ext_1" } }))
        };
        post(
            page,
            &[
                organization("organization.created", "Example"),
                organization("organization.updated", "Example Corp").later(60),
            ],
        );
        assert_eq!(
            page.rows("SELECT organization_id, name, external_id FROM workspaces"),
            [row(&["org_1", "Example Corp", "ext_1"])]
        );
        assert_eq!(page.rows("SELECT * FROM workspace_settings"), [row(&["org_1", "plan", "trial"])]);
        assert_eq!(subjects(page), ["New workspace: Example"]);
        let newest = requests(web, "/workspaces/", 2)
            .into_iter()
            .max_by_key(|request| body(request)["version"].as_i64());
        let newest = newest.expect("two requests");
        assert_eq!((newest.method.as_str(), newest.path.as_str()), ("PUT", "/workspaces/org_1"));
        assert_eq!(body(&newest)["name"], "Example Corp");

        post(page, &[organization("organization.deleted", "Example Corp").later(120)]);
        assert_eq!(
            page.rows("SELECT name FROM workspaces WHERE deleted_at IS NOT NULL"),
            [row(&["Example Corp"])]
        );
        let methods: Vec<_> =
            requests(web, "/workspaces/", 3).into_iter().map(|request| request.method).collect();
        assert_eq!(methods.iter().filter(|method| *method == "DELETE").count(), 1, "{methods:?}");
    });
}

#[test]
fn a_member_gets_access_a_welcome_and_a_seat_and_leaves_an_archive_and_a_free_seat() {
    on_each(|page, web| {
        let member = |kind: &str, user: &str, roles: &[&str]| {
            Event::new(&format!("membership.{kind}")).data(json!({
                "membership": { "user_id": user, "organization_id": "org_1", "roles": roles },
                "user": { "id": user, "email": format!("{user}@example.com") },
                "organization": { "id": "org_1", "display_name": "Example Corp" },
            }))
        };
        post(
            page,
            &[
                member("created", "usr_1", &["admin", "member"]),
                member("created", "usr_2", &["member"]),
                member("updated", "usr_1", &["member", "billing"]).later(60),
            ],
        );
        let roles = "SELECT user_id, role FROM access_grants WHERE revoked_at IS NULL ORDER BY user_id, role";
        assert_eq!(
            page.rows(roles),
            [row(&["usr_1", "billing"]), row(&["usr_1", "member"]), row(&["usr_2", "member"])]
        );
        let seats = "SELECT organization_id, seats, changes FROM seat_counts";
        assert_eq!(page.rows(seats), [row(&["org_1", "2", "2"])]);
        assert_eq!(subjects(page), ["Welcome to Example Corp", "Welcome to Example Corp"]);

        post(page, &[member("deleted", "usr_1", &[]).later(120)]);
        assert_eq!(page.rows(roles), [row(&["usr_2", "member"])]);
        assert_eq!(
            page.rows("SELECT user_id, role FROM access_archive ORDER BY role"),
            [row(&["usr_1", "admin"]), row(&["usr_1", "billing"]), row(&["usr_1", "member"])]
        );
        assert_eq!(page.rows(seats), [row(&["org_1", "1", "3"])]);

        // Billing got each count, with separate keys, and so did the subscriber of the derived event.
        let mut billed: Vec<_> = requests(web, "/seats/org_1", 3)
            .iter()
            .map(|request| {
                let count = body(request);
                (count["change"].as_i64(), count["seats"].as_i64(), request.key().to_owned())
            })
            .collect();
        billed.sort();
        let counts: Vec<_> = billed.iter().map(|(change, seats, _)| (*change, *seats)).collect();
        assert_eq!(counts, [(Some(1), Some(1)), (Some(2), Some(2)), (Some(3), Some(1))]);
        assert!(billed.iter().all(|(_, _, key)| billed.iter().filter(|other| other.2 == *key).count() == 1));
        let derived = page.events().into_iter().filter(|event| event["type"] == "seat.changed");
        assert_eq!(derived.filter(|event| event["source"] == "plugin:seat-billing").count(), 3);
    });
}

#[test]
fn a_login_is_remembered_watched_and_recorded_for_analytics() {
    on_each(|page, web| {
        let login = |session: &str, ip: &str| {
            Event::new("session.created").data(json!({ "session": {
                "id": session, "user_id": "usr_1", "organization_id": "org_1", "ip_address": ip,
                "auth_method": "passkey", "location": "Galway, IE",
            } }))
        };
        post(page, &[login("ses_1", "203.0.113.1"), login("ses_2", "203.0.113.2").later(60)]);
        assert_eq!(page.kv("login-monitor")["logins/user/usr_1"], "2");
        assert_eq!(subjects(page), ["Login alert for usr_1: login from the new address 203.0.113.2"]);
        let records = requests(web, "/analytics", 2);
        let record = body(&records[0]);
        let told =
            ["user_id", "organization_id", "auth_method", "location"].map(|member| record[member].as_str());
        assert_eq!(told, [Some("usr_1"), Some("org_1"), Some("passkey"), Some("Galway, IE")]);
        assert_ne!(records[0].key(), records[1].key());

        let mut expired = login("ses_1", "203.0.113.1").later(120);
        expired.event_type = "session.expired".into();
        post(page, &[expired]);
        assert!(page.kv("login-monitor").keys().any(|key| key.starts_with("audit/")));
    });
}

#[test]
fn odd_members_that_nobody_reads_keep_no_event_from_any_plugin() {
    let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    let odd = [
        r#""x": "\ud800""#,
        r#""\udfff": {"\ud800": "\udc00"}"#,
        r#""x": 1e400, "y": -1e999999999"#,
        r#""x": 123456789012345678901234567890, "y": 0.10, "z": -0"#,
        r#""": {"": null}"#,
        r#""x\u0000": "\u0000""#,
        &format!(r#""x": {deep}"#),
    ];
    on_each(|page, _| {
        let post = |id: &str, event_type: &str, odd: &str, data: &str| {
            let body = format!(
                r#"{{"type": "{event_type}", "timestamp": 1767225600, {odd}, "metadata": {{{odd}}}, "data": {{{odd}, {data}}}}}"#
            );
            let sender = page.sender();
            let answer = sender.post(&sender.signer.sign_now(id, body.as_bytes()), body.as_bytes());
            assert!(answer.accepted(), "{odd:.60}: {answer}");
        };
        for (number, odd) in odd.iter().enumerate() {
            let user = format!(
                r#""user": {{{odd}, "id": "usr", "id": 1234567890123456789012345678{number}, "user_profile": {{{odd}}},
                   "email": "old@example.com", "email": "ada{number}@example.com", "first_name": "A\ud800\u0000"}}"#
            );
            let organization =
                format!(r#""organization": {{{odd}, "id": "org_{number}", "display_name": "Acme"}}"#);
            let membership = format!(
                r#""membership": {{{odd}, "user_id": 1234567890123456789012345678{number}, "organization_id": "org_{number}", "roles": ["admin", {{"\ud800": 1}}, 1e400]}}"#
            );
            let session = format!(r#""session": {{{odd}, "id": "ses_{number}", "user_id": 7}}"#);
            post(&format!("u{number}"), "user.created", odd, &user);
            post(&format!("o{number}"), "organization.created", odd, &organization);
            page.wait_settled();
            post(&format!("m{number}"), "membership.created", odd, &membership);
            post(&format!("s{number}"), "session.created", odd, &session);
        }
        page.wait_settled();
        let stats = page.stats();
        assert_eq!(
            stats["store"]["states"]["dead"],
            json!(0),
            "{stats} {:?}",
            page.deliveries("state=dead&")
        );
        let rows = page.rows("SELECT id, email, first_name FROM users ORDER BY id");
        let expected: Vec<_> = (0..odd.len())
            .map(|number| {
                row(&[
                    &format!("1234567890123456789012345678{number}"),
                    &format!("ada{number}@example.com"),
                    "A\u{fffd}\u{fffd}",
                ])
            })
            .collect();
        assert_eq!(rows, expected);
        for (query, count) in [
            ("SELECT organization_id FROM workspaces", odd.len()),
            ("SELECT user_id FROM seat_members WHERE seat = 1", odd.len()),
            ("SELECT user_id FROM access_grants WHERE role = 'admin'", odd.len()),
            ("SELECT user_id FROM access_grants WHERE role = '1e400'", odd.len()),
        ] {
            assert_eq!(page.rows(query).len(), count, "{query}");
        }
    });
}

#[test]
fn every_known_type_of_event_ends_well_with_all_plugins() {
    on_each(|page, _| {
        let known = page.cli(&["send", "--list"]).stdout;
        assert!(known.lines().count() >= 49, "{known}");
        for event_type in known.lines() {
            let sent = page.cli(&["send", event_type]);
            assert_eq!(sent.code, Some(0), "{event_type}: {sent:?}");
        }
        page.wait_mail_settled();
        let stats = page.stats();
        assert_eq!(stats["store"]["states"]["dead"], json!(0), "{:?}", page.deliveries("state=dead&"));
        assert_eq!(stats["balanced"], json!(true), "{stats}");
        for (table, least) in
            [("users", 2), ("workspaces", 1), ("access_memberships", 1), ("seat_members", 1)]
        {
            let rows = page.rows(&format!("SELECT * FROM {table}"));
            assert!(rows.len() >= least, "{table}: {rows:?}");
        }
    });
}
