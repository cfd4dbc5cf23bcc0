//! A full disk loses nothing that was acknowledged, and nothing needs a restart when there is room again.
//!
//! The daemon's whole folder (store, log, mail) is on a small separate disk. Events stream in; then a file
//! takes all the room that is left. Events get 503, completions wait, and mails can't be written. The file is
//! removed, and everything continues automatically.
//!
//! A plugin that writes without end does not fill the disk: it exceeds a named limit, while events are
//! accepted as before. A daemon that is killed meanwhile starts again.
//!
//! A restore that finds too little room, at whatever step, changes nothing.

#![allow(clippy::expect_used, reason = "what fails fails the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use posthouse_harness::{Builder, Daemon, Event, Load, eventually, seed, wait_until};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

/// How often the disk fills.
const TIMES: usize = 3;

/// How often a daemon is killed while a plugin fills its database.
const KILLS: usize = 20;

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
        // So that the disk really fills: `min_free` would prevent it.
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
        // Long enough for completions to find the disk full too, and to be tried several times.
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
        // A small write may find room in the log for a moment.
        wait_until("doctor names the disk and the daemon", || {
            let told = daemon.cli(&["doctor"]);
            let problem = |check: &str| {
                told.stdout.lines().any(|line| line.starts_with(&format!("problem  {check}: ")))
            };
            told.code == Some(1) && problem("disk") && problem("daemon")
        });
        std::fs::remove_file(ballast).expect("the file that filled the disk");
        let before = load.acknowledged();
        wait_until("events are taken in again", || load.acknowledged() > before + 50);
        wait_until("it is ready again", || daemon.admin("GET", "/readyz", None).status == 200);
    }
    let report = load.stop();
    daemon.wait_mail_settled();

    let refusals = report.failures.iter().filter(|failure| failure.contains(": 503 ")).count();
    assert!(refusals > 0, "{:?}", report.failures);
    let acknowledged: BTreeSet<String> = report.acknowledged.into_iter().collect();
    let taken: BTreeSet<String> =
        daemon.events().iter().map(|event| event["id"].as_str().expect("an id").to_owned()).collect();
    // Further events may be probes: each was posted until one was refused, and only one of them was
    // acknowledged.
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
    assert!(daemon.post_event(&copy).duplicate(), "the answer to a stored event is `duplicate`");
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

    // Stored events are finished all the same.
    assert_eq!(daemon.admin_post("/v1/plugins/counter/resume", &json!({})).status, 200);
    wait_until("what was taken in is done", || daemon.deliveries_in("done") == taken as u64);

    std::fs::remove_file(ballast).expect("the file that filled the disk");
    wait_until("events are taken in again", || daemon.post_event(&plain()).accepted());
    assert_eq!(daemon.admin("GET", "/readyz", None).status, 200);
    assert_eq!(daemon.stats()["balanced"], json!(true));
}

#[test]
fn a_plugin_that_fills_its_database_fails_by_the_limit_and_keeps_no_sender_out() {
    let Some(disk) = Disk::mount("256m") else {
        eprintln!("skipped: a small disk can only be mounted by root");
        return;
    };
    for (max_size, limit) in [("24MiB", "`max_size` (24.0 MiB) of [databases.app]"), ("1GiB", "`min_free`")] {
        let daemon = filling(&disk, max_size).set("store", "min_free = \"96MiB\"").start();
        let least = disk.watch();
        let load = Load::start(&daemon.sender(), 20, |n| plain().id(format!("evt_plain_{n}")));
        wait_until("some events are taken in", || load.acknowledged() > 20);
        let fillers =
            [fill(90, 3_900_000), fill(9, 3_900_000), sort(90, 3_900_000)].map(|sql| steps(&[&sql]));
        for filler in &fillers {
            assert!(daemon.post_event(filler).accepted());
        }
        // Many small commits, until there is no room for more.
        let small = fill(5, 400_000);
        for _ in 0..60 {
            assert!(daemon.post_event(&steps(&[&small])).accepted());
        }
        wait_until("what fills is given up", || daemon.deliveries_in("dead") >= 3);
        let before = load.acknowledged();
        wait_until("events are taken in all the while", || load.acknowledged() > before + 40);
        let report = load.stop();
        daemon.wait_settled();
        assert_eq!(report.failures, [""; 0], "each signed request is answered 200");
        let first = daemon.event(&fillers[0].id)["history"][0].clone();
        assert_eq!(first["state"], "dead", "{first}");
        let errors: Vec<_> = first["attempt_log"].as_array().expect("attempts").iter().collect();
        assert!(
            errors.iter().all(|attempt| attempt["error"].as_str().is_some_and(|error| error.contains(limit))),
            "{limit} is not named: {first}"
        );
        assert!(least.stop() >= 96 << 20, "less than `min_free` was left");
        // Deleting makes room again, and failed writes left nothing behind.
        if max_size == "24MiB" {
            let again = steps(&["DELETE FROM t", &fill(2, 400_000)]);
            assert!(daemon.post_event(&again).accepted());
            daemon.wait_settled();
            assert_eq!(daemon.event(&again.id)["history"][0]["state"], "done");
        }
        assert_eq!(daemon.stats()["balanced"], json!(true));
    }
}

