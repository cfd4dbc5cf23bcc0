//! A plugin that fails repeatedly is paused automatically, reports that everywhere, and resumes
//! automatically. Bad events alone pause it only for moments.

#![allow(clippy::unwrap_used, reason = "what fails fails the test")]

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use posthouse_harness::{Builder, Daemon, Event, Source, WebReply, WebServer, eventually, wait_until};
use serde_json::{Value, json};

/// A daemon whose counter trips after three failed deliveries.
fn daemon(pause: &str) -> Builder {
    Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).guest("counter").guest("reader-writer").toml(&format!(
        "[plugin.counter]\nretry = {{ attempts = 9, base = \"1s\", factor = 1.0 }}\n\
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

/// Runs three events at once that fail this often, which trips the plugin.
fn trip(daemon: &Daemon, attempts: u32) -> [Event; 3] {
    let events = [attempts; 3].map(failing);
    assert_eq!(daemon.cli(&["plugins", "pause", "counter"]).code, Some(0));
    for event in &events {
        assert!(daemon.post_event(event).accepted());
    }
    assert_eq!(daemon.cli(&["plugins", "resume", "counter"]).code, Some(0));
    events
}

/// The event's delivery for the plugin.
fn delivery(daemon: &Daemon, event: &Event, plugin: &str) -> Value {
    let history = daemon.event(&event.id)["history"].clone();
    let of_plugin = history.as_array().unwrap().iter().find(|delivery| delivery["plugin"] == plugin);
    of_plugin.unwrap().clone()
}

fn wait_tripped(daemon: &Daemon) {
    wait_until("the plugin trips", || breaker(daemon)["state"] == "open");
}

#[test]
fn it_holds_its_deliveries_tries_one_after_each_pause_and_works_again() {
    let daemon = daemon("100ms").start();
    let events = trip(&daemon, 2);
    wait_until("its deliveries are done", || daemon.plugin("counter")["deliveries"]["done"] == 3);
    assert_eq!(breaker(&daemon)["state"], "closed");
    assert_eq!(daemon.plugin("counter")["state"], "serving");
    assert_eq!(daemon.kv("counter")["count"], "3");
    for event in &events {
        let attempts = delivery(&daemon, event, "counter")["attempts"].clone();
        assert_eq!(attempts, 3, "what is held uses up no attempts");
    }
    assert!(daemon.log().contains("its deliveries are held"), "{}", daemon.log());
    assert_eq!(daemon.plugin("reader-writer")["deliveries"]["done"], 3, "the other went on");
    assert_eq!(daemon.stats()["balanced"], json!(true));
}

#[test]
fn it_is_told_everywhere_and_a_resume_ends_it() {
    let daemon = daemon("1h")
        .source(Source::new("scalekit"))
        .source(Source::new("waiting").line("respond = \"handled\"").line("respond_timeout = \"1m\""))
        .start();
    trip(&daemon, 1);
    wait_tripped(&daemon);

    let plugin = daemon.plugin("counter");
    assert_eq!((&plugin["state"], &plugin["paused"]), (&json!("held"), &json!(false)));
    assert_eq!((&plugin["held"]["reason"], &plugin["breaker"]["pauses"]), (&json!("tripped"), &json!(1)));
    wait_until("its deliveries are held", || daemon.plugin("counter")["deliveries"]["held"] == 3);
    let listed = daemon.cli(&["plugins"]).stdout;
    assert!(listed.contains("tripped: 3 different deliveries failed in a row; new ones"), "{listed}");
    let shown = daemon.cli(&["plugins", "show", "counter"]).stdout;
    assert!(shown.contains("open; 3 of 3 deliveries failed in a row, pauses of 1h to 2h"), "{shown}");
    let doctor = daemon.cli(&["doctor"]);
    assert!(doctor.stdout.contains("`counter` does not run: tripped"), "{}", doctor.stdout);
    let metrics = daemon.admin("GET", "/metrics", None).body;
    assert!(metrics.contains("posthouse_plugin_state{plugin=\"counter\",state=\"tripped\"} 1"), "{metrics}");
    for page in ["/", "/plugins", "/plugins/counter"] {
        let shown = daemon.admin("GET", page, None);
        assert!(shown.status == 200 && shown.body.contains("tripped: 3 different"), "{page}: {shown}");
    }
    // A sender that waits for `handled` gets the same answer as for any held plugin.
    let waiting = daemon.sender_of("waiting").post_event(&failing(1));
    assert_eq!((waiting.status, &waiting.json()["pending"]), (200, &json!(true)), "{waiting}");

    assert_eq!(daemon.cli(&["plugins", "resume", "counter"]).code, Some(0));
    daemon.wait_settled();
    assert_eq!((daemon.deliveries_in("dead"), daemon.kv("counter")["count"].as_str()), (0, "4"));
    assert_eq!(breaker(&daemon)["state"], "closed");
}

#[test]
fn a_start_has_a_trial_at_once_and_a_delivery_that_never_ran_need_not_wait() {
    let mut daemon = daemon("1h").start();
    let events = trip(&daemon, 6);
    wait_tripped(&daemon);
    wait_until("nothing runs any more", || daemon.plugin("counter")["deliveries"]["held"] == 3);
    let attempts = |daemon: &Daemon| {
        let mut attempts =
            events.each_ref().map(|event| delivery(daemon, event, "counter")["attempts"].as_u64().unwrap());
        attempts.sort_unstable();
        attempts
    };
    let mut expected = attempts(&daemon);
    for pauses in [2, 3] {
        expected[0] += 1;
        expected.sort_unstable();
        daemon.stop();
        daemon.start();
        wait_until("one was tried", || breaker(&daemon)["pauses"] == pauses);
        assert_eq!(breaker(&daemon)["state"], "open");
    }
    assert_eq!(attempts(&daemon), expected, "at each start one, the one with the fewest attempts");
    daemon.kill();
    daemon.start();
    for _ in 0..3 {
        assert!(daemon.post_event(&failing(0)).accepted());
    }
    daemon.wait_settled();
    assert_eq!((daemon.kv("counter")["count"].as_str(), daemon.deliveries_in("dead")), ("6", 0));
    assert_eq!(breaker(&daemon)["state"], "closed");
}

#[test]
fn other_settings_end_it_and_zero_turns_it_off() {
    let mut daemon = daemon("1h").start();
    trip(&daemon, 1);
    wait_tripped(&daemon);
    daemon.edit_config(|config| config.replace("failures = 3", "failures = 0"));
    eventually("it is off", || (breaker(&daemon)["failures"] == 0).then_some(()));
    for _ in 0..3 {
        assert!(daemon.post_event(&failing(2)).accepted());
    }
    daemon.wait_settled();
    assert_eq!((daemon.kv("counter")["count"].as_str(), daemon.deliveries_in("dead")), ("6", 0));
    assert_eq!(breaker(&daemon)["state"], "closed");
}

/// The pauses are longer than the test's longest wait.
#[test]
fn bad_events_keep_no_good_one_waiting() {
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .guest("counter")
        .toml(
            "[plugin.counter]\nretry = { attempts = 4, base = \"10ms\", factor = 1.0 }\n\
             breaker = { pause = \"1h\", max_pause = \"2h\" }\n",
        )
        .start();
    let (mut good, mut dead) = (0_u64, 0_u64);
    for bad in [5_usize, 20, 100] {
        let events: Vec<_> = (0..bad).map(|_| failing(99)).chain((0..30).map(|_| failing(0))).collect();
        for event in &events {
            assert!(daemon.post_event(event).accepted());
        }
        (good, dead) = (good + 30, dead + bad as u64);
        wait_until("the good ones are done", || daemon.deliveries_in("done") == good);
        wait_until("the bad ones are dead letters", || daemon.deliveries_in("dead") == dead);
        for event in &events[..bad] {
            assert_eq!(delivery(&daemon, event, "counter")["attempts"], 4);
        }
    }
    assert_eq!(daemon.kv("counter")["count"], good.to_string());
    assert_eq!(breaker(&daemon)["state"], "closed");
}

#[test]
fn a_bad_event_holds_those_of_its_order_key_and_no_others() {
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .guest("counter")
        .toml(
            "[plugin.counter]\norder_by = \"/data/key\"\nretry = { attempts = 3, base = \"10ms\", factor = 1.0 }\n\
             breaker = { failures = 3, pause = \"1h\", max_pause = \"2h\" }\n",
        )
        .start();
    let keyed = |key: usize, fail: u32| {
        Event::new("user.created").data(json!({ "key": key.to_string(), "fail": fail }))
    };
    // The first event of each of ten keys is bad, and a good one waits behind it. Twenty other keys are good.
    for key in 0..10 {
        assert!(daemon.post_event(&keyed(key, 99)).accepted());
        assert!(daemon.post_event(&keyed(key, 0)).accepted());
    }
    for key in 10..30 {
        assert!(daemon.post_event(&keyed(key, 0)).accepted());
    }
    wait_until("all is finished", || {
        (daemon.deliveries_in("dead"), daemon.deliveries_in("done")) == (10, 30)
    });
}

/// The service answers `Retry-After: 0` for seconds, as long as it is busy.
#[test]
fn a_service_that_asks_for_less_than_it_needs_loses_nothing() {
    static BUSY: AtomicBool = AtomicBool::new(true);
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let server = WebServer::start(|_| {
        ASKED.fetch_add(1, Relaxed);
        if BUSY.load(Relaxed) {
            WebReply::status(503).with("retry-after", "0")
        } else {
            WebReply::status(204)
        }
    });
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .guest("http-probe")
        .toml(&format!(
            "[plugin.http-probe]\nbreaker = {{ pause = \"1s\" }}\n\
             [plugin.http-probe.grants]\nhttp = [{:?}]\n",
            server.url("")
        ))
        .start();
    let events: Vec<_> = (0..30)
        .map(|_| {
            let request = json!({ "url": server.url("/"), "must": true });
            Event::new("user.created").data(json!({ "requests": [request] }))
        })
        .collect();
    for event in &events {
        assert!(daemon.post_event(event).accepted());
    }
    wait_until("the plugin is tried again", || {
        daemon.plugin("http-probe")["breaker"]["pauses"].as_u64().is_some_and(|pauses| pauses > 1)
    });
    std::thread::sleep(Duration::from_secs(3));
    assert!(ASKED.load(Relaxed) < 100, "it is not asked all the while");
    assert_eq!(daemon.deliveries_in("dead"), 0);
    BUSY.store(false, Relaxed);
    wait_until("all are done", || daemon.deliveries_in("done") == 30);
    assert_eq!(daemon.deliveries_in("dead"), 0);
}
