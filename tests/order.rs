//! With `order_by`, the events of one user run in the order of their arrival, whatever fails. No other
//! delivery waits for them.

#![allow(clippy::expect_used, reason = "what fails fails the test")]

use std::{collections::BTreeMap, thread, time::Duration};

use posthouse_harness::{Builder, Daemon, Event, Sender, seed, wait_until};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_posthouse");

/// A daemon with `last-state` and these settings.
fn with(settings: &str) -> Builder {
    Daemon::builder(BINARY)
        .guest("last-state")
        .set("log", "level = \"error\"")
        // Failures here are random, and not an outage to wait for.
        .toml(&format!("[plugin.last-state]\nbreaker = {{ failures = 0 }}\n{settings}"))
}

/// The events of one user, and the expected end.
struct Sequence {
    user: String,
    events: Vec<Event>,
    state: String,
    log: String,
}

/// A user who is created, changes and is deleted, and perhaps is created again. Attempts fail or trap. Some
/// events are rejected, or fail until they are given up.
fn sequence(dice: &mut StdRng, user: String, attempts: u32) -> Sequence {
    let mut kinds = vec!["created"];
    kinds.extend(std::iter::repeat_n("updated", dice.random_range(1..=4)));
    kinds.push("deleted");
    if dice.random_bool(0.2) {
        kinds.extend(["created", "updated"]);
    }
    let (mut events, mut state, mut log) = (Vec::new(), String::new(), Vec::new());
    for (n, kind) in kinds.iter().enumerate() {
        let last = n + 1 == kinds.len();
        let mut data = json!({ "user": { "id": user }, "n": n });
        // The last event always takes effect, because it decides the expected end.
        let (mut takes_effect, dies) = (true, dice.random_bool(0.1) && !last);
        match dice.random_range(0..10) {
            _ if dies && dice.random_bool(0.5) => {
                data["reject"] = json!(true);
                takes_effect = false;
            }
            _ if dies => {
                data["fail"] = json!(attempts);
                takes_effect = false;
            }
            0..=4 => {
                data["fail"] = json!(dice.random_range(1..attempts));
                data["trap"] = json!(dice.random_bool(0.3));
            }
            _ => {}
        }
        if takes_effect {
            state = format!("{kind} {n}");
            log.push(n.to_string());
        }
        events.push(Event::new(&format!("user.{kind}")).data(data));
    }
    Sequence { user, events, state, log: log.join(" ") }
}

/// Posts the events of each sequence in order, with the sequences mixed.
fn post(sender: &Sender, sequences: &[Sequence]) {
    thread::scope(|scope| {
        for part in sequences.chunks(sequences.len().div_ceil(4)) {
            scope.spawn(move || {
                let mut connection = None;
                let longest = part.iter().map(|sequence| sequence.events.len()).max().unwrap_or(0);
                for turn in 0..longest {
                    for event in part.iter().filter_map(|sequence| sequence.events.get(turn)) {
                        while !matches!(sender.try_post_event(&mut connection, event), Ok(answer) if answer.status == 200)
                        {
                            thread::sleep(Duration::from_millis(10));
                        }
                    }
                }
            });
        }
    });
}

fn assert_ended_right(daemon: &Daemon, sequences: &[Sequence]) {
    daemon.wait_settled();
    let kv: BTreeMap<_, _> = daemon.kv("last-state");
    for Sequence { user, state, log, .. } in sequences {
        assert_eq!(&kv[&format!("log/{user}")], log, "the order of {user}'s events");
        assert_eq!(&kv[&format!("state/{user}")], state, "how {user} ended");
    }
    let events: usize = sequences.iter().map(|sequence| sequence.events.len()).sum();
    let stats = daemon.stats();
    assert_eq!(stats["store"]["made"], json!(events), "{stats}");
    assert_eq!(stats["balanced"], json!(true), "{stats}");
}

#[test]
fn a_sequence_of_one_users_events_never_ends_in_another_state_than_the_last() {
    let mut dice = StdRng::seed_from_u64(seed());
    let daemon = with(
        "order_by = \"user\"\nretry = { attempts = 4, base = \"15ms\", factor = 1.5, jitter = 0.5 }\n\
         concurrency = 16",
    )
    .start();
    let sequences: Vec<_> = (0..120).map(|n| sequence(&mut dice, format!("usr_{n}"), 4)).collect();
    post(&daemon.sender(), &sequences);
    assert_ended_right(&daemon, &sequences);
}

