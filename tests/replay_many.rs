//! A hundred thousand dead letters are replayed at once. Each runs once, though the daemon is killed
//! meanwhile. New events do not wait for them, and the daemon reports how many are left.

#![allow(clippy::unwrap_used, reason = "what fails fails the test")]

use std::{thread, time::Instant};

use posthouse_harness::{Daemon, Event, wait_until};
use serde_json::json;

const MANY: u64 = 100_000;
/// Events that arrive meanwhile.
const LIVE: u64 = 20;

#[test]
fn a_hundred_thousand_dead_letters_replayed_at_once_keep_nothing_else_waiting() {
    let mut daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .guest("counter")
        .set("log", r#"level = "warn""#)
        .toml("[plugin.counter]\nreuse = 1000\n")
        .start();
    assert!(daemon.post_event(&event()).accepted());
    daemon.wait_settled();
    daemon.stop();
    copy_as_dead_letters(&daemon);
    daemon.start();
    assert_eq!(daemon.deliveries_in("dead"), MANY);
    let doctor = |daemon: &Daemon| daemon.cli(&["doctor"]).stdout;
    assert!(doctor(&daemon).contains(&format!("{MANY} dead letters not replayed")));

    let began = Instant::now();
    let left = |daemon: &Daemon| daemon.stats()["store"]["replays_waiting"].as_u64().unwrap();
    thread::scope(|scope| {
        let replayed = scope.spawn(|| daemon.admin_post("/v1/replay", &json!({ "dead": true })));
        wait_until("the first wait for their turn", || left(&daemon) > 0);
        for live in 0..LIVE {
            let event = event();
            assert!(daemon.post_event(&event).accepted());
            wait_until("it is handled", || daemon.event(&event.id)["history"][0]["state"] == "done");
            assert!(left(&daemon) > 0, "the replays were done before event {live}: nothing was tested");
        }
        let overview = daemon.admin("GET", "/", None).body;
        assert!(overview.contains("deliveries wait for their turn"), "{overview}");
        assert!(daemon.cli(&["stats"]).stdout.contains("wait for their turn"));
        assert!(doctor(&daemon).contains("wait for their turn"));
        let metrics = daemon.admin("GET", "/metrics", None).body;
        let told = metrics
            .lines()
            .find_map(|line| line.strip_prefix("posthouse_replays_waiting{plugin=\"counter\"} "));
        assert!(told.and_then(|count| count.parse().ok()) > Some(0), "{metrics}");
        assert!(daemon.cli(&["plugins", "show", "counter"]).stdout.contains("wait for their turn"));
        let answer = replayed.join().unwrap();
        assert_eq!((answer.status, &answer.json()["count"]), (200, &json!(MANY)), "{answer}");
    });
    let made = began.elapsed();
    let stats = daemon.stats();
    assert_eq!((&stats["store"]["made"], &stats["balanced"]), (&json!(1 + 2 * MANY + LIVE), &json!(true)));

    // The promised replays are on disk.
    daemon.kill();
    daemon.start();
    let unfinished = |daemon: &Daemon| 1 + MANY + LIVE - daemon.deliveries_in("done");
    while unfinished(&daemon) > 0 {
        let before = unfinished(&daemon);
        wait_until("more of them are done", || before == 0 || unfinished(&daemon) < before);
    }
    let stats = daemon.stats();
    assert_eq!(
        (&stats["store"]["replays_waiting"], &stats["balanced"]),
        (&json!(0), &json!(true)),
        "{stats}"
    );
    assert_eq!(stats["store"]["states"]["dead"], json!(MANY), "the dead letters are history");
    let said = doctor(&daemon);
    assert!(said.contains("accepts events") && !said.contains("not replayed"), "they were replayed: {said}");
    let kv = daemon.kv("counter");
    assert_eq!(kv["count"], (1 + MANY + LIVE).to_string());
    assert!(kv.iter().all(|(key, count)| key == "count" || count == "1"));
    assert_eq!(daemon.admin_post("/v1/replay", &json!({ "dead": true })).json()["count"], 0, "each once");
    eprintln!("{MANY} replays were made in {made:?} and done after {:?}", began.elapsed());
}

fn event() -> Event {
    Event::new("user.created").data(json!({}))
}

/// Copies the only event this often. Each copy has its own id, and a delivery that was given up.
fn copy_as_dead_letters(daemon: &Daemon) {
    let store = rusqlite::Connection::open(daemon.dir().join("data/posthouse.db")).unwrap();
    let copies = format!(
        "BEGIN;
         CREATE TEMP TABLE n AS
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY}) SELECT i FROM n;
         INSERT INTO delivery (id, event, plugin, state, attempts, made_at, due_at, finished_at, error)
         SELECT id + i, event + i, plugin, 4, 4, made_at, due_at, finished_at, 'mended since' FROM delivery, n;
         INSERT INTO event (seq, source, type, received_at, first_delivery, fanout, data_start, data_end, id, body)
         SELECT seq + i, source, type, received_at, first_delivery + i, 1, data_start, data_end, 'copy_' || i, body
         FROM event, n;
         UPDATE sequence SET next_event = next_event + {MANY}, next_delivery = next_delivery + {MANY};
         UPDATE tally SET dead = dead + {MANY}, made = made + {MANY};
         COMMIT;"
    );
    store.execute_batch(&copies).unwrap();
}
