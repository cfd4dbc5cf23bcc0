//! Endless answers from the servers that plugins request. If any part of an answer never ends, the request ends at
//! its limit, its connection ends with it, and the daemon's memory does not grow.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails fails the test")]

use std::{
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use posthouse_harness::{Builder, Daemon, DnsServer, Event, Flood, requested, timeout};
use serde_json::json;

/// Kinds of frames of HTTP/2 (RFC 9113, 6), and the flag that a head is complete.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const COMPLETE: u8 = 4;

/// A head in HPACK (RFC 7541): `:status` 200, `:status` 103, and the field `a: b`.
const OK: &[u8] = &[0x88];
const EARLY_HINTS: &[u8] = &[0x08, 3, b'1', b'0', b'3'];
const FIELD: &[u8] = &[0x00, 1, b'a', 1, b'b'];

/// The most that the daemon's memory may grow by, in KiB. Over HTTP/2, the 1xx responses that one turn of the
/// runtime reads wait in memory for the next turn. A field of six bytes takes a hundred there.
const GROWTH: u64 = 160 << 10;

#[test]
fn whatever_never_ends_in_an_answer_over_http1_ends_at_a_limit() {
    let chunked = "HTTP/1.1 200 Said\r\ntransfer-encoding: chunked\r\n\r\n";
    let floods = [
        ("100", "", "HTTP/1.1 100 Continue\r\n\r\n".to_owned()),
        ("103", "", "HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n".to_owned()),
        (
            "long 103s",
            "",
            format!("HTTP/1.1 103 Early Hints\r\n{}\r\n", "link: </style.css>\r\n".repeat(200)),
        ),
        ("one head", "HTTP/1.1 200 Said\r\n", "a: b\r\n".to_owned()),
        ("one line", "HTTP/1.1 200 Said\r\na: ", "b".to_owned()),
        ("the first line", "HTTP/1.1 200 ", "S".to_owned()),
        ("empty lines", "", "\r\n".to_owned()),
        ("small chunks", chunked, "1\r\nx\r\n".to_owned()),
        ("the length of a chunk", chunked, "0".to_owned()),
        ("an extension of a chunk", &format!("{chunked}1;"), "x".to_owned()),
        ("trailers", &format!("{chunked}1\r\nx\r\n0\r\n"), "a: b\r\n".to_owned()),
        ("one trailer", &format!("{chunked}1\r\nx\r\n0\r\na: "), "b".to_owned()),
    ];
    let met = floods.map(|(what, begin, again)| {
        let flood = Flood::start(begin, again);
        let daemon = builder(&format!("{:?}", flood.url())).start();
        check(what, &daemon, &flood, &flood.url());
        (what, daemon, flood)
    });
    all_end(&met);
}

#[test]
fn whatever_never_ends_in_an_answer_over_http2_ends_at_a_limit() {
    let whole = |head| Flood::frame(HEADERS, COMPLETE, 1, head);
    let floods = [
        ("103", Vec::new(), whole(EARLY_HINTS)),
        ("long 103s", Vec::new(), whole(&[EARLY_HINTS, &FIELD.repeat(200)].concat())),
        ("one head", Flood::frame(HEADERS, 0, 1, OK), Flood::frame(CONTINUATION, 0, 1, FIELD)),
        ("one head of nothing", Flood::frame(HEADERS, 0, 1, OK), Flood::frame(CONTINUATION, 0, 1, &[])),
        ("data of nothing", whole(OK), Flood::frame(DATA, 0, 1, &[])),
        (
            "trailers",
            [whole(OK), Flood::frame(DATA, 0, 1, b"x"), Flood::frame(HEADERS, 1, 1, FIELD)].concat(),
            Flood::frame(CONTINUATION, 0, 1, FIELD),
        ),
        ("settings", Vec::new(), Flood::frame(SETTINGS, 0, 0, &[])),
        ("pings", Vec::new(), Flood::frame(PING, 0, 0, &[0; 8])),
        ("windows", Vec::new(), Flood::frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
    ];
    let met = floods.map(|(what, begin, again)| {
        let flood = Flood::start_http2("flood.test", begin, again);
        let dns = DnsServer::start(|_, _| vec![Ipv4Addr::LOCALHOST.into()]);
        let url = format!("https://flood.test:{}/", flood.port());
        let daemon = builder(&format!(r#"{{ url = "{url}", addresses = ["127.0.0.1"] }}"#))
            .set("http", &format!("nameservers = [\"{}\"]", dns.address()))
            .set("http", &format!("ca = {:?}", flood.authority().display().to_string()))
            .start();
        check(what, &daemon, &flood, &url);
        (what, daemon, flood)
    });
    all_end(&met);
}

/// Runs a fetch and a request of the outbox against this flood.
fn check(what: &str, daemon: &Daemon, flood: &Flood, url: &str) {
    let before = most_memory(daemon);
    let got = requested(daemon, &json!([{ "url": url }]));
    let ended = ["timeout ", "limit ", "failed "].iter().any(|how| got[0].starts_with(how));
    assert!(ended, "{what}: {got:?}");
    let event = Event::new("user.created").data(json!({ "requests": [{ "url": url, "later": true }] }));
    assert!(daemon.post_event(&event).accepted());
    daemon.wait_mail_settled();
    let item = daemon.event(&event.id)["history"][0]["outbox"][0].clone();
    let growth = most_memory(daemon) - before;
    eprintln!(
        "{what}: fetch {:?}, outbox {} {}, {} MiB sent, memory grew by {growth} KiB",
        got[0],
        item["state"],
        item["error"],
        flood.sent() >> 20
    );
    assert!(growth < GROWTH, "{what}: memory grew by {growth} KiB");
}

/// Checks that each connection ends, although the daemon keeps running. Over HTTP/2 it ends after a long idle
/// time.
fn all_end(met: &[(&str, Daemon, Flood)]) {
    let began = Instant::now();
    for (what, daemon, flood) in met {
        while flood.open() > 0 {
            assert!(began.elapsed() < 3 * timeout(), "a connection is still flooded with {what}");
            thread::sleep(Duration::from_millis(100));
        }
        assert!(daemon.post_event(&Event::new("user.created")).accepted());
    }
}

/// A daemon with the guest that makes requests.
fn builder(entry: &str) -> Builder {
    Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .set("http", r#"timeout = "1s""#)
        .set("http", r#"retry = { attempts = 2, base = "10ms", factor = 1.0 }"#)
        .plugin_config(&format!(
            "[plugin.http-probe.limits]\nhttp_time = \"1s\"\n[plugin.http-probe.grants]\nhttp = [{entry}]\n"
        ))
        .guest("http-probe")
}

/// The most memory that the daemon has had, in KiB.
fn most_memory(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
