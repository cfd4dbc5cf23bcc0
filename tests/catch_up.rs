//! Catching up: posthouse asks a sender for its events, and reports or takes in what no webhook brought. Each event is
//! one event, whichever way it comes first.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on fails")]

use std::{
    collections::BTreeMap,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use posthouse_harness::{
    Builder, Connection, Daemon, EventList, Headers, ListApi, Sender, Signer, Source, WebReply, ago,
    eventually, rfc3339, seed, test_python, unix_now, wait_until,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_posthouse");
/// The keys of a source that compares all the time, and reaches back an hour.
const OFTEN: &str = r#"every = "1s", delay = "0s", overlap = "1h""#;
const STRIPE_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const APPLY: &str = r#"mode = "apply", every = "1s", delay = "0s", overlap = "1h""#;

/// A daemon with `counter`, and the source `scalekit`, which asks this list.
fn asking(list: &EventList, settings: &str) -> Builder {
    Daemon::builder(BINARY)
        .guest("counter")
        .source(Source::new("scalekit").line(&list.settings(settings)))
        .set("log", "level = \"info,posthouse=debug\"")
}

/// The status of catching up on the source `scalekit`.
fn status(daemon: &Daemon) -> Value {
    daemon.admin_get("/v1/sources/scalekit")["catch_up"].clone()
}

/// Waits for a complete comparison that begins now or later, and returns it.
fn compared(daemon: &Daemon) -> Value {
    let ended = |status: &Value| status["complete"].as_u64().unwrap();
    // One may be under way that has read the list already.
    let before = ended(&status(daemon));
    eventually("two comparisons", || {
        let status = status(daemon);
        (ended(&status) >= before + 2).then(|| status["last"].clone())
    })
}

/// Compares now, by an operator.
fn ordered(daemon: &Daemon, body: Value) -> Value {
    let answer = daemon.admin_post("/v1/sources/scalekit/catch-up", &body);
    assert_eq!(answer.status, 200, "{answer}");
    answer.json()
}

/// Posts the webhook of a listed event under this id of the message.
fn webhook(sender: &Sender, id: &str, body: &str) -> String {
    let answer = sender.post(&sender.signer.sign_now(id, body.as_bytes()), body.as_bytes());
    assert_eq!(answer.status, 200, "{answer}");
    answer.body
}

const RECEIVED: &str = r#"{"received":true}"#;
const DUPLICATE: &str = r#"{"received":true,"duplicate":true}"#;

/// The ids of all events with their origins, in the order in which they were stored.
fn stored(daemon: &Daemon) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut found: Vec<_> =
        daemon.events().iter().map(|event| (text(&event["id"]), text(&event["origin"]))).collect();
    found.reverse();
    found
}

#[test]
fn an_event_that_no_webhook_brought_is_taken_in_once_whatever_webhooks_come_later() {
    for api in [ListApi::Scalekit, ListApi::ScalekitCamel] {
        let list = EventList::start(api);
        let bodies: Vec<_> =
            (0..6).map(|n| list.add(ago(600 - n), &format!("evt_{n}"), "user.created", &json!({}))).collect();
        let mut daemon = asking(&list, r#"mode = "report""#).prepare();
        daemon.start();
        let standard = daemon.sender();
        let documented = daemon.sender().signed_by(Signer::Documented(Source::SECRET.into()));
        assert_eq!(webhook(&standard, "msg_1", &bodies[1]), RECEIVED);
        assert_eq!(webhook(&documented, "", &bodies[3]), RECEIVED);
        daemon.edit_config(|config| config.replace(r#"mode = "report""#, APPLY));
        daemon.restart();
        wait_until("all events are here", || daemon.events().len() == 6);
        daemon.wait_settled();

        let [webhook_origin, caught_up] = ["webhook", "catch-up"].map(str::to_owned);
        let expected = [
            ("msg_1", &webhook_origin),
            ("evt_3", &webhook_origin),
            ("evt_0", &caught_up),
            ("evt_2", &caught_up),
            ("evt_4", &caught_up),
            ("evt_5", &caught_up),
        ];
        assert_eq!(stored(&daemon), expected.map(|(id, origin)| (id.to_owned(), origin.clone())), "{api:?}");
        // A late webhook is a duplicate, under either signature.
        for (n, body) in bodies.iter().enumerate() {
            assert_eq!(webhook(&standard, &format!("late_{n}"), body), DUPLICATE, "{n}");
            assert_eq!(webhook(&documented, "", body), DUPLICATE, "{n}");
        }
        let last = compared(&daemon);
        assert_eq!(
            (&last["listed"], &last["here"], &last["missing"]),
            (&json!(6), &json!(6), &json!(0)),
            "{last}"
        );
        assert_eq!((&last["unlisted"], &last["complete"]), (&json!(0), &json!(true)), "{last}");
        assert_eq!(daemon.kv("counter")["count"], "6", "each took effect once");
        // Guests and people see the same event: the body of its webhook, and its sender's time.
        let event = daemon.event("evt_2");
        let sent: Value = serde_json::from_str(&bodies[2]).unwrap();
        assert_eq!(serde_json::from_str::<Value>(event["body"].as_str().unwrap()).unwrap(), sent);
        assert_eq!(event["occurred_at"], sent["occurred_at"]);
        assert_eq!(event["organization"], "org_1");
        let shown = daemon.cli(&["events", "show", "evt_2"]).stdout;
        assert!(shown.contains("origin") && shown.contains("catch-up"), "{shown}");
        assert!(daemon.stats()["balanced"] == json!(true));
    }
}

#[test]
fn a_report_takes_nothing_in_and_tells_a_quiet_sender_from_a_broken_one() {
    let list = EventList::start(ListApi::Scalekit);
    let mut daemon = asking(&list, OFTEN).start();
    let quiet = compared(&daemon);
    assert_eq!(quiet["summary"], "the sender is quiet: it lists no event");
    let told = daemon.cli(&["catch-up"]);
    assert!(told.code == Some(0) && told.stdout.contains("the sender is quiet"), "{told:?}");

    let bodies: Vec<_> =
        (0..5).map(|n| list.add(ago(300 - n), &format!("evt_{n}"), "user.created", &json!({}))).collect();
    for n in [0, 1] {
        assert_eq!(webhook(&daemon.sender(), &format!("msg_{n}"), &bodies[n]), RECEIVED);
    }
    // Here, and not at the sender.
    let own = format!(
        r#"{{"id":"evt_own","type":"user.created","occurred_at":"{}","data":{{}}}}"#,
        rfc3339(ago(299))
    );
    assert_eq!(webhook(&daemon.sender(), "msg_own", &own), RECEIVED);
    let last = compared(&daemon);
    assert_eq!(last["summary"], "3 events at the sender that never arrived", "{last}");
    assert_eq!(
        (&last["listed"], &last["here"], &last["taken_in"]),
        (&json!(5), &json!(2), &json!(0)),
        "{last}"
    );
    assert_eq!((&last["unlisted"], &last["first_unlisted"]), (&json!(1), &json!(["msg_own"])), "{last}");
    assert_eq!(last["first_missing"][0]["id"], "evt_2", "{last}");
    assert_eq!(status(&daemon)["missing"], 3);
    assert_eq!(daemon.events().len(), 3, "a report took something in");

    // Everywhere: the command, the doctor, the metrics and the page.
    let told = daemon.cli(&["catch-up", "--source", "scalekit"]);
    assert_eq!(told.code, Some(1), "{told:?}");
    for part in ["3 events at the sender that never arrived", "evt_4", "msg_own", "user.created"] {
        assert!(told.stdout.contains(part), "{part} in {told:?}");
    }
    let doctor = daemon.cli(&["doctor"]);
    assert!(
        doctor.stdout.contains("3 events at the sender of source `scalekit` that never arrived"),
        "{doctor:?}"
    );
    let metrics = daemon.admin("GET", "/metrics", None).body;
    assert!(metrics.contains("posthouse_catch_up_missing{source=\"scalekit\"} 3"), "{metrics}");
    let page = daemon.admin("GET", "/sources/scalekit", None).body;
    assert!(page.contains("3 events at the sender that never arrived") && page.contains("evt_4"), "{page}");
    let audit = daemon.cli(&["audit", "--json"]).stdout;
    assert!(audit.contains("catch up") && audit.contains("3 events missing, 0 taken in"), "{audit}");

    // A webhook that is late after all; then the operator has seen that the ids agree.
    assert_eq!(webhook(&daemon.sender(), "msg_late", &bodies[3]), RECEIVED);
    wait_until("one is missing no longer", || status(&daemon)["missing"] == 2);
    daemon.edit_config(|config| config.replace(OFTEN, APPLY));
    wait_until("the others are taken in", || daemon.events().len() == 6);
    wait_until("nothing is missing", || status(&daemon)["missing"] == 0);
    assert_eq!(status(&daemon)["mode"], "apply");
    daemon.wait_settled();
    assert_eq!(daemon.kv("counter")["count"], "6");

    // A sender whose API is broken is not quiet.
    list.instead(|_, _| Some(WebReply::status(403)));
    let failed = ordered(&daemon, json!({ "dry_run": true }));
    assert!(failed["summary"].as_str().unwrap().contains("could not be asked"), "{failed}");
    let told = daemon.cli(&["catch-up", "--dry-run"]);
    assert!(told.code == Some(1) && told.stdout.contains("check the credentials"), "{told:?}");
    let log = daemon.log();
    assert!(!log.contains(EventList::SECRET) && !log.contains("token-"), "the log has credentials");
}

#[test]
fn after_an_outage_the_daemon_asks_for_what_it_missed() {
    let list = EventList::start(ListApi::Scalekit);
    let settings = r#"mode = "apply", every = "1d", delay = "0s", overlap = "0s""#;
    let mut daemon = asking(&list, settings).start();
    wait_until("a first comparison", || status(&daemon)["complete"] == 1);
    daemon.kill();
    // The sender has given up before posthouse is back.
    thread::sleep(Duration::from_millis(1100));
    for n in 0..3 {
        list.add(unix_now(), &format!("evt_{n}"), "user.created", &json!({}));
    }
    thread::sleep(Duration::from_millis(1100));
    daemon.start();
    wait_until("they are here", || daemon.events().len() == 3);
    let last = status(&daemon)["last"].clone();
    assert_eq!((&last["reason"], &last["taken_in"]), (&json!("start"), &json!(3)), "{last}");

    // The store accepts nothing while its backlog is full; then it does again.
    let full = r#"mode = "apply", every = "1d", delay = "0s", overlap = "1h""#;
    let list = EventList::start(ListApi::Scalekit);
    let mut daemon = asking(&list, full).set("store", "max_backlog = 4").start();
    wait_until("a first comparison", || status(&daemon)["complete"] == 1);
    assert_eq!(daemon.admin_post("/v1/plugins/counter/pause", &json!({})).status, 200);
    for n in 0..4 {
        let body = list.add(ago(60), &format!("here_{n}"), "user.created", &json!({}));
        assert_eq!(webhook(&daemon.sender(), &format!("msg_{n}"), &body), RECEIVED);
    }
    let refused = list.add(ago(59), "evt_refused", "user.created", &json!({}));
    let sender = daemon.sender();
    assert_eq!(sender.post(&sender.signer.sign_now("m", refused.as_bytes()), refused.as_bytes()).status, 503);
    // Longer than the daemon takes to see that it accepts nothing.
    thread::sleep(Duration::from_millis(2500));
    assert_eq!(daemon.admin_post("/v1/plugins/counter/resume", &json!({})).status, 200);
    wait_until("what was refused is here", || stored(&daemon).iter().any(|(id, _)| id == "evt_refused"));
    assert_eq!(status(&daemon)["last"]["reason"], "outage");
    daemon.wait_settled();
    assert_eq!(daemon.kv("counter")["count"], "5");
    assert!(daemon.stop().success());
}

#[test]
fn stripes_events_are_caught_up_as_its_webhooks_bring_them() {
    let list = EventList::start(ListApi::Stripe);
    let table = format!(
        "[[source]]\nname = \"scalekit\"\npath = \"/in\"\nscheme = \"stripe\"\nsecrets = [{STRIPE_SECRET:?}]\nevents = [\"charge.*\"]\n{}\n",
        list.settings(APPLY)
    );
    let bodies: Vec<_> = (0..250)
        .map(|n| list.add(ago(900 - n), &format!("evt_{n}"), "charge.refunded", &json!({ "n": n })))
        .collect();
    list.add(ago(500), "evt_other", "invoice.paid", &json!({}));
    let daemon = Daemon::builder(BINARY).source(Source::new("other")).toml(&table).start();
    let post = |body: &str| {
        let at = unix_now();
        let signature = Signer::Documented(STRIPE_SECRET.into()).sign("", at, body.as_bytes()).remove(0).1;
        let headers: Headers = vec![("stripe-signature".into(), signature)];
        daemon.connect().post("/in", &headers, body.as_bytes()).unwrap().body
    };
    wait_until("all events are here", || daemon.events().len() == 250);
    let ids: Vec<_> = stored(&daemon).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, (0..250).map(|n| format!("evt_{n}")).collect::<Vec<_>>(), "the oldest first");
    assert_eq!(post(&bodies[7]), DUPLICATE);
    let new = list.add(unix_now(), "evt_new", "charge.refunded", &json!({}));
    let first = post(&new);
    let last = compared(&daemon);
    assert!(first == RECEIVED || first == DUPLICATE, "{first}");
    assert_eq!(
        (&last["filtered"], &last["missing"], &last["listed"]),
        (&json!(1), &json!(0), &json!(251)),
        "{last}"
    );
    assert_eq!(daemon.events().len(), 251);
    let event = daemon.event("evt_7");
    assert_eq!(
        (event["type"].as_str(), event["body"].as_str()),
        (Some("charge.refunded"), Some(&*bodies[7]))
    );
}

#[test]
fn the_library_of_stripe_lists_the_same_events_from_the_server_of_these_tests() {
    let list = EventList::start(ListApi::Stripe);
    for n in 0..230 {
        list.add(ago(900 - n / 2), &format!("evt_{n}"), "charge.refunded", &json!({ "n": n }));
    }
    let program = r#"
import json, sys, stripe
stripe.api_base, stripe.api_key = sys.argv[1:3]
events = stripe.Event.list(limit=100, created={"gte": int(sys.argv[3]), "lt": int(sys.argv[4])})
print(json.dumps([event.id for event in events.auto_paging_iter()]))
"#;
    let (from, to) = (ago(880).to_string(), ago(800).to_string());
    let output = Command::new(test_python())
        .args(["-c", program, &list.url(), EventList::SECRET, &from, &to])
        .output()
        .expect("a Python with stripe; see tests/requirements.txt");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let theirs: Vec<String> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(theirs.len() > 100, "more than a page: {}", theirs.len());

    let table = format!(
        "[[source]]\nname = \"scalekit\"\npath = \"/in\"\nscheme = \"stripe\"\nsecrets = [{STRIPE_SECRET:?}]\n{}\n",
        list.settings(r#"mode = "apply", every = "1d", delay = "0s", overlap = "1h""#)
    );
    let requests = list.requests().len();
    let daemon = Daemon::builder(BINARY).source(Source::new("other")).toml(&table).start();
    wait_until("a comparison", || status(&daemon)["complete"] == 1);
    assert_eq!(status(&daemon)["taken_in"], 230);
    // The library lists the newest first.
    let own: Vec<_> = stored(&daemon).into_iter().map(|(id, _)| id).rev().collect();
    let first = own.iter().position(|id| *id == theirs[0]).unwrap();
    assert_eq!(own[first..first + theirs.len()], theirs);
    // The daemon asks in the words of the library.
    let theirs_first = &list.requests()[0];
    let own = &list.requests()[requests];
    let names = |path: &str| {
        let (path, query) = path.split_once('?').unwrap();
        let names: Vec<_> = query.split('&').map(|pair| pair.split_once('=').unwrap().0.to_owned()).collect();
        (path.to_owned(), names)
    };
    assert_eq!(names(&own.path), names(&theirs_first.path));
    assert_eq!(own.header("authorization"), theirs_first.header("authorization"));
}

#[test]
fn whatever_the_api_answers_loses_nothing_and_never_ends_the_daemon() {
    let list = EventList::start(ListApi::Scalekit);
    let mut daemon = asking(&list, r#"mode = "apply", every = "1d", delay = "0s", overlap = "1h""#).start();
    wait_until("a first comparison", || status(&daemon)["complete"] == 1);
    for n in 0..150 {
        list.add(ago(900 - n), &format!("evt_{n}"), "user.created", &json!({}));
    }
    let is_page = |path: &str| path.starts_with("/api/");
    let page = |body: String| Some(WebReply::text(body));
    let event = |id: &str| {
        let at = rfc3339(ago(800));
        format!(r#"{{"id":"{id}","type":"user.created","occurred_at":"{at}","data":{{}}}}"#)
    };
    let circle = format!(r#"{{"events":[{}],"next_page_token":"again"}}"#, event("evt_0"));
    let ancient = r#"{"events":[{"id":"evt_a","type":"user.created","occurred_at":"2020-01-01T00:00:00Z","data":{}}],"next_page_token":"n"}"#;
    // Each of these ends a comparison early, and takes in nothing.
    type Odd = Box<dyn Fn(&str) -> Option<WebReply> + Send + Sync>;
    let odd: [(&str, Odd); 11] = [
        ("status 403", Box::new(move |path: &str| is_page(path).then(|| WebReply::status(403)))),
        ("status 404", Box::new(move |path: &str| is_page(path).then(|| WebReply::status(404)))),
        ("status 500", Box::new(move |path: &str| is_page(path).then(|| WebReply::status(500)))),
        ("has none", Box::new(move |path: &str| if is_page(path) { None } else { page("{}".to_owned()) })),
        (
            "not JSON",
            Box::new(move |path: &str| if is_page(path) { page("<html>".to_owned()) } else { None }),
        ),
        (
            "form of a list",
            Box::new(move |path: &str| if is_page(path) { page("[1]".to_owned()) } else { None }),
        ),
        ("circles", Box::new(move |path: &str| if is_page(path) { page(circle.clone()) } else { None })),
        (
            "keep to the time",
            Box::new(move |path: &str| if is_page(path) { page(ancient.to_owned()) } else { None }),
        ),
        (
            "too large",
            Box::new(move |path: &str| is_page(path).then_some(WebReply::Endless(1 << 20, Duration::ZERO))),
        ),
        (
            "another host",
            Box::new(move |path: &str| is_page(path).then(|| WebReply::redirect(307, "http://127.0.0.2:1/"))),
        ),
        ("no response", Box::new(move |path: &str| is_page(path).then_some(WebReply::BreaksOff))),
    ];
    for (told, answer) in odd {
        list.withdraw_tokens();
        list.instead(move |request, _| answer(&request.path));
        let report = ordered(&daemon, json!({}));
        let error = report["error"].as_str().unwrap_or_else(|| panic!("{told}: {report}"));
        assert!(error.contains(told), "{told}: {error}");
        assert_eq!(
            (&report["taken_in"], &report["complete"]),
            (&json!(0), &json!(false)),
            "{told}: {report}"
        );
        assert!(!error.contains(EventList::SECRET) && !error.contains("token-"), "{error}");
    }
    assert!(daemon.events().is_empty(), "something of an answer that did not end was taken in");

    // Malformed events stand between good ones; pages are slow; the API is busy now and then.
    list.instead(move |request, number| {
        if !request.path.starts_with("/api/") {
            return None;
        }
        thread::sleep(Duration::from_millis(100));
        number.is_multiple_of(3).then(|| WebReply::status(429).with("retry-after", "0"))
    });
    list.add(ago(700), "evt no id", "user.created", &json!({}));
    list.add(ago(699), "evt_odd_type", "user created!", &json!({}));
    list.add(ago(698), "evt_large", "user.created", &json!({ "x": "x".repeat(2 << 20) }));
    let report = ordered(&daemon, json!({}));
    assert_eq!((&report["taken_in"], &report["unreadable"]), (&json!(150), &json!(3)), "{report}");
    assert_eq!(report["complete"], json!(true), "{report}");
    daemon.wait_settled();
    assert_eq!(daemon.kv("counter")["count"], "150");
    let log = daemon.log();
    assert!(!log.contains(EventList::SECRET) && !log.contains("token-"), "the log has credentials");
    assert!(daemon.stop().success(), "it still runs, and stops");
}

#[test]
fn what_is_caught_up_leaves_half_of_the_backlog_to_webhooks() {
    const MOST: usize = 200;
    let list = EventList::start(ListApi::Scalekit);
    for n in 0..3 * MOST {
        list.add(ago(3000 - n as i64), &format!("evt_{n}"), "user.created", &json!({}));
    }
    let daemon = asking(&list, r#"mode = "report", every = "1d", delay = "0s", overlap = "1h""#);
    let mut daemon = daemon.set("store", &format!("max_backlog = {MOST}")).start();
    assert_eq!(daemon.admin_post("/v1/plugins/counter/pause", &json!({})).status, 200);
    daemon.edit_config(|config| config.replace(r#"mode = "report""#, r#"mode = "apply""#));
    let waiting = |daemon: &Daemon| daemon.events().len();
    wait_until("half of the backlog is full", || waiting(&daemon) > MOST / 2);
    thread::sleep(Duration::from_millis(1500));
    // One transaction may go beyond the half.
    assert!(waiting(&daemon) <= MOST / 2 + 50, "{}", waiting(&daemon));
    for n in 0..10 {
        let body = format!(r#"{{"id":"evt_new_{n}","type":"user.created","data":{{}}}}"#);
        assert_eq!(webhook(&daemon.sender(), &format!("msg_{n}"), &body), RECEIVED);
    }
    assert_eq!(daemon.admin_post("/v1/plugins/counter/resume", &json!({})).status, 200);
    wait_until("everything is here", || waiting(&daemon) == 3 * MOST + 10);
    daemon.wait_settled();
    assert_eq!(daemon.kv("counter")["count"], (3 * MOST + 10).to_string());
    assert!(daemon.stop().success());
}

#[test]
fn a_token_that_is_withdrawn_is_replaced_and_credentials_can_be_in_files() {
    let list = EventList::start(ListApi::Scalekit);
    let settings =
        list.settings(OFTEN).replace(&format!("{:?}", EventList::SECRET), "{ file = \"api-secret\" }");
    let mut daemon = Daemon::builder(BINARY).source(Source::new("scalekit").line(&settings)).prepare();
    std::fs::write(daemon.dir().join("api-secret"), format!("{}\n", EventList::SECRET)).unwrap();
    daemon.start();
    compared(&daemon);
    let tokens = || list.requests().iter().filter(|request| request.path == "/oauth/token").count();
    assert_eq!(tokens(), 1, "one token serves many requests");
    list.withdraw_tokens();
    compared(&daemon);
    assert_eq!((tokens(), &status(&daemon)["failed"]), (2, &json!(0)));
    // Without the secret, and without a name that the grant allows, it says what is wrong.
    let checked = daemon.cli(&["check"]);
    assert!(checked.stdout.contains("catch-up: report, every 1s"), "{checked:?}");
    assert!(!format!("{checked:?}").contains(EventList::SECRET));
    std::fs::remove_file(daemon.dir().join("api-secret")).unwrap();
    let checked = daemon.cli(&["check"]);
    assert!(checked.code == Some(78) && checked.stderr.contains("client_secret"), "{checked:?}");
}

#[test]
fn a_private_address_is_not_asked_unless_the_operator_names_it() {
    let list = EventList::start(ListApi::Scalekit);
    let url = list.url();
    let port = url.rsplit(':').next().unwrap().to_owned();
    // A name of this machine that is not `localhost`.
    let named = |more: &str| {
        let line = list.settings(&format!("{OFTEN}{more}"));
        line.replace(&url, &format!("http://catch-up-test.internal:{port}"))
    };
    let dns = posthouse_harness::DnsServer::start(|_, _| vec!["127.0.0.1".parse().unwrap()]);
    let http = format!("nameservers = [{:?}]", dns.address().to_string());
    let mut daemon =
        Daemon::builder(BINARY).source(Source::new("scalekit").line(&named(""))).set("http", &http).start();
    wait_until("it failed", || status(&daemon)["failed"].as_u64() > Some(0));
    let error = status(&daemon)["last"]["error"].as_str().unwrap().to_owned();
    assert!(error.contains("private address that `addresses`"), "{error}");
    assert!(list.requests().is_empty());
    daemon.edit_config(|config| config.replace(OFTEN, &format!("{OFTEN}, addresses = [\"127.0.0.1\"]")));
    wait_until("it is asked", || status(&daemon)["complete"].as_u64() > Some(0));
}

/// The n-th event of the long test.
fn kind(n: u64) -> Kind {
    match (n % 10, n / 10 % 3) {
        (0, 0) => Kind::Late,
        (0, _) => Kind::Missing,
        _ => Kind::Webhook,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Its webhook arrives.
    Webhook,
    /// It never arrives.
    Missing,
    /// Its webhook arrives much later.
    Late,
}

/// Its user, whose events are all of one kind, and its number among them.
fn of_user(n: u64, counts: &mut BTreeMap<String, u64>) -> (String, u64) {
    let user = format!("usr_{:?}_{}", kind(n), n / 30 % 7).to_lowercase();
    let count = counts.entry(user.clone()).or_default();
    *count += 1;
    (user, *count - 1)
}

/// The same settings for a comparison of half a day.
fn far(settings: &str) -> String {
    settings.replace("1h", "12h")
}

/// Events of the run in the suite. `POSTHOUSE_CATCH_UP` sets another number: `cargo xtask soak` makes it 10,000.
const EVENTS: u64 = 600;

#[test]
fn of_many_events_each_is_here_once_and_in_order_however_often_the_daemon_is_killed() {
    let events = std::env::var("POSTHOUSE_CATCH_UP").map_or(EVENTS, |text| text.parse().expect("a number"));
    let mut dice = StdRng::seed_from_u64(seed());
    let list = EventList::start(ListApi::Scalekit);
    let (mut counts, mut logs) = (BTreeMap::new(), BTreeMap::<String, Vec<String>>::new());
    let begin = ago(3300);
    let mut bodies = Vec::new();
    for n in 0..events {
        let (user, number) = of_user(n, &mut counts);
        let data = json!({ "user": { "id": user }, "n": number });
        let at = begin + (n * 3000 / events) as i64;
        bodies.push(list.add(at, &format!("evt_{n}"), "user.updated", &data));
        logs.entry(user).or_default().push(number.to_string());
    }
    let mut daemon = Daemon::builder(BINARY)
        .guest("last-state")
        .source(Source::new("scalekit").line(&list.settings(&far(OFTEN))))
        .set("log", "level = \"warn\"")
        .toml("[plugin.last-state]\norder_by = \"user\"\nretry = { attempts = 10, base = \"20ms\", factor = 1.0 }\n")
        .start();
    let mut connection = None;
    for n in (0..events).filter(|n| kind(*n) == Kind::Webhook) {
        assert_eq!(post(&daemon.sender(), &mut connection, n, &bodies[n as usize]), Some(true), "event {n}");
    }
    // A report: it says how many are missing, and takes none of them in.
    let missing = (0..events).filter(|n| kind(*n) != Kind::Webhook).count();
    wait_until("all that is missing is known", || status(&daemon)["missing"] == missing.min(1000));
    assert_eq!(daemon.events().len(), events as usize - missing, "a report took something in");

    // Slow pages, so that the daemon dies in between; late webhooks; and the daemon is killed many times.
    list.instead(|_, number| {
        thread::sleep(Duration::from_millis(number % 4 * 15));
        None
    });
    daemon.edit_config(|config| config.replace(&far(OFTEN), &far(APPLY)));
    let (stop, posted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let late = {
        let (sender, stop, posted) = (daemon.sender(), Arc::clone(&stop), Arc::clone(&posted));
        let late: Vec<_> =
            (0..events).filter(|n| kind(*n) == Kind::Late).map(|n| (n, bodies[n as usize].clone())).collect();
        thread::spawn(move || {
            let mut connection = None;
            for (n, body) in late {
                while post(&sender, &mut connection, n, &body).is_none() {
                    thread::sleep(Duration::from_millis(20));
                }
                posted.fetch_add(1, Relaxed);
                if !stop.load(Relaxed) {
                    thread::sleep(Duration::from_millis(40));
                }
            }
        })
    };
    let kills = (events / 50).max(10);
    for _ in 0..kills {
        thread::sleep(Duration::from_millis(dice.random_range(0..700)));
        daemon.kill();
        if dice.random_bool(0.2) {
            daemon.launch();
            thread::sleep(Duration::from_millis(dice.random_range(0..200)));
            daemon.kill();
        }
        daemon.start();
    }
    stop.store(true, Relaxed);
    late.join().unwrap();
    wait_until("every event is here", || daemon.events().len() >= events as usize);
    let last = compared(&daemon);
    assert_eq!((&last["listed"], &last["missing"]), (&json!(events), &json!(0)), "{last}");
    assert_eq!((&last["unlisted"], &last["unordered"]), (&json!(0), &json!(false)), "{last}");
    daemon.wait_settled();

    // Each event once, whichever way it came.
    let mut seen = BTreeMap::<u64, u64>::new();
    let mut caught_up = 0;
    for (id, origin) in stored(&daemon) {
        *seen.entry(id.rsplit('_').next().unwrap().parse().unwrap()).or_default() += 1;
        caught_up += u64::from(origin == "catch-up");
    }
    assert_eq!(seen, (0..events).map(|n| (n, 1)).collect());
    let never = (0..events).filter(|n| kind(*n) == Kind::Missing).count() as u64;
    assert!(caught_up >= never, "{caught_up} of {never}");
    let stats = daemon.stats();
    assert_eq!((&stats["store"]["made"], &stats["balanced"]), (&json!(events), &json!(true)), "{stats}");
    // The events of each user in order. Those whose webhooks overtake the list are not promised.
    let kv = daemon.kv("last-state");
    for (user, numbers) in &logs {
        let found = &kv[&format!("log/{user}")];
        if user.starts_with("usr_late") {
            let mut found: Vec<_> = found.split(' ').map(|number| number.parse::<u64>().unwrap()).collect();
            found.sort_unstable();
            assert_eq!(found, (0..numbers.len() as u64).collect::<Vec<_>>(), "{user}");
        } else {
            assert_eq!(*found, numbers.join(" "), "{user}");
        }
    }
    eprintln!(
        "{events} events, {missing} missing, {caught_up} caught up, {kills} kills, {} late webhooks",
        posted.load(Relaxed)
    );
}

/// Posts the webhook of the n-th event. Returns whether it was new; none if there was no answer.
fn post(sender: &Sender, connection: &mut Option<Connection>, n: u64, body: &str) -> Option<bool> {
    let mut open = match connection.take() {
        Some(open) => open,
        None => Connection::open(sender.address).ok()?,
    };
    let headers = sender.signer.sign_now(&format!("msg_{n}"), body.as_bytes());
    let answer = open.post(&sender.path, &headers, body.as_bytes()).ok()?;
    if answer.status != 200 {
        return None;
    }
    *connection = Some(open);
    Some(answer.body == RECEIVED)
}

#[test]
fn a_sender_that_cant_be_asked_is_refused_with_the_ones_that_can() {
    let table = "[[source]]\nname = \"gh\"\npath = \"/gh\"\nscheme = \"github\"\nsecrets = [\"0123456789abcdef0123456789abcdef\"]\ncatch_up = { url = \"https://api.github.com\" }\n";
    let refused = Daemon::builder(BINARY).toml(table).refused();
    assert_eq!(refused.code, Some(78), "{refused:?}");
    for part in ["can't be asked", "`github`", "`scalekit`", "`stripe`"] {
        assert!(refused.stderr.contains(part), "{part} in {refused:?}");
    }
    for (line, part) in [
        (
            "catch_up = { url = \"https://a.example/x\", client_id = \"c\", client_secret = \"a-long-secret-0123456789\" }",
            "has a path",
        ),
        (
            "catch_up = { client_id = \"c\", client_secret = \"a-long-secret-0123456789\" }",
            "`source.catch_up.url` is missing",
        ),
        (
            "catch_up = { url = \"https://a.example\", client_id = \"c\" }",
            "`source.catch_up.client_secret` is missing",
        ),
        ("catch_up = { url = \"https://a.example\", api_key = \"k\" }", "unknown key `api_key`"),
    ] {
        let refused = Daemon::builder(BINARY).source(Source::new("scalekit").line(line)).refused();
        assert!(refused.code == Some(78) && refused.stderr.contains(part), "{part} in {refused:?}");
    }
    let daemon = Daemon::builder(BINARY).start();
    let told = daemon.cli(&["catch-up"]);
    assert!(told.code == Some(1) && told.stderr.contains("no source has [source.catch_up]"), "{told:?}");
    let listed = daemon.cli(&["senders"]).stdout;
    let marked: Vec<_> = listed.lines().filter(|line| line.contains("  catch-up  ")).collect();
    assert_eq!(marked.len(), 3, "{listed}");
}
