//! The plugin `forward` posts events to an application, which verifies them with a real library. It loses none, and with
//! `order_by` it changes no order, whatever happens to the application and the daemon.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails fails the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use posthouse_harness::{
    Builder, Daemon, Event, Receiver, Scheme, Sender, Source, WebReply, WebServer, eventually, seed,
    wait_until,
};
use serde_json::{Value, json};

/// The secret that the application has.
const SECRET: &str = "whsec_YSBzZWNyZXQgb2YgdGhlIGFwcGxpY2F0aW9uLCAzMiBieXRlcw==";
/// Events of the long test. The environment's `POSTHOUSE_FORWARD_EVENTS` is another number.
const EVENTS: usize = 300;
/// Users whose events must stay in order.
const USERS: usize = 10;

/// What a test changes of `[plugin.app]` and of the tables below it.
#[derive(Default)]
struct App<'a> {
    /// Of the plugin. By default it gets all events.
    lines: &'a str,
    /// Whether the host signs.
    signed: bool,
    grants: &'a str,
    config: &'a str,
}

/// A daemon that forwards to this origin by a plugin `app`.
fn forwarding(origin: &str, app: &App<'_>) -> Builder {
    let App { lines, signed, grants, config } = app;
    let sign = if *signed { ", sign = { env = \"APP_SECRET\" }" } else { "" };
    let lines = if lines.is_empty() { "events = [\"*\"]" } else { lines };
    Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .source(Source::new("crm").scheme(Scheme::StandardWebhooks).line("headers = [\"x-request-id\"]"))
        .guest("forward")
        .env("APP_SECRET", SECRET)
        .toml(&format!(
            "[plugin.app]\ncomponent = \"forward\"\n{lines}\n\
             [plugin.app.grants]\nhttp = [{{ url = {origin:?}{sign} }}]\n{grants}\n\
             [plugin.app.config]\nurl = \"{origin}/webhooks\"\n{config}"
        ))
}

fn header<'a>(request: &'a Value, name: &str) -> &'a str {
    request["headers"][name].as_str().unwrap_or_default()
}

/// The number of the event within its user's.
fn number(request: &Value) -> (String, u64) {
    let body: Value = serde_json::from_str(request["body"].as_str().unwrap()).unwrap();
    (body["data"]["user"]["id"].as_str().unwrap().to_owned(), body["data"]["n"].as_u64().unwrap())
}

#[test]
fn no_event_is_lost_and_none_overtakes_another_of_its_key() {
    let seed = seed();
    let mut receiver = Receiver::troubled(SECRET, seed);
    let lines = "events = [\"*\"]\norder_by = \"user\"\n\
                 retry = { attempts = 1000, base = \"20ms\", factor = 1.2, max = \"200ms\" }\n\
                 breaker = { pause = \"100ms\", max_pause = \"200ms\" }";
    let app = App { lines, signed: true, ..App::default() };
    let mut daemon = forwarding(&receiver.origin(), &app).start();
    let events: usize =
        std::env::var("POSTHOUSE_FORWARD_EVENTS").map_or(EVENTS, |number| number.parse().expect("a number"));
    let mut sent = BTreeSet::new();
    for index in 0..events {
        // The application restarts while events flow, is down for a while, and the daemon dies meanwhile.
        match index * 10 / events {
            2 | 7 if index % (events / 10) == 0 => receiver.restart(),
            4 if index % (events / 10) == 0 => receiver.kill(),
            5 if index % (events / 10) == 0 => {
                daemon.kill();
                daemon.start();
            }
            6 if index % (events / 10) == 0 => receiver.restart(),
            _ => {}
        }
        let user = json!({ "user": { "id": format!("usr_{}", index % USERS) }, "n": index / USERS });
        let event = Event::new("user.updated").data(user);
        assert!(daemon.post_event(&event).accepted());
        sent.insert(event.id);
    }
    wait_until("every delivery is done, and none is a dead letter", || {
        daemon.deliveries_in("done") == events as u64
    });
    assert_eq!(receiver.refused(), Vec::<Value>::new(), "each request verifies");
    let taken = receiver.taken();
    let arrived: BTreeSet<_> =
        taken.iter().map(|request| header(request, "x-posthouse-id").to_owned()).collect();
    assert_eq!(arrived, sent, "all arrived");
    let mut latest: BTreeMap<String, u64> = BTreeMap::new();
    for request in &taken {
        let (user, n) = number(request);
        let before = latest.insert(user.clone(), n).unwrap_or_default();
        assert!(before <= n, "{n} of {user} arrived after {before}; the seed is {seed}");
        assert_eq!(header(request, "webhook-id"), header(request, "idempotency-key"));
    }
    // One that arrived twice has the same key both times.
    let keys: BTreeSet<_> = taken.iter().map(|request| header(request, "idempotency-key")).collect();
    assert_eq!(keys.len(), events);
}

