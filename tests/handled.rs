//! `respond = "handled"`: the answer tells the sender the results of the first attempts, in the words of
//! Scalekit's page. With every answer, the event is on disk.

#![allow(clippy::expect_used, reason = "what fails fails the test")]

use std::thread;

use posthouse_harness::{Answer, Builder, Daemon, Event, Source, wait_until};
use serde_json::{Value, json};

/// Computes for longer than its attempt may take.
const FOR_EVER: u64 = 1 << 60;

/// A daemon whose source answers when its events are handled, or after this time.
fn handled(within: &str) -> Builder {
    let source =
        Source::new("scalekit").line("respond = \"handled\"").line(&format!("respond_timeout = {within:?}"));
    Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).source(source).toml(
        r#"
        [plugins.retry]
        attempts = 2
        base = "20ms"
        [plugins.limits]
        time = "3s"
        "#,
    )
}

fn event(data: Value) -> Event {
    Event::new("user.created").data(data)
}

fn said(answer: &Answer) -> (u16, Value) {
    (answer.status, answer.json())
}

/// Each event had one request, and all were accepted.
fn assert_taken_in(daemon: &Daemon, events: u64) {
    let stats = daemon.stats();
    let requests = &stats["requests"]["scalekit"];
    assert_eq!((&requests["received"], &requests["accepted"]), (&json!(events), &json!(events)), "{stats}");
    assert_eq!(daemon.events().len() as u64, events);
    assert_eq!(stats["balanced"], json!(true), "{stats}");
}

#[test]
fn what_every_plugin_has_done_is_received() {
    let daemon = handled("1m").guest("counter").guest("reader-writer").start();
    for handled in 1..=20 {
        assert_eq!(said(&daemon.post_event(&event(json!({})))), (200, json!({ "received": true })));
        // The effects are committed before the answer.
        assert_eq!(daemon.kv("counter")["count"], handled.to_string());
    }
    assert_taken_in(&daemon, 20);
}

#[test]
fn without_a_plugin_that_wants_it_an_event_is_received() {
    let daemon = handled("1m").start();
    assert_eq!(said(&daemon.post_event(&event(json!({})))), (200, json!({ "received": true })));
    assert_taken_in(&daemon, 1);
}

#[test]
fn what_a_plugin_refuses_for_good_is_received_with_a_warning() {
    let daemon = handled("1m").guest("counter").guest("reader-writer").start();
    let expected = json!({ "received": true, "warning": "asked to refuse" });
    assert_eq!(said(&daemon.post_event(&event(json!({ "reject": true })))), (200, expected));
    assert_eq!(daemon.deliveries_in("dead"), 1);
    assert_taken_in(&daemon, 1);
}

#[test]
fn what_failed_is_a_critical_error_and_is_tried_again_all_the_same() {
    let daemon = handled("1m").guest("counter").start();
    let event = event(json!({ "fail": 1 }));
    let expected = (500, json!({ "error": "Critical processing error" }));
    assert_eq!(said(&daemon.post_event(&event)), expected);
    // The sender's next try finds the event stored.
    assert!(daemon.post_event(&event).duplicate());
    daemon.wait_settled();
    assert_eq!(daemon.deliveries_in("done"), 1);
    assert_eq!(daemon.kv("counter")["count"], "1");
    let stats = daemon.stats();
    let requests = &stats["requests"]["scalekit"];
    assert_eq!((&requests["accepted"], &requests["duplicate"]), (&json!(1), &json!(1)), "{stats}");
    assert_eq!(stats["balanced"], json!(true), "{stats}");
}

#[test]
fn what_is_not_finished_in_time_is_pending() {
    let daemon = handled("200ms").guest("counter").start();
    let expected = (200, json!({ "received": true, "pending": true }));
    assert_eq!(said(&daemon.post_event(&event(json!({ "spin": FOR_EVER })))), expected);
    assert_taken_in(&daemon, 1);
}

#[test]
fn what_a_held_plugin_has_to_do_is_pending_and_nobody_waits_for_it() {
    let daemon = handled("1m").guest("counter").guest("reader-writer").start();
    assert_eq!(daemon.cli(&["plugins", "pause", "counter"]).code, Some(0));
    let expected = (200, json!({ "received": true, "pending": true }));
    // This does not take a minute: the harness would not wait so long.
    assert_eq!(said(&daemon.post_event(&event(json!({})))), expected);
    assert_eq!(daemon.cli(&["plugins", "resume", "counter"]).code, Some(0));
    daemon.wait_settled();
    assert_eq!(daemon.kv("counter")["count"], "1");
    assert_taken_in(&daemon, 1);
}

#[test]
fn a_copy_that_comes_meanwhile_is_a_duplicate_at_once() {
    let daemon = handled("1m").guest("counter").start();
    let event = event(json!({ "spin": FOR_EVER }));
    let sender = daemon.sender();
    thread::scope(|scope| {
        let first = scope.spawn(|| sender.post_event(&event));
        wait_until("the event is on disk", || !daemon.events().is_empty());
        assert!(daemon.post_event(&event).duplicate());
        // The first attempt exceeds its time limit.
        assert_eq!(first.join().expect("an answer").status, 500);
    });
    assert_eq!(daemon.deliveries("").len(), 1);
}

#[test]
fn the_answers_of_other_sources_and_of_bad_requests_stay_as_they_are() {
    let daemon = handled("1m").source(Source::new("plain")).guest("counter").start();
    let plain = daemon.sender_of("plain");
    assert!(plain.post_event(&event(json!({ "reject": true }))).accepted());
    let mut headers = daemon.sender().signer.sign_now("msg_1", b"{}");
    let answer = daemon.sender().post(&headers, b"{}");
    assert_eq!((answer.status, answer.json()["error"].clone()), (400, json!("Invalid payload")));
    headers.retain(|(name, _)| !name.ends_with("signature"));
    assert_eq!(daemon.sender().post(&headers, b"{}").status, 401);
}

#[test]
fn who_waits_when_the_daemon_dies_hears_nothing_and_the_event_is_handled() {
    let mut daemon = handled("1m").guest("counter").start();
    let event = event(json!({ "spin": 1_u64 << 31 }));
    let sender = daemon.sender();
    let waiting = thread::spawn({
        let event = event.clone();
        move || sender.try_post_event(&mut None, &event)
    });
    wait_until("the event is on disk", || !daemon.events().is_empty());
    daemon.kill();
    let _ = waiting.join().expect("a thread that posts");
    daemon.start();
    assert!(daemon.post_event(&event).duplicate());
    daemon.wait_settled();
    assert_eq!(daemon.deliveries("").len(), 1);
}
