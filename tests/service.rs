//! The daemon under systemd: its messages to the service manager and their order, sockets that outlive it,
//! and a watchdog that only a working daemon feeds.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on fails")]

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use posthouse_harness::{Builder, Connection, Daemon, Event, Notice, NotifySocket, Sender, wait_until};
use rustix::process::Signal;
use serde_json::json;

/// Requests a second while the daemon restarts.
const RATE: u32 = 500;

/// The watchdog's interval: without a pulse in this time, the service manager restarts the daemon.
const WATCHDOG: Duration = Duration::from_secs(2);

#[test]
fn it_reports_ready_reloading_stopping_and_its_pulse_at_the_right_moments() {
    let manager = NotifySocket::new();
    let mut daemon = watched(&manager).guest("counter").activated().prepare();
    daemon.launch();
    wait_until("systemd listens", || Connection::open(daemon.address()).is_ok());

    // READY, and no pulse before it. Then everything works: the plugin serves, and an event is accepted.
    let (before, ready) = manager.wait_for("READY", |notice| notice.says("READY=1"));
    assert!(before.iter().all(|notice| notice.get("WATCHDOG").is_none()), "{before:#?}");
    assert!(ready.get("STATUS").unwrap().contains("plugins: 1 serving, 0 held"), "{ready:?}");
    assert_eq!(daemon.plugin("counter")["state"], "serving");
    assert!(daemon.post_event(&Event::new("user.created")).accepted());
    daemon.wait_settled();
    manager.wait_for("a pulse with the numbers", |notice| {
        notice.says("WATCHDOG=1")
            && notice.get("STATUS").is_some_and(|status| status.contains("0 unfinished"))
    });

    // On a signal it reloads: RELOADING with the time, then READY.
    daemon.edit_config(|config| config.replace("[server]", "[log]\nlevel = \"debug\"\n\n[server]"));
    daemon.signal(Signal::HUP);
    let (_, reloading) = manager.wait_for("RELOADING", |notice| notice.says("RELOADING=1"));
    let monotonic: u64 = reloading.get("MONOTONIC_USEC").unwrap().parse().unwrap();
    assert!(monotonic > 0);
    manager.wait_for("READY after the reload", |notice| notice.says("READY=1"));
    manager.wait_for("the pulse goes on", |notice| notice.says("WATCHDOG=1"));

    // STOPPING before anything ends, and no pulse after it.
    daemon.signal(Signal::TERM);
    manager.wait_for("STOPPING", |notice| notice.says("STOPPING=1"));
    assert!(daemon.wait_ended().success());
    let after: Vec<_> = std::iter::from_fn(|| manager.hear_within(Duration::from_millis(100))).collect();
    assert!(after.iter().all(|notice| notice.get("WATCHDOG").is_none()), "{after:#?}");
}

#[test]
fn a_plugin_that_does_not_load_is_known_to_be_broken_at_ready() {
    let manager = NotifySocket::new();
    let mut daemon = watched(&manager).plugin("odd", b"no wasm at all".to_vec()).prepare();
    daemon.launch();
    let (_, ready) = manager.wait_for("READY", |notice| notice.says("READY=1"));
    // A file this new is tried once more before it counts as broken.
    let told = |notice: &Notice| notice.get("STATUS").is_some_and(|status| status.contains("1 held"));
    if !told(&ready) {
        manager.wait_for("the broken plugin in the status", told);
    }
    assert!(daemon.post_event(&Event::new("user.created")).accepted());
}

#[test]
fn a_restart_under_load_loses_no_request() {
    let mut daemon = builder()
        .guest("counter")
        .set("server", "max_requests = 4096\nshutdown_timeout = \"60s\"")
        .sockets_held()
        .start();
    let stopping = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    let arrivals = {
        let (sender, stopping, answered) = (daemon.sender(), Arc::clone(&stopping), Arc::clone(&answered));
        thread::spawn(move || arrivals(&sender, &stopping, &answered))
    };
    for _ in 0..3 {
        let before = answered.load(Ordering::Relaxed);
        wait_until("requests are answered", || answered.load(Ordering::Relaxed) > before + 200);
        daemon.restart();
    }
    stopping.store(true, Ordering::Relaxed);
    let mut failed = Vec::new();
    let mut taken = BTreeSet::new();
    for (id, answer) in arrivals.join().unwrap() {
        match answer {
            Ok(()) => drop(taken.insert(id)),
            Err(error) => failed.push(error),
        }
    }
    assert_eq!(failed, Vec::<String>::new(), "of {} requests", taken.len() + failed.len());
    assert!(taken.len() > 600, "{}", taken.len());
    daemon.wait_settled();
    let kept: BTreeSet<_> =
        daemon.events().iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kept, taken);
    assert_eq!(daemon.kv("counter").get("count").map(String::as_str), Some(&*taken.len().to_string()));
}

