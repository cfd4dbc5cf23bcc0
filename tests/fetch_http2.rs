//! Requests over HTTP/2: used if the other side offers it, with the same limits and grants as HTTP/1.1.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what fails fails the test")]

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use posthouse_harness::{Builder, Daemon, DnsServer, Event, WebReply, WebServer, requested, wait_until};
use serde_json::json;

#[test]
fn http2_is_spoken_where_it_is_offered_and_http1_where_it_is_not() {
    let new = WebServer::start_http2(&["new.test"], |request| {
        WebReply::text(format!("{} {}", request.method, String::from_utf8_lossy(&request.body)))
            .with("x-said", "yes")
    });
    let old = WebServer::start_secured(&["old.test"], |_| WebReply::text("old"));
    let (daemon, _dns) = start(&[("new", &new), ("old", &old)], "");
    let (to_new, to_old) = (at("new", &new), at("old", &old));
    let got = requested(
        &daemon,
        &json!([
            { "url": format!("{to_new}/a"), "show": ["X-Said", "x-other"] },
            { "url": format!("{to_new}/b?c=d"), "method": "POST", "body": "hello", "headers": [["X-A", "b"]] },
            { "url": format!("{to_new}/c"), "method": "HEAD" },
            { "url": format!("{to_old}/") },
            { "url": format!("{to_new}/d"), "later": true, "method": "PUT", "body": "later" },
        ]),
    );
    assert_eq!(got[..4], ["200 X-Said=yes x-other=- GET ", "200 POST hello", "200 ", "200 old"]);
    daemon.wait_mail_settled();
    let requests = new.requests();
    assert!(requests.iter().all(|request| request.http2), "{requests:?}");
    assert!(old.requests().iter().all(|request| !request.http2));
    assert_eq!((requests[1].path.as_str(), requests[1].header("x-a")), ("/b?c=d", Some("b")));
    assert_eq!(requests[1].header(":authority"), Some(&*format!("new.test:{}", new.port())));
    assert!(requests.iter().all(|request| request.header("host").is_none()), "{requests:?}");
    // Each has its key, including that of the outbox.
    let delivery = daemon.deliveries("").remove(0)["id"].as_str().unwrap().to_owned();
    let keys: Vec<_> = requests.iter().map(|request| request.key().to_owned()).collect();
    assert_eq!(keys, [1, 2, 3, 5].map(|n| format!("{delivery}-{n}")));
    assert_eq!((requests[3].path.as_str(), requests[3].body.as_slice()), ("/d", &b"later"[..]));
}

#[test]
fn one_connection_serves_many_requests_to_one_origin_and_none_to_another() {
    // The server's certificate is valid for both names, and both names have its address.
    let server = WebServer::start_http2(&["one.test", "two.test"], |_| WebReply::text("here"));
    let (daemon, dns) = start(&[("one", &server), ("two", &server)], "");
    let (one, two) = (at("one", &server), at("two", &server));
    let requests: Vec<_> = (0..10).map(|n| json!({ "url": format!("{one}/{n}") })).collect();
    assert_eq!(requested(&daemon, &json!(requests)), vec!["200 here"; 10]);
    assert_eq!(requested(&daemon, &json!([{ "url": format!("{two}/") }])), ["200 here"]);
    let connections: Vec<_> = server.requests().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [vec![connections[0]; 10], vec![connections[10]]].concat());
    assert_ne!(connections[0], connections[10], "the second name was looked up and judged separately");
    assert_eq!(dns.asked(), 2);
}