#[test]
fn the_order_outlives_the_daemon_however_it_ends() {
    let mut dice = StdRng::seed_from_u64(seed());
    let mut daemon =
        with("order_by = \"/data/user/id\"\nretry = { attempts = 10, base = \"15ms\", factor = 1.0 }")
            .start();
    // A kill costs no attempt, so an event that must fail until it is given up does.
    let sequences: Vec<_> = (0..60).map(|n| sequence(&mut dice, format!("usr_{n}"), 10)).collect();
    let sender = daemon.sender();
    thread::scope(|scope| {
        let posting = scope.spawn(|| post(&sender, &sequences));
        let mut ends = 0;
        while !posting.is_finished() || ends < 6 {
            thread::sleep(Duration::from_millis(dice.random_range(20..400)));
            match ends % 3 {
                0 => daemon.kill(),
                1 => drop(daemon.stop()),
                _ => {
                    assert_eq!(daemon.cli(&["plugins", "pause", "last-state"]).code, Some(0));
                    thread::sleep(Duration::from_millis(dice.random_range(0..100)));
                    assert_eq!(daemon.cli(&["plugins", "resume", "last-state"]).code, Some(0));
                    ends += 1;
                    continue;
                }
            }
            ends += 1;
            daemon.start();
        }
    });
    assert_ended_right(&daemon, &sequences);
}

/// The test above only proves something if the order goes wrong without `order_by`.
#[test]
fn without_order_by_a_user_may_end_otherwise() {
    let daemon = with("retry = { attempts = 4, base = \"3s\", jitter = 0.0 }").start();
    let user = json!({ "id": "usr_1" });
    for (n, kind) in ["created", "deleted"].iter().enumerate() {
        let data = json!({ "user": user, "n": n, "fail": u32::from(n == 0) });
        assert!(daemon.post_event(&Event::new(&format!("user.{kind}")).data(data)).accepted());
    }
    daemon.wait_settled();
    assert_eq!(daemon.kv("last-state")["state/usr_1"], "created 0");
}

#[test]
fn one_that_waits_holds_back_its_key_and_nobody_else() {
    let daemon = with("order_by = \"user\"\nretry = { attempts = 2, base = \"1h\" }").start();
    let post = |user: &str, n: u32, fail: u32| {
        let data = json!({ "user": { "id": user }, "n": n, "fail": fail });
        assert!(daemon.post_event(&Event::new("user.updated").data(data)).accepted());
    };
    post("usr_stuck", 0, 1);
    for n in 1..50 {
        post("usr_stuck", n, 0);
        post("usr_free", n, 0);
    }
    wait_until("the other user's events are done", || daemon.deliveries_in("done") == 49);
    assert_eq!(daemon.deliveries_in("waiting"), 50);
    let kv = daemon.kv("last-state");
    assert_eq!(kv["state/usr_free"], "updated 49");
    assert!(!kv.contains_key("state/usr_stuck"), "{kv:?}");
    // A delivery that waits for its turn has no due time, and names the delivery that it waits for.
    let waiting = daemon.deliveries("state=waiting&");
    let due: Vec<&Value> = waiting.iter().filter(|delivery| !delivery["due_at"].is_null()).collect();
    assert_eq!(due.len(), 1, "{due:?}");
    let stuck = &due[0]["id"];
    let behind = waiting.iter().filter(|delivery| delivery["behind"] == *stuck).count();
    assert_eq!((behind, &due[0]["behind"]), (49, &Value::Null), "{waiting:?}");
    let listed = daemon.cli(&["deliveries", "--state", "waiting"]);
    let said = format!("blocked by {}", stuck.as_str().expect("an id"));
    assert!(listed.stdout.contains(&said), "{listed:?}");
    assert_eq!(daemon.stats()["balanced"], json!(true));
}

#[test]
fn a_replay_runs_after_what_waits_of_its_key() {
    let mut daemon = with("order_by = \"user\"\nretry = { attempts = 1 }").start();
    let event = |n: u32, reject: bool| {
        let data = json!({ "user": { "id": "usr_1" }, "n": n, "reject": reject });
        Event::new("user.updated").data(data)
    };
    let first = event(0, false);
    assert!(daemon.post_event(&first).accepted());
    for n in 1..4 {
        assert!(daemon.post_event(&event(n, true)).accepted());
    }
    daemon.wait_settled();
    assert_eq!(daemon.deliveries_in("dead"), 3);

    // Held: new deliveries run in the order in which they were created.
    assert_eq!(daemon.cli(&["plugins", "pause", "last-state"]).code, Some(0));
    assert!(daemon.post_event(&event(9, false)).accepted());
    assert_eq!(daemon.cli(&["replay", &first.id]).code, Some(0));
    assert_eq!(daemon.cli(&["replay", "--dead"]).code, Some(0));
    daemon.restart();
    assert_eq!(daemon.cli(&["plugins", "resume", "last-state"]).code, Some(0));
    daemon.wait_settled();
    assert_eq!(daemon.kv("last-state")["log/usr_1"], "0 9 0");
    // The dead ones died again, the oldest first.
    let mut dead = daemon.deliveries("state=dead&");
    dead.retain(|delivery| !delivery["replay_of"].is_null());
    dead.sort_by_key(|delivery| delivery["finished_at"].to_string());
    let order: Vec<_> = dead.iter().map(|delivery| delivery["event"].to_string()).collect();
    assert!(order.is_sorted() && order.len() == 3, "{order:?}");
}
