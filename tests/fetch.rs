//! Requests that a guest makes during its attempt: what they can reach, what they can't, and their limits.
//!
//! The servers of a test record what arrives, whatever a guest asks for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what fails fails the test")]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use posthouse_harness::{Builder, Daemon, DnsServer, Event, WebReply, WebServer, requested};
use serde_json::json;

#[test]
fn a_response_comes_back_whole_whatever_its_status() {
    let server = WebServer::start(|request| match request.path.as_str() {
        "/missing" => WebReply::status(404),
        _ => WebReply::text(format!("{} {}", request.method, String::from_utf8_lossy(&request.body)))
            .with("x-said", "yes"),
    });
    let daemon = fetching(&entry(&server.url(""))).env("HTTP_PROXY", "http://127.0.0.1:1").start();
    let got = requested(
        &daemon,
        &json!([
            { "url": server.url("/"), "show": ["X-Said", "x-other"] },
            { "url": server.url("/"), "method": "POST", "body": "hello", "headers": [["x-a", "b"]] },
            { "url": server.url("/"), "method": "DELETE" },
            { "url": server.url("/missing") },
            { "url": server.url("/"), "method": "HEAD" },
        ]),
    );
    assert_eq!(got, ["200 X-Said=yes x-other=- GET ", "200 POST hello", "200 DELETE ", "404 ", "200 "]);
    let requests = server.requests();
    assert_eq!(requests[1].header("x-a"), Some("b"));
    let host = server.address().to_string();
    assert!(requests.iter().all(|request| request.header("host") == Some(&host)), "{requests:?}");
    let delivery = daemon.deliveries("").remove(0)["id"].as_str().unwrap().to_owned();
    let keys: Vec<_> = requests.iter().map(|request| request.key().to_owned()).collect();
    assert_eq!(keys, (1..=5).map(|n| format!("{delivery}-{n}")).collect::<Vec<_>>());
}

/// A guest with a grant for one host.
#[test]
fn what_is_not_granted_is_not_reached_and_the_refusal_names_the_grant() {
    let inside = WebServer::start(|_| WebReply::text("inside"));
    let port = inside.port();
    let dns = DnsServer::start(|name, _| match name {
        "private.test" => vec![ip("10.1.2.3")],
        "metadata.test" => vec![ip("169.254.169.254")],
        "shared.test" => vec![ip("100.64.0.1")],
        _ => vec![ip("127.0.0.1")],
    });
    let granted =
        ["inside", "private", "metadata", "shared"].map(|name| entry(&format!("http://{name}.test:{port}")));
    let daemon = asking_at(&dns, fetching(&granted.join(", "))).start();

    // Hosts that the grant does not name, however they are written.
    let foreign = [
        ("http://elsewhere.test".to_owned(), "http://elsewhere.test"),
        (format!("http://127.0.0.1:{port}/"), "http://127.0.0.1"),
        (format!("http://localhost:{port}/"), "http://localhost"),
        (format!("http://2130706433:{port}/"), "http://127.0.0.1"),
        (format!("http://0x7f.1:{port}/"), "http://127.0.0.1"),
        (format!("http://0177.0.0.1:{port}/"), "http://127.0.0.1"),
        (format!("http://[::1]:{port}/"), "http://[::1]"),
        (format!("http://[::ffff:127.0.0.1]:{port}/"), "http://[::ffff:7f00:1]"),
        ("http://169.254.169.254/latest/meta-data/".to_owned(), "http://169.254.169.254"),
        ("http://[fd00:ec2::254]/latest".to_owned(), "http://[fd00:ec2::254]"),
        (format!("https://inside.test:{port}/"), "https://inside.test"),
        ("http://inside.test/".to_owned(), "http://inside.test"),
        (format!("http://inside.test:{port}@elsewhere.test/"), "holds a login"),
        (format!("http://inside.test.elsewhere.test:{port}/"), "http://inside.test.elsewhere.test"),
    ];
    let requests: Vec<_> = foreign.iter().map(|(url, _)| json!({ "url": url })).collect();
    for ((url, origin), got) in foreign.iter().zip(requested(&daemon, &json!(requests))) {
        assert!(got.contains(origin), "{url}: {got}");
        if !origin.contains("login") {
            assert!(got.starts_with("denied plugin `http-probe` has no grant for"), "{url}: {got}");
            assert!(got.ends_with("below [plugin.http-probe.grants] in config.toml"), "{url}: {got}");
        }
    }
    assert_eq!(dns.asked(), 0, "nothing of this is a reason to look up a name");

    // Names in the grant that lead to addresses outside of it.
    let leading = [
        ("inside", "127.0.0.1", "loopback"),
        ("private", "10.1.2.3", "private"),
        ("metadata", "169.254.169.254", "a metadata service's"),
        ("shared", "100.64.0.1", "shared (carrier-grade NAT)"),
    ];
    let requests: Vec<_> =
        leading.iter().map(|(name, ..)| json!({ "url": format!("http://{name}.test:{port}/") })).collect();
    for ((name, address, word), got) in leading.iter().zip(requested(&daemon, &json!(requests))) {
        assert_eq!(
            got,
            format!(
                "denied plugin `http-probe` has no grant for {address}, to which `{name}.test` resolves and which is \
                 {word}; write {{ url = \"http://{name}.test:{port}\", addresses = [\"{address}\"] }} in `http` \
                 below [plugin.http-probe.grants] in config.toml"
            )
        );
    }
    assert_eq!(inside.requests().len(), 0);
}

