//! Secrets and senders' data stay out of the log, whatever happens and at every level. They also stay out of
//! every file except the store and the mail, and out of the requests to the collector of traces.
//!
//! A run uses every kind of secret. It gets bodies with an unmistakable mark, well-formed and not. Its guests
//! fail in all the ways in which they may repeat their input. Then the test searches everything that the
//! daemon wrote for the marks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what fails fails the test")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use posthouse_harness::{
    Answer, Collector, Daemon, Event, Headers, Postgres, Scheme, Signer, SmtpOptions, SmtpServer, Source,
    WebReply, WebServer, eventually, unix_now,
};
use serde_json::{Value, json};

/// Part of every body, and of what guests make of it.
const MARK: &str = "qbodymarkq";
/// Part of the values that a source masks.
const MASKED: &str = "qmaskedmarkq";

/// A secret, and the forms in which it could appear where it must not.
struct Kept {
    what: &'static str,
    looks: Vec<String>,
}

impl Kept {
    fn new(what: &'static str, text: &str) -> Self {
        let looks =
            vec![text.to_owned(), BASE64.encode(text), hex::encode(text), format!("{:?}", text.as_bytes())];
        Self { what, looks }
    }
}

#[test]
fn neither_secrets_nor_bodies_show_in_the_log_for_people() {
    nothing_shows("human");
}

#[test]
fn neither_secrets_nor_bodies_show_in_the_log_for_programs() {
    nothing_shows("json");
}

