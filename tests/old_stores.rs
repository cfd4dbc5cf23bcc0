//! A store that an earlier posthouse left: the daemon brings it up to date, shows what is in it, and goes on with it.
//!
//! `data/stores/` has a dump of a store for each version of the schema. The store's own tests open every one of them;
//! here the daemon opens the oldest and the newest.

#![allow(clippy::expect_used, reason = "what fails fails the test")]

use std::{collections::BTreeMap, fs, os::unix::fs::DirBuilderExt as _};

use posthouse_harness::{Daemon, WebReply, WebServer, unix_now, wait_until, workspace};
use serde_json::{Value, json};

#[test]
fn the_daemon_goes_on_with_a_store_of_the_oldest_and_of_the_newest_version() {
    let folder = workspace().join("tests/data/stores");
    let files = fs::read_dir(folder).expect("the dumps").map(|file| file.expect("a dump").path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    for file in [files.first(), files.last()].map(|file| file.expect("a dump")) {
        println!("{}", file.display());
        goes_on(&fs::read_to_string(file).expect("a dump"));
    }
}

fn goes_on(dump: &str) {
    let server = WebServer::start(|_| WebReply::status(200));
    let mut daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .guest("counter")
        .toml(&format!(
            "[plugin.counter.grants]
             mail = {{ from = [\"The team <team@example.com>\"], to = [\"*\"] }}
             http = [{{ url = {:?}, addresses = [\"127.0.0.1/32\"] }}]",
            server.url("/")
        ))
        .prepare();
    // The times of a dump are within 100 s after 1767225600. Of old events the daemon keeps nothing, so they move to the
    // last few minutes.
    let recent = (unix_now() / 100 - 2).to_string();
    let dump =
        dump.replace("17672256", &recent).replace("https://hooks.example.com/", &server.url("/hooks/"));
    let has = |text: &str| dump.contains(text);
    let data = daemon.dir().join("data");
    fs::DirBuilder::new().mode(0o700).create(&data).expect("the daemon's folder");
    let store = rusqlite::Connection::open(data.join("posthouse.db")).expect("a store");
    store.execute_batch(&dump).expect("the dump");
    drop(store);

    daemon.start();
    daemon.wait_settled();
    // Each ran once, and deliveries that were done before did not run again.
    let ran: Vec<_> = ["evt_ready", "evt_leased", "evt_waiting", "dlv_5368709120.1"]
        .into_iter()
        .chain(["evt_first", "evt_second", "evt_replayed", "evt_traced"])
        .filter(|event| has(event))
        .collect();
    let mut expected: BTreeMap<String, String> =
        ran.iter().map(|event| (format!("seen/{event}"), "1".to_owned())).collect();
    expected.insert("seen/evt_done".to_owned(), "2".to_owned());
    expected.insert("count".to_owned(), (2 + ran.len()).to_string());
    assert_eq!(daemon.kv("counter"), expected);
    assert_eq!(daemon.kv("departed").len(), 1);
    let in_state = |state| daemon.deliveries_in(state);
    let dead = 1 + u64::from(has("evt_replayed"));
    assert_eq!((in_state("done"), in_state("dead"), in_state("held")), (2 + ran.len() as u64, dead, 2));
    assert_eq!(daemon.stats()["balanced"], true);
    assert_eq!(daemon.events().len(), 3 + ran.len());
    let attempts = daemon.event("evt_done")["history"][0]["attempt_log"].clone();
    assert_eq!(attempts[0]["error"], "the guest trapped: unreachable", "{attempts}");
    assert_eq!(attempts[1]["logs"][0]["message"], "counted it", "{attempts}");
    let audit = daemon.admin_get("/v1/audit");
    assert_eq!(audit.to_string().contains("pause plugin"), has("pause plugin"), "{audit}");

    // The daemon sends the staged items. It sends a dead item again if an operator replays it.
    let unsent = |daemon: &Daemon| -> Vec<Value> {
        let items = daemon.admin_get("/v1/outbox?limit=1000")["outbox"].as_array().cloned().expect("items");
        items.into_iter().filter(|item| item["state"] != json!("sent")).collect()
    };
    wait_until("the outbox has sent what it can", || {
        unsent(&daemon).iter().all(|item| item["state"] == json!("dead"))
    });
    let subjects = |daemon: &Daemon| -> Vec<String> {
        let mut subjects: Vec<_> =
            daemon.mails().iter().map(|mail| mail.header("subject").to_owned()).collect();
        subjects.sort();
        subjects
    };
    let mut expected = vec!["leased", "ready", "waiting"];
    expected.extend(["of another plugin", "traced"].into_iter().filter(|subject| has(subject)));
    expected.sort_unstable();
    assert_eq!(subjects(&daemon), expected);
    assert!(daemon.cli(&["outbox", "replay"]).code == Some(0));
    assert!(daemon.cli(&["replay", "--dead"]).code == Some(0));
    daemon.wait_mail_settled();
    assert_eq!(daemon.kv("counter")["seen/evt_dead"], "1");
    expected.insert(0, "dead");
    assert_eq!(subjects(&daemon), expected);
    let paths: Vec<_> = server.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, if has("hooks") { vec!["/hooks/ready", "/hooks/dead"] } else { vec![] });
}