#[test]
fn a_redirect_leads_no_further_than_the_grant() {
    let inside = WebServer::start(|_| WebReply::text("inside"));
    let inside_url = inside.url("/secret");
    let (to_name, port) = (format!("http://private.test:{}/", inside.port()), inside.port());
    let server = WebServer::start(move |request| match request.path.as_str() {
        "/to-address" => WebReply::redirect(302, inside_url.clone()),
        "/to-name" => WebReply::redirect(307, to_name.clone()),
        "/to-metadata" => WebReply::redirect(301, "http://169.254.169.254/latest/"),
        "/to-file" => WebReply::redirect(302, "file:///etc/passwd"),
        "/round" => WebReply::redirect(302, "/round"),
        "/near" => WebReply::redirect(303, "/there?q=1"),
        "/post" => WebReply::redirect(302, "/there"),
        "/keep" => WebReply::redirect(308, "/there"),
        _ => WebReply::text(format!("{} {}", request.method, String::from_utf8_lossy(&request.body))),
    });
    let dns = DnsServer::start(|_, _| vec![ip("127.0.0.1")]);
    let grant = [entry(&server.url("")), entry(&format!("http://private.test:{port}"))].join(", ");
    let daemon = asking_at(&dns, fetching(&grant)).start();
    let got = requested(
        &daemon,
        &json!([
            { "url": server.url("/to-address") },
            { "url": server.url("/to-name") },
            { "url": server.url("/to-metadata") },
            { "url": server.url("/to-file") },
            { "url": server.url("/round") },
            { "url": server.url("/near"), "method": "POST", "body": "x" },
            { "url": server.url("/post"), "method": "POST", "body": "x", "headers": [["content-type", "text/plain"]] },
            { "url": server.url("/keep"), "method": "POST", "body": "x" },
        ]),
    );
    let led = |path: &str| format!(", to which `{}` redirects;", server.url(path));
    assert!(
        got[0].starts_with(&format!(
            "denied plugin `http-probe` has no grant for `{}`{}",
            inside.url(""),
            led("/to-address")
        )),
        "{got:?}"
    );
    assert!(got[1].contains("no grant for 127.0.0.1, to which `private.test` resolves"), "{got:?}");
    assert!(
        got[2].contains(&format!("no grant for `http://169.254.169.254`{}", led("/to-metadata"))),
        "{got:?}"
    );
    assert!(got[3].starts_with("denied") && got[3].contains(&led("/to-file")), "{got:?}");
    assert!(got[4].starts_with("failed") && got[4].contains("more than 10 redirects"), "{got:?}");
    assert_eq!(got[5..], ["200 GET ", "200 GET ", "200 POST x"]);
    assert_eq!(inside.requests().len(), 0);
    let posted = server.requests().into_iter().rfind(|request| request.path == "/there").unwrap();
    assert_eq!((posted.method.as_str(), posted.body.as_slice()), ("POST", &b"x"[..]));
    let round = server.requests().into_iter().filter(|request| request.path == "/round").count();
    assert_eq!(round, 11);
}

