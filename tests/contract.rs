//! A source's contract with its senders: one test for each row, from the sender's side.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what fails here fails a test")]

use posthouse_harness::{Answer, Connection, Daemon, Event, Headers, Scheme, Signer, Source, unix_now};
use serde_json::json;

#[test]
fn an_event_is_on_disk_before_its_answer() {
    let mut daemon = builder().start();
    for _ in 0..5 {
        let event = Event::new("user.created");
        let answer = daemon.post_event(&event);
        daemon.kill();
        is(&answer, 200, r#"{"received":true}"#);

        daemon.start();
        let stored = daemon.event(&event.id);
        assert_eq!(stored["body"].as_str().map(str::as_bytes), Some(&event.body()[..]), "{stored}");
    }
}

#[test]
fn an_event_is_taken_in_once_whatever_its_copies_say() {
    let daemon = builder().start();
    let event = Event::new("user.created");
    is(&daemon.post_event(&event), 200, r#"{"received":true}"#);
    let copies = [
        event.clone(),
        event.clone().data(json!({ "other": true })),
        Event::new("user.deleted").id(&event.id),
    ];
    for copy in copies {
        is(&daemon.post_event(&copy), 200, r#"{"received":true,"duplicate":true}"#);
    }
    let events = daemon.events();
    assert!(events.len() == 1 && events[0]["type"] == "user.created", "{events:?}");
    ends(&daemon, "crm", json!({ "received": 4, "accepted": 1, "duplicate": 3 }));
}

#[test]
fn the_same_id_from_two_sources_is_two_events() {
    let daemon = builder().source(Source::new("shop")).start();
    let event = Event::new("user.created");
    for source in ["crm", "shop"] {
        is(&daemon.sender_of(source).post_event(&event), 200, r#"{"received":true}"#);
    }
    assert_eq!(daemon.events().len(), 2);
}

#[test]
fn of_many_copies_at_once_one_is_taken_in() {
    let daemon = builder().start();
    let (sender, event) = (daemon.sender(), Event::new("user.created"));
    let answers: Vec<_> = std::thread::scope(|scope| {
        let posts: Vec<_> = (0..16).map(|_| scope.spawn(|| sender.post_event(&event))).collect();
        posts.into_iter().map(|post| post.join().unwrap()).collect()
    });
    assert_eq!(answers.iter().filter(|answer| answer.accepted()).count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer.duplicate()).count(), 15, "{answers:?}");
}

#[test]
fn a_type_that_the_source_does_not_want_is_answered_and_not_stored() {
    let source = source().line(r#"events = ["user.*", "session.created"]"#);
    let daemon = Daemon::builder(BINARY).source(source).start();
    for (event_type, filtered) in [
        ("user.created", false),
        ("session.created", false),
        ("session.expired", true),
        ("users.created", true),
    ] {
        let expected = if filtered { r#"{"received":true,"filtered":true}"# } else { r#"{"received":true}"# };
        is(&daemon.post_event(&Event::new(event_type)), 200, expected);
    }
    assert_eq!(daemon.events().len(), 2);
    ends(&daemon, "crm", json!({ "received": 4, "accepted": 2, "filtered": 2 }));
}

#[test]
fn a_bad_signature_gets_one_answer_and_the_operator_its_reason() {
    let daemon = builder().start();
    let event = Event::new("user.created");
    let body = event.body();
    let signer = daemon.sender().signer;
    let good = signer.sign_now(&event.id, &body);
    let with = |name: &str, value: &str| {
        let mut headers = good.clone();
        headers.iter_mut().find(|(known, _)| known == name).unwrap().1 = value.to_owned();
        headers
    };
    let more = |headers: &[(&str, &str)]| {
        let more = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        good.iter().cloned().chain(more).collect()
    };
    let documented = Signer::Documented(Source::SECRET.into()).sign_now("", &body);
    let cases: Vec<(&str, Headers)> = vec![
        ("unsigned", Headers::new()),
        ("missing-header", good[..2].to_vec()),
        ("repeated-header", more(&[("webhook-id", &event.id)])),
        ("ambiguous-headers", more(&[("svix-id", "x")])),
        ("ambiguous-headers", more(&[(&documented[0].0, &documented[0].1)])),
        ("bad-id", with("webhook-id", "evt.1")),
        ("bad-timestamp", with("webhook-timestamp", "now")),
        ("stale-timestamp", signer.sign(&event.id, unix_now() - 3600, &body)),
        ("future-timestamp", signer.sign(&event.id, unix_now() + 3600, &body)),
        ("no-usable-signature", with("webhook-signature", "v2,AAAA")),
        (
            "signature-mismatch",
            signer.sign_now("evt_other", &body).into_iter().skip(1).chain([good[0].clone()]).collect(),
        ),
        ("too-many-signatures", with("webhook-signature", &"v1,a ".repeat(100))),
        ("header-too-long", with("webhook-signature", &"a".repeat(9000))),
    ];
    for (label, headers) in &cases {
        let before = rejected(&daemon, label);
        is(&daemon.sender().post(headers, &body), 401, r#"{"error":"Invalid signature"}"#);
        assert_eq!(rejected(&daemon, label), before + 1, "{label}");
    }
    assert!(daemon.log().contains("signature refused"), "{}", daemon.log());
    assert!(daemon.events().is_empty());
    is(&daemon.sender().post(&good, &body), 200, r#"{"received":true}"#);
}

#[test]
fn any_of_several_secrets_may_have_signed() {
    let secrets = ["whsec_b25lIG9mIHR3byBzZWNyZXRz", "whsec_dGhlIG90aGVyIG9mIHRoZW0="];
    let daemon = Daemon::builder(BINARY)
        .toml(&format!(
            "[[source]]\nname = \"rotating\"\npath = \"/webhooks/rotating\"\nscheme = \"standard-webhooks\"\nsecrets = {secrets:?}"
        ))
        .start();
    let mut connection = daemon.connect();
    let mut post = |secret: &str| {
        let event = Event::new("user.created");
        let headers = Signer::Standard(secret.to_owned()).sign_now(&event.id, &event.body());
        connection.post("/webhooks/rotating", &headers, &event.body()).unwrap().status
    };
    assert_eq!((post(secrets[0]), post(secrets[1]), post(Source::SECRET)), (200, 200, 401));
}

#[test]
fn the_documented_scheme_takes_the_id_from_the_body() {
    let source = source().scheme(Scheme::ScalekitDocumented).secret("any text at all!");
    let daemon = Daemon::builder(BINARY).source(source).start();
    let event = Event::new("user.created").id("evt_of_the_body");
    is(&daemon.post_event(&event), 200, r#"{"received":true}"#);
    is(&daemon.post_event(&event), 200, r#"{"received":true,"duplicate":true}"#);
    assert_eq!(daemon.event("evt_of_the_body")["organization"], "org_102690563312124938");
}

#[test]
fn what_is_verified_and_no_event_is_told_what_it_lacks() {
    let daemon = builder().start();
    for (body, detail) in [
        ("", "the body is not JSON"),
        ("{", "the body is not JSON"),
        ("[]", "the body is not a JSON object"),
        ("{}", "`type` is missing"),
        (r#"{"type":1}"#, "`type` is not a string"),
        (r#"{"type":"user created"}"#, "`type` must be"),
    ] {
        let headers = daemon.sender().signer.sign_now("evt_1", body.as_bytes());
        let answer = daemon.sender().post(&headers, body.as_bytes());
        assert_eq!(
            (answer.status, answer.json()["error"].clone()),
            (400, json!("Invalid payload")),
            "{answer}"
        );
        assert!(answer.json()["detail"].as_str().unwrap().starts_with(detail), "{body}: {answer}");
    }
    let documented = Signer::Documented(Source::SECRET.into());
    let body = br#"{"type":"user.created"}"#;
    let answer = daemon.sender().post(&documented.sign_now("", body), body);
    assert_eq!((answer.status, answer.json()["detail"].clone()), (400, json!("`id` is missing")));
    assert!(daemon.events().is_empty());
}

#[test]
fn a_body_over_the_limit_is_refused() {
    let daemon = builder().set("server", r#"max_body = "2KiB""#).start();
    let signer = daemon.sender().signer;
    for (length, status) in [(2048, 400), (2049, 413)] {
        let body = vec![b'x'; length];
        assert_eq!(daemon.sender().post(&signer.sign_now("evt_1", &body), &body).status, status);
    }
    // The length alone decides, before the body. Then the connection ends.
    let mut connection = daemon.connect();
    connection.send(b"POST /webhooks/crm HTTP/1.1\r\nhost: x\r\ncontent-length: 2049\r\n\r\n").unwrap();
    assert_eq!(connection.answer().unwrap().status, 413);
    assert!(connection.closed());
    assert_eq!(rejected(&daemon, "body-too-large"), 2);
}

#[test]
fn other_paths_and_methods_are_refused() {
    let daemon = builder().start();
    for (request, status) in [
        ("POST /", 404),
        ("POST /webhooks", 404),
        ("POST /webhooks/crm/", 404),
        ("POST /webhooks/other", 404),
        ("GET /webhooks/other", 404),
        ("GET /webhooks/crm", 405),
        ("PUT /webhooks/crm", 405),
        ("DELETE /webhooks/crm", 405),
        ("OPTIONS /webhooks/crm?x=y", 405),
    ] {
        let mut connection = daemon.connect();
        connection
            .send(format!("{request} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").as_bytes())
            .unwrap();
        let answer = connection.answer().unwrap();
        assert_eq!(answer.status, status, "{request}: {answer}");
        assert_eq!(answer.header("allow"), (status == 405).then_some("POST"), "{request}");
        assert!(answer.json()["error"].is_string(), "{request}: {answer}");
    }
    ends(&daemon, "crm", json!({ "received": 4 }));
    ends(&daemon, "(none)", json!({ "received": 5 }));
}

#[test]
fn a_full_backlog_acknowledges_nothing() {
    let daemon = builder().guest("counter").set("store", "max_backlog = 3").start();
    let paused = daemon.admin_post("/v1/plugins/counter/pause", &json!({}));
    assert_eq!(paused.status, 200, "{paused}");
    let refused = loop {
        let event = Event::new("user.created");
        let answer = daemon.post_event(&event);
        if !answer.accepted() {
            break (event, answer);
        }
        assert!(daemon.events().len() < 10, "the bound does not hold");
    };
    let (event, answer) = refused;
    assert_eq!(answer.status, 503, "{answer}");
    let seconds = answer.header("retry-after").and_then(|value| value.parse::<u32>().ok());
    assert!(seconds.is_some_and(|seconds| seconds > 0), "{answer:?}");
    assert!(!answer.body.contains("received"), "{answer}");

    // Once there is room, the sender's next try is accepted as new.
    let resumed = daemon.admin_post("/v1/plugins/counter/resume", &json!({}));
    assert_eq!(resumed.status, 200, "{resumed}");
    daemon.wait_settled();
    is(&daemon.post_event(&event), 200, r#"{"received":true}"#);
    assert_eq!(daemon.stats()["balanced"], true, "{}", daemon.stats());
}

#[test]
fn connections_are_kept_and_requests_may_follow_each_other_closely() {
    let daemon = builder().start();
    let signer = daemon.sender().signer;
    let mut connection = daemon.connect();
    let mut requests = Vec::new();
    for _ in 0..50 {
        let event = Event::new("user.created");
        let body = event.body();
        let headers = signer.sign_now(&event.id, &body);
        assert_eq!(connection.post("/webhooks/crm", &headers, &body).unwrap().status, 200);
        requests.extend(request(&headers, &body));
    }
    connection.send(&requests).unwrap();
    for _ in 0..50 {
        assert!(connection.answer().unwrap().duplicate());
    }
    ends(&daemon, "crm", json!({ "received": 100, "accepted": 50, "duplicate": 50 }));
}

#[test]
fn a_sender_that_closes_its_half_gets_its_answer() {
    let daemon = builder().start();
    let event = Event::new("user.created");
    let mut connection = Connection::open(daemon.address()).unwrap();
    connection
        .send(&request(&daemon.sender().signer.sign_now(&event.id, &event.body()), &event.body()))
        .unwrap();
    connection.finish().unwrap();
    assert!(connection.answer().unwrap().accepted());
}

const BINARY: &str = env!("CARGO_BIN_EXE_posthouse");

fn source() -> Source {
    Source::new("crm")
}

fn builder() -> posthouse_harness::Builder {
    Daemon::builder(BINARY).source(source())
}

/// The bytes of a valid request to the source.
fn request(headers: &Headers, body: &[u8]) -> Vec<u8> {
    let mut request = b"POST /webhooks/crm HTTP/1.1\r\nhost: x\r\n".to_vec();
    for (name, value) in headers {
        request.extend(format!("{name}: {value}\r\n").into_bytes());
    }
    request.extend(format!("content-length: {}\r\n\r\n", body.len()).into_bytes());
    request.extend(body);
    request
}

#[track_caller]
fn is(answer: &Answer, status: u16, body: &str) {
    assert_eq!((answer.status, &*answer.body), (status, body));
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

/// How often the source rejected a request for this reason.
fn rejected(daemon: &Daemon, label: &str) -> u64 {
    daemon.stats()["requests"]["crm"]["rejected"][label].as_u64().unwrap_or(0)
}

/// Checks that the source's ledger has these counts, and that the ledgers add up.
#[track_caller]
fn ends(daemon: &Daemon, source: &str, counts: serde_json::Value) {
    let stats = daemon.stats();
    for (name, count) in counts.as_object().unwrap() {
        assert_eq!(&stats["requests"][source][name], count, "{name} of {stats}");
    }
    assert_eq!(stats["balanced"], true, "{stats}");
}
