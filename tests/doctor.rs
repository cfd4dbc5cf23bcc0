//! `posthouse doctor` finds problems before they do harm, and says what to do. The tests create each problem,
//! and `doctor` must name it with its fix, with and without a running daemon.

#![allow(clippy::expect_used, clippy::panic, reason = "what fails fails the test")]

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use posthouse_harness::{Builder, Daemon, Event, Postgres, Source};
use rusqlite::Connection as Sqlite;
use serde_json::{Value, json};

fn builder() -> Builder {
    Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
}

/// The findings, and the exit code.
fn examined(daemon: &Daemon, more: &[&str]) -> (Vec<Value>, i32) {
    let output = daemon.cli(&[&["doctor", "--json"], more].concat());
    (output.json_lines(), output.code.expect("an exit code"))
}

/// Checks that this check has a problem or warning with these words in its text, and with something to do.
#[track_caller]
fn named(daemon: &Daemon, level: &str, check: &str, words: &str) {
    let (found, code) = examined(daemon, &[]);
    let hit = found.iter().find(|found| {
        found["check"] == check && found["level"] == level && found.to_string().contains(words)
    });
    let hit = hit.unwrap_or_else(|| panic!("{level} of {check} with `{words}` in {found:#?}"));
    assert!(hit["do"].as_str().is_some_and(|todo| !todo.is_empty()), "no way out: {hit}");
    assert_eq!(code == 1, found.iter().any(|found| found["level"] == "problem"), "{found:#?}");
}

#[track_caller]
fn well(daemon: &Daemon) {
    // An unoptimised compiler may take longer than the default allows.
    let (found, code) = examined(daemon, &["--timeout", "60"]);
    let problems: Vec<_> = found.iter().filter(|found| found["level"] == "problem").collect();
    assert!(problems.is_empty() && code == 0, "{problems:#?}");
    let checks: Vec<_> = found.iter().filter_map(|found| found["check"].as_str()).collect();
    for check in [
        "config",
        "secrets",
        "clock",
        "disk",
        "permissions",
        "limits",
        "store",
        "databases",
        "mail",
        "http",
        "daemon",
        "plugins",
    ] {
        assert!(checks.contains(&check), "{check} is not among {checks:?}");
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
}

#[test]
fn what_is_well_is_said_to_be_with_a_daemon_and_without_one() {
    let mut daemon = builder()
        .guest("counter")
        .guest("sql-probe")
        .toml(
            "[databases.app]\nurl = \"sqlite:data/app.db\"\n[plugin.sql-probe.grants]\ndatabase = \"app\"\n",
        )
        .prepare();
    well(&daemon);
    daemon.start();
    let event = Event::new("user.created").data(json!({ "steps": [{ "set": "k", "to": "v" }] }));
    assert!(daemon.post_event(&event).accepted());
    daemon.wait_settled();
    well(&daemon);
    let said = daemon.cli(&["doctor"]).stdout;
    for part in
        ["ok       daemon: the daemon accepts events", "`counter` runs", "`app`: `", "is intact", " free"]
    {
        assert!(said.contains(part), "{part} in\n{said}");
    }
    daemon.stop();
    named(&daemon, "warning", "daemon", "no daemon answers");
    let (found, _) = examined(&daemon, &[]);
    assert!(found.iter().any(|found| found["what"] == "`counter` loads"), "{found:#?}");
    // The check has left it unchanged.
    daemon.start();
    assert_eq!(daemon.events().len(), 1);
}

#[test]
fn who_may_read_and_change_what() {
    let mut daemon = builder().guest("counter").start();
    let file = |name: &str| daemon.dir().join(name);
    for (path, wrong, right, words) in [
        (file("data/posthouse.db"), 0o644, 0o600, "other users can read"),
        (file("data"), 0o777, 0o700, "other users can write to"),
        (file("plugins"), 0o777, 0o755, "any user can change"),
        (file("plugins/counter.wasm"), 0o666, 0o644, "any user can change"),
    ] {
        mode(&path, wrong);
        named(&daemon, "problem", "permissions", words);
        mode(&path, right);
    }
    well(&daemon);
    mode(&file("config.toml"), 0o644);
    named(&daemon, "problem", "config", "everybody on this machine may read");
    mode(&file("config.toml"), 0o600);
    daemon.stop();
    fs::remove_dir_all(daemon.dir().join("plugins")).expect("the folder goes");
    named(&daemon, "problem", "permissions", "plugins");
}

#[test]
fn secrets_that_are_known_missing_short_or_shared() {
    let mut daemon = builder().source(Source::new("one")).source(Source::new("two")).prepare();
    let first = |config: &str, secrets: &str| {
        let start = config.find("secrets = ").expect("a source has secrets");
        let end = start + config[start..].find('\n').expect("a line");
        format!("{}secrets = {secrets}{}", &config[..start], &config[end..])
    };
    daemon.edit_config(|config| first(config, "[\"whsec_cG9zdGhvdXNlIGRlbW8gc2VjcmV0OiByZXBsYWNlIG1l\"]"));
    named(&daemon, "problem", "secrets", "demo secret");
    daemon.edit_config(|config| first(config, "[{ env = \"POSTHOUSE_TEST_NOT_SET\" }]"));
    named(&daemon, "problem", "config", "POSTHOUSE_TEST_NOT_SET");
    daemon.edit_config(|config| first(config, "[{ file = \"nowhere\" }]"));
    named(&daemon, "problem", "config", "nowhere");
    daemon.edit_config(|config| first(config, "[\"whsec_c2hvcnQ=\"]"));
    named(&daemon, "warning", "secrets", "can be guessed");
    daemon.edit_config(|config| {
        let second = config.rfind("secrets = ").expect("the second source's");
        let end = second + config[second..].find('\n').expect("a line");
        let secrets = config[second + "secrets = ".len()..end].to_owned();
        first(config, &secrets)
    });
    named(&daemon, "problem", "secrets", "share a secret");
    daemon.edit_config(|_| "[store]\nurl = 7\n".to_owned());
    let unreadable = daemon.cli(&["doctor"]);
    assert_eq!(unreadable.code, Some(78), "{unreadable:?}");
}

#[test]
fn a_store_that_is_damaged_half_restored_newer_or_of_the_future() {
    let mut daemon = builder().guest("counter").start();
    for _ in 0..200 {
        assert!(daemon.post_event(&Event::new("user.created")).accepted());
    }
    daemon.wait_settled();
    daemon.stop();
    let store = daemon.dir().join("data/posthouse.db");
    let sound = fs::read(&store).expect("the store");
    let change = |statement: &str| {
        Sqlite::open(&store).and_then(|store| store.execute_batch(statement)).expect("the store");
    };
    change("UPDATE event SET received_at = received_at + 3600000000000");
    named(&daemon, "problem", "clock", "was set back");
    change("UPDATE event SET received_at = received_at - 3600000000000; PRAGMA user_version = 99");
    named(&daemon, "problem", "store", "newer posthouse");

    let restoring = daemon.dir().join("data/posthouse.db.restoring");
    fs::write(&restoring, "").expect("a file");
    named(&daemon, "problem", "store", "did not finish");
    fs::remove_file(&restoring).expect("the file goes");

    let mut damaged = sound.clone();
    let pages = damaged.len() / 4096;
    damaged.chunks_mut(4096).skip(pages / 2).for_each(|page| page[..16].fill(0xff));
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(daemon.dir().join(format!("data/posthouse.db{suffix}")));
    }
    fs::write(&store, damaged).expect("the store");
    named(&daemon, "problem", "store", "malformed");
    fs::write(&store, sound).expect("the store");
    well(&daemon);
}