/// DNS rebinding: each look-up returns another address, first the granted one and then another.
#[test]
fn a_name_whose_address_changes_between_check_and_connect_gains_nothing() {
    let good = WebServer::start(|_| WebReply::text("good").with("connection", "close"));
    let elsewhere = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), good.port()));
    let bad = WebServer::start_at(elsewhere, |_| WebReply::text("bad").with("connection", "close"));
    let dns = DnsServer::start(|_, asked| {
        vec![if asked.is_multiple_of(2) { ip("127.0.0.1") } else { ip("127.0.0.2") }]
    });
    let grant = format!(r#"{{ url = "http://rebind.test:{}", addresses = ["127.0.0.1"] }}"#, good.port());
    let daemon = asking_at(&dns, fetching(&grant)).start();
    let requests: Vec<_> =
        (0..20).map(|_| json!({ "url": format!("http://rebind.test:{}/", good.port()) })).collect();
    let got = requested(&daemon, &json!(requests));
    for (place, got) in got.iter().enumerate() {
        if place % 2 == 0 {
            assert_eq!(got, "200 good", "{place}");
        } else {
            assert!(got.starts_with("denied") && got.contains("no grant for 127.0.0.2"), "{place}: {got}");
        }
    }
    // A connection is one look-up: there is no second one with a different answer.
    assert_eq!((dns.asked(), good.requests().len(), bad.requests().len()), (20, 10, 0));

    // If a name has both addresses, only the granted one gets requests.
    let dns = DnsServer::start(|_, _| vec![ip("127.0.0.2"), ip("127.0.0.1")]);
    let daemon = asking_at(&dns, fetching(&grant)).start();
    assert_eq!(requested(&daemon, &json!(requests)), vec!["200 good"; 20]);
    assert_eq!(bad.requests().len(), 0);
}

#[test]
fn the_headers_of_the_grant_go_to_their_origin_and_to_nobody_else() {
    let other = WebServer::start(|_| WebReply::text("other"));
    let away = other.url("/away");
    let server = WebServer::start(move |request| match request.path.as_str() {
        "/away" => WebReply::redirect(307, away.clone()),
        "/near" => WebReply::redirect(307, "/there"),
        _ => WebReply::text("here"),
    });
    let grant = format!(
        r#"{{ url = "{}", header.Authorization = {{ env = "API_TOKEN" }}, header.X-Key = {{ env = "API_TOKEN" }} }}, {}"#,
        server.url(""),
        entry(&other.url("")),
    );
    let daemon = fetching(&grant).env("API_TOKEN", "Bearer hunter2").start();
    let got = requested(
        &daemon,
        &json!([
            { "url": server.url("/near") },
            { "url": server.url("/away"), "headers": [["Cookie", "a=b"], ["x-mine", "c"]] },
            { "url": other.url("/"), "headers": [["Authorization", "mine"]] },
            { "url": server.url("/"), "headers": [["authorization", "mine"]] },
        ]),
    );
    assert_eq!(got[..3], ["200 here", "200 other", "200 other"]);
    assert!(got[3].starts_with("denied `headers` holds `authorization`, which the grant of"), "{got:?}");
    let asked = server.requests();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(
        asked.iter().all(|request| request.header("authorization") == Some("Bearer hunter2")),
        "{asked:?}"
    );
    assert!(asked.iter().all(|request| request.header("x-key") == Some("Bearer hunter2")), "{asked:?}");
    let elsewhere = other.requests();
    assert_eq!(elsewhere[0].header("x-mine"), Some("c"));
    assert_eq!(elsewhere[1].header("authorization"), Some("mine"));
    let names = ["authorization", "x-key", "cookie"];
    assert!(names.iter().all(|name| elsewhere[0].header(name).is_none()), "{elsewhere:?}");
    let shown = [
        daemon.log(),
        daemon.cli(&["plugins", "show", "http-probe"]).stdout,
        daemon.cli(&["check"]).stdout,
        daemon.admin_get("/v1/plugins").to_string(),
    ];
    assert!(shown.iter().all(|text| !text.contains("hunter2")), "{shown:?}");
    assert!(
        shown[2].contains(&format!("granted: http to {} (with authorization, x-key)", server.url(""))),
        "{}",
        shown[2]
    );
    assert!(shown[1].contains("authorization"), "{}", shown[1]);
}