#[test]
fn a_hung_writer_stops_the_watchdog() {
    let manager = NotifySocket::new();
    let mut daemon = watched(&manager).prepare();
    daemon.launch();
    manager.wait_for("READY", |notice| notice.says("READY=1"));
    let (_, first) = manager.wait_for("a pulse", |notice| notice.says("WATCHDOG=1"));
    let (_, second) = manager.wait_for("the next", |notice| notice.says("WATCHDOG=1"));
    assert!(second.at - first.at < WATCHDOG, "the pulse arrives within the watchdog's interval");

    // Another process holds the lock: the writer waits for it within the commit of the event.
    let mut lock = rusqlite::Connection::open(daemon.dir().join("data/posthouse.db")).unwrap();
    let held = lock.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    let sender = daemon.sender();
    let posting = thread::spawn(move || sender.post_event(&Event::new("user.created")).status);
    let (_, late) = manager.wait_for("the writer is named", |notice| {
        notice.get("STATUS").is_some_and(|status| status.contains("the store's writer has not answered"))
    });
    // From here on the watchdog may fire: no pulse is sent while the writer hangs.
    let until = late.at + WATCHDOG;
    while let Some(notice) = manager.hear_within(until.saturating_duration_since(Instant::now())) {
        assert!(notice.get("WATCHDOG").is_none(), "a pulse though the writer hangs: {notice:?}");
        if Instant::now() >= until {
            break;
        }
    }
    drop(held);

    // The writer works again, and the pulse is back. Nothing was acknowledged that is not stored.
    manager.wait_for("the pulse is back", |notice| notice.says("WATCHDOG=1"));
    let status = posting.join().unwrap();
    assert_eq!(daemon.events().len(), usize::from(status == 200), "{status}");
    assert!(daemon.stop().success());
}

#[test]
fn a_socket_with_another_name_is_refused() {
    let daemon = builder().prepare();
    let output = std::process::Command::new("systemd-socket-activate")
        .current_dir(daemon.dir())
        .args(["--fdname=other", "--listen", &daemon.address().to_string()])
        .args([env!("CARGO_BIN_EXE_posthouse"), "serve"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("systemd listens", || Connection::open(daemon.address()).is_ok());
    let output = output.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(last.contains("`other`") && last.contains("FileDescriptorName=webhooks"), "{stderr}");
}

fn builder() -> Builder {
    Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
}

/// A daemon with a watchdog that sends to this manager.
fn watched(manager: &NotifySocket) -> Builder {
    builder().notify(manager).env("WATCHDOG_USEC", &WATCHDOG.as_micros().to_string())
}

/// Posts events at a steady rate, each on a new connection, whether earlier ones are answered or not. Returns
/// the result of each.
fn arrivals(
    sender: &Sender,
    stopping: &AtomicBool,
    answered: &Arc<AtomicU64>,
) -> Vec<(String, Result<(), String>)> {
    let began = Instant::now();
    let mut posts = Vec::new();
    while !stopping.load(Ordering::Relaxed) {
        let due = Duration::from_secs(1) * u32::try_from(posts.len()).unwrap() / RATE;
        thread::sleep(due.saturating_sub(began.elapsed()));
        let (sender, answered) = (sender.clone(), Arc::clone(answered));
        let post = move || {
            let event = Event::new("user.created").data(json!({}));
            let answer = sender.try_post_event(&mut None, &event);
            answered.fetch_add(1, Ordering::Relaxed);
            let result = match answer {
                Ok(answer) if answer.accepted() => Ok(()),
                Ok(answer) => Err(answer.to_string()),
                Err(error) => Err(error.to_string()),
            };
            (event.id, result)
        };
        posts.push(thread::Builder::new().stack_size(256 * 1024).spawn(post).unwrap());
    }
    posts.into_iter().map(|post| post.join().unwrap()).collect()
}
