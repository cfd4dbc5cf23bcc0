//! The log: the content of a line about a delivery, and the format of lines for the journal.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails fails the test")]

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
};

use posthouse_harness::{Collector, Daemon, Event, SmtpOptions, SmtpServer, eventually};
use serde_json::{Value, json};

#[test]
fn a_line_about_an_event_says_which_for_whom_and_under_which_trace() {
    let collector = Collector::start();
    let unknown = "nobody@example.com";
    let server = SmtpServer::start(&SmtpOptions { unknown: vec![unknown.into()], ..SmtpOptions::default() });
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .set("log", "level = \"debug\"")
        .set("log", "format = \"json\"")
        .set("mail", &format!("url = {:?}", server.url()))
        .set("telemetry", &format!("otlp = {:?}", collector.url()))
        .guest("counter")
        .toml("[plugin.counter.grants]\nmail = { from = [\"team@example.com\"], to = [\"*\"] }")
        .start();
    let refused = Event::new("user.created").data(json!({ "reject": true }));
    let mailed = Event::new("user.created").data(json!({ "mail": unknown }));
    for event in [&refused, &mailed] {
        assert!(daemon.post_event(event).accepted());
    }
    daemon.wait_mail_settled();

    let line = |event: &Event, message: &str| {
        eventually(message, || {
            let log = daemon.log();
            let mut lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
            lines.find(|line| line["event"] == event.id && line["message"] == message)
        })
    };
    for event in [&refused, &mailed] {
        let trace = collector
            .wait_for("its trace", |span| {
                span.kind == "CONSUMER" && span.attributes["messaging.message.id"] == event.id
            })
            .trace;
        let delivery = &daemon.event(&event.id)["history"][0]["id"];
        let taken_in = line(event, "event taken in");
        assert_eq!((&taken_in["source"], &taken_in["trace"]), (&json!("scalekit"), &json!(trace)));
        let ended = if event.id == refused.id {
            line(event, "attempt failed; the delivery is a dead letter")
        } else {
            line(event, "attempt succeeded")
        };
        for line in [ended]
            .into_iter()
            .chain((event.id == mailed.id).then(|| line(event, "outbox item not sent; it is dead")))
        {
            assert_eq!(line["source"], "scalekit", "{line}");
            assert_eq!(line["plugin"], "counter", "{line}");
            assert_eq!(&line["delivery"], delivery, "{line}");
            assert_eq!((&line["attempt"], &line["trace"]), (&json!(1), &json!(trace)), "{line}");
        }
    }
    let dead = line(&mailed, "outbox item not sent; it is dead");
    assert_eq!(dead["error"], "permanent error (550)", "what the server says may quote the mail");
    assert!(!daemon.log().contains(unknown), "{}", daemon.log());
}

#[test]
fn a_stray_request_is_in_the_log_with_its_path_its_peer_and_the_source_that_may_be_meant() {
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .set("log", "format = \"json\"")
        .set("server", "trusted_proxies = [\"127.0.0.0/8\"]")
        .start();
    let ask = |target: &str, more: &str| {
        let mut connection = daemon.connect();
        let head = format!("PUT {target} HTTP/1.1\r\nhost: x\r\n{more}content-length: 1000\r\n\r\n");
        connection.send(head.as_bytes()).unwrap();
        connection.answer().unwrap().status
    };
    let line = |message: &str, path: &str| {
        eventually(message, || {
            let log = daemon.log();
            let mut lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
            lines.find(|line| {
                line["message"].as_str().is_some_and(|said| said.contains(message))
                    && (path.is_empty() || line["path"] == path)
            })
        })
    };
    let client = "x-forwarded-for: 198.51.100.7, 203.0.113.9, 127.0.0.3\r\n";
    assert_eq!(ask("/webhook/scalekit?token=a-secret", client), 404);
    let near = line("no source has this path", "/webhook/scalekit");
    assert_eq!((&near["level"], &near["method"]), (&json!("INFO"), &json!("PUT")), "{near}");
    assert_eq!(near["peer"], "203.0.113.9", "{near}");
    let said = near["message"].as_str().unwrap();
    assert!(said.contains("`/webhooks/scalekit` of the source `scalekit`"), "{near}");

    let long = format!("/{}%1b[31m", "x".repeat(5000));
    assert_eq!(ask(&long, ""), 404);
    let far = line("no source has this path", &format!("/{}…", "x".repeat(59)));
    assert!(far["peer"] == "127.0.0.1" && !far["message"].as_str().unwrap().contains("mean"), "{far}");

    // The same holds for a request that is refused for its signature, or before it is parsed.
    let mut connection = daemon.connect();
    let head = format!("POST /webhooks/scalekit HTTP/1.1\r\nhost: x\r\n{client}content-length: 9\r\n\r\n");
    connection.send(head.as_bytes()).unwrap();
    assert_eq!(connection.answer().unwrap().status, 401);
    assert_eq!(line("signature refused", "")["peer"], "203.0.113.9");
    let mut connection = daemon.connect();
    connection.send(b"no HTTP\r\n\r\n").unwrap();
    assert_eq!(connection.answer().unwrap().status, 400);
    let broken = line("before it reached a source", "");
    assert_eq!((&broken["reason"], &broken["peer"]), (&json!("malformed-request"), &json!("127.0.0.1")));
    assert!(!daemon.log().contains("a-secret"), "{}", daemon.log());
}