fn nothing_shows(format: &str) {
    let collector = Collector::start();
    let postgres = Postgres::start();
    let mail = SmtpServer::start(&SmtpOptions {
        secured: true,
        unknown: vec![format!("{MARK}-unknown@example.com")],
        ..SmtpOptions::default()
    });
    let web = WebServer::start(|request| match request.path.as_str() {
        "/broken" => WebReply::status(500),
        _ => WebReply::text(request.body.clone()),
    });
    let key = "qsourcekeyq-0123456789abcdef";
    let standard = format!("whsec_{}", BASE64.encode(key));
    let documented = "qdocumentedsecretq".to_owned();
    let database = postgres.url().replacen("posthouse@", "posthouse:qdatabasesecretq@", 1);
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .set("log", &format!("level = \"trace\"\nformat = {format:?}"))
        .set("server", "max_body = \"8KiB\"\nbody_timeout = \"1s\"")
        .set("mail", "url = { env = \"MAIL_URL\" }\nretry = { attempts = 2, base = \"100ms\" }")
        .set("http", "retry = { attempts = 2, base = \"100ms\" }\ntimeout = \"2s\"")
        .set("plugins", "retry = { attempts = 2, base = \"50ms\" }")
        .set("telemetry", &format!("otlp = {:?}\nheader = {{ x-token = {{ env = \"OTLP\" }} }}", collector.url()))
        .env("MAIL_URL", &mail.url())
        .env("SSL_CERT_FILE", &mail.certificate().to_string_lossy())
        .env("DATABASE_URL", &database)
        .env("OTLP", "qcollectorsecretq")
        .env("API_TOKEN", "Bearer qheadersecretq")
        .env("PLUGIN_KEY", "qpluginsecretq")
        .source(Source::new("crm").secret(&standard).scheme(Scheme::StandardWebhooks).line("events = [\"user.*\"]"))
        .source(Source::new("page").secret(&documented).scheme(Scheme::ScalekitDocumented))
        .source(Source::new("masked").line("redact = [\"/data/user\", \"/data/log\", \"/data/mail\"]"))
        .guest("counter")
        .guest("config-probe")
        .guest("hostile")
        .guest("http-probe")
        .guest("relay")
        .guest("sql-probe")
        .toml("[databases.app]\nurl = { env = \"DATABASE_URL\" }")
        .toml("[plugin.counter.grants]\nmail = { from = [\"team@example.com\"], to = [\"*\"] }")
        .toml("[plugin.config-probe.config]\nkey = { env = \"PLUGIN_KEY\" }")
        .toml(&format!(
            "[plugin.http-probe.grants]\nhttp = [{{ url = {:?}, header.Authorization = {{ env = \"API_TOKEN\" }} }}, \"http://127.0.0.1:9\"]",
            web.url("")
        ))
        .toml("[plugin.relay.grants]\nemit = [\"user.*\"]")
        .toml("[plugin.sql-probe.grants]\ndatabase = \"app\"")
        .start();
    let kept = [
        Kept::new("the source's key", key),
        Kept::new("the source's secret", &standard),
        Kept::new("the page's secret", &documented),
        Kept::new("the admin token", &daemon.admin_token()),
        Kept::new("the mail login", "\0user\0two-doves"),
        Kept::new("the mail login in the URL", "user:two-doves"),
        Kept::new("the database's password", "qdatabasesecretq"),
        Kept::new("the collector's header", "qcollectorsecretq"),
        Kept::new("the grant's header", "qheadersecretq"),
        Kept::new("the plugin's key", "qpluginsecretq"),
    ];

    let accepted = accepted(&daemon, &web);
    refused(&daemon, &standard);
    daemon.wait_settled();
    daemon.wait_mail_settled();
    // An invalid configuration that contains the secrets.
    let config = daemon.dir().join("config.toml");
    let good = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{good}\n[[source]]\nname = \"late\"\nsecrets = [{standard:?}, 7]\n"))
        .unwrap();
    eventually("the new configuration is refused", || {
        daemon.log().contains("new configuration rejected").then_some(())
    });
    fs::write(&config, good).unwrap();
    collector.named("process http-probe");

    // Harmless values are there, so the search below looks at the right texts.
    let log = daemon.log();
    for event in &accepted {
        assert!(log.contains(event), "nothing about {event} in the log:\n{log}");
    }
    for harmless in
        ["dead letter", "signature refused", "payload refused", "it is dead", "TRACE", "masked", "sql-probe"]
    {
        assert!(log.contains(harmless), "`{harmless}` is not in the log:\n{log}");
    }
    let marks = [Kept::new("a body", MARK), Kept::new("a masked value", MASKED)];
    for line in log.lines() {
        if format == "json" {
            serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"));
        }
        shows_none(&kept, "the log", line);
        shows_none(&marks, "the log", line);
    }

    // Files: all except the store, the mail and the wasm code.
    let mut files = 0;
    for file in files_below(&daemon.dir().join("data")) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with("posthouse.db") {
            let text = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
            shows_none(&kept, &name, &text);
            shows_none(&marks, &name, &text);
            files += 1;
        }
    }
    assert!(files > 0, "no file was looked at");

    // Traces contain guests' words, masked, and never secrets or the payload itself.
    let mut posted = String::new();
    for request in collector.requests() {
        assert_eq!(request.header("x-token"), Some("qcollectorsecretq"));
        posted += &String::from_utf8_lossy(&request.body);
    }
    assert!(posted.contains(&accepted[0]) && posted.contains("process counter"));
    shows_none(&kept, "the traces", &posted);
    shows_none(&marks[1..], "the traces", &posted);
    assert!(!posted.contains(&format!("{MARK}-payload")), "a trace contains a payload");

    // The output of the command line.
    let masked = accepted.last().unwrap();
    for arguments in [
        &["events", "show", masked, "--body"][..],
        &["events", "show", masked, "--body", "--json"],
        &["events"],
        &["deliveries"],
        &["deliveries", "--json"],
        &["outbox"],
        &["outbox", "--json"],
        &["plugins", "show", "http-probe"],
        &["plugins", "show", "config-probe"],
        &["stats"],
    ] {
        let told = daemon.cli(arguments);
        assert_eq!(told.code, Some(0), "{arguments:?}: {told:?}");
        let text = format!("{}{}", told.stdout, told.stderr);
        shows_none(&kept, &format!("{arguments:?}"), &text);
        shows_none(&marks[1..], &format!("{arguments:?}"), &text);
    }
    let shown = daemon.cli(&["events", "show", masked, "--body"]).stdout;
    assert!(shown.contains("[redacted]") && shown.contains(MARK), "{shown}");
}

/// Values times bytes of the texts are some 80 GB here. A search for each value would take minutes, in which
/// no sender gets its answer.
#[test]
fn masking_many_values_in_long_texts_keeps_no_sender_waiting() {
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .set("server", "max_body = \"8MiB\"")
        .source(Source::new("masked").line("redact = [\"/data/users/*/email\"]"))
        .source(Source::new("open"))
        .guest("counter")
        .toml("[plugin.counter.limits]\nlog_line = \"1MiB\"\n")
        .start();
    let users: Vec<_> =
        (0..20_000).map(|number| json!({ "email": format!("user{number}@example.com") })).collect();
    let log = "nobody at all, ".repeat(60_000) + "user19999@example.com";
    let heavy: Vec<_> =
        (0..4).map(|_| Event::new("user.created").data(json!({ "users": users, "log": log }))).collect();
    assert!(heavy.iter().all(|event| daemon.sender_of("masked").post_event(event).accepted()));
    // Each gets its answer within the time that a sender waits.
    for _ in 0..20 {
        assert!(daemon.sender_of("open").post_event(&Event::new("user.created")).accepted());
    }
    daemon.wait_settled();
    let shown = daemon.event(&heavy[0].id)["history"][0].to_string();
    assert!(shown.contains("[redacted]") && !shown.contains("user19999"), "the text is not masked");
}

