//! A user's state is what the newest event says.
//!
//! Without `order_by`, the event's own time decides, in whatever format its sender writes it. An old event
//! that a sender retries late, with a new signature, changes nothing.
//!
//! With `order_by`, the state is what the last event says, however many attempts fail. The story: 100 users,
//! each with a seeded history: created, updated some times, deleted, created again. The sender's clock is
//! coarse: all events between two creations have the same time, so only the order of arrival tells which is
//! the newest. The account service fails a third of its requests, so that attempts fail and are retried while
//! later events of the user wait. At the end, the user's row and the last request to the account service are
//! what the last event says.

#![allow(clippy::expect_used, reason = "what fails fails the test")]

use std::{collections::BTreeMap, sync::Mutex, thread};

use posthouse_harness::{Daemon, Event, WebReply, WebServer, seed};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

/// The member of an event with its time, in seconds since 1970, in every supported format.
const SPELLINGS: [fn(i64) -> String; 14] = [
    |at| format!(r#""timestamp": {at}"#),
    |at| format!(r#""timestamp": {at}000"#),
    |at| format!(r#""timestamp": {at}000000"#),
    |at| format!(r#""timestamp": {at}000000000"#),
    |at| format!(r#""timestamp": {at}.0"#),
    |at| format!(r#""timestamp": "{at}""#),
    |at| format!(r#""timestamp": "{at}000""#),
    |at| format!(r#""timestamp": "{}""#, utc(at)),
    |at| format!(r#""timestamp": "{}""#, utc(at).to_lowercase()),
    |at| format!(r#""timestamp": "{}""#, utc(at).replace('T', " ")),
    |at| format!(r#""timestamp": "{}""#, utc(at + 7200).replace('Z', ".000000+02:00")),
    |at| format!(r#""timestamp": "{}""#, utc(at - 19_800).replace('Z', "-0530")),
    |at| format!(r#""created_at": {at}"#),
    |at| format!(r#""occurred_at": "{}""#, utc(at)),
];

fn utc(at: i64) -> String {
    jiff::Timestamp::from_second(at).expect("a time").to_string()
}

#[test]
fn an_old_event_that_is_retried_late_changes_nothing_however_its_time_is_written() {
    let mut builder = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .toml("[databases.app]\nurl = \"sqlite:data/app.db\"");
    for plugin in ["access", "seat-billing", "user-sync", "workspace"] {
        builder = builder.guest(plugin).toml(&format!("[plugin.{plugin}.grants]\ndatabase = \"app\""));
    }
    let daemon = builder.start();
    let at = 1_767_225_600;
    // Each format is used in one user's newer event, and in the older event of the user before.
    let tell = |newer: bool| {
        for number in 0..SPELLINGS.len() {
            let spelling = SPELLINGS[(number + usize::from(!newer)) % SPELLINGS.len()];
            let time = spelling(at + i64::from(newer));
            let what = if newer { "new" } else { "old" };
            let membership = if newer { "deleted" } else { "created" };
            for (event_type, data) in [
                (
                    "user.updated",
                    format!(r#"{{"user": {{"id": "usr_{number}", "email": "{what}@example.com"}}}}"#),
                ),
                (
                    "organization.updated",
                    format!(r#"{{"organization": {{"id": "org_{number}", "display_name": "{what}"}}}}"#),
                ),
                (
                    &*format!("membership.{membership}"),
                    format!(
                        r#"{{"membership": {{"user_id": "usr_{number}", "organization_id": "org_{number}"}}}}"#
                    ),
                ),
            ] {
                let body = format!(r#"{{"type": "{event_type}", {time}, "data": {data}}}"#);
                let sender = daemon.sender();
                let headers = sender.signer.sign_now(
                    &format!("msg_{what}_{number}_{event_type}").replace('.', "_"),
                    body.as_bytes(),
                );
                let answer = sender.post(&headers, body.as_bytes());
                assert!(answer.accepted(), "{body}: {answer}");
            }
        }
        daemon.wait_settled();
    };
    tell(true);
    tell(false);

    let stats = daemon.stats();
    assert_eq!(stats["store"]["states"]["dead"], json!(0), "{stats}");
    let expect = |query: &str, newest: &[&str]| {
        let rows = daemon.app_rows(query);
        assert_eq!(rows.len(), SPELLINGS.len(), "{query}: {rows:?}");
        for row in &rows {
            assert_eq!(row[1..], *newest, "{query}: {row:?}");
        }
    };
    expect("SELECT id, email FROM users", &["new@example.com"]);
    expect("SELECT organization_id, name FROM workspaces", &["new"]);
    expect("SELECT user_id, active FROM access_memberships", &["0"]);
    expect("SELECT user_id, seat FROM seat_members", &["0"]);
}

const USERS: usize = 100;
const EVENTS: usize = 12;

#[test]
fn the_last_event_about_a_user_holds_however_many_attempts_fail() {
    let seed = seed();
    let mut dice = StdRng::seed_from_u64(seed);
    let histories: Vec<_> = (0..USERS).map(|user| history(&mut dice, user)).collect();

    let dice = Mutex::new(StdRng::seed_from_u64(seed.wrapping_add(1)));
    let web = WebServer::start(move |_| {
        let fails = dice.lock().expect("the dice").random_ratio(1, 3);
        WebReply::status(if fails { 503 } else { 204 })
    });
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .guest("user-sync")
        .set("log", r#"level = "error""#)
        .toml(&format!(
            r#"
            [databases.app]
            url = "sqlite:data/app.db"
            [plugin.user-sync]
            order_by = "user"
            retry = {{ attempts = 100, base = "5ms", factor = 1.0 }}
            breaker = {{ failures = 0 }}
            [plugin.user-sync.grants]
            database = "app"
            http = ["{0}"]
            [plugin.user-sync.config]
            accounts_url = "{0}"
            "#,
            web.url("/accounts")
        ))
        .start();
    post(&daemon, &histories);
    daemon.wait_settled();

    let stats = daemon.stats();
    assert_eq!(stats["store"]["states"]["done"], json!(USERS * EVENTS), "{stats}");
    let failed: i64 = daemon
        .store()
        .query_row("SELECT count(*) FROM attempt WHERE error IS NOT NULL", [], |row| row.get(0))
        .expect("the attempts");
    assert!(failed > (USERS * EVENTS / 10) as i64, "only {failed} attempts failed");

    let rows = daemon.app_rows("SELECT id, email, deleted_at IS NOT NULL FROM users");
    let rows: BTreeMap<_, _> = rows.iter().map(|row| (&row[0], (&row[1], row[2] == "1"))).collect();
    let mut told = BTreeMap::new();
    for request in web.requests() {
        let profile: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        told.insert(request.path, (request.method, profile["email"].as_str().map(str::to_owned)));
    }
    assert_eq!(rows.len(), USERS);
    for events in &histories {
        let last = events.last().expect("a history");
        let user = last.data["user"]["id"].as_str().expect("an id").to_owned();
        let email = last.data["user"]["email"].as_str().expect("an address").to_owned();
        let told = &told[&format!("/accounts/{user}")];
        if last.event_type == "user.deleted" {
            assert_eq!(rows[&user], (&String::new(), true), "{user}");
            assert_eq!(told.0, "DELETE", "{user}");
        } else {
            assert_eq!(rows[&user], (&email, false), "{user}");
            assert_eq!(told, &("PUT".to_owned(), Some(email)), "{user}");
        }
    }
    eprintln!("{} deliveries, {failed} failed attempts", USERS * EVENTS);
}

/// The events of one user, in order.
fn history(dice: &mut StdRng, user: usize) -> Vec<Event> {
    let mut there = false;
    let mut second = 0;
    (0..EVENTS)
        .map(|number| {
            let kind = match (there, dice.random_ratio(1, 4)) {
                (false, _) => "created",
                (true, false) => "updated",
                (true, true) => "deleted",
            };
            there = kind != "deleted";
            second += u32::from(kind == "created");
            let data =
                json!({ "user": { "id": format!("usr_{user}"), "email": format!("{number}@example.com") } });
            Event::new(&format!("user.{kind}")).data(data).later(second)
        })
        .collect()
}

/// Posts them on eight connections: each user's events one after another, with the users mixed.
fn post(daemon: &Daemon, histories: &[Vec<Event>]) {
    let sender = &daemon.sender();
    thread::scope(|scope| {
        for users in histories.chunks(histories.len().div_ceil(8)) {
            scope.spawn(move || {
                let mut connection = None;
                for number in 0..EVENTS {
                    for events in users {
                        let answer =
                            sender.try_post_event(&mut connection, &events[number]).expect("an answer");
                        assert_eq!(answer.status, 200, "{answer}");
                    }
                }
            });
        }
    });
}
