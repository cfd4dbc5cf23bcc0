//! A statement that no interrupt ends: the daemon kills itself to release the database, and the attempt that
//! ran the statement has failed. (`POSTHOUSE_STUCK` creates such a statement, since we know of no real one.)

#![allow(clippy::expect_used, reason = "what fails fails the test")]

use std::os::unix::process::ExitStatusExt as _;

use posthouse_harness::{Daemon, Event, eventually};
use rustix::process::Signal;
use serde_json::{Value, json};

#[test]
fn a_statement_that_nothing_ends_ends_the_daemon_and_is_a_failed_attempt() {
    let mut daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .guest("sql-probe")
        .env("POSTHOUSE_STUCK", "'stuck'")
        .toml(
            "[databases.app]\nurl = \"sqlite:data/app.db\"\nstatement_timeout = \"500ms\"\n\
             [plugin.sql-probe]\nretry = { attempts = 2, base = \"1h\", factor = 1.0 }\n\
             limits = { time = \"1s\" }\n[plugin.sql-probe.grants]\ndatabase = \"app\"\n",
        )
        .start();
    let stuck = asking(&["CREATE TABLE t (n)", "INSERT INTO t VALUES (1)", "SELECT 'stuck'"]);
    assert!(daemon.post_event(&stuck).accepted());
    let failed = eventually("its attempt has failed", || {
        Some(delivery(&daemon, &stuck)).filter(|delivery| delivery["state"] == "waiting")
    });
    assert_eq!(failed["attempts"], 1, "{failed}");
    // The daemon still accepts events, and handles those that need no database.
    let plain = asking(&[]);
    assert!(daemon.post_event(&plain).accepted());
    eventually("the plain event is done", || {
        Some(delivery(&daemon, &plain)).filter(|delivery| delivery["state"] == "done")
    });

    let status = daemon.wait_ended();
    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{status}");
    let log = daemon.log();
    assert!(log.contains("did not end when interrupted and holds the database"), "{log}");
    assert!(log.contains("app"), "{log}");

    // The next start has the database again. The stuck delivery waits for its second attempt.
    daemon.set_env("POSTHOUSE_STUCK", None);
    daemon.start();
    let other = asking(&["CREATE TABLE t (n)", "INSERT INTO t VALUES (2)"]);
    assert!(daemon.post_event(&other).accepted());
    eventually("the other event is done", || {
        Some(delivery(&daemon, &other)).filter(|delivery| delivery["state"] == "done")
    });
    let failed = delivery(&daemon, &stuck);
    assert_eq!((&failed["state"], &failed["attempts"]), (&json!("waiting"), &json!(1)), "{failed}");
    let error = failed["attempt_log"][0]["error"].as_str().unwrap_or_default();
    assert!(error.contains("limit `time`"), "{failed}");
    assert_eq!(daemon.app_rows("SELECT n FROM t"), [["2"]]);
    assert_eq!(daemon.stats()["balanced"], json!(true));
}

fn asking(statements: &[&str]) -> Event {
    let steps: Vec<_> = statements
        .iter()
        .map(|sql| json!({ "sql": sql, "must": true, "query": sql.starts_with("SELECT") }))
        .collect();
    Event::new("user.created").data(json!({ "steps": steps }))
}

/// The event's delivery, with all attempts.
fn delivery(daemon: &Daemon, event: &Event) -> Value {
    daemon.event(&event.id)["history"][0].clone()
}
