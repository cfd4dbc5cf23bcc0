//! The admin listener's protection: which clients it admits, what it refuses, and what it never shows.

#![allow(clippy::unwrap_used, reason = "what fails fails the test")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
};

use posthouse_harness::{Daemon, Event, Source};
use serde_json::json;

const BINARY: &str = env!("CARGO_BIN_EXE_posthouse");
const PATHS: [&str; 6] =
    ["/v1/events", "/v1/deliveries", "/v1/outbox", "/v1/plugins", "/v1/plugins/counter", "/v1/stats"];

#[test]
fn without_the_token_there_is_nothing_but_the_health() {
    let daemon = Daemon::builder(BINARY).guest("counter").start();
    for path in PATHS {
        let bare = ask(&daemon, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n"), "");
        assert!(bare.starts_with("HTTP/1.1 401 "), "{path}: {bare}");
        assert!(bare.contains(r#"{"error":""#), "{path}: {bare}");
        assert_eq!(daemon.admin("GET", path, None).status, 200, "{path}");
    }
    let replay = "POST /v1/replay HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    assert!(ask(&daemon, replay, r#"{"dead":true}"#).starts_with("HTTP/1.1 401 "));
    let unknown = ask(&daemon, "GET /nothing HTTP/1.1\r\nhost: localhost\r\n", "");
    assert!(unknown.starts_with("HTTP/1.1 401 "), "{unknown}");
    let health = ask(&daemon, "GET /healthz HTTP/1.1\r\nhost: probe.example\r\n", "");
    assert!(health.starts_with("HTTP/1.1 200 ") && health.ends_with(r#"{"status":"ok"}"#), "{health}");
}

#[test]
fn a_browser_that_was_tricked_gets_nothing() {
    let daemon = Daemon::builder(BINARY).start();
    let with = |headers: &str| {
        let token = daemon.admin_token();
        let head = format!("GET /v1/stats HTTP/1.1\r\nauthorization: Bearer {token}\r\n{headers}");
        ask(&daemon, &head, "")
    };
    assert!(with("host: localhost\r\n").starts_with("HTTP/1.1 200 "));
    for (headers, status) in [
        ("host: evil.example\r\n", 421),
        ("host: 192.0.2.1\r\n", 421),
        ("host: localhost\r\norigin: http://evil.example\r\n", 403),
        ("host: localhost\r\norigin: null\r\n", 403),
    ] {
        let answer = with(headers);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{headers}: {answer}");
        assert!(!answer.contains("requests"), "{headers}: {answer}");
    }
}

#[test]
fn the_listener_answers_to_the_names_that_the_operator_gave_it() {
    let daemon =
        Daemon::builder(BINARY).set("admin", "hosts = [\"posthouse\", \"Hooks.example.com\"]").start();
    let ask = |host: &str| {
        let token = daemon.admin_token();
        ask(
            &daemon,
            &format!("GET /metrics HTTP/1.1\r\nauthorization: Bearer {token}\r\nhost: {host}\r\n"),
            "",
        )
    };
    for host in ["posthouse:8401", "posthouse", "POSTHOUSE:1", "hooks.example.com:8401", "localhost"] {
        assert!(ask(host).starts_with("HTTP/1.1 200 "), "{host}: {}", ask(host));
    }
    for host in ["posthouse.evil.example:8401", "example.com", "evil-posthouse"] {
        let answer = ask(host);
        assert!(answer.starts_with("HTTP/1.1 421 ") && answer.contains("`hosts` of [admin]"), "{answer}");
    }
}

#[test]
fn secrets_stay_inside() {
    let daemon = Daemon::builder(BINARY)
        .guest("counter")
        .plugin_config("[plugin.counter.config]\napi_key = \"a-key-nobody-may-see\"\n")
        .start();
    let event = Event::new("user.created");
    assert!(daemon.post_event(&event).accepted());
    daemon.wait_settled();
    let event_path = format!("/v1/events/{}", event.id);
    for path in PATHS.into_iter().chain([event_path.as_str()]) {
        let answer = daemon.admin("GET", path, None);
        assert_eq!(answer.status, 200, "{path}: {answer}");
        for secret in ["a-key-nobody-may-see", Source::SECRET, &daemon.admin_token()] {
            assert!(!answer.body.contains(secret), "{path} shows {secret}: {answer}");
        }
    }
}

#[test]
fn what_is_asked_wrongly_is_answered_with_what_is_wrong() {
    let daemon = Daemon::builder(BINARY).source(Source::new("one")).source(Source::new("two")).start();
    let event = Event::new("user.created");
    for source in ["one", "two"] {
        assert!(daemon.sender_of(source).post_event(&event).accepted());
    }
    let found = daemon.admin_get(&format!("/v1/events/{}", event.id));
    assert_eq!(found["events"].as_array().map(Vec::len), Some(2), "{found}");

    let ambiguous = json!({ "event": event.id });
    let unconcerned = json!({ "event": event.id, "source": "one" });
    let unknown = json!({ "event": "evt_never" });
    let nobody = json!({ "dead": true, "plugin": "nobody" });
    let large = json!({ "event": "x".repeat(70_000) });
    for (method, path, body, status, named) in [
        ("GET", "/v1/events?limit=0", None, 400, "1 to 1000"),
        ("GET", "/v1/events?limit=1001", None, 400, "1 to 1000"),
        ("GET", "/v1/events?since=tomorrow", None, 400, "tomorrow"),
        ("GET", "/v1/events?typ=user.created", None, 400, "typ"),
        ("GET", "/v1/events?type=user*", None, 400, "user*"),
        ("GET", "/v1/deliveries?state=lost", None, 400, "lost"),
        ("GET", "/v1/deliveries?before=12", None, 400, "dlv_"),
        ("GET", "/v1/outbox?state=lost", None, 400, "lost"),
        ("GET", "/v1/events/evt_never", None, 404, "posthouse events"),
        ("GET", "/v1/plugins/nobody", None, 404, "nobody"),
        ("GET", "/v2", None, 404, "/v2"),
        ("DELETE", "/v1/stats", None, 405, "DELETE"),
        ("POST", "/v1/replay", Some(&unknown), 404, "evt_never"),
        ("POST", "/v1/replay", Some(&ambiguous), 409, "one, two"),
        ("POST", "/v1/replay", Some(&unconcerned), 409, "no plugin subscribes"),
        ("POST", "/v1/replay", Some(&nobody), 404, "nobody"),
        ("POST", "/v1/replay", Some(&json!({})), 400, "event"),
        ("POST", "/v1/replay", Some(&large), 413, ""),
        ("POST", "/v1/plugins/nobody/pause", Some(&json!({})), 404, "nobody"),
    ] {
        let answer = daemon.admin(method, path, body);
        assert_eq!(answer.status, status, "{method} {path}: {answer}");
        let error = answer.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(!error.is_empty() && error.contains(named), "{method} {path} should name {named}: {answer}");
    }
}

#[test]
fn the_first_start_makes_a_token_that_only_the_owner_may_read() {
    let mut daemon = Daemon::builder(BINARY).prepare();
    let line = format!("token = {:?}\n", daemon.admin_token());
    daemon.edit_config(|config| config.replace(&line, ""));
    daemon.start();
    let file = token_file(&daemon);
    let token = fs::read_to_string(&file).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(token.trim_end().len(), 64, "{token:?}");
    assert!(daemon.cli(&["stats"]).code == Some(0));
    assert!(!daemon.log().contains(token.trim_end()), "the log shows the token");

    daemon.restart();
    assert_eq!(fs::read_to_string(&file).unwrap(), token, "a later start takes the token that is there");

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = daemon.cli(&["stats"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("admin-token") && refused.stderr.contains("644"), "{refused:?}");
    assert!(daemon.stop().success());
    let refused = daemon.refused();
    assert!(refused.code != Some(0) && refused.stderr.contains("admin-token"), "{refused:?}");
}

#[test]
fn a_wrong_token_names_the_file_it_is_from() {
    let mut daemon = Daemon::builder(BINARY).start();
    let line = format!("token = {:?}\n", daemon.admin_token());
    daemon.edit_config(|config| config.replace(&line, ""));
    let file = token_file(&daemon);
    fs::write(&file, "xyzzy-token\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let refused = daemon.cli(&["stats"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("admin-token") && !refused.stderr.contains("xyzzy"), "{refused:?}");
}

fn token_file(daemon: &Daemon) -> PathBuf {
    daemon.dir().join("data/admin-token")
}

/// Sends these headers, with the body if it is not empty, and reads the whole answer.
fn ask(daemon: &Daemon, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(daemon.admin_address()).unwrap();
    let length = body.len();
    write!(stream, "{head}content-length: {length}\r\nconnection: close\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
