//! The history: the revisions of a plugin's file, and the actions of each attempt.

#![allow(clippy::expect_used, reason = "what fails fails the test")]

use posthouse_harness::{Daemon, Event, WebReply, WebServer, guest, new_revision, wait_until};
use serde_json::{Value, json};

/// The actions of the last attempt of an event's only delivery.
fn did(daemon: &Daemon, event: &Event) -> Vec<String> {
    let delivery = daemon.event(&event.id)["history"][0].clone();
    let attempts = delivery["attempt_log"].as_array().expect("attempts");
    let lines = attempts.last().expect("an attempt")["did"].as_array().cloned().expect("what it did");
    lines.iter().map(|line| line.as_str().expect("a line").to_owned()).collect()
}

#[test]
fn an_attempt_tells_its_keys_rows_and_what_it_staged_but_no_values() {
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .guest("sql-probe")
        .source(posthouse_harness::Source::new("scalekit").line("redact = [\"/data/hidden\"]"))
        .toml(
            "[databases.app]\nurl = \"sqlite:data/app.db\"\n[plugin.sql-probe.grants]\ndatabase = \"app\"\n",
        )
        .start();
    let event = Event::new("user.created").data(json!({
        "hidden": "ada@example.com",
        "steps": [
            { "sql": "CREATE TABLE t (n BIGINT)" },
            { "sql": "INSERT INTO t VALUES (1), (2), (3)" },
            { "sql": "SELECT n FROM t", "query": true },
            { "set": "of/ada@example.com", "to": "a value" },
            { "add": "count", "by": 2 },
        ],
    }));
    assert!(daemon.post_event(&event).accepted());
    daemon.wait_settled();
    let told = did(&daemon, &event);
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(told[2], "sql 3 statements, 3 rows changed");
    assert!(
        told[..2].contains(&"add count".to_owned()) || told[..2].contains(&"set count".to_owned()),
        "{told:?}"
    );
    let said = daemon.cli(&["events", "show", &event.id]).stdout;
    assert!(said.contains("    sql 3 statements, 3 rows changed\n"), "{said}");
    assert!(!said.contains("ada@example.com") && !said.contains("a value"), "{said}");

    let failing =
        Event::new("user.created").data(json!({ "steps": [{ "set": "k", "to": "v" }, { "trap": true }] }));
    assert!(daemon.post_event(&failing).accepted());
    wait_until("its first attempt has failed", || {
        daemon.event(&failing.id)["history"][0]["attempt_log"].as_array().is_some_and(|log| !log.is_empty())
    });
    assert_eq!(did(&daemon, &failing), Vec::<String>::new(), "nothing of it took effect");
}

#[test]
fn a_fetch_is_told_with_its_status_and_without_its_path() {
    let server = WebServer::start(|_| WebReply::status(201));
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .guest("http-probe")
        .toml(&format!("[plugin.http-probe.grants]\nhttp = [{:?}]\n", server.url("")))
        .start();
    let url = server.url("/users/7?token=abc");
    let requests = json!([{ "url": url }, { "url": url, "method": "POST", "later": true }]);
    let event = Event { data: json!({ "requests": requests }), ..Event::new("user.created") };
    assert!(daemon.post_event(&event).accepted());
    daemon.wait_settled();
    let told = did(&daemon, &event);
    let origin = server.url("");
    assert!(told.contains(&format!("fetch GET {origin} 201")), "{told:?}");
    assert!(told.contains(&format!("request POST {origin}")), "{told:?}");
    assert!(told.iter().all(|line| !line.contains("token") && !line.contains("users")), "{told:?}");
}

#[test]
fn the_revisions_of_a_plugin_are_remembered_with_their_ends() {
    let mut daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).guest("counter").start();
    let endings = |daemon: &Daemon| -> Vec<Value> {
        let revisions = daemon.plugin("counter")["revisions"].as_array().cloned().expect("revisions");
        revisions.iter().map(|revision| revision["ending"].clone()).collect()
    };
    assert_eq!(endings(&daemon), [Value::Null]);
    daemon.restart();
    assert_eq!(endings(&daemon), [Value::Null], "the same content is no other revision");
    daemon.put_plugin("counter", &new_revision(&guest("counter"), 1));
    wait_until("the second serves", || endings(&daemon) == [Value::Null, json!("replaced")]);
    daemon.put_plugin("counter", b"no WebAssembly");
    wait_until("the third was refused", || endings(&daemon).len() == 3);
    assert!(endings(&daemon)[0].as_str().is_some_and(|ending| ending.starts_with("refused: ")));
    std::fs::remove_file(daemon.plugin_file("counter")).expect("the file goes");
    wait_until("it was removed", || endings(&daemon)[1] == json!("removed"));
    let said = daemon.cli(&["plugins", "show", "counter"]).stdout;
    assert!(
        said.contains("revisions\n") && said.contains("refused: ") && said.contains("replaced"),
        "{said}"
    );
    let page = daemon.admin("GET", "/plugins/counter", None);
    assert!(
        page.status == 200 && page.body.contains("Its revisions") && page.body.contains("removed"),
        "{page}"
    );
}
