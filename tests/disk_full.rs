//! A disk that runs full loses nothing that was acknowledged, and nobody has to start anything again
//! when there is room.
//!
//! The daemon's whole folder (store, log, mail) lies on a small disk of its own. Events stream in; then
//! a file takes all the room that is left, so that events are answered 503, completions wait and mails
//! can't be written. The file goes, and everything goes on by itself.

#![allow(clippy::expect_used, reason = "what fails fails the test")]

use std::{
    collections::BTreeSet,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use posthouse_harness::{Daemon, Event, Load, eventually, wait_until};
use serde_json::json;

/// How often the disk fills.
const TIMES: usize = 3;

#[test]
fn a_full_disk_acknowledges_nothing_loses_nothing_and_is_outlived() {
    let Some(disk) = Disk::mount("96m") else {
        eprintln!("skipped: a small disk can only be mounted by root");
        return;
    };
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .below(&disk.0)
        .guest("counter")
        .set("mail", r#"retry = { attempts = 1000, base = "100ms", factor = 1.0 }"#)
        .set("log", r#"level = "warn""#)
        // To meet the full disk itself, and not what keeps it from running full.
        .set("store", "min_free = 0")
        .toml(
            r#"
            [plugin.counter]
            retry = { attempts = 1000, base = "100ms", factor = 1.0 }
            [plugin.counter.grants]
            mail = { from = ["team@example.com"], to = ["*"] }
            "#,
        )
        .start();
    let load = Load::start(&daemon.sender(), 60, event);
    wait_until("some events are taken in", || load.acknowledged() > 50);

    for _ in 0..TIMES {
        let ballast = disk.fill();
        let probe = Event::new("user.created").data(json!({ "padding": "p".repeat(200_000) }));
        let refused = eventually("an event is refused", || {
            let answer = daemon.post_event(&probe);
            (answer.status != 200).then_some(answer)
        });
        assert_eq!(refused.status, 503, "{refused}");
        assert!(refused.headers.iter().any(|(name, _)| name == "retry-after"), "{refused}");
        // Long enough for completions to meet it too, and to be tried several times.
        thread::sleep(Duration::from_secs(1));
        assert_eq!(daemon.admin("GET", "/healthz", None).status, 200, "it lives");
        let ready = daemon.admin("GET", "/readyz", None);
        assert!(ready.status == 503 && ready.body.contains("disk is full"), "{ready}");
        let metrics = daemon.admin("GET", "/metrics", None).body;
        for told in ["posthouse_ready 0", "posthouse_healthy 1"] {
            assert!(metrics.lines().any(|line| line == told), "{told} is not in {metrics}");
        }
        let page = daemon.admin("GET", "/", None);
        assert!(page.body.contains("The last write failed"), "{page}");
        let told = daemon.cli(&["doctor"]);
        assert_eq!(told.code, Some(1), "{told:?}");
        let problem =
            |check: &str| told.stdout.lines().any(|line| line.starts_with(&format!("problem  {check}: ")));
        assert!(problem("disk") && problem("daemon"), "{told:?}");
        std::fs::remove_file(ballast).expect("the file that filled the disk");
        let before = load.acknowledged();
        wait_until("events are taken in again", || load.acknowledged() > before + 50);
        wait_until("it is ready again", || daemon.admin("GET", "/readyz", None).status == 200);
    }
    let report = load.stop();
    daemon.wait_mail_settled();

    let refusals = report.failures.iter().filter(|failure| failure.contains("503")).count();
    assert!(refusals > 0, "{:?}", report.failures);
    let acknowledged: BTreeSet<String> = report.acknowledged.into_iter().collect();
    let taken: BTreeSet<String> =
        daemon.events().iter().map(|event| event["id"].as_str().expect("an id").to_owned()).collect();
    // Beside them may stand probes: only one that was acknowledged, each posted until one was refused.
    assert!(taken.is_superset(&acknowledged), "acknowledged and lost");
    let stats = daemon.stats();
    assert_eq!(stats["store"]["states"]["done"], json!(taken.len()), "{stats}");
    assert_eq!(stats["balanced"], json!(true), "{stats}");
    let mut kv = daemon.kv("counter");
    assert_eq!(kv.remove("count"), Some(taken.len().to_string()));
    assert_eq!(kv.len(), taken.len());
    assert!(kv.values().all(|count| count == "1"));
    let wanted: BTreeSet<String> =
        acknowledged.iter().filter(|id| asks_for_mail(id)).map(|id| format!("counted {id}")).collect();
    let left: BTreeSet<String> =
        daemon.mails().iter().map(|mail| mail.header("subject").to_owned()).collect();
    assert_eq!(left, wanted);
    eprintln!("{} events, {refusals} refused while the disk was full", taken.len());
}

#[test]
fn a_disk_that_is_nearly_full_takes_nothing_in_and_finishes_what_it_has() {
    let Some(disk) = Disk::mount("96m") else {
        eprintln!("skipped: a small disk can only be mounted by root");
        return;
    };
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .below(&disk.0)
        .guest("counter")
        .set("store", "min_free = \"32MiB\"")
        .start();
    assert_eq!(daemon.admin_post("/v1/plugins/counter/pause", &json!({})).status, 200);
    let (before, copy) = (plain(), plain());
    assert!(daemon.post_event(&before).accepted() && daemon.post_event(&copy).accepted());

    let ballast = disk.leave(24 << 20);
    let refused = eventually("an event is refused", || {
        let answer = daemon.post_event(&plain());
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(refused.status, 503, "{refused}");
    assert!(refused.headers.iter().any(|(name, _)| name == "retry-after"), "{refused}");
    assert!(daemon.post_event(&copy).duplicate(), "what is here is told as what is here");
    let taken = daemon.events().len();
    assert_eq!(daemon.post_event(&plain()).status, 503);
    assert_eq!(daemon.events().len(), taken, "nothing is taken in");

    assert_eq!(daemon.admin("GET", "/healthz", None).status, 200, "it lives");
    let ready = daemon.admin("GET", "/readyz", None);
    assert!(ready.status == 503 && ready.body.contains("less than `min_free` (32.0 MiB)"), "{ready}");
    let overview = daemon.admin("GET", "/", None).body;
    assert!(overview.contains("less than `min_free`"), "{overview}");
    let stats = daemon.stats();
    assert!(stats["requests"]["scalekit"]["failed"]["disk-space"].as_u64() >= Some(2), "{stats}");
    assert!(stats["store"]["disk_free_bytes"].as_u64() < Some(32 << 20), "{stats}");

    // What was taken in is finished all the same.
    assert_eq!(daemon.admin_post("/v1/plugins/counter/resume", &json!({})).status, 200);
    wait_until("what was taken in is done", || daemon.deliveries_in("done") == taken as u64);

    std::fs::remove_file(ballast).expect("the file that filled the disk");
    wait_until("events are taken in again", || daemon.post_event(&plain()).accepted());
    assert_eq!(daemon.admin("GET", "/readyz", None).status, 200);
    assert_eq!(daemon.stats()["balanced"], json!(true));
}

/// One that asks for nothing.
fn plain() -> Event {
    Event::new("user.created").data(json!({ "padding": "p".repeat(4_000) }))
}

fn event(n: u64) -> Event {
    let mut event = Event::new("user.created");
    let mut data = json!({ "padding": "p".repeat(4_000), "n": n });
    if asks_for_mail(&event.id) {
        data["mail"] = json!("ada@example.com");
    }
    event.data = data;
    event
}

fn asks_for_mail(id: &str) -> bool {
    id.ends_with('0')
}

/// A disk in memory, mounted in a folder of its own.
struct Disk(PathBuf);

impl Disk {
    /// None where this process may not mount.
    fn mount(size: &str) -> Option<Self> {
        let folder = std::env::temp_dir().join(format!("posthouse-disk-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder to mount in");
        let disk = Self(folder);
        let mounted = run(
            Command::new("mount").args(["-t", "tmpfs", "-o"]).arg(format!("size={size}")).arg("tmpfs"),
            &disk.0,
        );
        mounted.then_some(disk)
    }

    /// Takes room until so many bytes are left; the file that does.
    fn leave(&self, bytes: u64) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = File::create(&path).expect("the file that fills the disk");
        let free = || {
            let disk = rustix::fs::statvfs(&self.0).expect("what the disk has left");
            disk.f_bavail * disk.f_frsize
        };
        while free() > bytes {
            file.write_all(&vec![0; 1 << 20]).expect("there is room");
        }
        path
    }

    /// Takes all the room there is; the file that does.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = File::create(&path).expect("the file that fills the disk");
        for step in [1 << 20, 1 << 12, 1] {
            let bytes = vec![0; step];
            while file.write_all(&bytes).is_ok() {}
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run(Command::new("umount").arg("-l"), &self.0);
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Runs a command on a folder; whether it did what it was asked.
fn run(command: &mut Command, folder: &Path) -> bool {
    command.arg(folder).status().is_ok_and(|status| status.success())
}
