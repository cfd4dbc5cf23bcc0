//! Requests of the outbox: they leave after the commit, are tried until they arrive, and keep one key.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails fails the test")]

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use posthouse_harness::{Builder, Daemon, Event, WebReply, WebRequest, WebServer, eventually, wait_until};
use serde_json::{Value, json};

#[test]
fn a_request_leaves_after_the_commit_with_what_the_grant_adds_and_nothing_shows_it() {
    let server = WebServer::start(|_| WebReply::status(202));
    let url = server.url("/v1/seats?token=hunter4");
    let daemon = sending(&format!(
        r#"{{ url = "{}", header.Authorization = {{ env = "API_TOKEN" }} }}"#,
        server.url("/v1")
    ))
    .env("API_TOKEN", "Bearer hunter2")
    .start();
    let event = Event::new("user.created").data(json!({ "requests": [{
        "later": true, "method": "PUT", "url": url, "body": "hunter3",
        "headers": [["Content-Type", "text/plain"], ["X-Api-Version", "7"]],
    }] }));
    assert!(daemon.post_event(&event).accepted());
    daemon.wait_mail_settled();

    let requests = server.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    let request = &requests[0];
    assert_eq!((request.method.as_str(), request.path.as_str()), ("PUT", "/v1/seats?token=hunter4"));
    assert_eq!(request.body, b"hunter3");
    assert_eq!(request.header("authorization"), Some("Bearer hunter2"));
    assert_eq!(request.header("content-type"), Some("text/plain"));
    assert_eq!(request.header("x-api-version"), Some("7"));
    assert_eq!(request.header("content-length"), Some("7"));
    let history = daemon.event(&event.id)["history"][0].clone();
    assert_eq!(request.key(), format!("{}-1", history["id"].as_str().unwrap()));
    assert_eq!(daemon.kv("http-probe")[&format!("{}/0", event.id)], format!("staged {}", request.key()));

    // It is listed and reported, without its query, its headers and its body.
    let item = &history["outbox"][0];
    assert_eq!((&item["kind"], &item["state"]), (&json!("request"), &json!("sent")), "{item}");
    let told = [
        daemon.cli(&["outbox"]).stdout,
        daemon.cli(&["events", "show", &event.id]).stdout,
        daemon.cli(&["plugins", "show", "http-probe"]).stdout,
        daemon.log(),
    ];
    for text in &told[..2] {
        assert!(text.contains(&format!("PUT {}/v1/seats?…", server.url(""))), "{text}");
    }
    for secret in ["hunter2", "hunter3", "hunter4"] {
        assert!(told[0].len() > 10 && told.iter().all(|text| !text.contains(secret)), "{secret}: {told:?}");
    }
    let stored = std::fs::read(daemon.dir().join("data/posthouse.db")).unwrap();
    let wal = std::fs::read(daemon.dir().join("data/posthouse.db-wal")).unwrap_or_default();
    for bytes in [stored, wal] {
        assert!(!String::from_utf8_lossy(&bytes).contains("hunter2"), "the store holds the grant's secret");
    }
}

#[test]
fn a_failed_attempt_sends_nothing_and_the_one_that_succeeds_has_the_same_keys() {
    let server = WebServer::start(|_| WebReply::text("seen"));
    let daemon = sending(&format!("{:?}", server.url(""))).start();
    // Fetches and staged requests share one sequence of numbers.
    let event = Event::new("user.created").data(json!({ "fail": 1, "trap": 2, "requests": [
        { "url": server.url("/now/1") },
        { "later": true, "method": "POST", "url": server.url("/later/2") },
        { "url": server.url("/now/3") },
        { "later": true, "method": "POST", "url": server.url("/later/4") },
    ] }));
    assert!(daemon.post_event(&event).accepted());
    daemon.wait_mail_settled();

    let requests = server.requests();
    let keys_of = |path: &str| -> Vec<_> {
        requests
            .iter()
            .filter(|request| request.path == path)
            .map(|request| request.key().to_owned())
            .collect()
    };
    for (path, times) in [("/now/1", 3), ("/later/2", 1), ("/now/3", 3), ("/later/4", 1)] {
        let keys = keys_of(path);
        assert_eq!(keys.len(), times, "{path}: {requests:?}");
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), 1, "{keys:?}");
        assert!(keys[0].ends_with(&format!("-{}", &path[path.len() - 1..])), "{keys:?}");
    }
}

