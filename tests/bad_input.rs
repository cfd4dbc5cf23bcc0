//! Bad input from peers. The daemon refuses it, keeps its memory within limits, and continues to serve others.
//! It counts each request, however broken.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what fails here fails a test")]

use std::{
    io::{self, Write as _},
    thread::sleep,
    time::{Duration, Instant},
};

use posthouse_harness::{
    Connection, Daemon, Event, Headers, Signer, Source, eventually, seed, unix_now, wait_until,
};
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

const HEAD: &str = "POST /webhooks/crm HTTP/1.1\r\nhost: x\r\n";

#[test]
fn bodies_of_every_framing() {
    let daemon = daemon();
    let event = Event::new("user.created");
    let body = event.body();
    let signed = head(&signer().sign_now(&event.id, &body));

    // Without length and chunks there is no body.
    assert_eq!(ask(&daemon, &[&signed, "\r\n"]).unwrap(), 401);
    // Chunks of every size, with extensions and trailers.
    for size in [1, 7, 100_000] {
        let chunks: Vec<u8> = body
            .chunks(size)
            .flat_map(|chunk| {
                [format!("{:x};extension=1\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()
            })
            .collect();
        let end = "0\r\nx-trailer: y\r\n\r\n";
        let chunked = format!("{signed}transfer-encoding: chunked\r\n\r\n");
        assert_eq!(ask_bytes(&daemon, &[chunked.as_bytes(), &chunks, end.as_bytes()].concat()).unwrap(), 200);
    }
    // Invalid lengths, and two lengths.
    for length in ["-1", "1e3", "abc", "0x10", "99999999999999999999999", "5, 6"] {
        assert_eq!(ask(&daemon, &[HEAD, "content-length: ", length, "\r\n\r\nhello"]).unwrap(), 400);
    }
    assert_eq!(ask(&daemon, &[HEAD, "content-length: 5\r\ncontent-length: 6\r\n\r\nhello!"]).unwrap(), 400);
    for coding in ["gzip", "chunked, gzip", "identity"] {
        assert_eq!(ask(&daemon, &[HEAD, "transfer-encoding: ", coding, "\r\n\r\nhello"]).unwrap(), 400);
    }
    // Invalid chunks.
    for chunk in ["zz\r\n", "-5\r\nhello\r\n", "ffffffffffffffffff\r\nhello\r\n", "5\r\nhellohello\r\n"] {
        assert_eq!(
            ask(&daemon, &[HEAD, "transfer-encoding: chunked\r\n\r\n", chunk, "0\r\n\r\n"]).unwrap(),
            400
        );
    }
    still_serves(&daemon);
}

/// Framings and targets that RFC 9112 requires to be refused, with its section and the answer.
const UNCLEAR: [(&str, &str, u16); 31] = [
    ("3.2: a Host is needed", "POST /P HTTP/1.1\r\ncontent-length: 0\r\n\r\n", 400),
    ("3.2: one Host", "POST /P HTTP/1.1\r\nhost: x\r\nhost: x\r\n\r\n", 400),
    ("3.2: one Host", "POST /P HTTP/1.1\r\nhost: x\r\nHOST: y\r\n\r\n", 400),
    ("3.2: one Host in HTTP/1.0 too", "POST /P HTTP/1.0\r\nhost: x\r\nhost: y\r\n\r\n", 400),
    ("3.2: a Host with its syntax", "POST /P HTTP/1.1\r\nhost: a b\r\n\r\n", 400),
    ("3.2: a Host with its syntax", "POST /P HTTP/1.1\r\nhost: x/y\r\n\r\n", 400),
    ("3.2: a Host with its syntax", "POST /P HTTP/1.1\r\nhost: u@x\r\n\r\n", 400),
    ("3.2: a Host with its syntax", "POST /P HTTP/1.1\r\nhost: x:80:80\r\n\r\n", 400),
    ("3.2: a Host with its syntax", "POST /P HTTP/1.1\r\nhost: [::1\r\n\r\n", 400),
    ("3.2: no such form of a target", "POST P HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    ("3.2.1: no fragment", "POST /P#x HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    ("3.2.2: an absolute target has a host", "POST http:///P HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    ("3.2.2: an absolute target has no login", "POST http://u@x/P HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    ("3.2.4: `*` is for OPTIONS", "POST * HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    ("5.1: no space before the colon", "POST /P HTTP/1.1\r\nhost : x\r\n\r\n", 400),
    ("5.2: no line folding", "POST /P HTTP/1.1\r\nhost: x\r\nx: a\r\n b\r\n\r\n", 400),
    ("2.2: no bare CR", "POST /P HTTP/1.1\r\nhost: x\r\nx: a\rb\r\n\r\n", 400),
    ("6.1: not in HTTP/1.0", "POST /P HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\nC", 400),
    (
        "6.1: a coding we don't know",
        "POST /P HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\nC",
        501,
    ),
    (
        "6.1: a coding we don't know",
        "POST /P HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\nC",
        501,
    ),
    ("6.1: chunked once", "POST /P HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, chunked\r\n\r\nC", 400),
    (
        "6.1: chunked once",
        "POST /P HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ntransfer-encoding: Chunked\r\n\r\nC",
        400,
    ),
    ("6.3: chunked last", "POST /P HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, gzip\r\n\r\nC", 400),
    ("6.3: chunked last", "POST /P HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\nC", 400),
    ("7: no parameters", "POST /P HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked;q=1\r\n\r\nC", 400),
    (
        "6.1: one of the two lengths",
        "POST /P HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\nC",
        400,
    ),
    (
        "6.1: one of the two lengths",
        "POST /P HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\nC",
        400,
    ),
    ("6.3: one length", "POST /P HTTP/1.1\r\nhost: x\r\ncontent-length: 1, 1\r\n\r\nx", 400),
    (
        "6.3: one length",
        "POST /P HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx",
        400,
    ),
    ("6.2: digits", "POST /P HTTP/1.1\r\nhost: x\r\ncontent-length: +1\r\n\r\nx", 400),
    (
        "7.1: a chunk as long as it says",
        "POST /P HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
        400,
    ),
];

#[test]
fn what_rfc_9112_wants_refused_is_refused_on_both_listeners_and_ends_the_connection() {
    let daemon = daemon();
    for (address, path) in [(daemon.address(), "webhooks/crm"), (daemon.admin_address(), "healthz")] {
        for (rule, request, status) in UNCLEAR {
            let request =
                request.replace("/P", &format!("/{path}")).replace("\r\n\r\nC", "\r\n\r\n0\r\n\r\n");
            // The bytes after it must not be taken for a separate request.
            let smuggled = format!("{request}GET /{path} HTTP/1.1\r\nhost: x\r\n\r\n");
            for bytes in [&request, &smuggled] {
                let mut connection = Connection::open(address).unwrap();
                connection.send(bytes.as_bytes()).unwrap();
                let answer = connection
                    .answer()
                    .unwrap_or_else(|error| panic!("RFC 9112, {rule}: {error}: {bytes:?}"));
                assert_eq!(answer.status, status, "RFC 9112, {rule}: {answer}: {bytes:?}");
                assert!(answer.json()["error"].is_string(), "{answer}");
                assert!(connection.closed(), "RFC 9112, {rule}: {bytes:?}");
            }
        }
    }
    // An earlier request is answered first.
    let good = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    for (address, status) in [(daemon.address(), 404), (daemon.admin_address(), 200)] {
        let mut connection = Connection::open(address).unwrap();
        connection.send(format!("{good}{good}GET / HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
        for expected in [status, status, 400] {
            assert_eq!(connection.answer().unwrap().status, expected);
        }
    }
    // A request with only one meaning is accepted, in every form that RFC 9112 allows.
    let event = Event::new("user.created");
    let body = String::from_utf8(event.body()).unwrap();
    let lines: String = signer()
        .sign_now(&event.id, body.as_bytes())
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let length = format!("{lines}content-length: {}\r\n\r\n{body}", body.len());
    let chunks =
        format!("{lines}Transfer-Encoding:\tCHUNKED \r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for head in [
        "POST /webhooks/crm HTTP/1.1\r\nhost: x\r\n",
        "POST http://hooks.example.com:8400/webhooks/crm?x=y HTTP/1.1\r\nHost: hooks.example.com:8400\r\n",
        "\r\n\r\nPOST /webhooks/crm HTTP/1.1\r\nhost: [::1]:8400\r\n",
        "POST /webhooks/crm HTTP/1.1\r\nhost:\r\n",
    ] {
        for rest in [&length, &chunks] {
            assert_eq!(ask(&daemon, &[head, rest]).unwrap(), 200, "{head}{rest}");
        }
    }
    assert_eq!(ask(&daemon, &["POST /webhooks/crm HTTP/1.0\r\n", &length]).unwrap(), 200);
    still_serves(&daemon);
}

#[test]
fn headers_without_end() {
    let daemon = daemon();
    let before = memory(&daemon, "VmRSS:");
    for line in ["x-{}: y\r\n", "webhook-signature: v1,{}\r\n", "webhook-id: {}\r\n"] {
        // The daemon stops reading long before the millionth. The peer may not notice at once.
        let mut connection = daemon.connect();
        connection.send(HEAD.as_bytes()).unwrap();
        for n in 0..1000 {
            let thousand: String =
                (0..1000).map(|m| line.replace("{}", &(n * 1000 + m).to_string())).collect();
            if connection.send(thousand.as_bytes()).is_err() {
                break;
            }
        }
        assert_eq!(connection.answer().unwrap().status, 431);
    }
    let long = "a".repeat(1024 * 1024);
    for name in ["webhook-id", "webhook-signature", "x"] {
        assert_eq!(ask(&daemon, &[HEAD, name, ": ", &long, "\r\n\r\n"]).unwrap(), 431);
    }
    assert_eq!(ask(&daemon, &["POST /", &long, " HTTP/1.1\r\nhost: x\r\n\r\n"]).unwrap(), 431);
    assert_eq!(ask(&daemon, &[&long, " / HTTP/1.1\r\nhost: x\r\n\r\n"]).unwrap(), 431);
    grew_little(&daemon, before);
    still_serves(&daemon);
}

#[test]
fn ids_and_signatures_that_no_sender_makes() {
    let daemon = daemon();
    let body = br#"{"type":"user.created"}"#;
    // As long as a header may be, and signed: it is the sender's, and still not a valid id.
    for id in ["x".repeat(256), "x".repeat(8000), "a b".to_owned(), "é".to_owned()] {
        let answer = daemon.sender().post(&signer().sign_now(&id, body), body);
        assert_eq!(answer.status, 400, "{answer}");
        assert!(answer.body.len() < 500 && !answer.body.contains(&id), "{answer}");
    }
    for byte in (1..=255u8).filter(|byte| !matches!(byte, b'\r' | b'\n' | b'\t' | b' ')) {
        let mut request = HEAD.as_bytes().to_vec();
        request.extend([b"webhook-id: ", &[byte][..], b"\r\nwebhook-timestamp: ", &[byte], b"\r\n"].concat());
        request.extend([b"webhook-signature: v1,", &[byte][..], b"\r\ncontent-length: 0\r\n\r\n"].concat());
        let status = ask_bytes(&daemon, &request).unwrap();
        assert!(matches!(status, 400 | 401), "{byte:#x}: {status}");
    }
    still_serves(&daemon);
}

#[test]
fn clocks_that_are_far_off() {
    let daemon = daemon();
    let body = br#"{"type":"user.created"}"#;
    for at in [i64::MIN, -1, 0, 1, unix_now() - 100_000_000, unix_now() * 1000, 253_402_300_800, i64::MAX] {
        let answer = daemon.sender().post(&signer().sign("evt_1", at, body), body);
        assert_eq!(answer.status, 401, "{at}: {answer}");
    }
    still_serves(&daemon);
}

#[test]
fn bodies_that_are_no_events() {
    let daemon = daemon();
    let deep = 400_000;
    let nested =
        |open: &str, close: &str| [open.repeat(deep / open.len()), close.repeat(deep / open.len())].concat();
    let lone_surrogate = r#"{"type":"\ud800"}"#;
    for body in [
        b"\xff\xfe\xfd".to_vec(),
        b"{\"type\":\"user.created\",\"x\":\"\xff\"}".to_vec(),
        b"{\"type\":\"user.created\"}\0".to_vec(),
        b"\xef\xbb\xbf{\"type\":\"user.created\"}".to_vec(),
        nested("[", "]").into_bytes(),
        nested("{\"a\":", "}").into_bytes(),
        "[".repeat(deep).into_bytes(),
        lone_surrogate.into(),
        br#"{"type":"user.created","type":"user.deleted"}"#.to_vec(),
        br#"{"type":"user.created","data":1,"data":2}"#.to_vec(),
        br#"{"type":"user.created","x":1,"x":2}"#.to_vec(),
        br#"{"type":"user.created"} {"type":"user.created"}"#.to_vec(),
        br#"{"type":"user.created",}"#.to_vec(),
        br#"{"type":"user.created","x":NaN}"#.to_vec(),
        br#"{"type":"user.created","x":01}"#.to_vec(),
        format!(r#"{{"type":"{}"}}"#, "t".repeat(129)).into_bytes(),
        format!(r#"{{"type":"{}"}}"#, "t".repeat(900_000)).into_bytes(),
        format!("{{{}\"type\":1}}", (0..50_000).map(|n| format!("\"k{n}\":0,")).collect::<String>())
            .into_bytes(),
    ] {
        let answer = signed(&daemon, &body);
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!((answer.0, &answer.1["error"]), (400, &json!("Invalid payload")), "{shown}: {answer:?}");
        assert!(answer.1["detail"].as_str().is_some_and(|detail| detail.len() < 400), "{shown}: {answer:?}");
    }
    for odd in
        ["", " ", "user created", "user\\ncreated", "usér.created", "*", "a,b", "../..", "<b>", "'; --"]
    {
        let status = signed(&daemon, format!(r#"{{"type":"{odd}"}}"#).as_bytes()).0;
        assert_eq!(status, if odd == "../.." { 200 } else { 400 }, "{odd}");
    }
    still_serves(&daemon);
}

#[test]
fn bodies_that_are_compressed_are_refused_and_told_so() {
    let daemon = daemon();
    let body = br#"{"type":"user.created"}"#;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(body).unwrap();
    let gzip = gzip.finish().unwrap();
    // Signed as most senders do it, before compression; signed as it is sent; not signed.
    for coding in ["gzip", "br", "GZIP", "deflate, gzip", "identity, zstd"] {
        for (signed, sent) in [(&body[..], &gzip[..]), (&gzip, &gzip), (body, body)] {
            let mut headers = signer().sign_now("evt_gz", signed);
            headers.push(("content-encoding".into(), coding.into()));
            let answer = daemon.sender().post(&headers, sent);
            assert_eq!(answer.status, 415, "{coding}: {answer}");
            assert_eq!(answer.header("accept-encoding"), Some("identity"), "{answer}");
            assert!(answer.body.contains("send it without Content-Encoding"), "{answer}");
        }
    }
    let unsigned = daemon.sender().post(&vec![("content-encoding".into(), "gzip".into())], &gzip);
    assert_eq!(unsigned.status, 415, "{unsigned}");
    // If no header says so, the signature is checked first.
    let answer = signed(&daemon, &gzip);
    assert_eq!(answer.0, 400, "{answer:?}");
    assert_eq!(answer.1["detail"], json!("the body is compressed (gzip); send it as it is"));
    for coding in ["identity", "", "identity, identity"] {
        let mut headers = signer().sign_now(&format!("evt_{}", coding.len()), body);
        headers.push(("content-encoding".into(), coding.into()));
        assert_eq!(daemon.sender().post(&headers, body).status, 200, "{coding}");
    }
    let rejected = daemon.stats()["requests"]["crm"]["rejected"].clone();
    assert!(rejected["body-compressed"].as_u64().is_some_and(|count| count == 17), "{rejected}");
    still_serves(&daemon);
}

#[test]
fn odd_bodies_that_are_events_all_the_same() {
    let daemon = daemon();
    let deep = 400_000;
    for body in [
        r#"{"type":"user.created","x":1e999,"y":-123456789012345678901234567890,"z":0.1e-999}"#.to_owned(),
        r#"{"type":"user.created","occurred_at":"the day before","organization_id":7}"#.to_owned(),
        r#"{"type":"user.created","\ud800":"\udfff","\udc00":{"\ud800":1e400},"":{"":-0},"a\u0000":"\u0000"}"#.to_owned(),
        r#"{"type":"user.created","data":{"\ud800":1,"\ud800":2,"id":1,"id":123456789012345678901234567890}}"#.to_owned(),
        "{\"type\":\"user.\\u0063reated\",\"data\":\"\\ud83d\\ude80 \\u0000\"}\r\n\t ".to_owned(),
        format!(r#"{{"type":"user.created","data":{}{}}}"#, "[".repeat(deep), "]".repeat(deep)),
        format!(r#"{{"type":"user.created","data":"{}"}}"#, "x".repeat(1024 * 1024 - 40)),
    ] {
        let answer = signed(&daemon, body.as_bytes());
        assert_eq!(answer.0, 200, "{}: {answer:?}", &body[..60]);
        let stored = daemon.events();
        let id = stored[0]["id"].as_str().unwrap();
        assert_eq!(daemon.event(id)["body"].as_str(), Some(&*body));
    }
    still_serves(&daemon);
}

#[test]
fn peers_that_take_their_time() {
    let daemon =
        builder().set("server", r#"header_timeout = "1s""#).set("server", r#"body_timeout = "1s""#).start();
    let began = Instant::now();
    let trickled = [HEAD.to_owned(), format!("{}content-length: 1000\r\n\r\n", forged()), String::new()];
    let mut slow: Vec<_> = (0..300)
        .map(|n| {
            let mut connection = daemon.connect();
            connection.send(trickled[n % 3].as_bytes()).unwrap();
            (connection, true)
        })
        .collect();
    // Each would send a byte now and then forever, unless it is cut off.
    while slow.iter().any(|(_, open)| *open) {
        assert!(began.elapsed() < Duration::from_secs(60), "some are never cut off");
        for (n, (connection, open)) in slow.iter_mut().enumerate() {
            *open = *open && n % 3 != 2 && connection.send(b"x").is_ok();
        }
        assert!(daemon.post_event(&Event::new("user.created")).accepted(), "the others suffer");
        sleep(Duration::from_millis(50));
    }
    // Those that sent nothing were no requests. They just end.
    for (connection, _) in slow.iter_mut().skip(2).step_by(3) {
        assert!(connection.closed());
    }
    wait_until("all of them are counted", || {
        let stats = daemon.stats();
        stats["requests"]["(none)"]["rejected"]["header-timeout"] == 100
            && stats["requests"]["crm"]["rejected"]["body-timeout"] == 100
    });
    still_serves(&daemon);
}

#[test]
fn more_connections_than_there_is_room_for() {
    let daemon = builder().set("server", "max_requests = 8").start();
    let before = memory(&daemon, "VmRSS:");
    let mut open: Vec<_> = (0..200).filter_map(|_| Connection::open(daemon.address()).ok()).collect();
    // The oldest of them are closed for new ones.
    wait_until("160 connections over the limit are refused", || {
        let told = &daemon.stats()["requests"]["(none)"]["failed"]["too-many-connections"];
        told.as_u64().unwrap_or(0) >= 160
    });
    let told = open.first_mut().unwrap().answer().unwrap();
    assert_eq!((told.status, told.header("retry-after")), (503, Some("1")), "{told}");
    // A new connection is served meanwhile, and so is the newest of the old ones.
    assert!(daemon.post_event(&Event::new("user.created")).accepted());
    let event = Event::new("user.created");
    let headers = signer().sign_now(&event.id, &event.body());
    let answer = open.last_mut().unwrap().post("/webhooks/crm", &headers, &event.body()).unwrap();
    assert!(answer.accepted(), "{answer}");
    grew_little(&daemon, before);
    still_serves(&daemon);
}

#[test]
fn large_bodies_of_many_peers_at_once() {
    const PEERS: usize = 400;
    let daemon = builder().set("server", r#"body_timeout = "3s""#).start();
    let before = memory(&daemon, "VmHWM:");
    let part = vec![b'x'; 900 * 1024];
    let mut peers: Vec<_> = (0..PEERS).map(|_| daemon.connect()).collect();
    std::thread::scope(|scope| {
        for connection in &mut peers {
            scope.spawn(|| {
                connection.send(format!("{}content-length: 1000000\r\n\r\n", forged()).as_bytes()).unwrap();
                // It may be cut off before all of it is sent.
                drop(connection.send(&part));
            });
        }
    });
    // Some wait until their time is over, some are dropped for others that wait.
    wait_until("all of them are cut off", || {
        let requests = &daemon.stats()["requests"]["crm"];
        let number = |count: &Value| count.as_u64().unwrap_or(0);
        number(&requests["rejected"]["body-timeout"]) + number(&requests["failed"]["body-dropped"])
            == PEERS as u64
    });
    // All of them would take 360 MB. Only some may grow at once.
    let grown = memory(&daemon, "VmHWM:") - before;
    assert!(grown < 220 * 1024, "{grown} KiB more at the peak");
    still_serves(&daemon);
}

#[test]
fn bytes_that_are_not_http() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let daemon = builder().set("server", r#"header_timeout = "500ms""#).start();
    let before = memory(&daemon, "VmRSS:");
    let good = {
        let event = Event::new("user.created");
        let body = event.body();
        let head = head(&signer().sign_now(&event.id, &body));
        [format!("{head}content-length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat()
    };
    for round in 0..300 {
        let mut bytes = good.clone();
        match round % 3 {
            // Random bytes.
            0 => {
                bytes = vec![0; random.random_range(1..5000)];
                random.fill_bytes(&mut bytes);
            }
            // A valid request with some bytes changed.
            1 => {
                for _ in 0..random.random_range(1..10) {
                    let place = random.random_range(0..bytes.len());
                    bytes[place] = random.random();
                }
            }
            // The beginning of a valid request.
            _ => bytes.truncate(random.random_range(0..bytes.len())),
        }
        let mut connection = daemon.connect();
        // It may be refused before all of it is sent.
        drop(connection.send(&bytes).and_then(|()| connection.finish()));
        if let Ok(answer) = connection.answer() {
            assert!(matches!(answer.status, 200 | 400..=431), "round {round}: {answer}");
        }
    }
    grew_little(&daemon, before);
    still_serves(&daemon);
}

#[test]
fn a_flood_of_bad_requests_does_not_flood_the_log() {
    let daemon = daemon();
    let before = daemon.log().len();
    let began = Instant::now();
    let mut connection = daemon.connect();
    for _ in 0..20_000 {
        assert_eq!(connection.post("/webhooks/crm", &Headers::new(), b"{}").unwrap().status, 401);
    }
    let seconds = began.elapsed().as_secs() as usize + 2;
    let lines = daemon.log()[before..].lines().count();
    assert!(lines > 0 && lines < 20 * seconds, "{lines} lines in {seconds} s");
    assert_eq!(daemon.stats()["requests"]["crm"]["rejected"]["unsigned"], 20_000);
    still_serves(&daemon);
}

#[test]
fn nothing_of_a_request_reaches_the_log() {
    let daemon = daemon();
    let marker = "a-marker-of-the-body";
    let body = format!(r#"{{"type":"{marker} ","data":"{marker}"}}"#);
    signed(&daemon, body.as_bytes());
    signed(&daemon, format!(r#"{{"type":"user.created","data":"{marker}"}}"#).as_bytes());
    let forged: Headers = vec![
        ("webhook-id".into(), marker.into()),
        ("webhook-timestamp".into(), unix_now().to_string()),
        ("webhook-signature".into(), format!("v1,{marker}")),
    ];
    assert_eq!(daemon.sender().post(&forged, body.as_bytes()).status, 401);
    assert!(daemon.log().contains("payload refused"), "{}", daemon.log());
    assert!(!daemon.log().contains(marker) && !daemon.log().contains(Source::SECRET), "{}", daemon.log());
}

fn builder() -> posthouse_harness::Builder {
    Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).source(Source::new("crm"))
}

fn daemon() -> Daemon {
    builder().start()
}

fn signer() -> Signer {
    Source::new("crm").signer()
}

/// The head of a request with these headers, to which more can be added.
fn head(headers: &Headers) -> String {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{HEAD}{lines}")
}

/// The head of a request with a sender's headers, but a wrong signature.
fn forged() -> String {
    let claims =
        "webhook-id: msg_1\r\nwebhook-signature: v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n";
    format!("{HEAD}{claims}webhook-timestamp: {}\r\n", unix_now())
}

/// Posts a body, validly signed under a new id. Returns the status and the answer.
fn signed(daemon: &Daemon, body: &[u8]) -> (u16, Value) {
    let headers = signer().sign_now(&posthouse_harness::fresh_id(), body);
    let answer = daemon.sender().post(&headers, body);
    (answer.status, answer.json())
}

/// The status of the answer to these texts on a new connection.
fn ask(daemon: &Daemon, texts: &[&str]) -> io::Result<u16> {
    ask_bytes(daemon, texts.concat().as_bytes())
}

fn ask_bytes(daemon: &Daemon, bytes: &[u8]) -> io::Result<u16> {
    let mut connection = daemon.connect();
    // The daemon may answer and close before it has read everything.
    drop(connection.send(bytes));
    drop(connection.finish());
    connection.answer().map(|answer| answer.status)
}

/// KiB of memory that the daemon has (`VmRSS:`), or had at its peak (`VmHWM:`).
fn memory(daemon: &Daemon, line: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid().as_raw_nonzero())).unwrap();
    let value = status.lines().find_map(|known| known.strip_prefix(line)).unwrap();
    value.trim().trim_end_matches(" kB").parse().unwrap()
}

#[track_caller]
fn grew_little(daemon: &Daemon, before: usize) {
    let grown = memory(daemon, "VmHWM:").saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB more than the {before} KiB before, at the peak");
}

/// The daemon accepts an event, has not panicked, and has counted every request.
#[track_caller]
fn still_serves(daemon: &Daemon) {
    assert!(daemon.post_event(&Event::new("user.created")).accepted());
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    let stats = eventually("no request is under way", || {
        let stats = daemon.stats();
        let settled = stats["requests"].as_object().unwrap().values().all(|counts| {
            let sum =
                |of: &str| counts[of].as_object().unwrap().values().filter_map(Value::as_u64).sum::<u64>();
            let number = |of: &str| counts[of].as_u64().unwrap();
            let ended = number("accepted")
                + number("duplicate")
                + number("filtered")
                + sum("rejected")
                + sum("failed");
            number("received") == ended
        });
        settled.then_some(stats)
    });
    assert_eq!(stats["balanced"], true, "{stats}");
}
