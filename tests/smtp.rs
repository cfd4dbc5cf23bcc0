//! From a signed body to a mail in a real mail server, and the results of mail that is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails fails the test")]

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use posthouse_harness::{
    Builder, Daemon, Event, Headers, Signer, SmtpOptions, SmtpServer, Source, eventually, fresh_id,
    test_python, unix_now, wait_until, workspace,
};
use serde_json::{Value, json};

/// The package `standardwebhooks` signs one body, the page's formula another, and curl sends each.
#[test]
fn each_signed_event_sends_one_welcome_mail_however_often_it_is_posted() {
    let server = SmtpServer::start(&SmtpOptions::default());
    let daemon = mailing(&server).guest("welcome-email").start();

    let real = Event::new("user.created").body();
    let id = fresh_id();
    let real_headers = signed_by_the_package(&id, &real);
    let page = json!({
        "id": fresh_id(),
        "type": "user.created",
        "created_at": "2026-01-15T10:30:00Z",
        "data": {
            "user": { "id": "usr_1", "email": "grace@example.com", "first_name": "Grace", "last_name": "Example" },
            "organization": { "id": "org_1", "display_name": "Example Corp", "external_id": "ext_1" },
        },
        "environment_id": "env_1",
    });
    let page = page.to_string().into_bytes();
    let page_headers = Signer::Documented(Source::SECRET.into()).sign_now("", &page);

    let posts = [(&real_headers, &real), (&page_headers, &page)];
    for (headers, body) in posts {
        assert_eq!(curl(&daemon, headers, body), (200, json!({ "received": true })));
    }
    wait_until("both welcome mails", || server.messages().len() >= 2);
    for (headers, body) in posts {
        assert_eq!(curl(&daemon, headers, body), (200, json!({ "received": true, "duplicate": true })));
    }
    daemon.wait_mail_settled();

    let mails = server.messages();
    let mut recipients: Vec<_> = mails.iter().flat_map(|mail| mail.envelope_to.clone()).collect();
    recipients.sort();
    assert_eq!(recipients, ["ada@example.com", "grace@example.com"], "{mails:?}");
    for mail in &mails {
        assert_eq!(mail.envelope_from, "team@example.com");
        let name = if mail.envelope_to == ["ada@example.com"] { "Ada" } else { "Grace" };
        let said = format!("{}\n{}", mail.header("subject"), mail.text);
        assert!(said.contains(name), "{mail:?}");
        assert!(mail.message_id().starts_with('<') && mail.message_id().ends_with('>'), "{mail:?}");
    }
    assert_ne!(mails[0].message_id(), mails[1].message_id());
}

#[test]
fn a_mail_server_that_is_busy_is_asked_again() {
    let server = SmtpServer::start(&SmtpOptions { busy: 3, ..SmtpOptions::default() });
    let daemon = mailing(&server).guest("welcome-email").start();
    assert!(daemon.post_event(&Event::new("user.created")).accepted());
    daemon.wait_mail_settled();
    assert_eq!((server.messages().len(), server.refusals()), (1, 3));
}

#[test]
fn mail_leaves_encrypted_and_with_a_login_where_the_url_says_so() {
    let server = SmtpServer::start(&SmtpOptions { secured: true, ..SmtpOptions::default() });
    let certificate = server.certificate();
    let daemon =
        mailing(&server).env("SSL_CERT_FILE", certificate.to_str().unwrap()).guest("welcome-email").start();
    assert!(daemon.post_event(&Event::new("user.created")).accepted());
    daemon.wait_mail_settled();
    assert_eq!(server.messages().len(), 1);
    assert!(!daemon.log().contains("two-doves"), "the log shows the password");
}

#[test]
fn a_certificate_that_nobody_vouches_for_gets_no_mail() {
    let server = SmtpServer::start(&SmtpOptions { secured: true, ..SmtpOptions::default() });
    let daemon = mailing(&server).guest("welcome-email").start();
    let event = Event::new("user.created");
    assert!(daemon.post_event(&event).accepted());
    eventually("the mail waits, with its error", || {
        let mail = outbox(&daemon, &event);
        (!mail["error"].is_null()).then_some(mail)
    });
    assert_eq!(server.messages().len(), 0);
}

#[test]
fn an_address_that_does_not_exist_makes_a_dead_letter_at_once() {
    let server = SmtpServer::start(&SmtpOptions {
        unknown: vec!["nobody@example.com".into()],
        ..SmtpOptions::default()
    });
    let daemon = mailing(&server).guest("welcome-email").start();
    let mut event = Event::new("user.created");
    event.data["user"]["email"] = json!("nobody@example.com");
    assert!(daemon.post_event(&event).accepted());
    daemon.wait_mail_settled();

    let mail = outbox(&daemon, &event);
    assert_eq!((&mail["state"], &mail["attempts"]), (&json!("dead"), &json!(1)), "{mail}");
    assert!(mail["error"].as_str().unwrap().contains("550"), "{mail}");
    assert_eq!((server.messages().len(), server.refusals()), (0, 1));
    // The delivery itself is done: its effects committed, including this mail.
    assert_eq!(daemon.event(&event.id)["history"][0]["state"], json!("done"));
}

