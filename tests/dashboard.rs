//! The dashboard in a real browser: what an operator can see, find, replay and stop there, by mouse, by
//! keyboard and without scripts. It also tests how the dashboard looks in light, in dark and on a phone, and
//! what the admin listener answers to strangers.
//!
//! The stories are in `tests/browser/run.mjs`.

#![allow(clippy::unwrap_used, reason = "what fails fails the test")]

use std::{fs, os::unix::fs::DirBuilderExt as _};

use posthouse_harness::{Daemon, Event, browse, guest, screenshots, wait_until, workspace};
use serde_json::json;

const BINARY: &str = env!("CARGO_BIN_EXE_posthouse");
/// A delivery is given up after one attempt.
const ONCE: &str = "[plugin.counter]\nretry = { attempts = 1 }\n";

/// A daemon with a plugin and three dead letters: two with the same reason and one with another.
fn troubled() -> Daemon {
    let daemon = Daemon::builder(BINARY).guest("counter").plugin_config(ONCE).start();
    for data in [json!({ "reject": true }), json!({ "reject": true }), json!({ "fail": 1 })] {
        assert!(daemon.post_event(&Event::new("user.created").data(data)).accepted());
    }
    wait_until("three dead letters", || daemon.deliveries_in("dead") == 3);
    daemon
}

fn peaceful() -> Daemon {
    Daemon::builder(BINARY).guest("counter").start()
}

#[test]
fn nobody_comes_in_without_the_token_and_a_session_ends_with_the_logout() {
    browse(&peaceful(), "login", &json!({}));
}

#[test]
fn events_are_found_by_a_search_that_stands_in_the_url() {
    let daemon = peaceful();
    for n in 0..20 {
        let event = Event::new(if n % 4 == 0 { "user.deleted" } else { "user.created" })
            .data(json!({ "email": format!("Ada{n}@example.com") }));
        assert!(daemon.post_event(&event).accepted());
    }
    daemon.wait_settled();
    browse(&daemon, "search", &json!({ "events": 20 }));
}

#[test]
fn a_group_of_dead_letters_is_counted_and_run_again() {
    browse(&troubled(), "replay", &json!({}));
}

#[test]
fn a_plugin_is_paused_and_resumed_with_a_click() {
    browse(&peaceful(), "pause", &json!({}));
}

#[test]
fn the_pages_work_without_a_script() {
    browse(&peaceful(), "bare", &json!({}));
}

#[test]
fn a_test_event_is_chosen_edited_and_sent() {
    browse(&peaceful(), "test_event", &json!({}));
}

#[test]
fn a_page_changes_as_things_happen() {
    browse(&peaceful(), "live", &json!({}));
}

#[test]
fn all_can_be_done_with_the_keyboard() {
    let daemon = peaceful();
    for _ in 0..3 {
        assert!(
            daemon.post_event(&Event::new("user.created").data(json!({ "at": "example.com" }))).accepted()
        );
    }
    browse(&daemon, "keyboard", &json!({}));
}

#[test]
fn times_are_written_as_people_do_and_shown_in_the_zone_of_the_reader() {
    let daemon = peaceful();
    for _ in 0..3 {
        assert!(daemon.post_event(&Event::new("user.created").data(json!({}))).accepted());
    }
    daemon.wait_settled();
    browse(&daemon, "times", &json!({ "events": 3 }));
}

#[test]
fn an_item_of_the_outbox_has_its_times_its_event_and_a_way_to_send_it_again() {
    let mut daemon = Daemon::builder(BINARY)
        .set("mail", "retry = { attempts = 1 }")
        .guest("counter")
        .plugin_config("[plugin.counter.grants]\nmail = { from = [\"team@example.com\"], to = [\"*\"] }\n")
        .prepare();
    // A file in the place of the mail's folder.
    let data = daemon.dir().join("data");
    fs::DirBuilder::new().mode(0o700).create(&data).unwrap();
    fs::write(data.join("mail"), "").unwrap();
    daemon.start();
    for _ in 0..2 {
        let event = Event::new("user.created").data(json!({ "mail": "ada@example.com" }));
        assert!(daemon.post_event(&event).accepted());
    }
    wait_until("two mails are given up", || daemon.stats()["store"]["outbox"]["dead"] == json!(2));
    fs::remove_file(data.join("mail")).unwrap();
    browse(&daemon, "outbox", &json!({}));
    daemon.wait_mail_settled();
    assert_eq!(daemon.mails().len(), 2);
}

#[test]
fn what_is_not_there_is_a_page_for_people_and_json_for_programs() {
    let daemon = peaceful();
    browse(&daemon, "lost", &json!({}));
    let answer = daemon.admin("GET", "/nowhere", None);
    assert_eq!((answer.status, answer.header("content-type")), (404, Some("application/json")), "{answer}");
}

