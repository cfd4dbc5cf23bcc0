//! Plugins get the headers of a request that its source lists, and never a credential. They get the signature only where
//! config.toml grants it.

#![allow(clippy::expect_used, reason = "what fails fails the test")]

use posthouse_harness::{Daemon, Event, Headers, Scheme, Source};
use serde_json::{Value, json};

fn headers(pairs: &[(&str, &str)]) -> Headers {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// What the plugin saw of the event, as text.
fn seen(daemon: &Daemon, plugin: &str, event: &Event) -> String {
    daemon.wait_settled();
    daemon.kv(plugin).remove(&format!("event/{}", event.id)).expect("the event")
}

fn shown(daemon: &Daemon, event: &Event) -> Value {
    daemon.admin_get(&format!("/v1/events/{}", event.id))["events"][0].take()
}

#[test]
fn a_plugin_gets_the_headers_that_its_source_lists_and_no_other() {
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .source(
            Source::new("crm")
                .scheme(Scheme::StandardWebhooks)
                .line("headers = [\"X-Tenant\", \"x-request-id\", \"webhook-id\"]")
                .line("redact = [\"/data/user/email\"]"),
        )
        .source(Source::new("bare").scheme(Scheme::StandardWebhooks))
        .guest("config-probe")
        .start();
    let sent = headers(&[
        ("content-type", "application/json; charset=utf-8"),
        ("x-request-id", "req_1"),
        ("x-tenant", "of ada@example.com"),
        ("x-other", "qotherq"),
        ("authorization", "Bearer qsecretq"),
        ("cookie", "session=qsecretq"),
    ]);
    let post = |source: &str, event: &Event| {
        let (sender, body) = (daemon.sender_of(source), event.body());
        let signed = sender.signer.sign_now(&event.id, &body);
        let answer = sender.post(&[signed, sent.clone()].concat(), &body);
        assert_eq!(answer.status, 200, "{answer}");
    };
    let (listed, bare) = (Event::new("user.created"), Event::new("user.created"));
    post("crm", &listed);
    post("bare", &bare);

    let text = seen(&daemon, "config-probe", &listed);
    let expected = format!(
        "headers: [(\"x-tenant\", \"of ada@example.com\"), (\"x-request-id\", \"req_1\"), (\"webhook-id\", {:?})], \
         content-type: \"application/json; charset=utf-8\"",
        listed.id
    );
    assert!(text.contains(&expected), "{text}");
    let text = seen(&daemon, "config-probe", &bare);
    assert!(text.contains("headers: [], content-type: \"application/json; charset=utf-8\""), "{text}");
    assert!(!text.contains("webhook-signature") && !text.contains("qsecretq"), "{text}");

    // People see the same, masked as the source says.
    let event = shown(&daemon, &listed);
    let expected = json!([
        { "name": "x-tenant", "value": "of [redacted]" },
        { "name": "x-request-id", "value": "req_1" },
        { "name": "webhook-id", "value": listed.id },
    ]);
    assert_eq!((&event["headers"], &event["content_type"]), (&expected, &sent[0].1.as_str().into()));
    let story = daemon.cli(&["events", "show", &listed.id]);
    assert!(story.stdout.contains("x-tenant: of [redacted]"), "{}", story.stdout);
    assert!(!story.stdout.contains("qotherq") && !story.stdout.contains("v1,"), "{}", story.stdout);
    assert_eq!(shown(&daemon, &bare)["headers"], json!([]));
}

#[test]
fn the_signature_reaches_only_a_plugin_that_was_granted_it_and_no_people() {
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .source(Source::new("crm").scheme(Scheme::StandardWebhooks))
        .source(Source::new("page").scheme(Scheme::ScalekitDocumented).secret("page-secret-0123456789"))
        .plugin("granted", posthouse_harness::guest("config-probe"))
        .plugin("other", posthouse_harness::guest("config-probe"))
        .toml("[plugin.granted.grants]\nsignatures = [\"crm\"]")
        .start();
    let (event, page) = (Event::new("user.created"), Event::new("user.created"));
    daemon.sender_of("crm").post_event(&event);
    daemon.sender_of("page").post_event(&page);
    let granted = seen(&daemon, "granted", &event);
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        assert!(granted.contains(&format!("(\"{name}\", ")), "{granted}");
    }
    let other = seen(&daemon, "other", &event);
    assert!(other.contains("headers: []"), "{other}");
    // Of a source that it was not granted, not even the granted plugin gets them.
    let other = seen(&daemon, "granted", &page);
    assert!(other.contains("headers: []"), "{other}");
    assert_eq!(shown(&daemon, &event)["headers"], json!([]));
    // They outlive a restart with the event, for a replay.
    let replayed = daemon.cli(&["replay", &event.id, "--plugin", "granted"]);
    assert_eq!(replayed.code, Some(0), "{replayed:?}");
    assert!(seen(&daemon, "granted", &event).contains("\"webhook-signature\""));
}
