//! A marker that can't be read: its delivery took effect and must not run again, and the content of the
//! marker must be neither lost nor invented.
//!
//! The story: the daemon dies between the commit of a plugin's database and its own. Somebody damages the
//! marker, or a later posthouse wrote it. The delivery is given up with an error that says so, and the marker
//! stays. Once the marker can be read, the delivery is finished from it, its mail leaves, and nothing ran
//! twice.

#![allow(clippy::expect_used, reason = "what fails fails the test")]

use std::time::Duration;

use posthouse_harness::{Daemon, Event, Postgres, wait_until};
use posthouse_model::fault::FaultPoint;
use rusqlite::Connection as Sqlite;
use serde_json::json;

const TABLES: &str = "
CREATE TABLE bucket (id BIGINT PRIMARY KEY, n BIGINT NOT NULL);
INSERT INTO bucket VALUES (0, 0);
CREATE TABLE entry (event TEXT NOT NULL, bucket BIGINT NOT NULL, n BIGINT NOT NULL);
CREATE TABLE kept (effects BYTEA NOT NULL);";

/// Runs statements in the plugin's database.
type Execute<'a> = &'a dyn Fn(&Daemon, &str);
/// Runs a query in the plugin's database.
type Query<'a> = &'a dyn Fn(&Daemon, &str) -> Vec<Vec<String>>;

#[test]
fn a_marker_that_cant_be_read_is_an_error_and_keeps_what_it_carries_on_sqlite() {
    let open = |daemon: &Daemon| {
        let file = daemon.dir().join("data/app.db");
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        Sqlite::open(file).expect("data/app.db")
    };
    story(
        "sqlite:data/app.db",
        &|daemon, statements| open(daemon).execute_batch(statements).expect("statements"),
        &|daemon, query| daemon.app_rows(query),
        "BLOB",
    );
}

#[test]
fn a_marker_that_cant_be_read_is_an_error_and_keeps_what_it_carries_on_postgresql() {
    let postgres = Postgres::start();
    let execute = |_: &Daemon, statements: &str| postgres.execute(statements);
    story(&postgres.url(), &execute, &|_, query| postgres.query(query), "BYTEA");
}

fn story(url: &str, execute: Execute<'_>, query: Query<'_>, bytes: &str) {
    let odd = format!(r#"CAST('{{"attempt": "of a later version"}}' AS {bytes})"#);
    let mut daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .guest("effects")
        .toml(&format!(
            "[databases.app]\nurl = {url:?}\n[plugin.effects.grants]\ndatabase = \"app\"\n\
             mail = {{ from = [\"team@example.com\"], to = [\"*\"] }}\n"
        ))
        .prepare();
    execute(&daemon, TABLES);
    let fault = format!("{}:1", FaultPoint::DatabaseCommitted.name());
    daemon.set_env("POSTHOUSE_FAULT", Some(&fault));
    daemon.start();
    let event = asking();
    // The daemon may die before it answers: the plugin does not wait for the answer.
    if let Ok(answer) = daemon.sender().try_post_event(&mut None, &event) {
        assert!(answer.accepted(), "{answer}");
    }
    assert!(daemon.ended_within(Duration::from_secs(30)), "it dies once the database has committed");
    daemon.set_env("POSTHOUSE_FAULT", None);
    execute(
        &daemon,
        &format!(
            "INSERT INTO kept SELECT effects FROM posthouse_deliveries;
             UPDATE posthouse_deliveries SET effects = {odd}"
        ),
    );

    let entries = "SELECT count(*), max(n) FROM entry";
    let markers = "SELECT count(*) FROM posthouse_deliveries";
    // The delivery is neither run again nor taken as done, at this start and at the next.
    for _ in 0..2 {
        daemon.start();
        daemon.wait_settled();
        let delivery = daemon.event(&event.id)["history"][0].clone();
        assert_eq!((&delivery["state"], &delivery["attempts"]), (&json!("dead"), &json!(1)), "{delivery}");
        let error = delivery["attempt_log"][0]["error"].as_str().expect("an error").to_owned();
        assert!(error.starts_with("it committed in database `app`, but its marker can't be read"), "{error}");
        assert_eq!(query(&daemon, markers), [["1"]]);
        assert!(daemon.mails().is_empty());
        daemon.stop();
    }
    assert_eq!(query(&daemon, entries), [["1", "1"]]);

    // It does not delay other deliveries.
    daemon.start();
    let other = asking();
    assert!(daemon.post_event(&other).accepted());
    daemon.wait_settled();
    daemon.wait_mail_settled();
    assert_eq!(daemon.event(&other.id)["history"][0]["state"], "done");
    assert_eq!((query(&daemon, entries), daemon.mails().len()), (vec![vec!["2".into(), "2".into()]], 1));
    daemon.stop();

    // It can be read again, so the delivery is finished: its content leaves, and nothing is done a second
    // time.
    execute(
        &daemon,
        &format!(
            "UPDATE posthouse_deliveries SET effects = (SELECT effects FROM kept) WHERE effects = {odd}"
        ),
    );
    daemon.start();
    wait_until("the delivery is finished from its marker", || {
        daemon.event(&event.id)["history"][0]["state"] == "done"
    });
    daemon.wait_mail_settled();
    let subjects: Vec<_> = daemon.mails().iter().map(|mail| mail.header("subject").to_owned()).collect();
    assert!(subjects.contains(&format!("did {}", event.id)) && subjects.len() == 2, "{subjects:?}");
    assert_eq!(query(&daemon, entries), [["2", "2"]]);
    wait_until("its marker is gone", || query(&daemon, markers) == [["0"]]);
}

fn asking() -> Event {
    Event::new("user.created").data(json!({ "bucket": 0, "mail": "ada@example.com" }))
}
