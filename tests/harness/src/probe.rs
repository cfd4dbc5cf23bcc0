//! The guest `http-probe`, which makes the requests that an event lists and records each result.

use serde_json::{Value, json};

use crate::{Daemon, Event};

/// The result of each request, in one attempt.
///
/// # Panics
/// If the event was not accepted, needed another attempt, or has no result for a request.
#[track_caller]
pub fn requested(daemon: &Daemon, requests: &Value) -> Vec<String> {
    let event = Event::new("user.created").data(json!({ "requests": requests }));
    assert!(daemon.post_event(&event).accepted());
    daemon.wait_settled();
    let attempts = daemon.event(&event.id)["history"][0]["attempt_log"].clone();
    assert_eq!(attempts.as_array().map(Vec::len), Some(1), "{attempts}");
    let told = daemon.kv("http-probe");
    (0..requests.as_array().map_or(0, Vec::len))
        .map(|place| {
            let key = format!("{}/{place}", event.id);
            told.get(&key).unwrap_or_else(|| panic!("nothing at {key}: {attempts}")).clone()
        })
        .collect()
}
