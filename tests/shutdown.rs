//! On SIGTERM, the daemon accepts nothing more, lets attempts end, and exits with 0. Attempts that did not
//! end in time run after the next start.

use posthouse_harness::{Builder, Connection, Daemon, Event, Load, wait_until};
use rustix::process::Signal;
use serde_json::json;

/// Rounds that take a guest about a second.
const ABOUT_A_SECOND: u64 = 1_000_000_000;

#[test]
fn an_attempt_under_way_ends_before_the_daemon_does() {
    let mut daemon = counting(r#"shutdown_timeout = "120s""#).start();
    begin_a_long_attempt(&daemon);

    daemon.signal(Signal::TERM);
    wait_until("nothing is taken in any more", || Connection::open(daemon.address()).is_err());
    assert!(daemon.wait_ended().success());

    // Read from the store's file, while no daemon runs.
    assert_eq!(daemon.kv("counter").get("count").map(String::as_str), Some("1"));
}

#[test]
fn an_attempt_that_takes_too_long_is_left_and_runs_after_the_next_start() {
    let mut daemon = counting(r#"shutdown_timeout = "100ms""#).start();
    begin_a_long_attempt(&daemon);

    assert!(daemon.stop().success());
    assert_eq!(daemon.kv("counter").get("count"), None, "the attempt was left, and so left nothing");

    daemon.start();
    daemon.wait_settled();
    assert_eq!(daemon.deliveries_in("done"), 1);
    assert_eq!(daemon.kv("counter").get("count").map(String::as_str), Some("1"));
}

#[test]
fn under_load_every_stop_is_clean_and_nothing_is_lost() {
    let mut daemon = counting(r#"shutdown_timeout = "10s""#).start();
    let load = Load::start(&daemon.sender(), 200, |n| {
        Event::new("user.created").data(json!({ "spin": if n.is_multiple_of(10) { 5_000_000 } else { 0 } }))
    });
    for _ in 0..5 {
        let before = load.acknowledged();
        wait_until("events flow", || load.acknowledged() > before + 50);
        assert!(daemon.stop().success());
        daemon.start();
    }
    let report = load.stop();
    daemon.wait_settled();
    assert!(!report.failures.is_empty(), "no request met a daemon that was gone: nothing was tested");

    let events = report.acknowledged.len();
    assert_eq!(daemon.events().len(), events);
    let stats = daemon.stats();
    assert_eq!(stats["store"]["states"]["done"], json!(events), "{stats}");
    let mut kv = daemon.kv("counter");
    assert_eq!(kv.remove("count"), Some(events.to_string()));
    for id in &report.acknowledged {
        assert_eq!(kv.get(&format!("seen/{id}")).map(String::as_str), Some("1"), "{id}");
    }
}

#[test]
fn a_second_signal_ends_the_daemon_at_once_and_loses_nothing() {
    let mut daemon = counting(r#"shutdown_timeout = "10m""#).start();
    // Rounds that take a guest longer than this test may take.
    let event = Event::new("user.created").data(json!({ "spin": 1_000 * ABOUT_A_SECOND }));
    assert!(daemon.post_event(&event).accepted());
    wait_until("the attempt runs", || daemon.deliveries_in("leased") == 1);
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM)] {
        daemon.signal(first);
        wait_until("nothing is taken in any more", || Connection::open(daemon.address()).is_err());
        daemon.signal(second);
        assert!(daemon.wait_ended().success());
        assert!(daemon.log().contains("a second signal stops at once"), "{}", daemon.log());
        daemon.start();
        wait_until("the delivery is there", || {
            daemon.deliveries_in("leased") + daemon.deliveries_in("ready") == 1
        });
    }
    assert_eq!(daemon.events().len(), 1);
}

fn counting(server: &str) -> Builder {
    Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .guest("counter")
        .set("server", server)
        .toml("[plugin.counter.limits]\ntime = \"120s\"")
}

fn begin_a_long_attempt(daemon: &Daemon) {
    let event = Event::new("user.created").data(json!({ "spin": ABOUT_A_SECOND }));
    assert!(daemon.post_event(&event).accepted());
    wait_until("the attempt runs", || daemon.deliveries_in("leased") == 1);
}