#[test]
fn the_application_gets_what_the_sender_sent() {
    let receiver = Receiver::start(SECRET);
    let daemon = forwarding(&receiver.origin(), &App { signed: true, ..App::default() }).start();
    let event = Event::new("order.paid").data(json!({ "text": "Zoë \u{1F680}", "n": 1e2 }));
    let (sender, body) = (daemon.sender(), event.body());
    let mut headers = sender.signer.sign_now(&event.id, &body);
    for (name, value) in
        [("content-type", "application/json; charset=utf-8"), ("x-request-id", "req_1"), ("x-other", "no")]
    {
        headers.push((name.to_owned(), value.to_owned()));
    }
    assert!(sender.post(&headers, &body).accepted());
    daemon.wait_settled();
    let taken = receiver.taken();
    let [request] = &taken[..] else { unreachable!("{taken:?}, {:?}", receiver.refused()) };
    assert_eq!(request["body"].as_str().unwrap().as_bytes(), body);
    for (name, value) in [
        ("content-type", "application/json; charset=utf-8"),
        ("x-request-id", "req_1"),
        ("x-other", ""),
        ("x-posthouse-source", "crm"),
        ("x-posthouse-type", "order.paid"),
        ("x-posthouse-id", event.id.as_str()),
    ] {
        assert_eq!(header(request, name), value, "{name}");
    }
    assert_ne!(header(request, "webhook-id"), event.id, "posthouse signs it, and a replay has another id");
    assert_eq!(daemon.cli(&["replay", &event.id]).code, Some(0));
    daemon.wait_settled();
    let ids: BTreeSet<_> =
        receiver.taken().iter().map(|request| header(request, "webhook-id").to_owned()).collect();
    assert_eq!(ids.len(), 2);
    // The secret and the signature are nowhere but in the request.
    let log = daemon.log();
    let shown = daemon.cli(&["plugins", "show", "app"]).stdout + &daemon.cli(&["check"]).stdout;
    for kept in [SECRET, &SECRET[6..], header(request, "webhook-signature")] {
        assert!(!log.contains(kept) && !shown.contains(kept), "{log}{shown}");
    }
    assert!(shown.contains("a signature") && shown.contains("of forward.wasm"), "{shown}");
}

#[test]
fn an_application_that_verifies_itself_gets_the_senders_signature() {
    let receiver = Receiver::start(Source::SECRET);
    let app = App { grants: "signatures = [\"crm\"]", ..App::default() };
    let daemon = forwarding(&receiver.origin(), &app).start();
    let event = Event::new("order.paid");
    assert!(daemon.post_event(&event).accepted());
    daemon.wait_settled();
    let taken = receiver.taken();
    assert_eq!(taken.len(), 1, "{:?}", receiver.refused());
    assert_eq!(header(&taken[0], "webhook-id"), event.id, "these are the sender's headers");
}

