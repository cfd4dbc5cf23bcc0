//! The connection to a PostgreSQL: over TLS to the intended server and no other, unless the URL allows clear
//! text. The log names what was refused, and deliveries wait for a connection.

#![allow(clippy::expect_used, reason = "what fails fails the test")]

use std::path::Path;

use posthouse_harness::{Builder, Daemon, Event, Postgres, wait_until};
use serde_json::json;

/// A daemon with `sql-probe` on the database with this URL.
fn on(url: &str, ca: Option<&Path>) -> Builder {
    let ca = ca.map(|ca| format!("ca = {:?}\n", ca.display().to_string())).unwrap_or_default();
    Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .guest("sql-probe")
        .toml(&format!("[databases.app]\nurl = {url:?}\n{ca}[plugin.sql-probe.grants]\ndatabase = \"app\"\n"))
}

fn url(user: &str, host: &str, postgres: &Postgres, query: &str) -> String {
    format!("postgres://{user}@{host}:{}/app{query}", postgres.port())
}

fn make_a_row(daemon: &Daemon) {
    let event = Event::new("user.created").data(json!({ "steps": [
        { "sql": "CREATE TABLE IF NOT EXISTS t (n BIGINT)" },
        { "sql": "INSERT INTO t VALUES (1)" },
    ] }));
    assert!(daemon.post_event(&event).accepted());
    daemon.wait_settled();
    let delivery = daemon.event(&event.id)["history"][0].clone();
    assert_eq!(delivery["state"], "done", "{delivery}");
}

/// Whether the daemon's connections are encrypted. All of them must be the same.
fn encrypted(postgres: &Postgres) -> Vec<Vec<String>> {
    postgres.query(
        "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
         WHERE application_name = 'posthouse'",
    )
}

/// Waits until the log says this about the database. Meanwhile no event is lost.
fn refused(daemon: &Daemon, says: &[&str]) {
    let event = Event::new("user.created").data(json!({ "steps": [{ "sql": "SELECT 1" }] }));
    assert!(daemon.post_event(&event).accepted());
    wait_until(&format!("the log says {says:?}"), || {
        let log = daemon.log();
        log.lines().any(|line| {
            line.contains("could not run an attempt") && says.iter().all(|says| line.contains(says))
        })
    });
    let delivery = daemon.event(&event.id)["history"][0].clone();
    assert_eq!(delivery["attempts"], 0, "{delivery}");
}

#[test]
fn a_server_that_the_authority_vouches_for_is_reached_over_tls() {
    let postgres = Postgres::secured(&["localhost", "127.0.0.1"]);
    for (host, query) in [
        ("localhost", ""),
        ("127.0.0.1", "?sslmode=verify-full"),
        ("localhost", "?sslmode=require"),
        ("localhost", "?sslmode=prefer"),
    ] {
        let daemon = on(&url("posthouse", host, &postgres, query), Some(&postgres.authority())).start();
        make_a_row(&daemon);
        assert_eq!(encrypted(&postgres), [["t"]], "{host}{query}");
    }
    assert_eq!(postgres.query("SELECT count(*) FROM t"), [["4"]]);
}

#[test]
fn in_clear_is_only_what_the_url_says_may_be() {
    let postgres = Postgres::secured(&["localhost"]);
    let daemon = on(&url("posthouse", "localhost", &postgres, "?sslmode=disable"), None).start();
    make_a_row(&daemon);
    assert_eq!(encrypted(&postgres), [["f"]]);
}

#[test]
fn a_login_is_bound_to_the_tls_it_comes_over() {
    let postgres = Postgres::secured(&["localhost"]);
    let at = url("scram:scram", "localhost", &postgres, "?channel_binding=require");
    let daemon = on(&at, Some(&postgres.authority())).start();
    make_a_row(&daemon);
    assert_eq!(encrypted(&postgres), [["t"]]);
    drop(daemon);
    // A wrong password is not an error of TLS.
    let at = url("scram:wrong", "localhost", &postgres, "");
    let daemon = on(&at, Some(&postgres.authority())).start();
    refused(&daemon, &["password authentication failed"]);
    assert!(!daemon.log().contains("sslmode") && !daemon.log().contains("scram:wrong"), "{}", daemon.log());
}

#[test]
fn a_server_that_nobody_knows_is_refused_and_ca_is_named() {
    let postgres = Postgres::secured(&["localhost"]);
    let at = url("posthouse", "localhost", &postgres, "");
    // The system's authorities do not know the certificate.
    let daemon = on(&at, None).start();
    refused(
        &daemon,
        &[
            "database `app`: the server's certificate is of no authority that the system trusts",
            "name the file of its authority as `ca` in [databases.app]",
        ],
    );
    drop(daemon);
    // Neither does the authority of another run.
    let other = Postgres::secured(&["localhost"]);
    let mut daemon = on(&at, Some(&other.authority())).start();
    let file = other.authority().display().to_string();
    refused(&daemon, &["of no authority in", &file, "which is `ca` of [databases.app]"]);
    assert!(encrypted(&postgres).is_empty());

    // With the right authority, the waiting deliveries continue.
    daemon.stop();
    let right = postgres.authority().display().to_string();
    daemon.edit_config(|text| text.replace(&file, &right));
    daemon.start();
    daemon.wait_settled();
    assert_eq!(daemon.deliveries("state=done&").len(), 1);
}

#[test]
fn a_server_of_another_name_is_refused() {
    let postgres = Postgres::secured(&["db.example"]);
    let at = url("posthouse", "localhost", &postgres, "");
    let daemon = on(&at, Some(&postgres.authority())).start();
    refused(&daemon, &["the server's certificate is not for `localhost`", "db.example", "[databases.app]"]);
    assert!(encrypted(&postgres).is_empty());
}

#[test]
fn a_server_without_tls_is_refused_where_the_url_does_not_allow_it() {
    let postgres = Postgres::start();
    for query in ["", "?sslmode=prefer", "?sslmode=require"] {
        let daemon = on(&url("posthouse", "127.0.0.1", &postgres, query), None).start();
        refused(&daemon, &["server does not support TLS", "`?sslmode=disable`", "[databases.app]"]);
    }
}
