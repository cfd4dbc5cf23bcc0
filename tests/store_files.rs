//! The daemon's own files: config.toml can't name one of them as anything else, by any path. If one changes
//! while the daemon runs, the daemon notices before it acknowledges anything more.

#![allow(clippy::expect_used, reason = "what fails fails the test")]

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{fs::symlink, net::UnixListener},
    path::Path,
    thread,
    time::Duration,
};

use posthouse_harness::{Builder, Daemon, Event, Load, eventually, wait_until};

#[test]
fn a_database_that_is_a_file_of_the_daemons_is_refused_with_the_line_however_it_is_written() {
    let mut daemon = builder().guest("counter").start();
    daemon.stop();
    let data = daemon.dir().join("data");
    for name in ["posthouse.db-wal", "posthouse.db.lock", "admin-token"] {
        if !data.join(name).exists() {
            fs::write(data.join(name), "").expect("a file of the daemon's");
        }
    }
    let aot =
        fs::read_dir(data.join("aot")).expect("the AOT cache").next().expect("code").expect("code").path();
    let link = |target: &Path, name: &str| symlink(target, data.join(name)).expect("a link");
    let hard = |target: &Path, name: &str| fs::hard_link(target, data.join(name)).expect("a hard link");
    link(Path::new("posthouse.db"), "a-link.db");
    link(Path::new("a-link.db"), "a-link-to-it.db");
    link(&daemon.dir().join("data"), "folder");
    link(Path::new("../config.toml"), "config.db");
    hard(&data.join("posthouse.db"), "a-hard-link.db");
    hard(&data.join("admin-token"), "token.db");
    hard(&daemon.plugin_file("counter"), "plugin.db");
    hard(&aot, "code.db");
    fs::write(data.join("one.db"), "").expect("a database");
    hard(&data.join("one.db"), "the-same.db");
    link(Path::new("to-be.db"), "dangling.db");
    let _socket = UnixListener::bind(data.join("socket.db")).expect("a socket");

    let cases = [
        ("data/posthouse.db", "the file of the store"),
        ("data/../data/./posthouse.db", "the file of the store"),
        ("data/none/../posthouse.db", "the file of the store"),
        ("data/a-link.db", "the file of the store"),
        ("data/a-link-to-it.db", "the file of the store"),
        ("data/folder/posthouse.db", "the file of the store"),
        ("data/a-hard-link.db", "the file of the store"),
        ("data/posthouse.db-wal", "the store"),
        ("data/posthouse.db-shm", "the store"),
        ("data/posthouse.db-journal", "the store"),
        ("data/posthouse.db.lock", "the store"),
        ("data/posthouse.db.restoring", "the store"),
        ("data/admin-token", "the admin token"),
        ("data/token.db", "the admin token"),
        ("config.toml", "this configuration"),
        ("data/config.db", "this configuration"),
        ("plugins/counter.wasm", "the code of a plugin"),
        ("plugins/to-be.wasm", "the code of a plugin"),
        ("data/plugin.db", "the code of a plugin"),
        ("data/aot/new.db", "the AOT cache"),
        ("data/code.db", "the AOT cache"),
        ("data", "a folder"),
        ("data/socket.db", "no regular file"),
        ("/dev/null", "no regular file"),
    ];
    let config = fs::read_to_string(daemon.dir().join("config.toml")).expect("config.toml");
    let line = config.lines().count() + 2;
    for (at, (path, what)) in cases.into_iter().enumerate() {
        daemon.edit_config(|_| format!("{config}[databases.app]\nurl = \"sqlite:{path}\"\n"));
        let checked = daemon.cli(&["check"]);
        assert_eq!(checked.code, Some(78), "{path}: {checked:?}");
        let place = format!("config.toml:{line}:7: `databases.app.url`");
        assert!(
            checked.stderr.contains(&place) && checked.stderr.contains(what),
            "{path}: {}",
            checked.stderr
        );
        // The start makes the same check.
        if at % 8 == 0 {
            let refused = daemon.refused();
            assert_eq!(refused.code, Some(78), "{path}: {refused:?}");
        }
    }
    // Two names for one file, and a file beside another's.
    for (one, other) in [
        ("data/one.db", "data/the-same.db"),
        ("data/to-be.db", "data/dangling.db"),
        ("data/one.db", "data/folder/one.db"),
        ("data/one.db", "data/one.db-wal"),
        ("data/one.db-shm", "data/one.db"),
    ] {
        daemon.edit_config(|_| {
            format!("{config}[databases.app]\nurl = \"sqlite:{one}\"\n[databases.other]\nurl = \"sqlite:{other}\"\n")
        });
        let checked = daemon.cli(&["check"]);
        assert_eq!(checked.code, Some(78), "{one} and {other}: {checked:?}");
        let place = format!("config.toml:{}:7: `databases.other.url`", line + 2);
        assert!(
            checked.stderr.contains(&place) && checked.stderr.contains("[databases.app]"),
            "{}",
            checked.stderr
        );
    }
    // The store's file can't be anything else either, and no folder of the daemon can be the mail's.
    for (section, url, what) in [
        ("store", "sqlite:config.toml", "this configuration"),
        ("store", "sqlite:plugins/counter.wasm", "the code of a plugin"),
        ("store", "sqlite:data/admin-token", "the admin token"),
        ("mail", "file:plugins", "the folder of the plugins"),
        ("mail", "file:data/aot/mail", "the AOT cache"),
    ] {
        daemon.edit_config(|_| format!("{config}\n[{section}]\nurl = \"{url}\"\n"));
        let checked = daemon.cli(&["check"]);
        assert!(checked.code == Some(78) && checked.stderr.contains(what), "{url}: {checked:?}");
    }
    fs::remove_file(data.join("admin-token")).expect("the admin token, which is not in use");
    daemon.edit_config(|_| format!("{config}[databases.app]\nurl = \"sqlite:data/app.db\"\n"));
    daemon.start();
    // The same holds for a reload.
    let running = daemon.dir().join("config.toml");
    let text = fs::read_to_string(&running).expect("config.toml");
    fs::write(&running, text + "[databases.new]\nurl = \"sqlite:data/a-hard-link.db\"\n")
        .expect("config.toml");
    wait_until("the reload is refused", || {
        daemon.log().contains("`databases.new.url` is the file of the store")
    });
}