#[test]
fn a_server_that_is_busy_is_asked_again_and_one_that_says_no_is_not() {
    let asked = AtomicUsize::new(0);
    let server = WebServer::start(move |request| match request.path.as_str() {
        "/no" => WebReply::status(422),
        "/elsewhere" => WebReply::redirect(302, "/no"),
        _ => match asked.fetch_add(1, Relaxed) {
            0 => WebReply::status(503),
            1 => WebReply::status(429),
            2 => WebReply::status(408),
            _ => WebReply::status(204),
        },
    });
    let daemon = sending(&format!("{:?}", server.url(""))).start();
    let event = Event::new("user.created").data(json!({ "requests": [
        { "later": true, "method": "POST", "url": server.url("/busy"), "body": "x" },
        { "later": true, "method": "POST", "url": server.url("/no") },
        { "later": true, "method": "POST", "url": server.url("/elsewhere") },
    ] }));
    assert!(daemon.post_event(&event).accepted());
    daemon.wait_mail_settled();

    let outbox = daemon.event(&event.id)["history"][0]["outbox"].clone();
    let standing = |place: usize| (outbox[place]["state"].clone(), outbox[place]["attempts"].clone());
    assert_eq!(standing(0), (json!("sent"), json!(4)), "{outbox}");
    assert_eq!(standing(1), (json!("dead"), json!(1)), "{outbox}");
    assert_eq!(standing(2), (json!("dead"), json!(1)), "a POST does not become a GET: {outbox}");
    assert!(outbox[1]["error"].as_str().unwrap().contains("422"), "{outbox}");
    let busy: Vec<_> = server.requests().into_iter().filter(|request| request.path == "/busy").collect();
    assert!(busy.iter().all(|request| request.key() == busy[0].key() && request.body == b"x"), "{busy:?}");
}

