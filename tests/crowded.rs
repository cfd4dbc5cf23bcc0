//! Strangers take as many connections as there are, on both listeners. They keep out neither senders who
//! sign, nor the operator, nor monitoring.
//!
//! The tests count refusals: a request with a valid signature or the token gets none.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what fails here fails a test")]

use std::{
    fs,
    io::{
        self,
        ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof},
    },
    time::Duration,
};

use posthouse_harness::{Answer, Connection, Crowd, Daemon, Event, Opening, Source, wait_until};
use rustix::process::{Resource, Rlimit, prlimit};

const BINARY: &str = env!("CARGO_BIN_EXE_posthouse");
/// The usual limit of open files.
const FILES: u32 = 1024;
/// More on each listener than may be open in all.
const PEERS: usize = 1100;

#[test]
fn strangers_up_to_the_limit_of_open_files_keep_out_no_sender_and_no_operator() {
    let daemon = Daemon::builder(BINARY).source(Source::new("crm")).open_files(FILES).start();
    let webhooks = Crowd::of_senders(&daemon, PEERS);
    let admin = Crowd::of_operators(&daemon, PEERS);

    let sender = daemon.sender();
    let (mut kept, mut refused) = (None, Vec::new());
    for round in 0..10 {
        // On new connections, and on one that stays open.
        for _ in 0..10 {
            refused.extend(refusal(sender.try_post_event(&mut None, &Event::new("user.created"))));
            refused.extend(refusal(sender.try_post_event(&mut kept, &Event::new("user.created"))));
        }
        for path in ["/healthz", "/readyz"] {
            refused.extend(refusal(probe(&daemon, path)));
        }
        for path in ["/metrics", "/v1/stats"] {
            let answer = daemon.admin("GET", path, None);
            refused.extend((answer.status != 200).then(|| format!("{path}: {answer}")));
        }
        if round % 5 == 0 {
            let told = daemon.cli(&["stats"]);
            refused.extend((told.code != Some(0)).then(|| format!("{told:?}")));
        }
    }
    assert_eq!(refused, [""; 0], "{}", daemon.log());
    assert_eq!(daemon.events().len(), 200);
    assert!(webhooks.opened() > PEERS && admin.opened() > PEERS, "nobody had to leave: nothing was tested");
    assert!(open_files(&daemon) < FILES as usize, "the crowd took all descriptors");
    assert!(daemon.log().contains("fewer connections for webhooks"), "{}", daemon.log());

    drop((webhooks, admin));
    wait_until("all that came is accounted for", || {
        let stats = daemon.stats();
        let requests = &stats["requests"]["crm"];
        let of = |kind: &str| -> u64 {
            requests[kind].as_object().unwrap().values().filter_map(serde_json::Value::as_u64).sum()
        };
        let ended = requests["accepted"].as_u64().unwrap() + of("rejected") + of("failed");
        requests["received"] == ended
    });
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

#[test]
fn bodies_without_a_signature_that_never_end_take_no_place_from_signed_requests() {
    let daemon =
        Daemon::builder(BINARY).source(Source::new("crm")).set("server", "max_requests = 20").start();
    let sender = daemon.sender();
    let unsigned = format!("POST {} HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\nx", sender.path);
    let _strangers = Crowd::start(daemon.address(), 60, vec![Opening::once(unsigned)]);
    let refused: Vec<_> = (0..40)
        .filter_map(|_| refusal(sender.try_post_event(&mut None, &Event::new("user.created"))))
        .collect();
    assert_eq!(refused, [""; 0], "{}", daemon.log());
}

#[test]
fn guessers_of_the_token_keep_neither_the_right_one_nor_the_login_waiting() {
    let daemon = Daemon::builder(BINARY).start();
    let wrong = "GET /v1/stats HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer wrong\r\n\r\n";
    let login = "POST /login HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-www-form-urlencoded\r\n\
                 content-length: 11\r\n\r\ntoken=wrong";
    let _guessers =
        Crowd::start(daemon.admin_address(), 300, vec![Opening::once(wrong), Opening::once(login)]);
    for _ in 0..20 {
        // Each has a limit of 30 s. The answer to a guess beside it takes 5 s or more.
        assert_eq!(daemon.admin("GET", "/v1/stats", None).status, 200);
        let body = format!("token={}", daemon.admin_token());
        let request = format!(
            "POST /login HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-www-form-urlencoded\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let mut connection = Connection::open(daemon.admin_address()).unwrap();
        connection.send(request.as_bytes()).unwrap();
        let answer = connection.answer().unwrap();
        assert!(answer.status == 303 && answer.header("set-cookie").is_some(), "{answer}");
    }
    let lines =
        daemon.log().lines().filter(|line| line.contains("admin requests with a wrong token")).count();
    assert!(lines < 200, "{lines} lines about guesses");
}

#[test]
fn with_no_descriptors_left_a_new_connection_is_served_or_told_so_and_none_hangs() {
    let daemon = Daemon::builder(BINARY).source(Source::new("crm")).start();
    assert!(daemon.post_event(&Event::new("user.created")).accepted());
    // As if everything else had taken the other descriptors.
    let few = open_files(&daemon) as u64 + 12;
    prlimit(Some(daemon.pid()), Resource::Nofile, Rlimit { current: Some(few), maximum: Some(few) }).unwrap();
    let _crowd = Crowd::start(daemon.address(), 100, vec![Opening::default()]);
    let sender = daemon.sender();
    let mut served = 0;
    for _ in 0..30 {
        match sender.try_post_event(&mut None, &Event::new("user.created")) {
            Ok(answer) if answer.status == 503 => {}
            Ok(answer) => served += usize::from(answer.accepted()),
            // There are so few connections that it may have been closed before its request arrived.
            Err(error) => {
                let cut_off = matches!(error.kind(), ConnectionReset | BrokenPipe | UnexpectedEof);
                assert!(cut_off, "it hangs: {error}");
            }
        }
    }
    assert!(served > 0, "{}", daemon.log());
    assert!(daemon.log().contains("could not accept a connection"), "{}", daemon.log());
}

#[test]
fn an_idle_connection_is_closed_after_its_own_timeout_on_both_listeners() {
    let daemon = Daemon::builder(BINARY)
        .source(Source::new("crm"))
        .set("server", "header_timeout = \"100ms\"\nidle_timeout = \"60s\"")
        .start();
    let mut idle = Some(daemon.connect());
    assert!(daemon.sender().try_post_event(&mut idle, &Event::new("user.created")).unwrap().accepted());
    // Much longer than a header may take.
    std::thread::sleep(Duration::from_secs(1));
    assert!(daemon.sender().try_post_event(&mut idle, &Event::new("user.created")).unwrap().accepted());

    let daemon = Daemon::builder(BINARY).set("server", "idle_timeout = \"200ms\"").start();
    for (address, path) in [(daemon.address(), "/"), (daemon.admin_address(), "/healthz")] {
        let mut connection = Connection::open(address).unwrap();
        connection.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).unwrap();
        let answer = connection.answer().unwrap();
        assert_eq!(answer.header("connection"), None, "{answer}");
        assert!(connection.closed(), "{path}");
    }
}

/// The error in an answer, if there is one.
fn refusal(answer: io::Result<Answer>) -> Option<String> {
    match answer {
        Ok(answer) => (answer.status != 200).then(|| answer.to_string()),
        Err(error) => Some(error.to_string()),
    }
}

fn probe(daemon: &Daemon, path: &str) -> io::Result<Answer> {
    let mut connection = Connection::open(daemon.admin_address())?;
    connection.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())?;
    connection.answer()
}

fn open_files(daemon: &Daemon) -> usize {
    fs::read_dir(format!("/proc/{}/fd", daemon.pid().as_raw_nonzero())).unwrap().count()
}
