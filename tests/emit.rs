//! An event that a plugin emits is delivered like any other, exactly once, and every chain of such events
//! ends.

#![allow(clippy::expect_used, reason = "what fails fails the test")]

use std::{collections::BTreeSet, thread, time::Duration};

use posthouse_harness::{Builder, Daemon, Event, Load, seed, wait_until};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

// The failures here are intended and repeated.
const ATTEMPTS: &str = "retry = { attempts = 3, base = \"20ms\", factor = 1.0 }\nbreaker = { failures = 0 }";

/// A daemon with `relay` and `counter`, in which relay may emit these types.
fn with_grant(emit: &str) -> Builder {
    Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).guest("relay").guest("counter").toml(&format!(
        "[plugin.relay]\n{ATTEMPTS}\n[plugin.relay.grants]\n{emit}\n[plugin.counter]\n{ATTEMPTS}"
    ))
}

fn of_type(daemon: &Daemon, event_type: &str) -> Vec<Value> {
    daemon.events().into_iter().filter(|event| event["type"] == event_type).collect()
}

/// The ids in the message that relay failed with.
fn ids(error: &Value) -> BTreeSet<String> {
    error.as_str().unwrap_or_default().split(' ').skip(1).map(str::to_owned).collect()
}

fn assert_balanced(daemon: &Daemon) {
    let stats = daemon.stats();
    assert_eq!(stats["balanced"], json!(true), "{stats}");
}

#[test]
fn a_derived_event_is_delivered_like_any_other_and_once_however_often_it_was_tried() {
    let daemon = with_grant("emit = [\"seat.*\"]").start();
    let data = json!({ "emit": "seat.added", "times": 2, "fail": 1, "organization": "org_seats" });
    let event = Event::new("user.created").data(data);
    assert!(daemon.post_event(&event).accepted());
    wait_until("two derived events", || of_type(&daemon, "seat.added").len() == 2);
    daemon.wait_settled();

    let derived = of_type(&daemon, "seat.added");
    assert_eq!(derived.len(), 2, "{derived:?}");
    let got: BTreeSet<_> =
        derived.iter().map(|event| event["id"].as_str().expect("an id").to_owned()).collect();
    let told = daemon.event(&event.id);
    let emitting = told["history"]
        .as_array()
        .and_then(|history| history.iter().find(|delivery| delivery["plugin"] == "relay"))
        .expect("relay's delivery");
    assert_eq!(ids(&emitting["attempt_log"][0]["error"]), got, "the ids are the same in every attempt");

    for event in &derived {
        assert_eq!((&event["source"], &event["organization"]), (&json!("plugin:relay"), &json!("org_seats")));
        let whole = daemon.event(event["id"].as_str().expect("an id"));
        let body: Value = serde_json::from_str(whole["body"].as_str().expect("a body")).expect("JSON");
        assert_eq!(body["id"], event["id"]);
        assert_eq!((&body["type"], &body["organization_id"]), (&json!("seat.added"), &json!("org_seats")));
        assert_eq!(body["data"], json!({ "of": told["id"] }));
        assert!(body["occurred_at"].is_string(), "{body}");
    }
    let kv = daemon.kv("counter");
    assert_eq!(kv["count"], "3", "one webhook and two derived events");
    for id in &got {
        assert_eq!(kv[&format!("seen/{id}")], "1");
    }
    // One request and three events, each for both plugins.
    let stats = daemon.stats();
    assert_eq!(stats["requests"]["scalekit"]["received"], json!(1), "{stats}");
    assert_eq!(stats["store"]["made"], json!(6), "{stats}");
    assert_balanced(&daemon);
    // They can be replayed like any other.
    let id = got.first().expect("an id");
    assert_eq!(daemon.admin_post("/v1/replay", &json!({ "event": id, "plugin": "counter" })).status, 200);
    daemon.wait_settled();
    assert_eq!(daemon.kv("counter")[&format!("seen/{id}")], "2");
}

