//! Guests that do what a plugin must not do are stopped, each at its limit, which the attempt names. They are
//! retried and become dead letters, and a healthy plugin continues beside them.

use std::time::{Duration, Instant};

use posthouse_harness::{Builder, Daemon, Event, wait_until};
use serde_json::{Value, json};

/// The actions of the guest `hostile`, each with the limits of which one must stop it.
const STOPPED_AT: [(&str, &[&str]); 10] = [
    ("spin", &["time"]),
    ("grow", &["memory"]),
    ("recurse", &["stack"]),
    ("nest", &["stack"]),
    ("log-flood", &["log_lines"]),
    ("stage-flood", &["staged_items"]),
    ("mail-flood", &["staged_items"]),
    ("big-key", &["hostcall"]),
    ("big-value", &["hostcall"]),
    ("list-flood", &["time", "reads"]),
];

#[test]
fn what_has_no_end_is_stopped_at_its_limit_retried_and_given_up() {
    let daemon = daemon().start();
    let events: Vec<_> = STOPPED_AT.iter().map(|(action, _)| ask(&daemon, action)).collect();
    daemon.wait_settled();

    for ((action, limits), event) in STOPPED_AT.iter().zip(&events) {
        let delivery = delivery(&daemon, event);
        assert_eq!(delivery["state"], json!("dead"), "{action}: {delivery}");
        let attempts = delivery["attempt_log"].as_array().unwrap();
        for attempt in attempts {
            let error = attempt["error"].as_str().unwrap_or_default();
            let named = limits.iter().any(|limit| error.contains(&format!("limit `{limit}`")));
            assert!(named, "{action} is to be stopped by one of {limits:?}: {attempt}");
        }
        assert_eq!(attempts.len(), 3, "{action}: {delivery}");
    }
    assert!(daemon.kv("hostile").is_empty(), "a stopped attempt left something");
    assert!(daemon.mails().is_empty(), "a stopped attempt sent something");
    assert_eq!(daemon.stats()["balanced"], json!(true));
}

#[test]
fn a_trap_leaves_its_stack_and_nothing_else() {
    let daemon = daemon().start();
    let events = ["trap", "stage-and-trap"].map(|action| ask(&daemon, action));
    daemon.wait_settled();
    for event in &events {
        let delivery = delivery(&daemon, event);
        assert_eq!((&delivery["state"], &delivery["attempts"]), (&json!("dead"), &json!(3)), "{delivery}");
        let trace = delivery["attempt_log"][0]["trace"].as_str().unwrap_or_default();
        assert!(trace.contains("tripwire"), "the trace must name the guest's function: {delivery}");
    }
    assert!(daemon.kv("hostile").is_empty(), "a trapped attempt left something");
}

#[test]
fn what_is_too_long_is_cut() {
    let daemon = daemon().start();
    let [reason, line] = ["huge-reason", "big-line"].map(|action| ask(&daemon, action));
    daemon.wait_settled();

    let reason = delivery(&daemon, &reason);
    assert_eq!((&reason["state"], &reason["attempts"]), (&json!("dead"), &json!(3)), "{reason}");
    let kept = reason["attempt_log"][0]["error"].as_str().unwrap().len();
    assert!((1000..5000).contains(&kept), "4 KiB of the reason are kept, not {kept} bytes");

    let line = delivery(&daemon, &line);
    assert_eq!(line["state"], json!("done"), "{line}");
    let message = line["attempt_log"][0]["logs"][0]["message"].as_str().unwrap();
    assert!(
        message.len() < 9000 && message.contains("log_line"),
        "{} bytes of a line are kept",
        message.len()
    );
}

/// While hostile guests have much work left, a healthy plugin does all of its work. The test prints how fast,
/// with them and without, and does not judge it.
#[test]
fn a_healthy_plugin_goes_on_beside_hostile_ones() {
    const EVENTS: u64 = 200;
    let daemon = daemon().guest("counter").toml("[plugin.counter]\nevents = [\"user.*\"]").start();
    let alone = handle_all(&daemon, EVENTS, EVENTS);

    for _ in 0..40 {
        for action in ["spin", "grow"] {
            ask(&daemon, action);
        }
    }
    wait_until("hostile guests run", || daemon.deliveries_in("leased") > 0);
    let beside = handle_all(&daemon, EVENTS, 2 * EVENTS);

    let open = unfinished(&daemon, "hostile");
    assert!(open > 0, "the hostile guests were done first: nothing was tested");
    assert_eq!(daemon.kv("counter").get("count"), Some(&(2 * EVENTS).to_string()));
    eprintln!(
        "{EVENTS} events took a healthy plugin {alone:?} alone and {beside:?} beside hostile guests, \
         which had {open} deliveries left"
    );
}

/// Posts this many events for the counter and waits until it has handled `done` in all.
fn handle_all(daemon: &Daemon, events: u64, done: u64) -> Duration {
    let began = Instant::now();
    for _ in 0..events {
        assert!(daemon.post_event(&Event::new("user.created").data(json!({}))).accepted());
    }
    wait_until("the healthy plugin has done its work", || {
        daemon.plugin("counter")["deliveries"]["done"].as_u64() == Some(done)
    });
    began.elapsed()
}

fn unfinished(daemon: &Daemon, plugin: &str) -> u64 {
    let states = daemon.plugin(plugin)["deliveries"].clone();
    ["ready", "leased", "waiting"].iter().filter_map(|state| states[state].as_u64()).sum()
}

fn daemon() -> Builder {
    Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).guest("hostile").toml(
        r#"
        [plugin.hostile]
        events = ["hostile.*"]
        retry = { attempts = 3, base = "10ms", factor = 1.0 }
        breaker = { failures = 0 }
        [plugin.hostile.limits]
        time = "2s"
        [plugin.hostile.grants]
        mail = { from = ["team@example.com"], to = ["*"] }
        "#,
    )
}

/// Posts an event that asks the guest for this action.
#[track_caller]
fn ask(daemon: &Daemon, action: &str) -> Event {
    let event = Event::new("hostile.asked").data(json!({ "action": action }));
    let answer = daemon.post_event(&event);
    assert!(answer.accepted(), "{answer}");
    event
}

/// The event's only delivery with all its attempts.
fn delivery(daemon: &Daemon, event: &Event) -> Value {
    daemon.event(&event.id)["history"][0].clone()
}
