//! A daemon that is killed at any moment has lost nothing that it acknowledged and done nothing twice.
//!
//! The story: events stream in, each posted until it is acknowledged, as by real senders. Meanwhile the
//! daemon is killed repeatedly (SIGKILL, like a power cut): while it starts, while it accepts events, while
//! guests run, while effects commit, while mail leaves. At the end:
//!
//! - every acknowledged event is in the store, once;
//! - every delivery is done, including those that had to fail first;
//! - the counts in the key-value store are exact to the unit: no effect is lost, none counts twice;
//! - every mail has left; if a mail left twice, it has the same Message-ID both times.

#![allow(clippy::expect_used, reason = "what fails fails the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::Duration,
};

use posthouse_harness::{Daemon, Event, Load, SmtpOptions, SmtpServer, seed};
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;

/// Kills in each run of the suite. `POSTHOUSE_KILLS` sets another number: `cargo xtask soak` makes it 10,000.
const KILLS: u32 = 130;
const EVENTS_PER_SECOND: u32 = 150;

#[test]
fn nothing_acknowledged_is_lost_and_nothing_takes_effect_twice() {
    let kills = std::env::var("POSTHOUSE_KILLS").map_or(KILLS, |text| text.parse().expect("a number"));
    let mut dice = StdRng::seed_from_u64(seed());
    let server = SmtpServer::start(&SmtpOptions::default());
    let mut daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .guest("counter")
        .set("mail", &format!("url = {:?}", server.url()))
        .set("mail", r#"retry = { attempts = 1000, base = "50ms", factor = 1.0 }"#)
        .set("log", r#"level = "warn""#)
        .toml(
            r#"
            [plugin.counter]
            retry = { attempts = 10, base = "20ms", factor = 1.0 }
            [plugin.counter.grants]
            mail = { from = ["team@example.com"], to = ["*"] }
            "#,
        )
        .start();

    let nonce = dice.next_u64();
    let load = Load::start(&daemon.sender(), EVENTS_PER_SECOND, move |n| event(n, nonce));
    for kill in 0..kills {
        if dice.random_bool(0.25) {
            // Dies while it starts, or just after.
            thread::sleep(Duration::from_millis(dice.random_range(0..300)));
            daemon.kill();
            daemon.launch();
        } else {
            thread::sleep(Duration::from_millis(dice.random_range(0..1200)));
            daemon.kill();
            daemon.start();
        }
        if kill % 20 == 19 {
            eprintln!("{} kills, {} events acknowledged", kill + 1, load.acknowledged());
        }
    }
    // The last start may not have been awaited.
    daemon.kill();
    daemon.start();
    let report = load.stop();
    daemon.wait_mail_settled();

    let acknowledged: BTreeSet<String> = report.acknowledged.iter().cloned().collect();
    assert_eq!(acknowledged.len(), report.acknowledged.len(), "the test posted an id twice");
    assert!(acknowledged.len() > kills as usize, "a run in which hardly anything happened proves nothing");
    assert!(!report.failures.is_empty(), "no request met a dead daemon: nothing was tested");

    // Events: each one, once.
    let stored: Vec<String> =
        daemon.events().iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(stored.len(), acknowledged.len(), "events in the store and events acknowledged");
    assert_eq!(stored.into_iter().collect::<BTreeSet<_>>(), acknowledged);

    // Deliveries: each one done, and the ledgers add up.
    let stats = daemon.stats();
    assert_eq!(stats["store"]["made"], json!(acknowledged.len()), "{stats}");
    assert_eq!(stats["store"]["states"]["done"], json!(acknowledged.len()), "{stats}");
    assert_eq!(stats["balanced"], json!(true), "{stats}");

    // Effects: exact to the unit.
    let mut kv = daemon.kv("counter");
    assert_eq!(kv.remove("count"), Some(acknowledged.len().to_string()));
    let seen: BTreeMap<String, String> =
        acknowledged.iter().map(|id| (format!("seen/{id}"), "1".to_owned())).collect();
    assert_eq!(kv.len(), seen.len());
    for (key, count) in &kv {
        assert_eq!(seen.get(key), Some(count), "{key}");
    }

    // Mail: none is missing, and copies are the same mail.
    let mut ids_by_subject: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let messages = server.messages();
    for mail in &messages {
        ids_by_subject
            .entry(mail.header("subject").to_owned())
            .or_default()
            .insert(mail.message_id().to_owned());
    }
    let wanted: BTreeSet<String> = acknowledged
        .iter()
        .filter(|id| asks_for_mail(number_of(id)))
        .map(|id| format!("counted {id}"))
        .collect();
    assert!(!wanted.is_empty());
    assert_eq!(ids_by_subject.keys().cloned().collect::<BTreeSet<_>>(), wanted);
    for (subject, ids) in &ids_by_subject {
        assert_eq!(ids.len(), 1, "`{subject}` left under several Message-IDs: {ids:?}");
    }
    let distinct: BTreeSet<_> = ids_by_subject.values().flatten().collect();
    assert_eq!(distinct.len(), wanted.len(), "two mails share a Message-ID");

    eprintln!(
        "{kills} kills; {} events acknowledged, {} tries failed; {} mails wanted, {} left",
        acknowledged.len(),
        report.failures.len(),
        wanted.len(),
        messages.len()
    );
}

/// The n-th event. Every tenth sends a mail, every seventh fails once first, every twentieth takes long.
fn event(n: u64, nonce: u64) -> Event {
    let mut data = json!({});
    if asks_for_mail(n) {
        data["mail"] = json!("ada@example.com");
    }
    if n.is_multiple_of(7) {
        data["fail"] = json!(1);
    }
    if n.is_multiple_of(20) {
        data["spin"] = json!(2_000_000);
    }
    Event::new("user.created").id(format!("evt_{nonce:016x}_{n}")).data(data)
}

fn asks_for_mail(n: u64) -> bool {
    n.is_multiple_of(10)
}

fn number_of(id: &str) -> u64 {
    id.rsplit('_').next().and_then(|number| number.parse().ok()).expect("an id of this test")
}
