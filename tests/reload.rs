//! Plugins are added, changed, broken, removed and put back while events flow. No request and no delivery
//! suffers.
//!
//! 200 events a second stream in all the time. At each step, `posthouse plugins` must report the state, as an
//! operator would see it.

#![allow(clippy::unwrap_used, reason = "what fails fails the test")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use posthouse_harness::{Daemon, Event, Load, eventually, guest, new_revision, seed, wait_until};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

#[test]
fn deliveries_flow_on_through_every_change_of_a_plugin() {
    let counter = guest("counter");
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .set("plugins", r#"rescan = "200ms""#)
        .plugin("counter", counter.clone())
        .start();
    assert_eq!(counter_now(&daemon)["revision"], json!(sha256(&counter)));
    let load = Load::start(&daemon.sender(), 200, |_| Event::new("user.created").data(json!({})));

    for number in 1..=10 {
        let revised = new_revision(&counter, number);
        daemon.put_plugin("counter", &revised);
        let plugin =
            shown_with(&daemon, "the new revision serves", |plugin| plugin["revision"] == sha256(&revised));
        assert_eq!((&plugin["held"], &plugin["last_error"]), (&Value::Null, &Value::Null), "{plugin}");
        let done = daemon.deliveries_in("done");
        wait_until("the new revision does its work", || daemon.deliveries_in("done") > done + 20);

        if number % 5 == 0 {
            daemon.put_plugin("counter", b"\0asm, but not for long");
            let plugin =
                shown_with(&daemon, "the error of the broken file", |plugin| !plugin["last_error"].is_null());
            assert_eq!(plugin["revision"], json!(sha256(&revised)), "the old revision goes on: {plugin}");
            assert_eq!(plugin["held"], Value::Null, "{plugin}");
            let done = daemon.deliveries_in("done");
            wait_until("the old revision goes on", || daemon.deliveries_in("done") > done + 20);
        }
    }

    // Removed: events are still accepted, and their deliveries wait.
    std::fs::remove_file(daemon.plugin_file("counter")).unwrap();
    shown_with(&daemon, "the plugin is gone", |plugin| plugin["held"]["reason"] == "gone");
    wait_until("deliveries wait for the plugin", || daemon.deliveries_in("held") > 50);

    // Put back: the waiting deliveries run.
    daemon.put_plugin("counter", &new_revision(&counter, 11));
    shown_with(&daemon, "the plugin serves again", |plugin| plugin["state"] == "serving");
    wait_until("nothing is held any more", || daemon.deliveries_in("held") == 0);

    let report = load.stop();
    assert_eq!(report.failures, Vec::<String>::new(), "no request may fail");
    daemon.wait_settled();

    let events = report.acknowledged.len();
    let stats = daemon.stats();
    assert_eq!(stats["store"]["states"]["done"], json!(events), "{stats}");
    assert_eq!(stats["balanced"], json!(true), "{stats}");
    for delivery in daemon.deliveries("") {
        assert_eq!(delivery["attempts"], json!(1), "a reload made it run again: {delivery}");
    }
    let mut kv = daemon.kv("counter");
    assert_eq!(kv.remove("count"), Some(events.to_string()));
    let once: BTreeMap<_, _> =
        report.acknowledged.iter().map(|id| (format!("seen/{id}"), "1".to_owned())).collect();
    assert_eq!(kv, once);
}

#[test]
fn a_file_that_was_never_good_is_named_and_becomes_a_plugin_once_it_is() {
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .set("plugins", r#"rescan = "200ms""#)
        .plugin("counter", b"no wasm at all".to_vec())
        .start();
    let plugin = shown_with(&daemon, "the broken plugin", |plugin| plugin["held"]["reason"] == "broken");
    assert_eq!(plugin["revision"], Value::Null, "{plugin}");

    // Written slowly, in place: half a file does no harm.
    let counter = guest("counter");
    let half = counter.len() / 2;
    std::fs::write(daemon.plugin_file("counter"), &counter[..half]).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    std::fs::write(daemon.plugin_file("counter"), &counter).unwrap();
    shown_with(&daemon, "the plugin serves", |plugin| plugin["state"] == "serving");

    assert!(daemon.post_event(&Event::new("user.created").data(json!({}))).accepted());
    daemon.wait_settled();
    assert_eq!(daemon.kv("counter").get("count").map(String::as_str), Some("1"));
}

#[test]
fn an_attempt_keeps_the_revision_that_ran_it() {
    let first = guest("counter");
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .set("plugins", r#"rescan = "200ms""#)
        .plugin("counter", first.clone())
        .start();
    let second = new_revision(&first, 1);
    let handled_by = |wasm: &[u8]| {
        let event = Event::new("user.created").data(json!({}));
        assert!(daemon.post_event(&event).accepted());
        daemon.wait_settled();
        (event.id, sha256(wasm)[..12].to_owned())
    };
    let before = handled_by(&first);
    daemon.put_plugin("counter", &second);
    shown_with(&daemon, "the new revision serves", |plugin| plugin["revision"] == sha256(&second));
    let after = handled_by(&second);

    for (event, revision) in [before, after] {
        let shown = daemon.cli(&["events", "show", &event, "--json"]).json_lines().remove(0);
        assert_eq!(shown["history"][0]["attempt_log"][0]["revision"], json!(revision), "{shown}");
        let told = daemon.cli(&["events", "show", &event]).stdout;
        assert!(told.contains(&format!("revision {revision}: done")), "{told}");
    }
}

/// The counter as `posthouse plugins` shows it, once it is as wanted.
#[track_caller]
fn shown_with(daemon: &Daemon, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || Some(counter_now(daemon)).filter(&wanted))
}

/// The counter as `posthouse plugins` shows it now. Null if it is not listed.
#[track_caller]
fn counter_now(daemon: &Daemon) -> Value {
    let output = daemon.cli(&["plugins", "--json"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    output.json_lines().into_iter().find(|plugin| plugin["name"] == "counter").unwrap_or_default()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn damaged_machine_code_is_compiled_again_and_never_loaded() {
    let mut daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).guest("counter").start();
    let handled = |daemon: &Daemon| {
        assert!(daemon.post_event(&Event::new("user.created").data(json!({}))).accepted());
        daemon.wait_settled();
        daemon.deliveries_in("done")
    };
    assert_eq!(handled(&daemon), 1);
    daemon.stop();
    let code = || {
        let files = std::fs::read_dir(daemon.dir().join("data/aot")).unwrap().flatten();
        let mut files: Vec<_> =
            files.map(|file| file.path()).filter(|path| path.extension() == Some("cwasm".as_ref())).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files.remove(0)
    };
    let path = code();
    let whole = std::fs::read(&path).unwrap();
    let seed = seed();
    let mut altered = whole.clone();
    // Changes a thousand bytes, so that code that runs is among them, and then one bit.
    for number in 0..1000_u64 {
        let at =
            (seed.rotate_left((number % 64) as u32).wrapping_mul(number | 1) % whole.len() as u64) as usize;
        altered[at] ^= 0xff;
    }
    let mut one_bit = whole.clone();
    one_bit[(seed % whole.len() as u64) as usize] ^= 1;
    let damaged = [altered, one_bit, whole[..whole.len() / 2].to_vec(), Vec::new()];
    for (times, bytes) in damaged.into_iter().enumerate() {
        std::fs::write(&path, bytes).unwrap();
        daemon.start();
        assert_eq!(handled(&daemon), times as u64 + 2);
        daemon.stop();
        let told = daemon.log().lines().filter(|line| line.contains("compiling the plugin again")).count();
        assert_eq!(told, times + 1, "{}", daemon.log());
        assert!(std::fs::read(&path).unwrap() == whole, "what is compiled again takes its place");
    }
}

/// A component that takes a compiler many seconds.
fn heavy() -> Vec<u8> {
    let body: String = (0..200_000)
        .map(|round| {
            let (a, b, c) = (round * 7 % 400, round * 13 % 400, round * 31 % 400);
            format!("local.get {a} local.get {b} i32.mul local.tee {c} if local.get {b} local.set {a} end ")
        })
        .collect();
    let locals = "i32 ".repeat(400);
    let text = format!("(component (core module (func (export \"f\") (local {locals}) {body})))");
    wat::parse_str(text).unwrap()
}

/// The compilers that a daemon runs.
fn compilers(daemon: &Daemon) -> Vec<String> {
    let parent = daemon.pid().as_raw_nonzero().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let children = processes.filter_map(|entry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let (state, ppid) = (fields.next()?, fields.next()?);
        (ppid == parent && state != "Z").then(|| entry.file_name().to_string_lossy().into_owned())
    });
    children.collect()
}

fn kill(pid: &str) {
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn the_daemon_outlives_its_compiler_and_no_compiler_the_daemon() {
    let mut daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .set("plugins", r#"rescan = "200ms""#)
        .guest("counter")
        .start();
    daemon.put_plugin("heavy", &heavy());
    let compiler = eventually("it is compiled", || compilers(&daemon).pop());
    let score = |pid: &str| -> i32 {
        let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap_or_default();
        score.trim().parse().unwrap_or_default()
    };
    wait_until("the kernel would end the compiler first", || score(&compiler) == 1000);
    assert!(score(&daemon.pid().as_raw_nonzero().to_string()) < 1000);

    // The kernel does the same when memory runs out. A file that has just changed is tried once more.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    kill(&compiler);
    let plugin = eventually("the error names its end", || {
        Some(daemon.plugin("heavy")).filter(|plugin| plugin["last_error"].is_string())
    });
    let said = plugin["last_error"].as_str().unwrap();
    assert!(said.contains("SIGKILL") && !said.contains("limit"), "{said}");
    assert!(daemon.post_event(&Event::new("user.created").data(json!({}))).accepted());
    daemon.wait_settled();
    assert_eq!(daemon.kv("counter").get("count").map(String::as_str), Some("1"));

    // The kernel does the same to both processes if a container ends as a whole.
    daemon.put_plugin("heavy", &new_revision(&heavy(), 1));
    let compiler = eventually("it is compiled", || compilers(&daemon).pop());
    daemon.kill();
    let gone = || !std::fs::exists(format!("/proc/{compiler}/fd/0")).unwrap_or(false);
    wait_until("the compiler ends with the daemon", gone);
    // The next start waits for the compilation, so the removal of the file must end that.
    std::fs::remove_file(daemon.plugin_file("heavy")).unwrap();
    daemon.start();
    assert!(compilers(&daemon).is_empty());
}

#[test]
fn a_compilation_beyond_its_memory_ends_and_names_the_key() {
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .set("plugins", r#"rescan = "200ms""#)
        .set("plugins.compile", r#"memory = "128MiB""#)
        .start();
    daemon.put_plugin("heavy", &heavy());
    let plugin = eventually("the error names its limit", || {
        Some(daemon.plugin("heavy")).filter(|plugin| plugin["last_error"].is_string())
    });
    let said = plugin["last_error"].as_str().unwrap();
    assert!(said.contains("limit of 128 MiB of memory") && said.contains("plugins.compile.memory"), "{said}");
}

#[test]
fn a_compiler_that_the_kernel_ends_for_lack_of_memory_takes_no_daemon_with_it() {
    let Some(group) = MemoryGroup::make(128 << 20) else {
        eprintln!("skipped: no control group with a limit of memory can be made here");
        return;
    };
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .set("plugins", r#"rescan = "200ms""#)
        // Its own limit is far above the memory of the group.
        .set("plugins.compile", r#"memory = "4GiB""#)
        .guest("counter")
        .start();
    group.take_in(&daemon);
    daemon.put_plugin("heavy", &heavy());
    let plugin = eventually("the error names its end", || {
        Some(daemon.plugin("heavy")).filter(|plugin| plugin["last_error"].is_string())
    });
    let said = plugin["last_error"].as_str().unwrap();
    assert!(said.contains("the kernel killed the compiler for lack of memory"), "{said}");
    assert!(group.kills() > 0, "{said}");
    // The daemon is the process that was started, and continues.
    for _ in 0..20 {
        assert!(daemon.post_event(&Event::new("user.created").data(json!({}))).accepted());
    }
    daemon.wait_settled();
    assert_eq!(daemon.kv("counter").get("count").map(String::as_str), Some("20"));
}

/// A control group whose processes share a limit of memory. It is removed on drop; its processes must have
/// ended by then.
struct MemoryGroup {
    folder: PathBuf,
    /// The file with the number of processes that the kernel has ended.
    events: &'static str,
}

impl MemoryGroup {
    /// None if this process may not create one.
    fn make(bytes: u64) -> Option<Self> {
        let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = |line: &str| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let path = path.trim_start_matches('/');
            match controllers {
                "memory" => Some((
                    "/sys/fs/cgroup/memory",
                    path.to_owned(),
                    "memory.limit_in_bytes",
                    "memory.oom_control",
                )),
                "" => Some(("/sys/fs/cgroup", path.to_owned(), "memory.max", "memory.events")),
                _ => None,
            }
        };
        groups.lines().filter_map(own).find_map(|(root, path, limit, events)| {
            let folder = Path::new(root).join(path).join(format!("posthouse-test-{}", std::process::id()));
            std::fs::create_dir(&folder).ok()?;
            let group = Self { folder, events };
            std::fs::write(group.folder.join(limit), bytes.to_string()).ok()?;
            Some(group)
        })
    }

    /// Puts a daemon into the group, with every process that it starts from now on.
    fn take_in(&self, daemon: &Daemon) {
        std::fs::write(self.folder.join("cgroup.procs"), daemon.pid().as_raw_nonzero().to_string()).unwrap();
    }

    /// The number of processes in the group that the kernel has ended for lack of memory.
    fn kills(&self) -> u64 {
        let events = std::fs::read_to_string(self.folder.join(self.events)).unwrap();
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.map_or(0, |count| count.trim().parse().unwrap())
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // A process that has just ended may still be in it. If the removal keeps failing, an empty group is
        // left.
        for _ in 0..50 {
            if std::fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}