#[test]
fn everything_that_a_response_can_take_is_bounded() {
    let server = WebServer::start(|request| match request.path.as_str() {
        "/endless" => WebReply::Endless(4096, Duration::ZERO),
        "/drip" => WebReply::Endless(1, Duration::from_millis(50)),
        "/silent" => WebReply::Silence,
        "/large" => WebReply::text(vec![b'x'; 5000]),
        "/fits" => WebReply::text(vec![b'x'; 4096]),
        "/headers" => WebReply::text("").with("x-long", "x".repeat(3000)),
        _ => (0..200).fold(WebReply::text(""), |reply, n| reply.with(&format!("x-{n}"), "x")),
    });
    let limits =
        "[plugin.http-probe.limits]\nhttp_response = \"4KiB\"\nhttp_headers = \"2KiB\"\nhttp_time = \"1s\"";
    let daemon = fetching(&entry(&server.url(""))).plugin_config(limits).start();
    let paths = ["/endless", "/drip", "/silent", "/large", "/fits", "/headers", "/many"];
    let requests: Vec<_> = paths.iter().map(|path| json!({ "url": server.url(path) })).collect();
    let got = requested(&daemon, &json!(requests));
    assert_eq!(got[0], "limit the response's body has more bytes; limit `http_response` is 4.0 KiB");
    assert_eq!(got[1], "timeout no whole response within 1s");
    assert_eq!(got[2], "timeout no whole response within 1s");
    assert_eq!(got[3], "limit the response's body has 5000 bytes; limit `http_response` is 4.0 KiB");
    assert_eq!(got[4], format!("200 {}", "x".repeat(4096)));
    assert!(got[5].starts_with("limit the response's head has 30"), "{}", got[5]);
    assert!(got[6].starts_with("limit the response has"), "{}", got[6]);
}

#[test]
fn an_attempt_that_makes_requests_without_end_is_stopped() {
    let server = WebServer::start(|_| WebReply::text(""));
    let daemon = fetching(&entry(&server.url("")))
        .plugin_config(
            "[plugin.http-probe.limits]\nhttp_fetches = 5\n[plugin.http-probe.retry]\nattempts = 1",
        )
        .start();
    let event =
        Event::new("user.created").data(json!({ "times": 1000, "requests": [{ "url": server.url("/") }] }));
    assert!(daemon.post_event(&event).accepted());
    daemon.wait_settled();
    let attempt = daemon.event(&event.id)["history"][0]["attempt_log"][0].clone();
    assert_eq!(attempt["error"], json!("limit `http_fetches` (5) reached"));
    assert_eq!(server.requests().len(), 5);
}

