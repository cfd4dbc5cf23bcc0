//! `/healthz` and `/readyz`: whether the daemon works, and whether it accepts events, with the reasons. They
//! are for probes, which have no token.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on fails")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use posthouse_harness::{Connection, Daemon, Event, eventually};
use serde_json::{Value, json};

#[test]
fn a_daemon_that_is_well_says_so_to_anybody() {
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).start();
    assert_eq!(probe(&daemon, "/healthz"), (200, json!({ "status": "ok" })));
    assert_eq!(probe(&daemon, "/readyz"), (200, json!({ "status": "ready" })));
}

#[test]
fn a_full_backlog_is_not_ready_and_alive() {
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .guest("counter")
        .set("store", "max_backlog = 2")
        .start();
    assert_eq!(daemon.admin_post("/v1/plugins/counter/pause", &json!({})).status, 200);
    for _ in 0..2 {
        assert!(daemon.post_event(&Event::new("user.created")).accepted());
    }
    let (status, said) = probe(&daemon, "/readyz");
    assert_eq!(status, 503, "{said}");
    assert!(said["reasons"][0].as_str().unwrap().contains("backlog of 2"), "{said}");
    assert_eq!(daemon.post_event(&Event::new("user.created")).status, 503);
    assert_eq!(probe(&daemon, "/healthz").0, 200);

    assert_eq!(daemon.admin_post("/v1/plugins/counter/resume", &json!({})).status, 200);
    daemon.wait_settled();
    assert_eq!(probe(&daemon, "/readyz").0, 200);
}

#[test]
fn a_writer_that_hangs_is_neither_alive_nor_ready() {
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).start();
    let mut lock = rusqlite::Connection::open(daemon.dir().join("data/posthouse.db")).unwrap();
    let held = lock.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    let sender = daemon.sender();
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = Arc::clone(&stop);
    // Each waits for the lock in turn, until the writer gives up.
    let posting = thread::spawn(move || {
        while !stopping.load(Ordering::Relaxed) {
            sender.post_event(&Event::new("user.created"));
        }
    });
    for path in ["/healthz", "/readyz"] {
        let said = eventually("the writer is missed", || {
            let (status, said) = probe(&daemon, path);
            (status == 503 && said.to_string().contains("answered")).then_some(said)
        });
        assert!(said["reasons"][0].as_str().unwrap().contains("writer has not answered"), "{said}");
    }
    drop(held);
    stop.store(true, Ordering::Relaxed);
    posting.join().unwrap();
    for path in ["/healthz", "/readyz"] {
        eventually("it is well again", || (probe(&daemon, path).0 == 200).then_some(()));
    }
}

/// Sends a request like a probe: without a token, with any host name.
#[track_caller]
fn probe(daemon: &Daemon, path: &str) -> (u16, Value) {
    let mut connection = Connection::open(daemon.admin_address()).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: probe.example\r\nconnection: close\r\n\r\n");
    connection.send(request.as_bytes()).unwrap();
    let answer = connection.answer().unwrap();
    (answer.status, answer.json())
}
