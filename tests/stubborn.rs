//! A database that hinders an attempt repeatedly delays its delivery for a while and not forever. A hindrance
//! that costs nothing the first time counts if it never ends, and other deliveries continue meanwhile.

#![allow(clippy::expect_used, reason = "what fails fails the test")]

use posthouse_harness::{Daemon, Event, Postgres};
use serde_json::{Value, json};

/// The operator's functions. One always conflicts. One ends its own session, like a bug in the server that
/// the plugin knows how to reach. `t` does so when a row with 666 is committed.
const FUNCTIONS: &str = "
CREATE FUNCTION conflict() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '40001';
END $$;
CREATE FUNCTION die() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
    PERFORM pg_terminate_backend(pg_backend_pid());
    PERFORM pg_sleep(10);
    RETURN 1;
END $$;
CREATE FUNCTION die_late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM die();
    RETURN NULL;
END $$;
CREATE TABLE t (n bigint);
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.n = 666) EXECUTE FUNCTION die_late();";

fn daemon(postgres: &Postgres) -> Daemon {
    postgres.execute(FUNCTIONS);
    Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .guest("sql-probe")
        .toml(&format!(
            "[databases.app]\nurl = {:?}\nfunctions = [\"conflict\", \"die\"]\n\
             [plugin.sql-probe]\nretry = {{ attempts = 2, base = \"20ms\", factor = 1.0 }}\n\
             limits = {{ time = \"20s\" }}\n[plugin.sql-probe.grants]\ndatabase = \"app\"\n",
            postgres.url()
        ))
        .start()
}

fn asking(steps: Value) -> Event {
    Event::new("user.created").data(json!({ "steps": steps }))
}

/// The event's delivery, with all attempts.
fn delivery(daemon: &Daemon, event: &Event) -> Value {
    daemon.event(&event.id)["history"][0].clone()
}

/// The error of each attempt that was counted.
fn errors(delivery: &Value) -> Vec<String> {
    let attempts = delivery["attempt_log"].as_array().expect("attempts");
    attempts.iter().map(|attempt| attempt["error"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn conflicts_that_never_end_are_failed_attempts() {
    let postgres = Postgres::start();
    let daemon = daemon(&postgres);
    let event = asking(json!([
        { "sql": "INSERT INTO t VALUES (1)" },
        { "sql": "SELECT conflict()", "query": true },
    ]));
    let other = asking(json!([{ "sql": "INSERT INTO t VALUES (2)" }]));
    for event in [&event, &other] {
        assert!(daemon.post_event(event).accepted());
    }
    daemon.wait_settled();
    let given_up = delivery(&daemon, &event);
    assert_eq!((&given_up["state"], &given_up["attempts"]), (&json!("dead"), &json!(2)), "{given_up}");
    for error in errors(&given_up) {
        assert!(error.contains("conflicted with others 21 times in a row"), "{error}");
    }
    assert_eq!(daemon.stats()["store"]["conflicts"], json!(40));
    assert_eq!(delivery(&daemon, &other)["state"], "done");
    assert_eq!(postgres.query("SELECT n FROM t"), [["2"]]);
}

#[test]
fn a_statement_that_brings_its_session_down_each_time_is_a_failed_attempt() {
    gives_up(json!([{ "sql": "INSERT INTO t VALUES (1)" }, { "sql": "SELECT die()", "query": true }]));
}

#[test]
fn a_commit_that_brings_its_session_down_each_time_is_a_failed_attempt() {
    gives_up(json!([{ "sql": "INSERT INTO t VALUES (666)" }]));
}

/// An attempt with these steps is released three times, then counted, and so on until it is given up.
fn gives_up(steps: Value) {
    let postgres = Postgres::start();
    let daemon = daemon(&postgres);
    let (event, other) = (asking(steps), asking(json!([{ "sql": "INSERT INTO t VALUES (2)" }])));
    for event in [&event, &other] {
        assert!(daemon.post_event(event).accepted());
    }
    daemon.wait_settled();
    let given_up = delivery(&daemon, &event);
    assert_eq!((&given_up["state"], &given_up["attempts"]), (&json!("dead"), &json!(2)), "{given_up}");
    for error in errors(&given_up) {
        assert!(error.contains("its database ended the session 4 times in a row"), "{error}");
        assert!(error.contains("database `app`"), "{error}");
    }
    let given_back = daemon.log().matches("could not run an attempt").count();
    assert_eq!(given_back, 6, "{}", daemon.log());
    assert_eq!(delivery(&daemon, &other)["state"], "done");
    assert_eq!(postgres.query("SELECT n FROM t"), [["2"]]);
}
