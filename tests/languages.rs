//! Plugins written in JavaScript and Python load as their tools make them, and do what Rust ones do.

#![allow(clippy::unwrap_used, reason = "what fails fails the test")]

use posthouse_harness::{Daemon, Event};
use serde_json::{Value, json};

#[test]
fn a_plugin_in_javascript() {
    works_in_fresh_and_in_used_instances("javascript");
}

#[test]
fn a_plugin_in_python() {
    works_in_fresh_and_in_used_instances("python");
}

fn works_in_fresh_and_in_used_instances(guest: &str) {
    let mut daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .guest(guest)
        .plugin_config(&format!(
            "[plugin.{guest}]\nreuse = 1\nretry = {{ attempts = 3, base = \"10ms\", factor = 1.0 }}"
        ))
        .start();
    counts_logs_fails_and_refuses(&daemon, guest, 1);

    daemon.edit_config(|config| config.replace("reuse = 1\n", "reuse = 100\n"));
    daemon.restart();
    counts_logs_fails_and_refuses(&daemon, guest, 2);
}

/// Posts events of every kind, the n-th time, and looks at what became of them.
fn counts_logs_fails_and_refuses(daemon: &Daemon, guest: &str, time: u32) {
    let plugin = daemon.plugin(guest);
    assert_eq!((&plugin["state"], &plugin["events"]), (&json!("serving"), &json!(["*"])), "{plugin}");

    let plain: Vec<_> = (0..20).map(|_| post(daemon, json!({}))).collect();
    let logging = post(daemon, json!({ "log": "grüße 🐎" }));
    let failing = post(daemon, json!({ "fail": 2 }));
    let refusing = post(daemon, json!({ "reject": true }));
    daemon.wait_settled();

    let logged = delivery(daemon, &logging);
    assert_eq!(logged["state"], json!("done"), "{logged}");
    let line = json!({ "level": "info", "message": "grüße 🐎" });
    assert!(logged["attempt_log"][0]["logs"].as_array().unwrap().contains(&line), "{logged}");

    let failed = delivery(daemon, &failing);
    assert_eq!((&failed["state"], &failed["attempts"]), (&json!("done"), &json!(3)), "{failed}");
    assert_eq!(failed["attempt_log"][0]["error"], json!("asked to fail 2 times"), "{failed}");

    let refused = delivery(daemon, &refusing);
    assert_eq!((&refused["state"], &refused["attempts"]), (&json!("dead"), &json!(1)), "{refused}");
    assert_eq!(refused["attempt_log"][0]["error"], json!("asked to refuse"), "{refused}");

    // What was done counts once; what failed or was refused left nothing.
    let kv = daemon.kv(guest);
    assert_eq!(kv.get("count"), Some(&(22 * time).to_string()));
    for event in plain.iter().chain([&logging, &failing]) {
        assert_eq!(kv.get(&format!("seen/{}", event.id)).map(String::as_str), Some("1"), "{}", event.id);
    }
    assert!(!kv.contains_key(&format!("seen/{}", refusing.id)), "{kv:?}");
}

#[track_caller]
fn post(daemon: &Daemon, data: Value) -> Event {
    let event = Event::new("user.created").data(data);
    assert!(daemon.post_event(&event).accepted());
    event
}

/// The event's one delivery with all its attempts.
fn delivery(daemon: &Daemon, event: &Event) -> Value {
    daemon.event(&event.id)["history"][0].clone()
}