#[test]
fn nothing_is_acknowledged_that_a_restart_does_not_find_whatever_happens_to_the_stores_files() {
    type Act = fn(&Path);
    let acts: [(&str, Act, Act); 7] = [
        (
            "renamed",
            |data| fs::rename(data.join("posthouse.db"), data.join("elsewhere.db")).expect("renamed"),
            |data| fs::rename(data.join("elsewhere.db"), data.join("posthouse.db")).expect("put back"),
        ),
        (
            "deleted, and a link to it kept",
            |data| {
                fs::hard_link(data.join("posthouse.db"), data.join("kept.db")).expect("a link");
                fs::remove_file(data.join("posthouse.db")).expect("deleted");
            },
            |data| fs::rename(data.join("kept.db"), data.join("posthouse.db")).expect("put back"),
        ),
        (
            "renamed, and a new one in its place",
            |data| {
                fs::rename(data.join("posthouse.db"), data.join("elsewhere.db")).expect("renamed");
                fs::write(data.join("posthouse.db"), "").expect("a new one");
            },
            |data| fs::rename(data.join("elsewhere.db"), data.join("posthouse.db")).expect("put back"),
        ),
        ("replaced by a copy", |data| replace(data, "posthouse.db"), |_| ()),
        ("its log deleted", |data| fs::remove_file(data.join("posthouse.db-wal")).expect("deleted"), |_| ()),
        ("its log replaced by a copy", |data| replace(data, "posthouse.db-wal"), |_| ()),
        (
            "the index of its log deleted",
            |data| fs::remove_file(data.join("posthouse.db-shm")).expect("deleted"),
            |_| (),
        ),
    ];
    for (what, act, put_back) in acts {
        let mut daemon = builder().start();
        let data = daemon.dir().join("data");
        let load = Load::start(&daemon.sender(), 100, |_| Event::new("user.created"));
        wait_until("events are taken in", || load.acknowledged() > 30);
        act(&data);
        let refused = eventually("an event is refused", || {
            let answer = daemon.post_event(&Event::new("user.created"));
            (answer.status != 200).then_some(answer)
        });
        assert_eq!(refused.status, 503, "{what}: {refused}");
        let before = load.acknowledged();
        thread::sleep(Duration::from_millis(300));
        assert_eq!(load.acknowledged(), before, "{what}: it goes on");
        assert_eq!(daemon.admin("GET", "/readyz", None).status, 503, "{what}");
        assert!(daemon.log().contains("put it back, then restart"), "{what}: {}", daemon.log());
        daemon.kill();
        put_back(&data);
        daemon.start();
        let report = load.stop();
        let stored: BTreeSet<String> =
            daemon.events().iter().map(|event| event["id"].as_str().expect("an id").to_owned()).collect();
        let lost: Vec<_> = report.acknowledged.iter().filter(|id| !stored.contains(*id)).collect();
        assert!(lost.is_empty(), "{what}: acknowledged and lost: {lost:?}");
        let integrity: String =
            daemon.store().query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a store");
        assert_eq!(integrity, "ok", "{what}");
    }
}

#[test]
fn a_log_that_is_cut_under_the_daemon_is_noticed_though_nobody_sends_anything() {
    let daemon = builder().start();
    for _ in 0..20 {
        assert!(daemon.post_event(&Event::new("user.created")).accepted());
    }
    let log = daemon.dir().join("data/posthouse.db-wal");
    fs::OpenOptions::new().write(true).open(&log).expect("the log").set_len(0).expect("cut");
    wait_until("it is not ready", || daemon.admin("GET", "/readyz", None).status == 503);
    assert_eq!(daemon.post_event(&Event::new("user.created")).status, 503);
}

#[test]
fn a_store_that_is_gone_is_not_begun_anew_beside_its_log() {
    let mut daemon = builder().start();
    assert!(daemon.post_event(&Event::new("user.created")).accepted());
    daemon.kill();
    let data = daemon.dir().join("data");
    fs::rename(data.join("posthouse.db"), data.join("elsewhere.db")).expect("renamed");
    let refused = daemon.refused();
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("posthouse.db-wal") && refused.stderr.contains("put the file back"),
        "{refused:?}"
    );
    fs::rename(data.join("elsewhere.db"), data.join("posthouse.db")).expect("put back");
    daemon.start();
    assert_eq!(daemon.events().len(), 1);
}

/// Puts a copy in the place of the file.
fn replace(data: &Path, name: &str) {
    fs::copy(data.join(name), data.join("copy")).expect("a copy");
    fs::rename(data.join("copy"), data.join(name)).expect("in its place");
}

fn builder() -> Builder {
    Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
}