#[test]
fn a_server_that_ends_each_connection_after_one_mail_costs_no_attempt() {
    let server = SmtpServer::start(&SmtpOptions { one_each: true, ..SmtpOptions::default() });
    let daemon = mailing(&server).guest("welcome-email").start();
    for n in 1..=5 {
        let mut event = Event::new("user.created");
        event.data["user"]["id"] = json!(format!("usr_{n}"));
        event.data["user"]["email"] = json!(format!("ada{n}@example.com"));
        assert!(daemon.post_event(&event).accepted());
        wait_until("the mail has left", || server.messages().len() == n);
        daemon.wait_mail_settled();
        let mail = outbox(&daemon, &event);
        assert_eq!((&mail["state"], &mail["attempts"]), (&json!("sent"), &json!(1)), "{mail}");
    }
    assert!(server.refusals() > 0, "no connection was kept, so that nothing was shown");
}

#[test]
fn an_internationalised_domain_is_sent_in_ascii_and_granted_in_both_spellings() {
    let server = SmtpServer::start(&SmtpOptions::default());
    for granted in ["*@bücher.example", "*@xn--bcher-kva.example"] {
        let daemon = mailing_to(&server, granted).guest("welcome-email").start();
        for (n, domain) in ["bücher.example", "BÜCHER.example", "xn--bcher-kva.example"].iter().enumerate()
        {
            let mut event = Event::new("user.created");
            event.data["user"]["id"] = json!(format!("usr_{n}"));
            event.data["user"]["email"] = json!(format!("ada@{domain}"));
            assert!(daemon.post_event(&event).accepted());
            daemon.wait_mail_settled();
            let mail = outbox(&daemon, &event);
            assert_eq!((&mail["state"], &mail["attempts"]), (&json!("sent"), &json!(1)), "{domain}: {mail}");
        }
    }
    let mails = server.messages();
    assert_eq!(mails.len(), 6);
    assert!(mails.iter().all(|mail| mail.envelope_to == ["ada@xn--bcher-kva.example"]), "{mails:?}");
}

/// The test's server does not offer SMTPUTF8.
#[test]
fn an_address_that_the_server_can_never_take_makes_a_dead_letter_at_once() {
    let server = SmtpServer::start(&SmtpOptions::default());
    let daemon = mailing(&server).guest("welcome-email").start();
    let mut event = Event::new("user.created");
    event.data["user"]["email"] = json!("jörg@example.com");
    assert!(daemon.post_event(&event).accepted());
    daemon.wait_mail_settled();
    let mail = outbox(&daemon, &event);
    assert_eq!((&mail["state"], &mail["attempts"]), (&json!("dead"), &json!(1)), "{mail}");
    assert!(mail["error"].as_str().unwrap().contains("SMTPUTF8"), "{mail}");
    assert_eq!(server.messages().len(), 0);
}

/// A daemon that sends its mail to this server, and retries soon.
fn mailing(server: &SmtpServer) -> Builder {
    mailing_to(server, "*")
}

/// The same daemon, with a grant for only these recipients.
fn mailing_to(server: &SmtpServer, granted: &str) -> Builder {
    Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .set("mail", &format!("url = {:?}", server.url()))
        .set("mail", r#"retry = { attempts = 20, base = "100ms", factor = 1.0 }"#)
        .plugin_config(&format!(
            r#"
            [plugin.welcome-email.grants]
            mail = {{ from = ["Example Corp <team@example.com>"], to = [{granted:?}] }}
            "#,
        ))
}

/// The only mail of the event's only delivery.
fn outbox(daemon: &Daemon, event: &Event) -> Value {
    daemon.event(&event.id)["history"][0]["outbox"][0].clone()
}

/// The headers that the Python package `standardwebhooks` makes for this body.
fn signed_by_the_package(id: &str, body: &[u8]) -> Headers {
    let mut child = Command::new(test_python())
        .arg(workspace().join("tests/servers/sign.py"))
        .args([Source::SECRET, id, &unix_now().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a Python with standardwebhooks; `cargo xtask test` makes one");
    child.stdin.take().unwrap().write_all(body).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "sign.py failed");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split_once(": ").unwrap()).map(|(n, v)| (n.into(), v.into())).collect()
}

/// Posts with curl. Returns the status and the JSON of the answer.
fn curl(daemon: &Daemon, headers: &Headers, body: &[u8]) -> (u16, Value) {
    let file = daemon.dir().join("body.json");
    fs::write(&file, body).unwrap();
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "30", "--write-out", "\n%{http_code}"]);
    command.args(["--header", "content-type: application/json"]);
    for (name, value) in headers {
        command.args(["--header", &format!("{name}: {value}")]);
    }
    command.arg("--data-binary").arg(format!("@{}", file.display())).arg(daemon.url("/webhooks/scalekit"));
    let output = command.output().expect("curl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let (answer, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), serde_json::from_str(answer).unwrap())
}