/// Words without a blank, and names and ids of the greatest length.
#[test]
fn no_page_is_wider_than_the_screen_however_long_the_words_are() {
    let plugin = "p".repeat(64);
    let daemon = Daemon::builder(BINARY)
        .plugin("counter", guest("counter"))
        .plugin(&plugin, guest("counter"))
        .toml(&format!("{ONCE}[plugin.{plugin}]\nretry = {{ attempts = 1 }}\n"))
        .start();
    fs::write(daemon.dir().join("plugins").join(format!("{}.wasm", "Q".repeat(120))), "").unwrap();
    let reason = "x".repeat(4096);
    let mut events = Vec::new();
    for n in 0..3 {
        let mut event = Event::new("user.created").data(json!({
            "reject": true, "reason": format!("{n}{reason}"), "log": reason,
            "organization": "o".repeat(200),
        }));
        event.id = format!("evt_{n}{}", "i".repeat(120));
        assert!(daemon.post_event(&event).accepted());
        events.push(event.id);
    }
    let retried = Event::new(&format!("{}.created", "t".repeat(100))).data(json!({ "mail": reason }));
    assert!(daemon.post_event(&retried).accepted());
    wait_until("all are dead letters", || daemon.deliveries_in("dead") == 8);
    wait_until("the file is ignored", || {
        !daemon.admin_get("/v1/plugins")["ignored"].as_array().unwrap().is_empty()
    });
    let event = format!("/events/scalekit/{}", events[0]);
    let pages = [
        event.as_str(),
        &format!("/plugins/{plugin}"),
        &format!("/outbox?id={reason}"),
        &format!("/{reason}"),
    ];
    browse(&daemon, "widths", &json!({ "name": "long", "pages": pages, "without": [] }));
    browse_terminal(&daemon, &events[0], &plugin);
}

#[test]
fn no_page_is_wider_than_the_screen_when_there_is_nothing_to_show() {
    let daemon = Daemon::builder(BINARY).start();
    browse(&daemon, "widths", &json!({ "name": "empty", "pages": [], "without": ["/plugins/counter"] }));
}

/// The same in a terminal of 80 columns: no line of a list is wider, and `show` prints a reason once and
/// completely.
fn browse_terminal(daemon: &Daemon, event: &str, plugin: &str) {
    let reason = format!("0{}", "x".repeat(4000));
    for arguments in [
        &["plugins"][..],
        &["events"],
        &["deliveries"],
        &["deliveries", "--plugin", plugin],
        &["outbox"],
        &["audit"],
        &["stats"],
    ] {
        let narrow = daemon.command(arguments).env("COLUMNS", "80").output().unwrap();
        let narrow = String::from_utf8(narrow.stdout).unwrap();
        let listed = narrow.lines().filter(|line| !line.starts_with("ignored in the plugins folder"));
        for line in listed.filter(|line| !line.starts_with("store ")) {
            assert!(line.chars().count() <= 80, "{arguments:?}: {line}");
        }
        // In a pipe, each record is one line.
        if arguments[0] == "deliveries" {
            let rows = narrow.lines().count();
            let piped = daemon.cli(arguments).stdout;
            assert!(
                rows > piped.lines().count() && piped.lines().skip(2).all(|line| line.starts_with("dlv_")),
                "{piped}"
            );
            assert!(piped.contains('…') && !piped.contains(&reason), "a list has the beginning of a reason");
        }
    }
    let shown = daemon.cli(&["events", "show", event]).stdout;
    let (first, second) = (shown.matches(&reason).count(), shown.matches("for counter: dead").count());
    assert_eq!((first, second), (2, 1), "one whole reason for each of two deliveries:\n{shown}");
}

#[test]
fn every_page_is_accessible_in_light_in_dark_and_on_a_phone() {
    let daemon = troubled();
    for n in 0..24 {
        let event_type = ["user.created", "user.deleted", "session.created", "membership.created"][n % 4];
        assert!(daemon.post_event(&Event::new(event_type).data(json!({ "log": "counted it" }))).accepted());
    }
    let event = Event::new("user.created").data(json!({
        "fail": 1, "log": "looked Ada up", "user": { "id": "usr_1", "email": "ada@example.com" },
    }));
    assert!(daemon.post_event(&event).accepted());
    daemon.wait_settled();
    browse(&daemon, "looks", &json!({ "event": event.id }));
    let names = ["overview", "event", "dead-letters"];
    for name in names.iter().flat_map(|name| ["light", "dark"].map(|look| format!("{name}-{look}.png"))) {
        for folder in [screenshots(), workspace().join("docs/screenshots")] {
            let length = fs::metadata(folder.join(&name)).unwrap().len();
            assert!((5_000..200_000).contains(&length), "{name} in {} has {length} bytes", folder.display());
        }
    }
}