#[test]
fn a_daemon_killed_at_any_moment_of_filling_starts_again_with_all_it_acknowledged() {
    let Some(disk) = Disk::mount("96m") else {
        eprintln!("skipped: a small disk can only be mounted by root");
        return;
    };
    let mut dice = StdRng::seed_from_u64(seed());
    let mut daemon = filling(&disk, "1GiB").set("store", "min_free = \"16MiB\"").start();
    let load = Load::start(&daemon.sender(), 20, |n| match n % 8 {
        0 => steps(&[&fill(60, 3_900_000)]),
        1 => steps(&[&fill(4, 900_000), "DELETE FROM t WHERE n > 2"]),
        2 => steps(&[&sort(60, 3_900_000)]),
        _ => Event::new("user.created"),
    });
    for _ in 0..KILLS {
        thread::sleep(Duration::from_millis(dice.random_range(0..700)));
        daemon.kill();
        daemon.start();
    }
    let before = load.acknowledged();
    wait_until("events are taken in", || load.acknowledged() > before);
    let report = load.stop();
    daemon.wait_settled();
    let taken: BTreeSet<String> =
        daemon.events().iter().map(|event| event["id"].as_str().expect("an id").to_owned()).collect();
    let acknowledged: BTreeSet<String> = report.acknowledged.into_iter().collect();
    assert!(taken.is_superset(&acknowledged), "acknowledged and lost");
    assert!(acknowledged.len() > KILLS, "hardly anything happened");
    let refused: Vec<_> = report.failures.iter().filter(|failure| failure.contains(": 503 ")).collect();
    assert!(refused.is_empty(), "a daemon that runs takes events in: {refused:?}");
    assert_eq!(daemon.stats()["balanced"], json!(true));
    let dead = daemon.deliveries_in("dead");
    assert!(dead > 0, "nothing was filled");
}

#[test]
fn a_start_frees_what_a_dead_daemon_left_in_its_logs_before_it_needs_room() {
    let Some(disk) = Disk::mount("64m") else {
        eprintln!("skipped: a small disk can only be mounted by root");
        return;
    };
    for log in ["data/app.db-wal", "data/posthouse.db-wal"] {
        let mut daemon = filling(&disk, "1GiB").set("store", "min_free = 0").start();
        let kept: Vec<Event> = (0..20).map(|_| steps(&[&fill(1, 10_000)])).collect();
        assert!(kept.iter().all(|event| daemon.post_event(event).accepted()));
        daemon.wait_settled();
        daemon.kill();
        // The bytes of a transaction that never committed, up to the last byte of the disk.
        let path = daemon.dir().join(log);
        let mut file = OpenOptions::new().append(true).open(&path).expect("the log of a killed daemon");
        for step in [1 << 20, 1 << 12, 1] {
            let bytes = vec![0x5a; step];
            while file.write_all(&bytes).is_ok() {}
        }
        drop(file);
        assert_eq!(disk.free(), 0);
        daemon.start();
        assert!(disk.free() > 16 << 20, "{log} takes the room still");
        let taken: BTreeSet<String> =
            daemon.events().iter().map(|event| event["id"].as_str().expect("an id").to_owned()).collect();
        assert!(kept.iter().all(|event| taken.contains(&event.id)), "acknowledged and lost");
        assert_eq!(daemon.app_rows("SELECT count(*) FROM t"), [["20"]]);
        assert!(daemon.post_event(&plain()).accepted());
    }
}

