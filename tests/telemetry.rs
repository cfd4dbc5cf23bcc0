//! Traces: one trace shows an event's way from its request to its last result, over retries and restarts. A
//! collector that is down costs only a line in the log.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what fails fails the test")]

use std::collections::BTreeSet;

use posthouse_harness::{
    Answer, Builder, Collector, Daemon, Event, Source, WebReply, WebServer, eventually, wait_until,
};
use serde_json::json;

/// The example in the specification of W3C Trace Context.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

#[test]
fn one_trace_leads_from_the_request_to_the_commit_and_what_comes_of_it() {
    let collector = Collector::start();
    let daemon = traced(&collector)
        .set("telemetry", r#"header = { Authorization = { env = "OTLP_TOKEN" } }"#)
        .set("telemetry", r#"service_name = "post""#)
        .env("OTLP_TOKEN", "Bearer hunter2")
        .source(Source::new("crm").line(r#"redact = ["/data/user/email"]"#))
        .guest("counter")
        .toml("[plugin.counter.grants]\nmail = { from = [\"team@example.com\"], to = [\"*\"] }")
        .start();
    let event = Event::new("user.created").data(json!({
        "user": { "email": "ada@example.com" },
        "log": "hello Ada@example.com",
        "mail": "grace@example.com",
    }));
    assert!(daemon.post_event(&event).accepted());

    let request = collector.named("POST /webhooks/crm");
    assert_eq!((request.parent.as_str(), request.kind.as_str()), ("", "SERVER"));
    assert_eq!(request.get("http.request.method"), "POST");
    assert_eq!(request.get("http.route"), "/webhooks/crm");
    assert_eq!(request.get("http.response.status_code"), "200");
    assert_eq!(request.get("posthouse.outcome"), "accepted");
    assert_eq!(request.resource["service.name"], "post");
    assert!(request.resource.contains_key("service.instance.id"), "{:?}", request.resource);

    let attempt = collector.named("process counter");
    let below = |name: &str, parent: &str| {
        let span = collector.named(name);
        assert_eq!((span.trace.as_str(), span.parent.as_str()), (&*request.trace, parent), "{span:?}");
        assert!(span.start <= span.end && !span.remote && span.error.is_none(), "{span:?}");
        span
    };
    below("verify", &request.id);
    below("append", &request.id);
    below("wait counter", &request.id);
    below("process counter", &request.id);
    below("commit", &attempt.id);
    let sent = below("send mail", &attempt.id);
    let delivery = daemon.deliveries("")[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(sent.get("posthouse.delivery"), delivery);

    assert_eq!(attempt.kind, "CONSUMER");
    for (name, value) in [
        ("messaging.system", "posthouse"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", "counter"),
        ("messaging.message.id", &event.id),
        ("posthouse.event.type", "user.created"),
        ("posthouse.source", "crm"),
        ("posthouse.plugin", "counter"),
        ("posthouse.delivery", &delivery),
        ("posthouse.attempt", "1"),
        ("posthouse.outcome", "done"),
    ] {
        assert_eq!(attempt.get(name), value, "{name}");
    }
    // The event names its trace.
    assert_eq!(daemon.event(&event.id)["trace"], request.trace);
    let shown = daemon.cli(&["events", "show", &event.id]).stdout;
    assert!(shown.contains(&request.trace), "{shown}");
    // A guest's log line is an event of its span, masked as everywhere.
    let [line] = &attempt.events[..] else { panic!("{attempt:?}") };
    assert_eq!(line.attributes["posthouse.log.message"], "hello [redacted]");
    assert_eq!(line.attributes["posthouse.log.severity"], "INFO");
    assert!((attempt.start..=attempt.end).contains(&line.at), "{attempt:?}");

    // Nothing else of the payload is there, and only the collector got the header.
    for request in collector.requests() {
        assert_eq!(request.header("authorization"), Some("Bearer hunter2"));
        let text = String::from_utf8_lossy(&request.body).to_lowercase();
        assert!(!text.contains("example.com") && !text.contains("hunter2"), "{text}");
    }
}

#[test]
fn the_trace_of_a_request_is_continued_and_its_word_on_recording_honoured() {
    let collector = Collector::start();
    // This daemon begins no traces, so only those of senders are recorded.
    let daemon = traced(&collector).set("telemetry", "sample = 0.0").guest("counter").start();
    let unsampled = "11111111111111111111111111111111";
    assert!(post(&daemon, &Event::new("user.created"), &format!("00-{unsampled}-{PARENT}-00")).accepted());
    assert!(daemon.post_event(&Event::new("user.created")).accepted());
    // Only the source's sender can choose a trace.
    let forged = [("traceparent".to_owned(), format!("00-{}-{PARENT}-01", "2".repeat(32)))];
    assert_eq!(daemon.sender().post(&forged.to_vec(), b"{}").status, 401);
    // Two parents count as none.
    let event = Event::new("user.created");
    let (body, mut headers) = signed(&daemon, &event);
    for trace in ["3", "4"] {
        headers.push(("traceparent".into(), format!("00-{}-{PARENT}-01", trace.repeat(32))));
    }
    assert!(daemon.sender().post(&headers, &body).accepted());

    let event = Event::new("user.created");
    assert!(post(&daemon, &event, &format!("00-{TRACE}-{PARENT}-01")).accepted());
    assert!(post(&daemon, &event, &format!("00-{}-{PARENT}-01", "5".repeat(32))).duplicate());
    let duplicate = collector.wait_for("the duplicate", |span| {
        span.attributes.get("posthouse.outcome").is_some_and(|o| o == "duplicate")
    });
    assert_eq!(duplicate.trace, "5".repeat(32), "it is its own request");

    let commit = collector.named("commit");
    let request = collector.wait_for("the request", |span| span.trace == TRACE && span.kind == "SERVER");
    assert_eq!((request.parent.as_str(), request.remote), (PARENT, true));
    let attempt = collector.named("process counter");
    assert_eq!((&*attempt.parent, &*attempt.trace, &*commit.parent), (&*request.id, TRACE, &*attempt.id));
    daemon.wait_settled();

    let traces: BTreeSet<_> = collector.spans().into_iter().map(|span| span.trace).collect();
    assert_eq!(traces, [TRACE.to_owned(), "5".repeat(32)].into(), "what is not sampled is not recorded");
    let count = "SELECT count(*), count(trace) FROM event";
    let kept: (i64, i64) = daemon.store().query_row(count, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(kept, (4, 1), "nor is anything of it kept");
}

#[test]
fn a_delivery_that_runs_again_after_a_restart_belongs_to_the_trace_of_its_event() {
    let collector = Collector::start();
    let mut daemon = traced(&collector)
        .set("plugins", r#"retry = { attempts = 3, base = "4s", factor = 1.0, jitter = 0.0 }"#)
        .guest("counter")
        .start();
    let event = Event::new("user.created").data(json!({ "fail": 1 }));
    assert!(daemon.post_event(&event).accepted());
    let is = |number: &'static str| {
        move |span: &posthouse_harness::Span| {
            span.name == "process counter" && span.get("posthouse.attempt") == number
        }
    };
    let first = collector.wait_for("the first attempt", is("1"));
    assert_eq!((first.get("posthouse.outcome"), first.get("error.type")), ("retry", "retry"));
    assert_eq!(first.error.as_deref(), Some("asked to fail 1 times"));
    daemon.kill();
    daemon.start();

    let second = collector.wait_for("the second attempt", is("2"));
    assert_eq!(second.get("posthouse.outcome"), "done");
    assert_eq!((&second.trace, &second.parent), (&first.trace, &first.parent));
    assert_ne!(second.resource["service.instance.id"], first.resource["service.instance.id"]);
    assert_eq!(first.parent, collector.named("POST /webhooks/scalekit").id);

    // A replay is a separate trace, which links to that of the event.
    daemon.wait_settled();
    let replayed = daemon.cli(&["replay", &event.id]);
    assert_eq!(replayed.code, Some(0), "{replayed:?}");
    let replay = collector.named("replay counter");
    assert_eq!(replay.links, [(first.trace.clone(), first.parent.clone())]);
    assert_eq!(replay.parent, "");
    assert_ne!(replay.trace, first.trace);
    for number in ["1", "2"] {
        let attempt = collector
            .wait_for("an attempt of the replay", |span| span.trace == replay.trace && is(number)(span));
        assert_eq!(attempt.parent, replay.id);
    }
}

#[test]
fn what_a_guest_asks_of_others_carries_the_trace_on() {
    let collector = Collector::start();
    let server = WebServer::start(|request| match request.path.as_str() {
        "/missing" => WebReply::status(404),
        _ => WebReply::text("seen"),
    });
    let daemon = traced(&collector)
        .guest("http-probe")
        .guest("relay")
        .toml(&format!("[plugin.http-probe.grants]\nhttp = [{:?}]", server.url("")))
        .toml("[plugin.relay.grants]\nemit = [\"seat.*\"]")
        .start();
    let own = format!("00-{TRACE}-{PARENT}-00");
    let event = Event::new("user.created").data(json!({
        "requests": [
            { "url": server.url("/now?token=hunter2") },
            { "url": server.url("/missing") },
            { "url": server.url("/own"), "headers": [["TraceParent", own]] },
            { "url": server.url("/later?token=hunter3"), "method": "POST", "later": true },
        ],
        "emit": "seat.added",
    }));
    assert!(daemon.post_event(&event).accepted());

    let attempt = collector.wait_for("the attempt", |span| {
        span.name == "process http-probe" && span.get("posthouse.event.type") == "user.created"
    });
    let later = collector.named("send request");
    let called = |path: &str| {
        let request = server.requests().into_iter().find(|request| request.path.starts_with(path)).unwrap();
        request.header("traceparent").unwrap().to_owned()
    };
    for (path, span) in [
        (
            "/now",
            collector
                .wait_for("a fetch", |span| span.name == "GET" && span.get("url.full").ends_with("/now")),
        ),
        ("/later", later),
    ] {
        assert_eq!(called(path), format!("00-{}-{}-03", span.trace, span.id));
        assert_eq!((&span.trace, &span.parent, &*span.kind), (&attempt.trace, &attempt.id, "CLIENT"));
        assert_eq!(span.get("server.port"), server.port().to_string());
    }
    assert_eq!(called("/own"), own, "a guest that traces itself keeps its own header");
    let missing = collector.wait_for("a fetch", |span| span.attributes.contains_key("error.type"));
    assert_eq!((missing.get("http.response.status_code"), missing.get("error.type")), ("404", "404"));

    // The spans of an emitted event are below the attempt that emitted it.
    let emitter = collector.wait_for("the emitter", |span| {
        span.name == "process relay" && span.get("posthouse.event.type") == "user.created"
    });
    let derived = collector.wait_for("what was emitted", |span| {
        span.name == "process relay" && span.get("posthouse.event.type") == "seat.added"
    });
    assert_eq!((&derived.trace, &derived.parent), (&emitter.trace, &emitter.id));
    for request in collector.requests() {
        assert!(!String::from_utf8_lossy(&request.body).contains("hunter"), "a span contains a query");
    }
}

#[test]
fn a_collector_that_is_down_or_silent_costs_no_event_and_what_it_missed_is_counted() {
    let silent = Collector::answering(|_| WebReply::Silence);
    let mut daemon =
        traced(&silent).guest("relay").toml("[plugin.relay.grants]\nemit = [\"seat.*\"]").start();
    // Each makes 900 more deliveries, so that there are more spans than may wait.
    for _ in 0..4 {
        let event = Event::new("user.created").data(json!({ "emit": "seat.added", "times": 900 }));
        assert!(daemon.post_event(&event).accepted());
    }
    wait_until("every delivery is done", || daemon.deliveries_in("done") == 4 + 3600);
    assert!(daemon.stop().success());
    let log = daemon.log();
    let sum = |field: &str| -> u64 {
        let lines = log.lines().filter(|line| line.contains("spans did not reach the collector"));
        let count = |line: &str| {
            let (_, rest) = line.split_once(&format!("{field}=")).unwrap();
            rest.split(' ').next().unwrap().parse::<u64>().unwrap()
        };
        lines.map(count).sum()
    };
    // A request has three spans, and so has a delivery.
    assert_eq!(sum("dropped") + sum("lost"), 4 * 3 + (4 + 3600) * 3, "{log}");
    assert!(sum("dropped") > 0 && sum("lost") > 0, "{log}");

    // Nothing listens there.
    let gone = silent.url();
    drop(silent);
    wait_until("the collector is gone", || {
        std::net::TcpStream::connect(gone.trim_start_matches("http://")).is_err()
    });
    daemon.start();
    assert!(daemon.post_event(&Event::new("user.created")).accepted());
    daemon.wait_settled();
    eventually("the log says so", || daemon.log().contains("the collector accepts no spans").then_some(()));
    assert!(daemon.stop().success());
}

#[test]
fn spans_wait_for_a_collector_that_comes_back() {
    let answers = std::sync::atomic::AtomicUsize::new(0);
    let collector = Collector::answering(move |_| {
        let busy = answers.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        if busy { WebReply::status(503).with("retry-after", "0") } else { WebReply::status(200) }
    });
    let daemon = traced(&collector).guest("counter").start();
    assert!(daemon.post_event(&Event::new("user.created")).accepted());
    wait_until("spans come again", || collector.requests().len() >= 2);
    let bodies: Vec<_> = collector.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(bodies[0], bodies[1], "the batch that was refused");
    eventually("the log says so", || daemon.log().contains("spans reach the collector again").then_some(()));
}

fn traced(collector: &Collector) -> Builder {
    let otlp = format!("otlp = {:?}", collector.url());
    Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).set("telemetry", &otlp)
}

fn signed(daemon: &Daemon, event: &Event) -> (Vec<u8>, posthouse_harness::Headers) {
    let body = event.body();
    let headers = daemon.sender().signer.sign_now(&event.id, &body);
    (body, headers)
}

fn post(daemon: &Daemon, event: &Event, traceparent: &str) -> Answer {
    let (body, mut headers) = signed(daemon, event);
    headers.push(("traceparent".into(), traceparent.into()));
    daemon.sender().post(&headers, &body)
}