#[test]
fn what_is_not_granted_is_refused_and_names_the_line() {
    for (emit, says) in [
        ("", "plugin `relay` has no grant for emit; add `emit = [\"seat.*\"]` below [plugin.relay.grants]"),
        ("emit = [\"seat.*\"]", "plugin `relay` has no grant to emit `user.deleted`; add it to `emit` below"),
    ] {
        let daemon = with_grant(emit).start();
        let event = Event::new("user.created").data(json!({ "emit": "user.deleted" }));
        assert!(daemon.post_event(&event).accepted());
        wait_until("the refusal", || daemon.deliveries_in("dead") == 1);
        let dead = &daemon.deliveries("state=dead&")[0];
        assert!(dead["error"].as_str().expect("an error").contains(says), "{dead}");
        assert!(of_type(&daemon, "user.deleted").is_empty());
    }
}

#[test]
fn nothing_is_emitted_by_an_attempt_that_traps() {
    let daemon = with_grant("emit = [\"*\"]").start();
    let event = Event::new("user.created").data(json!({ "emit": "seat.added", "trap": true }));
    assert!(daemon.post_event(&event).accepted());
    wait_until("it is given up", || daemon.deliveries_in("dead") == 1);
    daemon.wait_settled();
    assert_eq!(daemon.events().len(), 1);
    assert_balanced(&daemon);
}

#[test]
fn a_chain_of_derived_events_ends_at_its_eighth() {
    let daemon = with_grant("emit = [\"*\"]").start();
    let event = Event::new("user.created").data(json!({ "emit": "echo.sent", "echo": true }));
    assert!(daemon.post_event(&event).accepted());
    wait_until("the end of the chain", || daemon.deliveries_in("dead") == 1);
    daemon.wait_settled();
    assert_eq!(of_type(&daemon, "echo.sent").len(), 8);
    let dead = &daemon.deliveries("state=dead&")[0];
    let error = dead["error"].as_str().expect("an error");
    assert!(error.contains("a chain of 8 derived events, which is the limit"), "{error}");
    assert_eq!((daemon.kv("relay")["emitted"].as_str(), daemon.kv("counter")["count"].as_str()), ("8", "9"));
    assert_balanced(&daemon);
}

#[test]
fn a_plugin_that_multiplies_events_ends_at_the_bound_of_the_backlog() {
    let daemon = with_grant("emit = [\"*\"]").set("store", "max_backlog = 300").start();
    let event = Event::new("user.created").data(json!({ "emit": "echo.sent", "echo": true, "times": 20 }));
    assert!(daemon.post_event(&event).accepted());
    wait_until("attempts find no room", || {
        daemon.deliveries("state=dead&").iter().any(|delivery| {
            delivery["error"].as_str().is_some_and(|error| error.contains("`max_backlog` reached"))
        })
    });
    // It ends: an event that finds no room three times is given up.
    daemon.wait_settled();
    assert_balanced(&daemon);
    assert!(daemon.post_event(&Event::new("user.created").data(json!({}))).accepted());
}

#[test]
fn each_derived_event_is_there_once_whenever_the_daemon_is_killed() {
    let mut dice = StdRng::seed_from_u64(seed());
    let mut daemon = with_grant("emit = [\"seat.*\"]").start();
    let nonce = dice.random_range(0..u64::MAX);
    let load = Load::start(&daemon.sender(), 150, move |n| {
        let data = json!({ "emit": "seat.added", "times": 2, "fail": u64::from(n % 7 == 0) });
        Event::new("user.created").id(format!("evt_{nonce:016x}_{n}")).data(data)
    });
    for _ in 0..15 {
        thread::sleep(Duration::from_millis(dice.random_range(0..900)));
        daemon.kill();
        daemon.start();
    }
    let report = load.stop();
    wait_until("every derived event and its deliveries", || {
        daemon.wait_settled();
        daemon.deliveries_in("done") == 6 * report.acknowledged.len() as u64
    });
    let events = daemon.events();
    assert_eq!(events.len(), 3 * report.acknowledged.len());
    let distinct: BTreeSet<_> = events.iter().map(|event| event["id"].as_str()).collect();
    assert_eq!(distinct.len(), events.len());
    let kv = daemon.kv("counter");
    assert_eq!(kv["count"], events.len().to_string());
    assert!(kv.iter().all(|(key, count)| key == "count" || count == "1"), "{kv:?}");
    assert_eq!(daemon.kv("relay")["emitted"], (2 * report.acknowledged.len()).to_string());
    assert_balanced(&daemon);
}
