//! A daemon that can't start says why in one line that names the cause. Its exit code is 78 if config.toml
//! has an error, or 1 if the cause is elsewhere.

use std::{fs, net::TcpListener};

use posthouse_harness::{Builder, Daemon, Output};

#[test]
fn a_port_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for port in ["{webhooks}", "{admin}"] {
        let mut daemon = builder().prepare();
        daemon.edit_config(|config| config.replace(&format!("127.0.0.1:{port}"), &address));
        says(&daemon.refused(), 1, &[&address, "in use"]);
    }
}

#[test]
fn a_folder_that_can_not_be_written() {
    // Below a regular file, and in a file system without regular files: both hold for root as well.
    for place in ["config.toml/data", "/proc/posthouse"] {
        let store = format!("url = \"sqlite:{place}/posthouse.db\"");
        says(&builder().set("store", &store).refused(), 1, &[place]);
    }
}

#[test]
fn a_store_that_another_daemon_has() {
    let daemon = builder().start();
    let config = fs::read_to_string(daemon.dir().join("config.toml")).unwrap();
    let other = config
        .replace(&daemon.address().to_string(), "127.0.0.1:0")
        .replace(&daemon.admin_address().to_string(), "127.0.0.1:0");
    fs::write(daemon.dir().join("other.toml"), other).unwrap();
    says(&daemon.cli(&["serve", "--config", "other.toml"]), 1, &["posthouse.db", "another posthouse"]);
}

#[test]
fn a_store_of_a_newer_posthouse() {
    let mut daemon = builder().start();
    daemon.stop();
    let store = rusqlite::Connection::open(daemon.dir().join("data/posthouse.db")).unwrap();
    store.pragma_update(None, "user_version", 999).unwrap();
    drop(store);
    says(&daemon.refused(), 1, &["posthouse.db", "newer posthouse", "999"]);
}

#[test]
fn a_database_of_another_program() {
    let mut daemon = builder().prepare();
    fs::create_dir(daemon.dir().join("data")).unwrap();
    let other = rusqlite::Connection::open(daemon.dir().join("data/posthouse.db")).unwrap();
    other.execute_batch("CREATE TABLE theirs (x)").unwrap();
    drop(other);
    says(&daemon.refused(), 1, &["posthouse.db"]);
}

#[test]
fn a_secret_that_is_not_there() {
    let mut daemon = builder().prepare();
    daemon.edit_config(|config| {
        let line = config.lines().find(|line| line.starts_with("secrets")).unwrap().to_owned();
        config.replace(&line, "secrets = [{ env = \"POSTHOUSE_NOT_SET\" }]")
    });
    says(&daemon.refused(), 78, &["config.toml:", "POSTHOUSE_NOT_SET"]);
}

#[test]
fn a_key_that_nobody_knows() {
    says(&builder().set("server", "lisen = 1").refused(), 78, &["config.toml:", "lisen", "listen"]);
}

fn builder() -> Builder {
    Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
}

/// Checks that it ended with this code, and that its last line has all these words. No other line says the
/// same.
#[track_caller]
fn says(output: &Output, code: i32, words: &[&str]) {
    assert_eq!(output.code, Some(code), "{output:?}");
    let last = output.stderr.lines().last().unwrap_or_default();
    for word in words {
        assert!(last.contains(word), "{word:?} is not in the last line of {}", output.stderr);
    }
    let saying = output.stderr.lines().filter(|line| words.iter().all(|word| line.contains(word))).count();
    assert_eq!(saying, 1, "said more than once: {}", output.stderr);
    assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
}