#[test]
fn in_the_journal_a_line_begins_with_its_priority_and_has_no_time_and_elsewhere_it_does() {
    for (format, journal) in [("human", true), ("human", false), ("json", true), ("json", false)] {
        let mut daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
            .set("log", &format!("format = {format:?}"))
            .guest("counter")
            .prepare();
        let stderr = File::create(daemon.dir().join("stderr.log")).unwrap().metadata().unwrap();
        // If it should not count as the journal, this is another stream.
        let inode = stderr.ino() + u64::from(!journal);
        daemon.set_env("JOURNAL_STREAM", Some(&format!("{}:{inode}", stderr.dev())));
        daemon.start();
        let event = Event::new("user.created").data(json!({ "reject": true }));
        assert!(daemon.post_event(&event).accepted());
        daemon.wait_settled();
        daemon.stop();

        let log = daemon.log();
        let dead = log.lines().find(|line| line.contains("dead letter")).expect("a line about it");
        let ready = log.lines().find(|line| line.contains("ready")).expect("a line at the start");
        if journal {
            assert!(dead.starts_with("<4>") && ready.starts_with("<6>"), "{log}");
            assert!(log.lines().all(|line| line.starts_with('<')), "{log}");
        } else {
            assert!(!log.lines().any(|line| line.starts_with('<')), "{log}");
        }
        let bare = |line: &str| if journal { line[3..].to_owned() } else { line.to_owned() };
        assert!(!log.contains('\u{1b}'), "colours: {log}");
        if format == "json" {
            let line: Value = serde_json::from_str(&bare(dead)).expect("JSON");
            assert_eq!((&line["level"], &line["event"]), (&json!("WARN"), &json!(event.id)));
        } else {
            let timed = bare(ready).starts_with(|c: char| c.is_ascii_digit());
            assert_eq!(timed, !journal, "{ready}");
        }
    }
}

/// A character that no outside text may bring into a log or a terminal.
fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[test]
fn a_name_from_outside_forges_no_line_of_the_log_and_steers_no_terminal() {
    let odd =
        "\u{1b}[2J\u{9b}31m\u{7f}\u{202e}\r\n2026-01-15T10:30:00Z ERROR posthouse: forged\n\u{2028}<3>forged";
    for (format, journal) in [("human", true), ("human", false), ("json", true), ("json", false)] {
        let mut daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
            .set("log", &format!("format = {format:?}"))
            .set("log", "level = \"debug\"")
            .guest("counter")
            .prepare();
        fs::write(daemon.dir().join("plugins").join(format!("{odd}.wasm")), "").unwrap();
        let stderr = File::create(daemon.dir().join("stderr.log")).unwrap().metadata().unwrap();
        if journal {
            daemon.set_env("JOURNAL_STREAM", Some(&format!("{}:{}", stderr.dev(), stderr.ino())));
        }
        daemon.start();
        let event =
            Event::new("user.created").data(json!({ "log": odd, "mail": format!("a{odd}@example.com") }));
        assert!(daemon.post_event(&event).accepted());
        let dubious = Event::new(&format!("user{odd}"));
        assert_eq!(daemon.post_event(&dubious).status, 400);
        daemon.wait_settled();

        let log = daemon.log();
        assert!(!log.contains(|c| c != '\n' && steers(c)), "{log:?}");
        let named: Vec<_> = log.lines().filter(|line| line.contains("ignored a file")).collect();
        assert_eq!(named.len(), 1, "{log}");
        assert!(
            named[0].contains("forged") && named[0].contains("1b") && named[0].contains("202e"),
            "{named:?}"
        );
        assert!(
            !log.lines().any(|line| line.starts_with("2026-01-15") || line.starts_with("<3>forged")),
            "{log}"
        );
        if format == "json" {
            let line = named[0].split_once('{').map(|(_, rest)| format!("{{{rest}")).unwrap();
            let line: Value = serde_json::from_str(&line).expect("JSON");
            assert_eq!(line["file"], format!("{odd}.wasm"), "escaped, it means the same");
        }

        if (format, journal) != ("human", false) {
            continue;
        }
        for asked in [
            &["check"][..],
            &["doctor"],
            &["plugins"],
            &["events"],
            &["events", "show", &event.id],
            &["events", "show", &event.id, "--body"],
            &["events", "show", &event.id, "--body", "--json"],
            &["deliveries"],
            &["outbox"],
            &["events", "show", odd],
            &["plugins", "show", odd],
            &["backup", &format!("nowhere{odd}/file")],
        ] {
            let told = daemon.cli(asked);
            let text = format!("{}{}", told.stdout, told.stderr);
            assert!(!text.is_empty() && !text.contains(|c| c != '\n' && steers(c)), "{asked:?}: {text:?}");
            assert!(!text.lines().any(|line| line.starts_with("2026-01-15T")), "{asked:?}: {text}");
        }
        let shown = daemon.cli(&["events", "show", &event.id, "--json"]).json_lines().remove(0);
        let logged = &shown["history"][0]["attempt_log"][0]["logs"][0]["message"];
        assert_eq!(logged, odd, "as JSON it is whole: {shown}");
    }
}