/// A plugin may keep what it was given, and repeat it while it handles another event, of any source.
#[test]
fn what_was_masked_in_one_event_stays_masked_in_what_later_ones_make_of_it() {
    let address = format!("{MASKED}-ada@example.com");
    let collector = Collector::start();
    let mail = SmtpServer::start(&SmtpOptions { unknown: vec![address.clone()], ..SmtpOptions::default() });
    let web = WebServer::start(|_| WebReply::status(500));
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .set("mail", "url = { env = \"MAIL_URL\" }\nretry = { attempts = 2, base = \"50ms\" }")
        .set("http", "retry = { attempts = 2, base = \"50ms\" }")
        .set("telemetry", &format!("otlp = {:?}", collector.url()))
        .env("MAIL_URL", &mail.url())
        .source(Source::new("masked").line("redact = [\"/data/user\", \"/data/log\"]"))
        .source(Source::new("open"))
        .guest("counter")
        .guest("http-probe")
        .guest("relay")
        .guest("welcome-email")
        .toml("[plugin.welcome-email.grants]\nmail = { from = [\"team@example.com\"], to = [\"*\"] }")
        .toml("[plugin.welcome-email.config]\norganization_subject = \"Welcome {first_name}\"")
        .toml("[plugin.relay.grants]\nemit = [\"user.*\"]")
        .toml(&format!("[plugin.http-probe.grants]\nhttp = [{:?}]", web.url("")))
        .start();
    let user = json!({ "id": "usr_1", "email": address, "first_name": MASKED });
    let post = |source: &str, event_type: &str, data: Value| {
        let event = Event::new(event_type).data(data);
        assert!(daemon.sender_of(source).post_event(&event).accepted());
        daemon.wait_settled();
        event.id
    };
    let events = [
        // Kept in keys: the address and the name. Emitted: everything, in a derived event.
        (
            "masked",
            post(
                "masked",
                "user.created",
                json!({ "user": user, "log": MASKED, "emit": "user.echoed", "echo": true }),
            ),
        ),
        // Neither event names them: the mail's recipient and subject are from the keys.
        (
            "open",
            post(
                "open",
                "membership.created",
                json!({ "membership": { "user_id": "usr_1", "organization_id": "org_1" } }),
            ),
        ),
        // Like a plugin that has kept them elsewhere.
        (
            "open",
            post(
                "open",
                "role.made",
                json!({ "log": format!("told {address} and +44 1632 960-961"), "requests": [
            { "url": web.url(&format!("/users/{MASKED}/{address}?q={MASKED}")), "method": "POST", "later": true },
        ] }),
            ),
        ),
    ];
    daemon.wait_mail_settled();
    let derived: Vec<String> = daemon
        .events()
        .iter()
        .filter(|event| event["source"] == json!("plugin:relay"))
        .map(|event| event["id"].as_str().unwrap().to_owned())
        .collect();
    assert!(!derived.is_empty(), "nothing was emitted");
    collector.named("process welcome-email");

    let marks = [
        Kept::new("a masked value", MASKED),
        Kept { what: "a telephone number", looks: vec!["1632".to_owned()] },
    ];
    let shows = |place: &str, text: &str| {
        // An event that is not masked may show its own data: its body, and its log lines unchanged.
        shows_none(&marks, place, text);
        text.contains("[redacted]")
    };
    let mut masked = 0;
    for arguments in [&["outbox"][..], &["outbox", "--json"], &["deliveries"], &["deliveries", "--json"]] {
        let told = daemon.cli(arguments);
        assert_eq!(told.code, Some(0), "{told:?}");
        masked += usize::from(shows(&format!("{arguments:?}"), &format!("{}{}", told.stdout, told.stderr)));
    }
    for (source, id) in &events {
        let (body, page) = (["events", "show", id, "--body"], format!("/events/{source}/{id}"));
        let open = *source == "open";
        let story = daemon.cli(if open { &body[..3] } else { &body[..] }).stdout;
        masked += usize::from(shows(&format!("{body:?}"), &story));
        let page = daemon.admin("GET", &page, None).body;
        let page = if open { page.split("<h2>Body</h2>").next().unwrap() } else { &page };
        masked += usize::from(shows("the page", page));
    }
    for id in &derived {
        masked +=
            usize::from(shows("a derived event", &daemon.cli(&["events", "show", id, "--body"]).stdout));
        masked += usize::from(shows(
            "its page",
            &daemon.admin("GET", &format!("/events/plugin%3Arelay/{id}"), None).body,
        ));
    }
    for path in ["/outbox", "/deliveries", "/dead-letters", "/"] {
        let page = daemon.admin("GET", path, None);
        assert_eq!(page.status, 200, "{path}");
        shows(path, &page.body);
    }
    assert!(masked >= 8, "only {masked} places have masks");
    let listed = daemon.cli(&["outbox"]).stdout;
    assert!(listed.contains("team@example.com") && listed.contains(&web.url("/")), "{listed}");
    shows("the log", &daemon.log());
    for request in collector.requests() {
        shows("the traces", &String::from_utf8_lossy(&request.body));
    }
    // Only people see the masks.
    let asked = web.requests();
    assert!(asked.iter().any(|request| request.path.contains(MASKED)), "{asked:?}");
    assert!(daemon.kv("welcome-email").values().any(|value| value.contains(&address)));
}

