//! The clock is set back an hour while the daemon runs, stays so over a restart, and is right again in the
//! end. `POSTHOUSE_CLOCK` names a file with the number of seconds by which the system's clock counts as
//! wrong.

#![allow(clippy::expect_used, reason = "what fails fails the test")]

use std::fs;

use jiff::Timestamp;
use posthouse_harness::{Daemon, Event, unix_now, wait_until};
use serde_json::{Value, json};

const HOUR: i64 = 3600;

fn set_clock(daemon: &Daemon, seconds: i64) {
    let file = daemon.dir().join("clock");
    let beside = daemon.dir().join("clock.new");
    fs::write(&beside, seconds.to_string()).and_then(|()| fs::rename(beside, file)).expect("the clock");
}

fn set_back(daemon: &Daemon) -> f64 {
    daemon.stats()["clock_set_back_seconds"].as_f64().expect("seconds")
}

fn clock_step(daemon: &Daemon) -> f64 {
    let metrics = daemon.admin("GET", "/metrics", None).body;
    let told = metrics.lines().find_map(|line| line.strip_prefix("posthouse_clock_step_seconds "));
    told.and_then(|seconds| seconds.parse().ok()).expect("seconds")
}

fn moment(event: &Value) -> Timestamp {
    event["received_at"].as_str().and_then(|text| text.parse().ok()).expect("a moment")
}

#[track_caller]
fn told(daemon: &Daemon) {
    let doctor = daemon.cli(&["doctor"]);
    assert_eq!(doctor.code, Some(1), "{doctor:?}");
    for words in ["problem  daemon: the system's clock was set back", "problem  clock: "] {
        assert!(doctor.stdout.contains(words), "{words} in {}", doctor.stdout);
    }
    let page = daemon.admin("GET", "/", None);
    assert!(page.body.contains("clock was set back by"), "{page}");
}

#[test]
fn a_clock_set_back_an_hour_holds_nothing_up_loses_nothing_and_is_told_until_it_is_right() {
    let mut daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .guest("counter")
        .set("store", "retention = \"30m\"")
        .env("POSTHOUSE_CLOCK", "clock")
        .toml("[plugin.counter]\nretry = { attempts = 5, base = \"2s\", factor = 1.0 }\n")
        .start();
    let mut sent = 0;
    let mut post = |daemon: &Daemon, data: Value| {
        let event = Event { data, ..Event::new("user.created") };
        let answer = daemon.post_event(&event);
        assert!(answer.accepted(), "{answer}");
        sent += 1;
        event.id
    };
    post(&daemon, json!({}));
    let waiting = post(&daemon, json!({ "fail": 2 }));
    wait_until("it waits", || daemon.deliveries_in("waiting") == 1);

    set_clock(&daemon, -HOUR);
    wait_until("it is noticed", || set_back(&daemon) > HOUR as f64 - 5.0);
    wait_until("it is in the log", || daemon.log().contains("clock was set back"));
    wait_until("it is in the metrics", || clock_step(&daemon) < -HOUR as f64 + 5.0);
    post(&daemon, json!({}));
    let leased = post(&daemon, json!({ "fail": 1 }));
    // Much sooner than in an hour, because the daemon counts the time.
    daemon.wait_settled();
    for id in [&waiting, &leased] {
        assert_eq!(daemon.event(id)["history"][0]["state"], "done");
    }
    told(&daemon);

    daemon.restart();
    assert!(set_back(&daemon) > HOUR as f64 - 60.0, "it is noticed at a start too");
    post(&daemon, json!({}));
    told(&daemon);

    set_clock(&daemon, 0);
    wait_until("it is right again", || set_back(&daemon) == 0.0);
    wait_until("that is in the log", || daemon.log().contains("clock is right again"));
    post(&daemon, json!({}));
    daemon.wait_settled();
    let doctor = daemon.cli(&["doctor"]);
    assert_eq!(doctor.code, Some(0), "{doctor:?}");

    let events = daemon.events();
    assert_eq!(events.len(), sent, "nothing was lost, nothing was past its retention");
    let moments: Vec<_> = events.iter().rev().map(moment).collect();
    assert!(moments.is_sorted(), "{moments:?}");
    assert!(moments.iter().all(|moment| (moment.as_second() - unix_now()).abs() < 300), "{moments:?}");
    let mut kv = daemon.kv("counter");
    assert_eq!(kv.remove("count"), Some(sent.to_string()));
    assert!(kv.values().all(|count| count == "1"), "{kv:?}");
    assert_eq!(daemon.stats()["balanced"], json!(true));
}