#[test]
fn a_request_that_makes_no_sense_names_the_field() {
    let daemon = fetching(r#""http://a.test/v1""#).start();
    let long: String = "x".repeat(20_000);
    let cases = [
        (json!({ "url": "a.test" }), "invalid `url` is none"),
        (json!({ "url": "ftp://a.test/v1" }), "invalid `url` is neither"),
        (json!({ "url": "http://u:p@a.test/v1" }), "invalid `url` holds a login"),
        (json!({ "url": "http://a.test/v1", "method": "CONNECT" }), "invalid `method` is none of"),
        (json!({ "url": "http://a.test/v1", "method": "get" }), "invalid `method` is none of"),
        (json!({ "url": "http://a.test/v1", "body": "x" }), "invalid `body` is not empty; GET has none"),
        (json!({ "url": "http://a.test/v1", "headers": [["a b", "c"]] }), "invalid `headers` holds \"a b\""),
        (
            json!({ "url": "http://a.test/v1", "headers": [["a", "b\r\nc: d"]] }),
            "invalid `headers` holds `a`",
        ),
        (
            json!({ "url": "http://a.test/v1", "headers": [["Connection", "x"]] }),
            "invalid `headers` holds `connection`, which the host sets",
        ),
        (
            json!({ "url": "http://a.test/v1", "headers": [["Content-Length", "1"]] }),
            "invalid `headers` holds `content-length`",
        ),
        (
            json!({ "url": "http://a.test/v1", "headers": [["idempotency-key", "1"]] }),
            "invalid `headers` holds `idempotency-key`",
        ),
        (json!({ "url": "http://a.test/v1", "headers": [["a", long]] }), "limit the request's head has"),
        (
            json!({ "url": "http://a.test/v2" }),
            "denied plugin `http-probe` has no grant for `http://a.test/v2`",
        ),
        (
            json!({ "url": "http://a.test/v1/%2e%2e/v2" }),
            "denied plugin `http-probe` has no grant for `http://a.test/v2`",
        ),
        (json!({ "url": "http://a.test/v1/..%2fv2" }), "denied plugin `http-probe` has no grant for"),
    ];
    let requests: Vec<_> = cases.iter().map(|(request, _)| request.clone()).collect();
    for ((request, says), got) in cases.iter().zip(requested(&daemon, &json!(requests))) {
        assert!(got.starts_with(says), "{request}: {got}");
    }
}

#[test]
fn tls_trusts_the_operators_authority_and_nobody_unknown() {
    let known = WebServer::start_secured(&["known.test"], |_| WebReply::text("secured"));
    let unknown = WebServer::start_secured(&["unknown.test"], |_| WebReply::text("secured"));
    let dns = DnsServer::start(|_, _| vec![ip("127.0.0.1")]);
    let (known_port, unknown_port) = (known.port(), unknown.port());
    let at = |name: &str, port: u16| {
        format!(r#"{{ url = "https://{name}.test:{port}", addresses = ["127.0.0.1"] }}"#)
    };
    let grant = [at("known", known_port), at("unknown", unknown_port), at("misnamed", known_port)].join(", ");
    let daemon = asking_at(&dns, fetching(&grant))
        .set("http", &format!("ca = {:?}", known.authority().display().to_string()))
        .start();
    let got = requested(
        &daemon,
        &json!([
            { "url": format!("https://known.test:{known_port}/") },
            { "url": format!("https://unknown.test:{unknown_port}/") },
            { "url": format!("https://misnamed.test:{known_port}/") },
            { "url": format!("http://known.test:{known_port}/") },
        ]),
    );
    assert_eq!(got[0], "200 secured");
    assert!(got[1].starts_with("failed") && got[1].contains("invalid peer certificate"), "{got:?}");
    assert!(got[2].starts_with("failed") && got[2].contains("not valid for name"), "{got:?}");
    assert!(got[3].starts_with("denied"), "{got:?}");
    assert_eq!((known.requests().len(), unknown.requests().len()), (1, 0));
}

#[test]
fn a_plugin_without_the_grant_is_told_the_line() {
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).guest("http-probe").start();
    let got =
        requested(&daemon, &json!([{ "url": "https://a.test" }, { "url": "https://a.test", "later": true }]));
    let line = "denied plugin `http-probe` has no grant for http; add `http = [\"https://api.example.com\"]` below \
                [plugin.http-probe.grants] in config.toml";
    assert_eq!(got, [line, line]);
}

/// A daemon with the guest that makes requests and with this grant.
fn fetching(entries: &str) -> Builder {
    Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .plugin_config(&format!("[plugin.http-probe.grants]\nhttp = [{entries}]\n"))
        .guest("http-probe")
}

/// A daemon that looks up names at this server.
fn asking_at(dns: &DnsServer, builder: Builder) -> Builder {
    builder.set("http", &format!("nameservers = [\"{}\"]", dns.address()))
}

fn entry(url: &str) -> String {
    format!("{url:?}")
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