/// Posts accepted events, each of which does something that may reveal its data. The last is of the source
/// with masks. Returns their ids.
fn accepted(daemon: &Daemon, web: &WebServer) -> Vec<String> {
    let own = |data: Value| Event::new("user.created").data(data);
    let nobody = format!("{MARK}-unknown@example.com");
    let events = [
        own(
            json!({ "log": MARK, "mail": format!("{MARK}@example.com"), "payload": format!("{MARK}-payload") }),
        ),
        own(json!({ "mail": nobody })),
        own(json!({ "log": format!("{MARK}\n{MARK}"), "reject": true })),
        // Failures whose reason contains the text that could not be parsed.
        own(json!({ "requests": MARK, "action": MARK, "steps": MARK, "keys": MARK, "emit": [MARK] })),
        own(json!({ "action": "trap", "trap": 1, "requests": [], "what": MARK })),
        own(json!({ "keys": ["key"], "action": "ok" })),
        own(json!({ "emit": "user.echoed", "echo": true, "what": MARK })),
        own(json!({ "emit": format!("{MARK} no type") })),
        own(json!({ "requests": [
            { "url": web.url(&format!("/{MARK}?q={MARK}")), "method": "POST", "body": MARK },
            { "url": web.url(&format!("/broken?q={MARK}")), "headers": [["x-a", MARK]] },
            { "url": format!("http://127.0.0.1:9/{MARK}?q={MARK}") },
            { "url": format!("http://{MARK}.example/{MARK}") },
            { "url": web.url("/broken"), "method": "POST", "body": MARK, "later": true },
            { "url": format!("http://127.0.0.1:9/{MARK}?q={MARK}"), "method": "POST", "later": true },
        ] })),
        own(json!({ "steps": [
            { "sql": "CREATE TABLE IF NOT EXISTS marked (t text PRIMARY KEY)" },
            { "sql": "INSERT INTO marked VALUES ($1)", "with": [MARK] },
            { "sql": "SELECT t FROM marked WHERE t = $1", "with": [MARK], "query": true },
            { "set": MARK, "to": MARK },
        ] })),
        own(json!({ "steps": [
            { "sql": "INSERT INTO marked VALUES ($1)", "with": [MARK] },
            { "sql": format!("SELECT '{MARK}'::int"), "query": true },
            { "sql": format!("SELECT {MARK}"), "query": true },
            { "trap": true },
        ] })),
    ];
    let mut ids: Vec<String> = Vec::new();
    for event in &events {
        let (id, body) = (event.id.clone(), event.body());
        let sender = daemon.sender_of("crm");
        let headers = sender.signer.sign_now(&id, &body);
        assert!(sender.post(&headers, &body).accepted(), "{id}");
        assert!(sender.post(&headers, &body).duplicate(), "{id}");
        ids.push(id);
    }
    // A type that the source does not accept.
    assert_eq!(daemon.sender_of("crm").post_event(&Event::new("role.made").data(json!(MARK))).status, 200);
    let page = own(json!({ "log": MARK }));
    assert!(daemon.sender_of("page").post_event(&page).accepted());
    let masked = own(json!({
        "user": { "email": format!("{MASKED}@example.com"), "name": MASKED },
        "log": format!("{MASKED} said {MASKED}@example.com"),
        "mail": format!("{MASKED}@example.com"),
        "requests": MARK,
    }));
    assert!(daemon.sender_of("masked").post_event(&masked).accepted());
    ids.extend([page.id, masked.id]);
    ids
}