#[test]
fn a_mail_server_that_is_gone_or_silent_and_a_database_likewise() {
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent_at = silent.local_addr().expect("its address");
    let on = |mail: &str, database: &str| {
        builder()
            .set("mail", &format!("url = {mail:?}"))
            .toml(&format!("[databases.app]\nurl = {database:?}\n"))
            .prepare()
    };
    let daemon = on(&format!("smtp://{closed}"), &format!("postgres://a@{closed}/b?sslmode=disable"));
    named(&daemon, "problem", "mail", "can't be used");
    named(&daemon, "problem", "databases", "can't connect");
    let daemon = on(&format!("smtp://{silent_at}"), &format!("postgres://a@{silent_at}/b?sslmode=disable"));
    let began = Instant::now();
    let (found, code) = examined(&daemon, &["--timeout", "2"]);
    assert!(began.elapsed() < Duration::from_secs(30), "it waits no longer than --timeout");
    assert_eq!(code, 1);
    for check in ["mail", "databases"] {
        let hit = found.iter().find(|found| found["check"] == check && found["level"] == "problem");
        assert!(hit.is_some_and(|hit| hit.to_string().contains("within 2s")), "{found:#?}");
    }
    let daemon = on("file:data/mail", "sqlite:data/app.db");
    daemon.cli(&["doctor"]);
    assert!(!daemon.dir().join("data").exists(), "nothing was made");
    let daemon = builder().set("http", "ca = \"nowhere.pem\"").prepare();
    named(&daemon, "problem", "http", "nowhere.pem");
}

#[test]
fn a_role_that_may_do_all_or_too_little() {
    let postgres = Postgres::start();
    postgres.execute("CREATE ROLE poor LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    let on = |url: &str| builder().toml(&format!("[databases.app]\nurl = {url:?}\n")).prepare();
    let poor = on(&postgres.url().replace("posthouse@", "poor@"));
    named(&poor, "problem", "databases", "may not create the tables");
    named(&on(&postgres.url()), "warning", "databases", "superuser");
}

#[test]
fn a_plugin_that_does_not_run_and_a_daemon_that_takes_nothing() {
    let daemon = builder().guest("counter").guest("effects").set("store", "max_backlog = 1").start();
    named(&daemon, "problem", "plugins", "lacks a grant");
    assert_eq!(daemon.admin_post("/v1/plugins/counter/pause", &json!({})).status, 200);
    named(&daemon, "problem", "plugins", "paused by an operator");
    assert!(daemon.post_event(&Event::new("user.created")).accepted());
    named(&daemon, "problem", "daemon", "accepts no events");
    daemon.put_plugin("counter", b"no WebAssembly");
    posthouse_harness::wait_until("the broken file was seen", || {
        !daemon.plugin("counter")["last_error"].is_null()
    });
    let (found, _) = examined(&daemon, &[]);
    assert!(found.iter().any(|found| found["check"] == "plugins" && found["level"] != "ok"), "{found:#?}");
}
