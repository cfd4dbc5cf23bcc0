//! Plugins in JavaScript and Python load as their tools build them, and work like those in Rust.

#![allow(clippy::unwrap_used, reason = "what fails fails the test")]

use posthouse_harness::{Daemon, Event};
use serde_json::{Value, json};

#[test]
fn a_plugin_in_javascript() {
    works_in_fresh_and_in_used_instances("javascript", "TypeError: ");
}

#[test]
fn a_plugin_in_python() {
    works_in_fresh_and_in_used_instances("python", "ValueError: ");
}

fn works_in_fresh_and_in_used_instances(guest: &str, exception: &str) {
    let mut daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .guest(guest)
        .plugin_config(&format!(
            "[plugin.{guest}]\nreuse = 1\nretry = {{ attempts = 3, base = \"10ms\", factor = 1.0 }}"
        ))
        .start();
    counts_logs_fails_and_refuses(&daemon, guest, 1);
    says_what_was_thrown(&daemon, exception);

    daemon.edit_config(|config| config.replace("reuse = 1\n", "reuse = 100\n"));
    daemon.restart();
    counts_logs_fails_and_refuses(&daemon, guest, 2);
    odd_json_is_read_as_it_is_in_rust(&daemon, guest);
}

/// Members that nothing reads do not matter. Members that are read keep their digits, and half of a surrogate
/// pair is U+FFFD.
fn odd_json_is_read_as_it_is_in_rust(daemon: &Daemon, guest: &str) {
    let sender = daemon.sender();
    let digits = "9".repeat(5000);
    let odd = format!(
        r#""x": "\ud800", "\udfff": 1e400, "n": {digits}, "deep": {}{}, "a": 1, "a": 2, "": "\u0000""#,
        "[".repeat(300),
        "]".repeat(300),
    );
    for (number, id) in
        ["12345678901234567890123", "12345678901234567890124", r#""a\ud800b""#, "7"].into_iter().enumerate()
    {
        let body = format!(
            r#"{{"type": "user.created", "data": {{{odd}, "log": "\udc00 {number}", "id": 1, "id": {id}}}}}"#
        );
        let answer =
            sender.post(&sender.signer.sign_now(&format!("odd_{number}"), body.as_bytes()), body.as_bytes());
        assert!(answer.accepted(), "{answer}");
    }
    daemon.wait_settled();
    for number in 0..4 {
        let delivery = daemon.event(&format!("odd_{number}"))["history"][0].clone();
        assert_eq!(delivery["state"], json!("done"), "{delivery}");
        let line = json!({ "level": "info", "message": format!("\u{fffd} {number}") });
        assert!(delivery["attempt_log"][0]["logs"].as_array().unwrap().contains(&line), "{delivery}");
    }
    let kv = daemon.kv(guest);
    for id in ["12345678901234567890123", "12345678901234567890124", "a\u{fffd}b", "7"] {
        assert_eq!(kv.get(&format!("id/{id}")).map(String::as_str), Some("1"), "{kv:?}");
    }
}

/// If a guest throws something other than a failure, the reason contains it, so that exceptions can be told
/// apart.
fn says_what_was_thrown(daemon: &Daemon, exception: &str) {
    let thrown = |text: String| post(daemon, json!({ "throw": text }));
    let events = [thrown("no user 17".into()), thrown("no user 18".into()), thrown("no such plan".into())];
    daemon.wait_settled();
    for (event, words) in events.iter().zip(["no user 17", "no user 18", "no such plan"]) {
        let error = delivery(daemon, event)["error"].as_str().unwrap().to_owned();
        assert!(error.starts_with(&format!("{exception}{words} (")), "{error}");
    }
    let groups = daemon.admin("GET", "/v1/dead-letters", None).json()["groups"].clone();
    let counts = |word: &str| -> Vec<_> {
        let group = |group: &&Value| group["reason"].as_str().unwrap().contains(word);
        groups.as_array().unwrap().iter().filter(group).map(|group| group["count"].clone()).collect()
    };
    assert_eq!((counts("no user …"), counts("no such plan")), (vec![json!(2)], vec![json!(1)]), "{groups}");
}

/// Posts events of every kind for the n-th time, and checks the results.
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

    // Each success counts once. Failed and refused attempts left nothing.
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

/// The event's only delivery with all its attempts.
fn delivery(daemon: &Daemon, event: &Event) -> Value {
    daemon.event(&event.id)["history"][0].clone()
}