/// Posts requests that are refused, for every reason that a sender can cause.
fn refused(daemon: &Daemon, standard: &str) {
    let good = Signer::Standard(standard.to_owned());
    let sender = daemon.sender_of("crm");
    let post = |headers: &Headers, body: &[u8]| sender.post(headers, body);
    let now = unix_now();
    let body = Event::new("user.created").data(json!(MARK)).body();
    let signed = good.sign("msg_1", now, &body);
    let without =
        |name: &str| -> Headers { signed.iter().filter(|(known, _)| known != name).cloned().collect() };
    let with = |name: &str, value: &str| -> Headers {
        let mut headers = without(name);
        headers.push((name.into(), value.into()));
        headers
    };
    let mut both = signed.clone();
    both.extend(signed.iter().map(|(name, value)| (name.replace("webhook", "svix"), value.clone())));
    let mut twice = signed.clone();
    twice.push(("webhook-id".into(), "msg_2".into()));
    let bad: Vec<(Headers, &[u8])> = vec![
        (Vec::new(), &body),
        (without("webhook-id"), &body),
        (twice, &body),
        (both, &body),
        (with("webhook-id", &format!("{MARK}.dot")), &body),
        (with("webhook-timestamp", MARK), &body),
        (with("webhook-signature", MARK), &body),
        (with("webhook-signature", &format!("v1,{MARK}")), &body),
        (with("webhook-signature", &format!("v1,{} ", "a".repeat(9000))), &body),
        (with("webhook-signature", &"v1,AAAA ".repeat(70)), &body),
        (good.sign("msg_1", now - 4000, &body), &body),
        (good.sign("msg_1", now + 4000, &body), &body),
        (signed.clone(), b"{\"qbodymarkq\": 1}"),
    ];
    for (headers, body) in bad {
        assert_eq!(post(&headers, body).status, 401, "{headers:?}");
    }
    let no_events: Vec<Vec<u8>> = vec![
        format!("{{\"type\": \"user.created\", \"data\": {MARK}").into_bytes(),
        format!("[\"{MARK}\"]").into_bytes(),
        format!("\"{MARK}\"").into_bytes(),
        format!("{{\"what\": \"{MARK}\"}}").into_bytes(),
        format!("{{\"type\": [\"{MARK}\"]}}").into_bytes(),
        format!("{{\"type\": \"{MARK} {MARK}\"}}").into_bytes(),
        format!("{{\"type\": \"user.created\", \"{MARK}\": 1, \"{MARK}\": 2}}").into_bytes(),
        [MARK.as_bytes(), b"\xff\xfe"].concat(),
    ];
    for body in no_events {
        let answer: Answer = post(&good.sign_now("msg_2", &body), &body);
        assert_eq!(answer.status, 400, "{answer}");
    }
    let page = daemon.sender_of("page");
    let body = format!("{{\"id\": \"{MARK} {MARK}\", \"type\": \"user.created\"}}").into_bytes();
    assert_eq!(page.post(&page.signer.sign_now("", &body), &body).status, 400);

    // Too large, by its header and by its bytes; incomplete; late; not HTTP; to another path.
    let large = MARK.repeat(1000);
    assert_eq!(post(&good.sign_now("msg_3", large.as_bytes()), large.as_bytes()).status, 413);
    let fresh = good.sign_now("msg_4", MARK.as_bytes());
    let fresh: String = fresh.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    for waits in [false, true] {
        let mut connection = daemon.connect();
        let head = format!("POST /webhooks/crm HTTP/1.1\r\nhost: x\r\n{fresh}content-length: 99\r\n\r\n");
        connection.send(format!("{head}{MARK}").as_bytes()).unwrap();
        if waits {
            assert_eq!(connection.answer().unwrap().status, 408);
        } else {
            connection.finish().unwrap();
            assert_eq!(connection.answer().unwrap().status, 400);
        }
    }
    let mut connection = daemon.connect();
    connection.send(format!("{MARK} {MARK}\r\n\r\n").as_bytes()).unwrap();
    drop(connection.answer());
    // The log names the path, so that a wrong one can be found. The text behind its `?` may be a secret.
    let elsewhere = posthouse_harness::Sender { path: format!("/elsewhere?{MARK}"), ..sender.clone() };
    assert_eq!(elsewhere.post(&signed, MARK.as_bytes()).status, 404);
    for (method, path) in [("GET", format!("/v1/events?text={MARK}")), ("POST", format!("/v1/{MARK}"))] {
        drop(daemon.admin(method, &path, None));
    }
}

#[track_caller]
fn shows_none(kept: &[Kept], place: &str, text: &str) {
    for Kept { what, looks } in kept {
        for look in looks {
            assert!(!text.contains(look.as_str()), "{place} contains {what} (as {look}):\n{text}");
        }
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}