#[test]
fn a_restore_onto_a_disk_that_fills_midway_changes_nothing() {
    let Some(disk) = Disk::mount("96m") else {
        eprintln!("skipped: a small disk can only be mounted by root");
        return;
    };
    let mut dice = StdRng::seed_from_u64(seed());
    let mut daemon = filling(&disk, "1GiB").set("store", "min_free = 0").start();
    let kept: Vec<Event> = (0..4)
        .map(|_| {
            let mut event = steps(&[&fill(1, 1_500_000)]);
            event.data["padding"] = json!("p".repeat(700_000));
            event
        })
        .collect();
    assert!(kept.iter().all(|event| daemon.post_event(event).accepted()));
    daemon.wait_settled();
    let elsewhere = tempfile::tempdir().expect("a folder on another disk");
    let backup = elsewhere.path().join("backup.db").display().to_string();
    let made = daemon.cli(&["backup", &backup]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let later = steps(&[&fill(1, 20_000)]);
    assert!(daemon.post_event(&later).accepted());
    daemon.wait_settled();
    daemon.stop();

    let data = daemon.dir().join("data");
    let before = contents(&data);
    let (mut left, mut refusals) = (0, 0);
    loop {
        let ballast = disk.fill();
        let taken = ballast.metadata().expect("the file that fills the disk").len();
        OpenOptions::new()
            .write(true)
            .open(&ballast)
            .and_then(|file| file.set_len(taken - left))
            .expect("a smaller file");
        let restored = daemon.cli(&["restore", &backup, "--force"]);
        std::fs::remove_file(&ballast).expect("the file that filled the disk");
        if restored.code == Some(0) {
            break;
        }
        assert!(restored.stderr.contains("can't be written"), "{left} bytes left: {restored:?}");
        assert_eq!(restored.stderr.trim().lines().count(), 1, "{left} bytes left: {restored:?}");
        assert!(contents(&data) == before, "{left} bytes left: something has changed");
        refusals += 1;
        left += dice.random_range(1..600_000);
    }
    eprintln!("{refusals} restores were refused, up to {left} bytes of room");
    assert!(refusals > 20, "hardly anything was tried");
    daemon.start();
    let taken: BTreeSet<String> =
        daemon.events().iter().map(|event| event["id"].as_str().expect("an id").to_owned()).collect();
    assert_eq!(taken, kept.iter().map(|event| event.id.clone()).collect());
    assert_eq!(daemon.app_rows("SELECT count(*) FROM t"), [["4"]]);
}

/// The name and the content of each file in a folder.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    let files = entries.map(|entry| entry.path()).filter(|path| path.is_file());
    files.map(|path| (path.clone(), std::fs::read(path).expect("a file"))).collect()
}

/// A daemon on the small disk with a plugin that follows the events, in a database of this size.
fn filling(disk: &Disk, max_size: &str) -> Builder {
    Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .below(&disk.0)
        .guest("sql-probe")
        .set("log", r#"level = "warn""#)
        .toml(&format!(
            "[databases.app]\nurl = \"sqlite:data/app.db\"\nmax_size = {max_size:?}\n\
             [plugin.sql-probe]\nretry = {{ attempts = 2, base = \"20ms\", factor = 1.0 }}\n\
             breaker = {{ failures = 0 }}\nlimits = {{ time = \"60s\" }}\n\
             [plugin.sql-probe.grants]\ndatabase = \"app\"\n"
        ))
}

/// An event that runs the statements. If one fails, so does the attempt.
fn steps(statements: &[&str]) -> Event {
    let mut steps = vec![json!({ "sql": "CREATE TABLE IF NOT EXISTS t (n, b)", "must": true })];
    steps.extend(
        statements.iter().map(|sql| json!({ "sql": sql, "must": true, "query": sql.contains("ORDER") })),
    );
    Event::new("user.created").data(Value::from_iter([("steps", steps)]))
}

fn fill(rows: u64, bytes: u64) -> String {
    format!(
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {rows}) \
         INSERT INTO t SELECT n, zeroblob({bytes}) FROM c"
    )
}

fn sort(rows: u64, bytes: u64) -> String {
    format!(
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {rows}) \
         SELECT count(*) FROM (SELECT zeroblob({bytes} + n) AS b FROM c ORDER BY b LIMIT 1000)"
    )
}

/// An event that asks for nothing.
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

/// A disk in memory, mounted in its own folder.
struct Disk(PathBuf);

impl Disk {
    /// None if this process may not mount.
    fn mount(size: &str) -> Option<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("posthouse-disk-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder to mount in");
        let disk = Self(folder);
        let mounted = run(
            Command::new("mount").args(["-t", "tmpfs", "-o"]).arg(format!("size={size}")).arg("tmpfs"),
            &disk.0,
        );
        mounted.then_some(disk)
    }

    /// The number of free bytes.
    fn free(&self) -> u64 {
        let disk = rustix::fs::statvfs(&self.0).expect("what the disk has left");
        disk.f_bavail * disk.f_frsize
    }

    /// Polls continuously how much is free.
    fn watch(&self) -> Least {
        let (least, stop) = (Arc::new(AtomicU64::new(u64::MAX)), Arc::new(AtomicBool::new(false)));
        let (folder, seen, stopped) = (self.0.clone(), Arc::clone(&least), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let disk = rustix::fs::statvfs(&folder).expect("what the disk has left");
                seen.fetch_min(disk.f_bavail * disk.f_frsize, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
        });
        Least { least, stop, thread }
    }

    /// Fills the disk until this many bytes are free. Returns the file that takes the room.
    fn leave(&self, bytes: u64) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = File::create(&path).expect("the file that fills the disk");
        while self.free() > bytes {
            file.write_all(&vec![0; 1 << 20]).expect("there is room");
        }
        path
    }

    /// Fills the disk completely. Returns the file that takes the room.
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

/// The least free space of a disk.
struct Least {
    least: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Least {
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the watcher");
        self.least.load(Ordering::Relaxed)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run(Command::new("umount").arg("-l"), &self.0);
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Runs a command on a folder. Returns whether it succeeded.
fn run(command: &mut Command, folder: &Path) -> bool {
    command.arg(folder).status().is_ok_and(|status| status.success())
}
