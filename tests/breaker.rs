//! A plugin that fails again and again is paused on its own, says so everywhere, and works again without
//! anybody's doing.

#![allow(clippy::unwrap_used, reason = "what fails fails the test")]

use posthouse_harness::{Builder, Daemon, Event, Source, eventually, wait_until};
use serde_json::{Value, json};

/// A daemon whose counter trips after three failed attempts.
fn daemon(pause: &str) -> Builder {
    Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).guest("counter").guest("reader-writer").toml(&format!(
        "[plugin.counter]\nretry = {{ attempts = 9, base = \"10ms\", factor = 1.0 }}\n\
         breaker = {{ failures = 3, pause = {pause:?}, max_pause = \"2h\" }}\n"
    ))
}

/// An event whose first attempts fail.
fn failing(attempts: u32) -> Event {
    Event::new("user.created").data(json!({ "fail": attempts }))
}

fn breaker(daemon: &Daemon) -> Value {
    daemon.plugin("counter")["breaker"].clone()
}

fn wait_tripped(daemon: &Daemon) {
    wait_until("the plugin trips", || breaker(daemon)["state"] == "open");
}

#[test]
fn it_holds_its_deliveries_tries_one_after_each_pause_and_works_again() {
    let daemon = daemon("300ms").start();
    // The three that trip it, and one that is tried.
    let first = failing(4);
    assert!(daemon.post_event(&first).accepted());
    wait_until("the plugin has tripped", || breaker(&daemon)["pauses"] != 0);
    for _ in 0..5 {
        assert!(daemon.post_event(&failing(0)).accepted());
    }
    wait_until("its deliveries are done", || daemon.plugin("counter")["deliveries"]["done"] == 6);
    assert_eq!(breaker(&daemon)["state"], "closed");
    assert_eq!(daemon.plugin("counter")["state"], "serving");
    assert_eq!(daemon.kv("counter")["count"], "6");
    let history = daemon.event(&first.id)["history"].clone();
    let of_counter = history.as_array().unwrap().iter().find(|delivery| delivery["plugin"] == "counter");
    assert_eq!(of_counter.unwrap()["attempts"], 5, "what is held uses up no attempts");
    assert_eq!(daemon.plugin("reader-writer")["deliveries"]["done"], 6, "the other went on");
    assert_eq!(daemon.stats()["balanced"], json!(true));
}

#[test]
fn it_is_told_everywhere_and_a_resume_ends_it() {
    let daemon = daemon("1h")
        .source(Source::new("scalekit"))
        .source(Source::new("waiting").line("respond = \"handled\"").line("respond_timeout = \"1m\""))
        .start();
    assert!(daemon.post_event(&failing(3)).accepted());
    wait_tripped(&daemon);

    let plugin = daemon.plugin("counter");
    assert_eq!((&plugin["state"], &plugin["paused"]), (&json!("held"), &json!(false)));
    assert_eq!((&plugin["held"]["reason"], &plugin["breaker"]["pauses"]), (&json!("tripped"), &json!(1)));
    wait_until("its delivery is held", || daemon.plugin("counter")["deliveries"]["held"] == 1);
    let listed = daemon.cli(&["plugins"]).stdout;
    assert!(listed.contains("tripped, as 3 attempts in a row failed; the next is tried at"), "{listed}");
    let shown = daemon.cli(&["plugins", "show", "counter"]).stdout;
    assert!(shown.contains("open; 3 of 3 failed in a row, pauses of 1h to 2h"), "{shown}");
    let doctor = daemon.cli(&["doctor"]);
    assert!(doctor.stdout.contains("`counter` does not run: tripped"), "{}", doctor.stdout);
    let metrics = daemon.admin("GET", "/metrics", None).body;
    assert!(metrics.contains("posthouse_plugin_state{plugin=\"counter\",state=\"tripped\"} 1"), "{metrics}");
    for page in ["/", "/plugins", "/plugins/counter"] {
        let shown = daemon.admin("GET", page, None);
        assert!(shown.status == 200 && shown.body.contains("tripped, as 3 attempts"), "{page}: {shown}");
    }
    // Who waits for it to be handled hears what is said of any plugin that is held.
    let waiting = daemon.sender_of("waiting").post_event(&failing(0));
    assert_eq!((waiting.status, &waiting.json()["pending"]), (200, &json!(true)), "{waiting}");

    assert_eq!(daemon.cli(&["plugins", "resume", "counter"]).code, Some(0));
    daemon.wait_settled();
    assert_eq!((daemon.deliveries_in("dead"), daemon.kv("counter")["count"].as_str()), (0, "2"));
    assert_eq!(breaker(&daemon)["state"], "closed");
}

#[test]
fn a_start_tries_one_delivery_at_once() {
    let mut daemon = daemon("1h").start();
    // Tripped, it fails once more when it is tried.
    assert!(daemon.post_event(&failing(4)).accepted());
    wait_tripped(&daemon);
    daemon.stop();
    daemon.start();
    wait_until("one was tried", || breaker(&daemon)["pauses"] == 2);
    assert_eq!(breaker(&daemon)["state"], "open");
    for _ in 0..3 {
        assert!(daemon.post_event(&failing(0)).accepted());
    }
    daemon.kill();
    daemon.start();
    daemon.wait_settled();
    assert_eq!((daemon.kv("counter")["count"].as_str(), daemon.deliveries_in("dead")), ("4", 0));
    assert_eq!(breaker(&daemon)["state"], "closed");
}

#[test]
fn other_settings_end_it_and_zero_turns_it_off() {
    let mut daemon = daemon("1h").start();
    assert!(daemon.post_event(&failing(3)).accepted());
    wait_tripped(&daemon);
    daemon.edit_config(|config| config.replace("failures = 3", "failures = 0"));
    eventually("it is off", || (breaker(&daemon)["failures"] == 0).then_some(()));
    for _ in 0..3 {
        assert!(daemon.post_event(&failing(8)).accepted());
    }
    daemon.wait_settled();
    assert_eq!((daemon.kv("counter")["count"].as_str(), daemon.deliveries_in("dead")), ("4", 0));
    assert_eq!(breaker(&daemon)["state"], "closed");
}