#[test]
fn a_form_arrives_byte_for_byte() {
    let server = WebServer::start(|_| WebReply::status(200));
    let secret = "slack-secret-0123456789";
    let daemon = forwarding(&server.url(""), &App::default())
        .toml(&format!(
            "[[source]]\nname = \"slack\"\npath = \"/webhooks/slack\"\nscheme = \"slack\"\nsecrets = [{secret:?}]"
        ))
        .start();
    let form = "command=%2Fdeploy&text=to+production%21&trigger_id=13345224609.738&team_id=T0001&x=1&x=2";
    let file = daemon.dir().join("form");
    fs::write(&file, form).unwrap();
    let kind = "application/x-www-form-urlencoded";
    let signed =
        daemon.cli(&["sign", "--source", "slack", "--content-type", kind, "--body", &file.to_string_lossy()]);
    let lines = signed.stdout.lines().filter_map(|line| line.split_once(": "));
    let mut headers: Vec<_> = lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    headers.push(("content-type".to_owned(), kind.to_owned()));
    let sender = Sender { path: "/webhooks/slack".to_owned(), ..daemon.sender() };
    let answer = sender.post(&headers, form.as_bytes());
    assert_eq!(answer.status, 200, "{answer} {signed:?}");
    daemon.wait_settled();
    let requests = server.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert_eq!(String::from_utf8_lossy(&requests[0].body), form);
    assert_eq!(requests[0].header("content-type"), Some(kind));
    assert_eq!(requests[0].header("x-posthouse-type"), Some("slash_command"));
    assert_eq!(requests[0].header("x-slack-signature"), None, "nothing grants it");
}

#[test]
fn one_file_forwards_to_several_applications_by_type_and_by_value() {
    let server = WebServer::start(|_| WebReply::status(204));
    let app = App {
        lines: "events = [\"order.*\"]",
        config: "where = { \"/data/plan\" = [\"pro\", \"team\"] }",
        ..App::default()
    };
    let daemon = forwarding(&server.url(""), &app)
        .toml(&format!(
            "[plugin.crm]\ncomponent = \"forward\"\nevents = [\"user.*\"]\n[plugin.crm.grants]\nhttp = [{0:?}]\n\
             [plugin.crm.config]\nurl = \"{0}/crm\"",
            server.url("")
        ))
        .start();
    let post = |event_type: &str, plan: &str| {
        let event = Event::new(event_type).data(json!({ "plan": plan }));
        assert!(daemon.post_event(&event).accepted());
        event.id
    };
    let wanted = [post("order.paid", "pro"), post("order.paid", "team")];
    post("order.paid", "free");
    let user = post("user.created", "free");
    post("session.ended", "pro");
    daemon.wait_settled();
    let arrived = |path: &str| -> BTreeSet<String> {
        let requests = server.requests().into_iter().filter(|request| request.path == path);
        requests.map(|request| request.header("x-posthouse-id").unwrap().to_owned()).collect()
    };
    assert_eq!(arrived("/webhooks"), wanted.into());
    assert_eq!(arrived("/crm"), [user].into());
    assert_eq!(daemon.deliveries_in("done"), 4, "what `where` leaves out is done without a request");
}

#[test]
fn what_the_application_refuses_is_a_dead_letter_and_what_it_asks_for_is_respected() {
    let server = WebServer::start(|request| match request.header("x-posthouse-type") {
        Some("bad.event") => WebReply::status(422),
        // A login page must not pass for a handler.
        Some("moved.event") => WebReply::redirect(302, "/login"),
        Some("busy.event") => WebReply::status(429).with("retry-after", "3600"),
        _ => WebReply::status(200),
    });
    let lines = "events = [\"*\"]\nretry = { attempts = 3, base = \"10ms\" }";
    let daemon = forwarding(&server.url(""), &App { lines, ..App::default() }).start();
    let post = |event_type: &str| {
        let event = Event::new(event_type);
        assert!(daemon.post_event(&event).accepted());
        event.id
    };
    let (bad, moved, busy) = (post("bad.event"), post("moved.event"), post("busy.event"));
    let delivery = |id: &str| daemon.event(id)["history"][0].clone();
    let dead = |id: &str| {
        eventually("a dead letter", || Some(delivery(id)).filter(|delivery| delivery["state"] == "dead"))
    };
    assert!(dead(&bad)["error"].as_str().unwrap().contains("is 422"));
    let error = dead(&moved)["error"].clone();
    assert!(error.as_str().unwrap().contains("is 302, a redirect"), "{error}");
    let waits =
        eventually("it waits", || Some(delivery(&busy)).filter(|delivery| delivery["state"] == "waiting"));
    let parse = |time: &Value| time.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let wait = parse(&waits["due_at"]).duration_since(parse(&waits["attempt_log"][0]["started_at"]));
    assert!((3590..=3700).contains(&wait.as_secs()), "{wait:?}");
    assert_eq!(server.requests().iter().filter(|request| request.path == "/login").count(), 0);
    assert_eq!(server.requests().len(), 3);
}
