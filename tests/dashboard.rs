//! The dashboard in a real browser: what an operator sees, finds, repeats and stops there, by mouse, by
//! keys and without a script; what it looks like in light, in dark and on a phone; and what the admin
//! listener answers who should not be there.
//!
//! The stories themselves stand in `tests/browser/run.mjs`.

#![allow(clippy::unwrap_used, reason = "what fails fails the test")]

use std::fs;

use posthouse_harness::{Daemon, Event, browse, screenshots, wait_until, workspace};
use serde_json::json;

const BINARY: &str = env!("CARGO_BIN_EXE_posthouse");
/// Gives up at once.
const ONCE: &str = "[plugin.counter]\nretry = { attempts = 1 }\n";

/// A daemon with a plugin and two dead letters of one reason and one of another.
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