#[test]
fn retry_after_is_obeyed_within_its_bound() {
    let server = WebServer::start(|request| match request.path.as_str() {
        "/soon" => WebReply::status(503).with("retry-after", "2"),
        _ => WebReply::status(429).with("retry-after", "Sun, 01 Mar 2099 11:00:00 GMT"),
    });
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .set("http", r#"retry = { attempts = 2, base = "1ms", factor = 1.0 }"#)
        .set("http", r#"retry_after = "3s""#)
        .plugin_config(&grant(&format!("{:?}", server.url(""))))
        .guest("http-probe")
        .start();
    let event = Event::new("user.created").data(json!({ "requests": [
        { "later": true, "method": "POST", "url": server.url("/soon") },
        { "later": true, "method": "POST", "url": server.url("/late") },
    ] }));
    assert!(daemon.post_event(&event).accepted());
    daemon.wait_mail_settled();
    for (path, least) in [("/soon", 2), ("/late", 3)] {
        let at: Vec<_> = server
            .requests()
            .into_iter()
            .filter(|request| request.path == path)
            .map(|request| request.at)
            .collect();
        assert_eq!(at.len(), 2, "{path}");
        // It waits as long as the server asked, and not until 2099.
        assert!(at[1] - at[0] >= Duration::from_secs(least), "{path}: {:?}", at[1] - at[0]);
    }
}

#[test]
fn a_dead_letter_can_be_replayed_and_bears_the_key_it_had() {
    let healthy = std::sync::Arc::new(AtomicUsize::new(0));
    let switch = std::sync::Arc::clone(&healthy);
    let server =
        WebServer::start(move |_| WebReply::status(if switch.load(Relaxed) == 1 { 200 } else { 500 }));
    let daemon = sending(&format!("{:?}", server.url(""))).start();
    let event = Event::new("user.created").data(json!({ "requests": [
        { "later": true, "method": "POST", "url": server.url("/hook"), "body": "the body" },
    ] }));
    assert!(daemon.post_event(&event).accepted());
    daemon.wait_mail_settled();
    let dead = daemon.cli(&["outbox", "--state", "dead", "--json"]).json_lines();
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!((&dead[0]["kind"], &dead[0]["attempts"]), (&json!("request"), &json!(4)));
    assert!(dead[0]["error"].as_str().unwrap().contains("500 Internal Server Error"), "{dead:?}");

    healthy.store(1, Relaxed);
    let replayed = daemon.cli(&["outbox", "replay", &dead[0]["id"].to_string()]);
    assert_eq!((replayed.code, replayed.stdout.as_str()), (Some(0), "1 item will be sent again\n"));
    daemon.wait_mail_settled();
    assert_eq!(item(&daemon, &event)["state"], json!("sent"));
    let requests = server.requests();
    assert_eq!(requests.len(), 5, "{requests:?}");
    assert!(requests.iter().all(|request| request.key() == requests[0].key()), "{requests:?}");
}

#[test]
fn what_was_on_its_way_at_a_kill_goes_again_with_the_same_key() {
    let asked = AtomicUsize::new(0);
    let server = WebServer::start(move |_| match asked.fetch_add(1, Relaxed) {
        0 => WebReply::Silence,
        _ => WebReply::status(200),
    });
    let mut daemon = sending(&format!("{:?}", server.url(""))).start();
    let event = Event::new("user.created").data(json!({ "requests": [
        { "later": true, "method": "POST", "url": server.url("/hook"), "body": "once" },
    ] }));
    assert!(daemon.post_event(&event).accepted());
    wait_until("the request has arrived", || server.requests().len() == 1);
    daemon.kill();
    daemon.start();
    daemon.wait_mail_settled();
    let requests = server.requests();
    assert_eq!(requests.len(), 2, "{requests:?}");
    assert_eq!((requests[0].key(), &requests[0].body), (requests[1].key(), &requests[1].body));
    assert_eq!(item(&daemon, &event)["state"], json!("sent"));
}

#[test]
fn a_server_that_never_answers_holds_back_no_mail() {
    let server = WebServer::start(|_| WebReply::Silence);
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .set("http", r#"timeout = "10m""#)
        .plugin_config(&grant(&format!("{:?}", server.url(""))))
        .plugin_config("[plugin.counter.grants]\nmail = { from = [\"team@example.com\"], to = [\"*\"] }")
        .guest("http-probe")
        .guest("counter")
        .start();
    let requests: Vec<_> = (0..50)
        .map(|n| json!({ "later": true, "method": "POST", "url": server.url(&format!("/{n}")) }))
        .collect();
    let event = Event {
        data: json!({ "requests": requests, "mail": "ada@example.com" }),
        ..Event::new("user.created")
    };
    assert!(daemon.post_event(&event).accepted());
    wait_until("the mail has left", || daemon.mails().len() == 1);
    wait_until("requests are on their way", || server.requests().len() >= 8);
}

/// One plugin's requests wait for a server that never answers, many more than can be sent at once.
#[test]
fn a_server_that_never_answers_holds_back_no_other_plugins_requests() {
    let server = WebServer::start(|request| match request.path.starts_with("/hangs/") {
        true => WebReply::Silence,
        false => WebReply::status(204),
    });
    let url = server.url("");
    let granted = |name: &str, event: &str| {
        format!("[plugin.{name}]\nevents = [\"{event}\"]\n[plugin.{name}.grants]\nhttp = [{url:?}]\n")
    };
    let mut builder = Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).set("http", r#"timeout = "10m""#);
    let plugins = ["user", "organization", "membership", "session"];
    for name in plugins {
        builder = builder
            .plugin(name, posthouse_harness::guest("http-probe"))
            .plugin_config(&granted(name, &format!("{name}.created")));
    }
    let daemon = builder.start();
    let asking = |name: &str, paths: Vec<String>| {
        let requests: Vec<_> = paths
            .iter()
            .map(|path| json!({ "later": true, "method": "POST", "url": format!("{url}{path}") }))
            .collect();
        let event = Event { data: json!({ "requests": requests }), ..Event::new(&format!("{name}.created")) };
        assert!(daemon.post_event(&event).accepted());
        daemon.wait_settled();
    };
    // More and more plugins send requests that are not answered. Each time the next plugin's requests leave
    // at once.
    for (place, name) in plugins.iter().enumerate() {
        asking(name, (0..3).map(|n| format!("/well/{name}/{n}")).collect());
        wait_until(&format!("the requests of {name} have left"), || {
            server
                .requests()
                .iter()
                .filter(|request| request.path.starts_with(&format!("/well/{name}/")))
                .count()
                == 3
        });
        if place < plugins.len() - 1 {
            asking(name, (0..50).map(|n| format!("/hangs/{name}/{n}")).collect());
            wait_until(&format!("the requests of {name} hang"), || {
                server.requests().iter().any(|request| request.path.starts_with(&format!("/hangs/{name}/")))
            });
        }
    }
    wait_until("the store knows of all that have left", || {
        daemon.stats()["store"]["outbox"]["sent"] == json!(12)
    });
    let standing = daemon.stats()["store"]["outbox"].clone();
    assert!(standing["leased"].as_u64().unwrap() <= 64, "{standing}");
}

#[test]
fn the_grant_in_force_when_it_is_sent_decides() {
    let server = WebServer::start(|_| WebReply::status(503));
    let mut daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .set("http", r#"retry = { attempts = 100, base = "200ms", factor = 1.0 }"#)
        .plugin_config(&grant(&format!("{:?}", server.url(""))))
        .guest("http-probe")
        .start();
    let event = Event::new("user.created").data(json!({ "requests": [
        { "later": true, "method": "POST", "url": server.url("/hook") },
    ] }));
    assert!(daemon.post_event(&event).accepted());
    wait_until("it was tried", || !server.requests().is_empty());
    daemon.stop();
    let url = server.url("");
    daemon.edit_config(|text| text.replace(&url, "https://other.example"));
    daemon.start();
    let item = eventually("it is given up", || {
        let item = item(&daemon, &event);
        (item["state"] == json!("dead")).then_some(item)
    });
    let error = item["error"].as_str().unwrap();
    assert!(error.contains(&format!("no grant for `{url}`")), "{error}");
    assert!(error.contains("[plugin.http-probe.grants]"), "{error}");
}

#[test]
fn what_can_not_be_sent_is_refused_when_it_is_staged() {
    let daemon = sending(r#""https://api.example.com/v1""#).start();
    let cases = [
        (
            json!({ "url": "https://other.example/v1" }),
            "denied plugin `http-probe` has no grant for `https://other.example`; add it to `http` below [plugin.http-probe.grants] in config.toml",
        ),
        (
            json!({ "url": "https://api.example.com/v2" }),
            "denied plugin `http-probe` has no grant for `https://api.example.com/v2`",
        ),
        (json!({ "url": "ftp://api.example.com/v1" }), "invalid `url`"),
        (json!({ "url": "https://a:b@api.example.com/v1" }), "invalid `url` holds a login"),
        (json!({ "url": "https://api.example.com/v1", "method": "TRACE" }), "invalid `method`"),
        (
            json!({ "url": "https://api.example.com/v1", "headers": [["Host", "x"]] }),
            "invalid `headers` holds `host`",
        ),
    ];
    let requests: Vec<Value> = cases
        .iter()
        .map(|(request, _)| {
            let mut request = request.clone();
            request["later"] = json!(true);
            request
        })
        .collect();
    let event = Event::new("user.created").data(json!({ "requests": requests }));
    assert!(daemon.post_event(&event).accepted());
    daemon.wait_mail_settled();
    let told = daemon.kv("http-probe");
    for (place, (_, says)) in cases.iter().enumerate() {
        let text = &told[&format!("{}/{place}", event.id)];
        assert!(text.starts_with(says), "{text}");
    }
}

#[test]
fn a_request_that_might_have_a_body_says_that_it_has_none() {
    let server = WebServer::start(|_| WebReply::status(204));
    let daemon = sending(&format!("{:?}", server.url(""))).start();
    let methods = ["POST", "PUT", "PATCH", "GET", "DELETE"];
    let asked: Vec<_> = methods
        .iter()
        .flat_map(|method| {
            [true, false].map(|later| {
                json!({ "method": method, "later": later, "url": server.url(&format!("/{method}/{later}")) })
            })
        })
        .collect();
    let event = Event::new("user.created").data(json!({ "requests": asked }));
    assert!(daemon.post_event(&event).accepted());
    daemon.wait_mail_settled();
    let requests = server.requests();
    assert_eq!(requests.len(), 10, "{requests:?}");
    for request in requests {
        let expected = matches!(request.method.as_str(), "POST" | "PUT" | "PATCH").then_some("0");
        assert_eq!(request.header("content-length"), expected, "{request:?}");
    }
}

#[test]
fn the_status_decides_whatever_comes_with_it_and_after_it() {
    let server = WebServer::start(|request| match request.path.as_str() {
        "/wide" => (0..300).fold(WebReply::status(200), |reply, n| reply.with(&format!("x-{n}"), "y")),
        "/long" => WebReply::status(201).with("x-long", "y".repeat(20_000)),
        "/endless" => WebReply::Endless(10, Duration::from_millis(50)),
        "/no" => (0..300).fold(WebReply::status(422), |reply, n| reply.with(&format!("x-{n}"), "y")),
        _ => WebReply::status(500),
    });
    let daemon = sending(&format!("{:?}", server.url(""))).start();
    let paths = ["/wide", "/long", "/endless", "/no"];
    let asked: Vec<_> = paths
        .iter()
        .map(|path| json!({ "later": true, "method": "POST", "url": server.url(path), "body": "x" }))
        .chain(["/wide", "/long"].map(|path| json!({ "url": server.url(path) })))
        .collect();
    let event = Event::new("user.created").data(json!({ "requests": asked }));
    assert!(daemon.post_event(&event).accepted());
    daemon.wait_mail_settled();

    let outbox = daemon.event(&event.id)["history"][0]["outbox"].clone();
    for (place, state) in ["sent", "sent", "sent", "dead"].iter().enumerate() {
        assert_eq!(
            (&outbox[place]["state"], &outbox[place]["attempts"]),
            (&json!(state), &json!(1)),
            "{outbox}"
        );
    }
    // A guest that reads the response gets the limit that the response exceeds.
    let told = daemon.kv("http-probe");
    for (place, says) in [(4, "limit the response has 30"), (5, "limit the response's head has 20")] {
        let text = &told[&format!("{}/{place}", event.id)];
        assert!(text.starts_with(says), "{text}");
    }
}

#[test]
fn a_connection_that_was_closed_while_it_was_idle_costs_no_try() {
    // The second request of each connection finds it closed. Each request to /never finds its connection
    // closed.
    let used = Mutex::new(BTreeSet::new());
    let server = WebServer::start(move |request| match request.path.as_str() {
        "/never" => WebReply::HangsUp,
        _ if used.lock().unwrap().insert(request.connection) => WebReply::status(204),
        _ => WebReply::HangsUp,
    });
    let daemon = sending(&format!("{:?}", server.url(""))).start();
    for method in ["POST", "GET", "POST"] {
        for later in [true, false] {
            let before = server.requests().len();
            let asked = json!({ "later": later, "method": method, "url": server.url("/") });
            let event = Event::new("user.created").data(json!({ "requests": [asked] }));
            assert!(daemon.post_event(&event).accepted());
            daemon.wait_mail_settled();
            let requests = server.requests()[before..].to_vec();
            let keys: BTreeSet<_> = requests.iter().map(WebRequest::key).collect();
            assert_eq!(keys.len(), 1, "each sending has the same key: {requests:?}");
            let fresh = requests.last().unwrap().connection;
            assert!(requests.len() <= 2 && requests.iter().filter(|r| r.connection == fresh).count() == 1);
            if later {
                let item = item(&daemon, &event);
                assert_eq!((&item["state"], &item["attempts"]), (&json!("sent"), &json!(1)), "{item}");
            } else {
                assert_eq!(daemon.kv("http-probe")[&format!("{}/0", event.id)], "204 ");
            }
        }
    }
    let again = server.requests().iter().filter(|request| request.path == "/").count();
    assert!(again > 6, "no connection was used twice: {again}");

    // If a connection is closed at its first request, each time is a failed try.
    let asked = json!({ "later": true, "method": "POST", "url": server.url("/never") });
    let event = Event::new("user.created").data(json!({ "requests": [asked] }));
    assert!(daemon.post_event(&event).accepted());
    daemon.wait_mail_settled();
    assert_eq!(item(&daemon, &event)["state"], "dead");
    let tries = server.requests().iter().filter(|request| request.path == "/never").count();
    // The first one may have used the connection of an earlier request.
    assert!((4..=5).contains(&tries), "{tries}");
}

/// A daemon with the guest that makes requests and with this grant, which retries soon.
fn sending(entry: &str) -> Builder {
    Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .set("http", r#"retry = { attempts = 4, base = "50ms", factor = 1.0 }"#)
        .set("plugins", r#"retry = { attempts = 4, base = "10ms", factor = 1.0 }"#)
        .plugin_config(&grant(entry))
        .guest("http-probe")
}

fn grant(entry: &str) -> String {
    format!("[plugin.http-probe.grants]\nhttp = [{entry}]\n")
}

/// The only outbox item of the event's only delivery.
fn item(daemon: &Daemon, event: &Event) -> Value {
    daemon.event(&event.id)["history"][0]["outbox"][0].clone()
}