/// A grant for one name gives no way to another through a certificate that has both.
#[test]
fn a_certificate_of_two_names_opens_no_way_to_the_one_that_is_not_granted() {
    let server = WebServer::start_http2(&["one.test", "two.test"], |_| WebReply::text("here"));
    let (daemon, _dns) = start(&[("one", &server)], "");
    let (one, two) = (at("one", &server), at("two", &server));
    let got = requested(&daemon, &json!([{ "url": format!("{one}/") }, { "url": format!("{two}/") }]));
    assert_eq!(got[0], "200 here");
    assert!(got[1].starts_with(&format!("denied plugin `http-probe` has no grant for `{two}`")), "{got:?}");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn everything_that_a_response_over_http2_can_take_is_bounded() {
    let server = WebServer::start_http2(&["web.test"], |request| match request.path.as_str() {
        "/endless" => WebReply::Endless(4096, Duration::ZERO),
        "/drip" => WebReply::Endless(1, Duration::from_millis(50)),
        "/silent" => WebReply::Silence,
        "/large" => WebReply::text(vec![b'x'; 5000]),
        "/fits" => WebReply::text(vec![b'x'; 4096]),
        "/headers" => WebReply::text("").with("x-long", "x".repeat(3000)),
        "/huge" => many(7, 100_000),
        "/absurd" => many(40, 100_000),
        "/many" => many(200, 1),
        _ => WebReply::text("well"),
    });
    let limits =
        "[plugin.http-probe.limits]\nhttp_response = \"4KiB\"\nhttp_headers = \"2KiB\"\nhttp_time = \"1s\"";
    let (daemon, _dns) = start(&[("web", &server)], limits);
    let paths = [
        "/endless", "/drip", "/silent", "/large", "/fits", "/headers", "/many", "/huge", "/well", "/absurd",
        "/well",
    ];
    let web = at("web", &server);
    let requests: Vec<_> = paths.iter().map(|path| json!({ "url": format!("{web}{path}") })).collect();
    let got = requested(&daemon, &json!(requests));
    assert_eq!(got[0], "limit the response's body has more bytes; limit `http_response` is 4.0 KiB");
    assert_eq!(got[1], "timeout no whole response within 1s");
    assert_eq!(got[2], "timeout no whole response within 1s");
    assert_eq!(got[3], "limit the response's body has 5000 bytes; limit `http_response` is 4.0 KiB");
    assert_eq!(got[4], format!("200 {}", "x".repeat(4096)));
    assert!(got[5].starts_with("limit the response's head has 30"), "{}", got[5]);
    assert!(got[5].ends_with("limit `http_headers` is 2.0 KiB"), "{}", got[5]);
    assert!(got[6].starts_with("limit the response"), "{}", got[6]);
    for place in [7, 9] {
        assert!(got[place].starts_with("limit the response's head has more bytes"), "{}", got[place]);
        assert!(got[place].contains("`http_headers`"), "{}", got[place]);
    }
    // None of this harms the next request.
    assert_eq!((got[8].as_str(), got[10].as_str()), ("200 well", "200 well"));
}

#[test]
fn a_stream_or_connection_that_the_other_side_ends_is_told_so() {
    let server = WebServer::start_http2(&["web.test"], |request| match request.path.as_str() {
        "/breaks" => WebReply::BreaksOff,
        "/hangs-up" => WebReply::HangsUp,
        "/last" => WebReply::text("last").with("connection", "close"),
        _ => WebReply::text("well"),
    });
    let (daemon, _dns) = start(&[("web", &server)], "");
    let web = at("web", &server);
    let paths = ["/well", "/breaks", "/well", "/hangs-up", "/well", "/last"];
    let requests: Vec<_> = paths.iter().map(|path| json!({ "url": format!("{web}{path}") })).collect();
    let got = requested(&daemon, &json!(requests));
    assert_eq!(
        got[1],
        format!("failed no response from `{web}`: the other side ended the request (INTERNAL_ERROR)")
    );
    // The server's GOAWAY and the end of the connection arrive together, and either may be seen first. The
    // request is sent again once, over a new connection, which ends as well.
    let ended = ["the connection was interrupted", "the other side ended the connection (ENHANCE_YOUR_CALM)"];
    let said = ended.map(|how| format!("failed no response from `{web}`: {how}"));
    assert!(said.contains(&got[3]), "{}", got[3]);
    let others = [&got[0], &got[2], &got[4], &got[5]];
    assert_eq!(others, ["200 well", "200 well", "200 well", "200 last"]);
    let requests = server.requests();
    assert_eq!(requests[1].connection, requests[2].connection, "one stream ended, not its connection");
    assert_ne!(requests[3].connection, requests[4].connection);
    // Until its GOAWAY has arrived, a connection may get one more request. Each is answered, and then another
    // connection serves.
    wait_until("the connection that is to end takes no more", || {
        assert_eq!(requested(&daemon, &json!([{ "url": format!("{web}/well") }])), ["200 well"]);
        server.requests().last().is_some_and(|last| last.connection != requests[5].connection)
    });
}

#[test]
fn a_request_that_meets_the_end_of_its_connection_goes_again_over_another() {
    let server = WebServer::start_http2(&["web.test"], |request| match request.path.as_str() {
        "/first" if request.connection == 1 => WebReply::HangsUp,
        path => WebReply::text(path),
    });
    let (daemon, _dns) = start(&[("web", &server)], "");
    let web = at("web", &server);
    let asked =
        json!([{ "url": format!("{web}/well") }, { "url": format!("{web}/first"), "method": "POST" }]);
    assert_eq!(requested(&daemon, &asked), ["200 /well", "200 /first"]);
    let requests = server.requests();
    assert_eq!(requests.len(), 3, "{requests:?}");
    assert_eq!((requests[1].key(), requests[2].header("content-length")), (requests[2].key(), Some("0")));
}

#[test]
fn redirects_and_the_headers_of_the_grant_are_the_same_over_http2() {
    let other = WebServer::start_http2(&["other.test"], |_| WebReply::text("other"));
    let (away, denied) = (format!("{}/away", at("other", &other)), "https://third.test/".to_owned());
    let server = WebServer::start_http2(&["web.test"], move |request| match request.path.as_str() {
        "/away" => WebReply::redirect(307, away.clone()),
        "/denied" => WebReply::redirect(302, denied.clone()),
        "/near" => WebReply::redirect(303, "/there"),
        _ => WebReply::text(format!("here {}", request.method)),
    });
    let dns = DnsServer::start(|_, _| vec![Ipv4Addr::LOCALHOST.into()]);
    let web = at("web", &server);
    let grant = format!(
        r#"{{ url = "{web}", addresses = ["127.0.0.1"], header.Authorization = {{ env = "API_TOKEN" }} }},
        {}"#,
        entry("other", &other)
    );
    let daemon = builder(&grant, &dns, &[&server, &other]).env("API_TOKEN", "Bearer hunter2").start();
    let got = requested(
        &daemon,
        &json!([
            { "url": format!("{web}/near"), "method": "POST", "body": "x" },
            { "url": format!("{web}/away"), "headers": [["Cookie", "a=b"], ["x-mine", "c"]] },
            { "url": format!("{web}/denied") },
            { "url": format!("{web}/"), "headers": [["Authorization", "mine"]] },
        ]),
    );
    assert_eq!(got[..2], ["200 here GET", "200 other"]);
    assert!(
        got[2].starts_with("denied plugin `http-probe` has no grant for `https://third.test`"),
        "{got:?}"
    );
    assert!(got[3].starts_with("denied `headers` holds `authorization`, which the grant of"), "{got:?}");
    let asked = server.requests();
    assert_eq!(asked.len(), 4, "{asked:?}");
    assert!(asked.iter().all(|request| request.header("authorization") == Some("Bearer hunter2")));
    let elsewhere = other.requests().remove(0);
    assert_eq!(elsewhere.header("x-mine"), Some("c"));
    assert!(["authorization", "cookie"].iter().all(|name| elsewhere.header(name).is_none()), "{elsewhere:?}");
    assert!(!daemon.log().contains("hunter2"));
}

/// A header that HTTP/2 does not allow is never sent: the answer is the same as over HTTP/1.1.
#[test]
fn headers_that_are_the_connections_cant_be_forged() {
    let server = WebServer::start_http2(&["web.test"], |_| WebReply::text("here"));
    let (daemon, _dns) = start(&[("web", &server)], "");
    let names = [
        "connection",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "content-length",
        "http2-settings",
    ];
    let url = format!("{}/", at("web", &server));
    let mut requests: Vec<_> =
        names.iter().map(|name| json!({ "url": url, "headers": [[name, "x"]] })).collect();
    requests.push(json!({ "url": url, "headers": [[":path", "/elsewhere"]] }));
    let got = requested(&daemon, &json!(requests));
    for (name, got) in names.iter().zip(&got) {
        assert_eq!(*got, format!("invalid `headers` holds `{name}`, which the host sets"));
    }
    assert_eq!(got.last().unwrap(), "invalid `headers` holds \":path\", which is no name");
    assert_eq!(server.requests().len(), 0);
}

/// Attempts that run at once share one connection, and each gets its own response.
#[test]
fn requests_at_once_share_a_connection_and_mix_nothing_up() {
    let asked = std::sync::Arc::new(AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&asked);
    let server = WebServer::start_http2(&["web.test"], move |request| {
        count.fetch_add(1, Relaxed);
        WebReply::text(request.body.clone())
    });
    let (daemon, _dns) = start(&[("web", &server)], "[plugin.http-probe]\nconcurrency = 8\n");
    let url = format!("{}/", at("web", &server));
    let events: Vec<_> = (0..40)
        .map(|n| {
            let body = format!("{n}-").repeat(500);
            let event = Event::new("user.created")
                .data(json!({ "requests": [{ "url": url, "method": "POST", "body": body }] }));
            assert!(daemon.post_event(&event).accepted());
            (event, body)
        })
        .collect();
    daemon.wait_settled();
    let told = daemon.kv("http-probe");
    for (event, body) in &events {
        assert_eq!(told[&format!("{}/0", event.id)], format!("200 {body}"));
    }
    assert_eq!(asked.load(Relaxed), 40);
    let connections: std::collections::BTreeSet<_> =
        server.requests().iter().map(|request| request.connection).collect();
    assert!(connections.len() <= 8, "{connections:?}");
}

/// 200 with this many headers of this many bytes.
fn many(headers: usize, bytes: usize) -> WebReply {
    (0..headers).fold(WebReply::text(""), |reply, n| reply.with(&format!("x-{n}"), "x".repeat(bytes)))
}

fn at(name: &str, server: &WebServer) -> String {
    format!("https://{name}.test:{}", server.port())
}

fn entry(name: &str, server: &WebServer) -> String {
    format!(r#"{{ url = "{}", addresses = ["127.0.0.1"] }}"#, at(name, server))
}

/// A daemon with the guest that makes requests, with these grants and further settings.
fn start(servers: &[(&str, &WebServer)], toml: &str) -> (Daemon, DnsServer) {
    let dns = DnsServer::start(|_, _| vec![Ipv4Addr::LOCALHOST.into()]);
    let entries: Vec<_> = servers.iter().map(|(name, server)| entry(name, server)).collect();
    let servers: Vec<_> = servers.iter().map(|(_, server)| *server).collect();
    (builder(&entries.join(", "), &dns, &servers).plugin_config(toml).start(), dns)
}

/// A daemon that trusts these servers.
fn builder(entries: &str, dns: &DnsServer, servers: &[&WebServer]) -> Builder {
    let authorities: String =
        servers.iter().map(|server| std::fs::read_to_string(server.authority()).unwrap()).collect();
    let file = servers[0].authority().with_file_name("all.pem");
    std::fs::write(&file, authorities).unwrap();
    Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .set("http", &format!("nameservers = [\"{}\"]", dns.address()))
        .set("http", &format!("ca = {:?}", file.display().to_string()))
        .set("http", r#"retry = { attempts = 4, base = "50ms", factor = 1.0 }"#)
        .plugin_config(&format!("[plugin.http-probe.grants]\nhttp = [{entries}]\n"))
        .guest("http-probe")
}
