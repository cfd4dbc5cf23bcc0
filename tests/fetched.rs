//! Senders whose public keys have to be fetched (PayPal, AWS SNS, Plaid), and those with JWTs or encrypted bodies.
//!
//! The schemes are those that posthouse ships, with the hosts of a test in place of the senders'. Requests are signed by
//! the senders' formulas, with a real RSA key and real certificates.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what fails here fails a test")]

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64URL},
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use p256::ecdsa::{SigningKey, signature::Signer as _};
use posthouse_harness::{
    Answer, Certified, Daemon, DnsServer, Headers, WebReply, WebRequest, WebServer, certify, unix_now,
    validated_by_sns_validator, wait_until, workspace,
};
use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const RSA_KEY: &str = include_str!("data/rsa-test-key.pem");
const TOPIC: &str = "arn:aws:sns:eu-north-1:845178247138:coaches";
const RECEIVED: &str = r#"{"received":true}"#;
const DUPLICATE: &str = r#"{"received":true,"duplicate":true}"#;
const REFUSED: &str = r#"{"error":"Invalid signature"}"#;

/// The table of a shipped scheme under the name `local`, with `domain` in place of the sender's and this port. The hosts
/// are at 127.0.0.1.
fn localized(scheme: &str, sender: &str, domain: &str, port: u16) -> String {
    let shipped = fs::read_to_string(workspace().join("host/model/src/config/scheme/senders.toml")).unwrap();
    let (_, table) = shipped.split_once(&format!("\n[{scheme}]\n")).expect("a shipped scheme");
    let table = table.split("\n\n").next().unwrap().replace(sender, domain);
    let mut local = "[scheme.local]\n".to_owned();
    for line in table.lines() {
        let mut rest = line;
        let fetched =
            line.starts_with("certificate") || line.starts_with("keys") || line.starts_with("handshake");
        while let Some((before, after)) = rest.split_once("\"https://").filter(|_| fetched) {
            let (url, after) = after.split_once('"').unwrap();
            let (host, path) = url.split_once('/').unwrap();
            local += before;
            local += &format!("{{ url = \"https://{host}:{port}/{path}\", addresses = [\"127.0.0.1\"] }}");
            rest = after;
        }
        local += rest;
        local.push('\n');
    }
    local
}

/// A source of this scheme at `/in`.
fn source(secret: &str) -> String {
    format!(
        "[[source]]\nname = \"local\"\npath = \"/in\"\nscheme = \"local\"\nurl = \"https://hooks.example.com/in\"\nsecrets = [{secret:?}]\n"
    )
}

/// A daemon that trusts these roots besides the server's, and finds every host at 127.0.0.1.
fn daemon(tables: &str, server: &WebServer, roots: &str) -> (Daemon, DnsServer) {
    let dns = DnsServer::start(|_, _| vec![IpAddr::from(Ipv4Addr::LOCALHOST)]);
    let mut daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .set("http", "ca = \"roots.pem\"")
        .set("http", &format!("nameservers = [\"{}\"]", dns.address()))
        .toml(tables)
        .prepare();
    let own = fs::read_to_string(server.authority()).unwrap();
    fs::write(daemon.dir().join("roots.pem"), format!("{own}{roots}")).unwrap();
    daemon.start();
    (daemon, dns)
}

fn post(daemon: &Daemon, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let headers: Headers =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    daemon.connect().post("/in", &headers, body).unwrap()
}

#[track_caller]
fn assert_answer(answer: &Answer, status: u16, body: &str) {
    assert_eq!((answer.status, answer.body.as_str()), (status, body), "{answer}");
}

#[track_caller]
fn assert_refused(answer: &Answer) {
    assert_answer(answer, 401, REFUSED);
}

/// The sender has to send it again, soon.
#[track_caller]
fn assert_later(answer: &Answer) {
    assert_eq!(answer.status, 503, "{answer}");
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=30).contains(&seconds), "{answer}");
}

fn events(daemon: &Daemon) -> Vec<Value> {
    let mut events = daemon.events();
    events.reverse();
    events
}

/// RSASSA-PKCS1-v1_5 with SHA-256, in base64.
fn rsa(message: &[u8]) -> String {
    let text: String = RSA_KEY.lines().filter(|line| !line.starts_with("-----")).collect();
    let key = RsaKeyPair::from_pkcs8(&BASE64.decode(text).unwrap()).unwrap();
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
    BASE64.encode(signature)
}

// ---- AWS SNS

const SNS_HOST: &str = "sns.eu-north-1.amazonaws.test";

/// Serves this file for every certificate, and confirms every subscription.
fn sns_server(certificate: String) -> WebServer {
    WebServer::start_secured(&[SNS_HOST], move |request: &WebRequest| match request.path.as_str() {
        path if path.ends_with(".pem") => WebReply::text(certificate.clone()),
        path if path.starts_with("/?Action=ConfirmSubscription&") => WebReply::text("<ConfirmSubscription/>"),
        _ => WebReply::status(404),
    })
}

fn sns_daemon(server: &WebServer, roots: &str) -> (Daemon, DnsServer) {
    let scheme = localized("sns", "amazonaws.com", "amazonaws.test", server.port());
    daemon(&format!("{scheme}\n{}", source(TOPIC)), server, roots)
}

/// A message with its signature, whose certificate is in this file of the host.
fn sns_message(server: &WebServer, file: &str, members: &[(&str, &str)]) -> String {
    let order = ["Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"];
    let value = |name: &str| members.iter().find(|(of, _)| *of == name).map(|(_, value)| *value);
    let signed: String =
        order.iter().filter_map(|name| value(name).map(|value| format!("{name}\n{value}\n"))).collect();
    let mut message: serde_json::Map<String, Value> =
        members.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    message.insert("SignatureVersion".into(), json!("2"));
    message.insert("Signature".into(), json!(rsa(signed.as_bytes())));
    let url = format!("https://{SNS_HOST}:{}/{file}", server.port());
    message.insert("SigningCertURL".into(), json!(url));
    Value::Object(message).to_string()
}

fn notification<'a>(id: &'a str, topic: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut members = vec![
        ("Type", "Notification"),
        ("MessageId", id),
        ("TopicArn", topic),
        ("Message", "Zoë 🐎\nis in"),
        ("Timestamp", "2026-01-23T08:58:07.250Z"),
    ];
    members.extend(more);
    members
}

const SNS_FILE: &str = "SimpleNotificationService-0f.pem";

#[test]
fn messages_of_sns_are_taken_in_once_and_a_subscription_is_confirmed() {
    let Certified { chain, root, .. } = certify(RSA_KEY, "sns.amazonaws.test", 2025, 2099);
    let server = sns_server(chain.clone());
    let (daemon, _dns) = sns_daemon(&server, &root);
    let confirm =
        format!("https://{SNS_HOST}:{}/?Action=ConfirmSubscription&Token=t1&TopicArn={TOPIC}", server.port());
    let confirmation = |id: &str, topic: &str, url: &str| {
        sns_message(
            &server,
            SNS_FILE,
            &[
                ("Type", "SubscriptionConfirmation"),
                ("MessageId", id),
                ("Token", "t1"),
                ("TopicArn", topic),
                ("Message", "You have chosen to subscribe"),
                ("SubscribeURL", url),
                ("Timestamp", "2026-01-23T08:58:07.250Z"),
            ],
        )
    };
    let subscribed = confirmation("s-1", TOPIC, &confirm);
    let plain = sns_message(&server, SNS_FILE, &notification("m-1", TOPIC, &[]));
    let with_subject = sns_message(&server, SNS_FILE, &notification("m-2", TOPIC, &[("Subject", "Arrival")]));
    let changed = plain.replace("is in", "is on");
    let of_others =
        sns_message(&server, SNS_FILE, &notification("m-3", "arn:aws:sns:eu-north-1:1:theirs", &[]));
    let messages =
        [&subscribed, &plain, &with_subject, &changed, &of_others].map(|message| message.to_owned());
    let hosts = format!(r"^sns\.[a-z0-9-]+\.amazonaws\.test:{}$", server.port());
    // A library of receivers accepts them first. It knows no topics.
    assert_eq!(validated_by_sns_validator(&hosts, &chain, &messages), [true, true, true, false, true]);

    let send =
        |message: &str| post(&daemon, &[("Content-Type", "text/plain; charset=UTF-8")], message.as_bytes());
    assert_eq!(send(&subscribed).status, 200);
    assert_answer(&send(&plain), 200, RECEIVED);
    assert_answer(&send(&with_subject), 200, RECEIVED);
    assert_answer(&send(&plain), 200, DUPLICATE);
    assert_refused(&send(&changed));
    assert_refused(&send(&of_others));
    for byte in
        [("m-1", "m-9"), ("2026-01-23", "2026-01-24"), ("\"Notification\"", "\"UnsubscribeConfirmation\"")]
    {
        assert_refused(&send(&plain.replace(byte.0, byte.1)));
    }
    assert_refused(&send(&with_subject.replace("\"Subject\":\"Arrival\",", "")));
    assert_refused(&send(&plain.replace("\"SignatureVersion\":\"2\"", "\"SignatureVersion\":\"1\"")));
    assert_refused(&send(&plain.replace('{', "{\"Message\":\"twice\",")));

    // A subscription of another topic is refused, and a URL of another host is not fetched.
    assert_refused(&send(&confirmation("s-2", "arn:aws:sns:eu-north-1:1:theirs", &confirm)));
    assert_refused(&send(&confirmation(
        "s-3",
        TOPIC,
        "https://127.0.0.1/?Action=ConfirmSubscription&Token=t1",
    )));
    assert_refused(&send(&confirmation(
        "s-4",
        TOPIC,
        &confirm.replace("ConfirmSubscription", "Unsubscribe"),
    )));

    let events = events(&daemon);
    let read =
        |event: &Value| ["id", "type", "organization"].map(|key| event[key].as_str().unwrap().to_owned());
    let read: Vec<_> = events.iter().map(read).collect();
    assert_eq!(read, ["m-1", "m-2"].map(|id| [id, "Notification", TOPIC].map(str::to_owned)));
    let paths: Vec<_> = server.requests().into_iter().map(|request| request.path).collect();
    let confirmed = confirm.split_once(&format!(":{}", server.port())).unwrap().1.to_owned();
    assert_eq!(paths, [format!("/{SNS_FILE}"), confirmed], "each is fetched once");
    assert_eq!(daemon.stats()["balanced"], true, "{}", daemon.stats());
}

#[test]
fn a_request_leads_to_no_url_that_the_scheme_does_not_list() {
    let Certified { chain, root, .. } = certify(RSA_KEY, "sns.amazonaws.test", 2025, 2099);
    let server = sns_server(chain);
    let (daemon, dns) = sns_daemon(&server, &root);
    let good = sns_message(&server, SNS_FILE, &notification("m-1", TOPIC, &[]));
    let url = format!("https://{SNS_HOST}:{}/{SNS_FILE}", server.port());
    for other in [
        url.replace("https", "http"),
        url.replace(".test", ".test.evil.example"),
        url.replace("sns.eu-north-1", "bucket.s3"),
        url.replace("sns.eu-north-1", "sns.a.b"),
        url.replace(SNS_HOST, "127.0.0.1"),
        url.replace(&format!(":{}", server.port()), ""),
        url.replace(".pem", ".pem?x=.pem"),
        url.replace(SNS_FILE, &format!("x/{SNS_FILE}")),
        url.replace(SNS_FILE, "?Action=ConfirmSubscription&Token=t1"),
        url.replace("https://", "https://a@"),
        url.to_uppercase(),
        String::new(),
    ] {
        let answer = post(&daemon, &[], good.replace(&url, &other).as_bytes());
        assert_refused(&answer);
    }
    assert_eq!((dns.asked(), server.requests().len()), (0, 0), "no name is looked up for them");
    assert_eq!(events(&daemon).len(), 0);
}

#[test]
fn a_certificate_that_is_not_trusted_or_can_not_be_had_is_no_reason_to_lose_an_event() {
    let good = certify(RSA_KEY, "sns.amazonaws.test", 2025, 2099);
    let expired = certify(RSA_KEY, "sns.amazonaws.test", 2020, 2021);
    let future = certify(RSA_KEY, "sns.amazonaws.test", 2090, 2099);
    let other_name = certify(RSA_KEY, "s3.amazonaws.test", 2025, 2099);
    let unknown_root = certify(RSA_KEY, "sns.amazonaws.test", 2025, 2099);
    let roots = [&good, &expired, &future, &other_name].map(|certified| certified.root.clone()).concat();
    let down = Arc::new(AtomicBool::new(true));
    let (chain, is_down) = (good.chain.clone(), Arc::clone(&down));
    let path = |mode: &str| format!("SimpleNotificationService-{mode}.pem");
    let server = WebServer::start_secured(&[SNS_HOST], move |request| {
        let mode = request.path.trim_start_matches("/SimpleNotificationService-").trim_end_matches(".pem");
        match mode {
            "expired" => WebReply::text(expired.chain.clone()),
            "future" => WebReply::text(future.chain.clone()),
            "name" => WebReply::text(other_name.chain.clone()),
            "root" => WebReply::text(unknown_root.chain.clone()),
            "alone" => WebReply::text(good.alone.clone()),
            "garbage" => WebReply::text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "none" => WebReply::text("nothing"),
            "missing" => WebReply::status(404),
            "redirect" => WebReply::redirect(302, "/SimpleNotificationService-good.pem"),
            "huge" => WebReply::Endless(16 << 10, Duration::from_millis(1)),
            "slow" => WebReply::Silence,
            "broken" => WebReply::BreaksOff,
            "outage" if is_down.load(Ordering::SeqCst) => WebReply::status(500),
            _ => WebReply::text(chain.clone()),
        }
    });
    let (daemon, _dns) = sns_daemon(&server, &roots);
    let message = |mode: &str| sns_message(&server, &path(mode), &notification(mode, TOPIC, &[]));
    for mode in ["expired", "future", "name", "root", "alone", "garbage", "none", "missing", "redirect"] {
        assert_later(&post(&daemon, &[], message(mode).as_bytes()));
    }
    // After the first few, refusals are only counted.
    assert!(
        daemon.log().contains("the certificate for `sns.amazonaws.test` is not trusted"),
        "{}",
        daemon.log()
    );
    let failed = daemon.stats()["requests"]["local"]["failed"]["key-fetch"].clone();
    assert_eq!(failed, 9, "{}", daemon.stats());
    assert_eq!(events(&daemon).len(), 0);
    let fetched: Vec<_> = server.requests().into_iter().map(|request| request.path).collect();
    assert!(!fetched.contains(&format!("/{}", path("good"))), "a redirect is not followed: {fetched:?}");

    // A stranger's requests have used up the limit of keys that verified nothing, so the sender's wait for their turn.
    for mode in ["huge", "slow", "broken"] {
        let later = wait_for(|| {
            let answer = post(&daemon, &[], message(mode).as_bytes());
            assert_later(&answer);
            server.requests().iter().any(|request| request.path == format!("/{}", path(mode)))
        });
        assert!(later, "{mode}");
    }
    // An outage, and its end.
    wait_for(|| {
        assert_later(&post(&daemon, &[], message("outage").as_bytes()));
        server.requests().iter().any(|request| request.path.contains("outage"))
    });
    down.store(false, Ordering::SeqCst);
    wait_for(|| {
        let answer = post(&daemon, &[], message("outage").as_bytes());
        if answer.status != 200 {
            assert_later(&answer);
        }
        answer.status == 200
    });
    let ids: Vec<_> = events(&daemon).iter().map(|event| event["id"].clone()).collect();
    assert_eq!(ids, ["outage"]);
    assert_eq!(daemon.stats()["balanced"], true, "{}", daemon.stats());
}

/// Tries until it is so.
fn wait_for(mut done: impl FnMut() -> bool) -> bool {
    wait_until("it is so", || {
        let done = done();
        if !done {
            std::thread::sleep(Duration::from_millis(300));
        }
        done
    });
    true
}

// ---- PayPal

const PAYPAL_HOST: &str = "api.paypal.test";
const WEBHOOK_ID: &str = "25F96NKUVXAV5JQIC";

fn paypal_headers(server: &WebServer, id: &str, time: &str, webhook: &str, body: &[u8]) -> Headers {
    let signature = rsa(format!("{id}|{time}|{webhook}|{}", crc32fast::hash(body)).as_bytes());
    let url = format!("https://{PAYPAL_HOST}:{}/v1/notifications/certs/CERT-44581a48", server.port());
    [
        ("Content-Type", "application/json"),
        ("PAYPAL-TRANSMISSION-ID", id),
        ("PAYPAL-TRANSMISSION-TIME", time),
        ("PAYPAL-CERT-URL", &url),
        ("PAYPAL-AUTH-ALGO", "SHA256withRSA"),
        ("PAYPAL-TRANSMISSION-SIG", &signature),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

#[test]
fn a_transmission_of_paypal_serves_once_though_its_signature_fits_other_bodies() {
    let Certified { chain, root, .. } = certify(RSA_KEY, "messageverificationcerts.paypal.test", 2025, 2099);
    let server = WebServer::start_secured(&[PAYPAL_HOST], move |_| WebReply::text(chain.clone()));
    let scheme = localized("paypal", "paypal.com", "paypal.test", server.port());
    let (daemon, _dns) = daemon(&format!("{scheme}\n{}", source(WEBHOOK_ID)), &server, &root);
    let at = |seconds: i64| {
        let time = jiff::Timestamp::from_second(unix_now() + seconds).unwrap();
        time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    };
    let send = |headers: &Headers, body: &[u8]| daemon.connect().post("/in", headers, body).unwrap();
    let body = br#"{"id":"WH-1","event_type":"PAYMENT.CAPTURE.COMPLETED","create_time":"2026-01-26T11:13:00.100Z","note":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}"#;
    let headers = paypal_headers(&server, "t-1", &at(0), WEBHOOK_ID, body);
    assert_answer(&send(&headers, body), 200, RECEIVED);
    assert_answer(&send(&headers, body), 200, DUPLICATE);

    // Anybody can write another body with the same CRC-32, and the signature fits it.
    let forged = with_the_crc_of(body, &String::from_utf8_lossy(body).replace("WH-1", "WH-2").into_bytes());
    assert_eq!(crc32fast::hash(&forged), crc32fast::hash(body));
    assert_answer(&send(&headers, &forged), 200, DUPLICATE);
    let changed = String::from_utf8_lossy(body).replace("WH-1", "WH-2");
    assert_refused(&send(&headers, changed.as_bytes()));

    let with = |name: &str, value: &str| {
        let mut headers = paypal_headers(&server, "t-2", &at(0), WEBHOOK_ID, body);
        headers.iter_mut().filter(|(of, _)| of == name).for_each(|(_, of)| value.clone_into(of));
        send(&headers, body)
    };
    assert_refused(&with("PAYPAL-AUTH-ALGO", "SHA1withRSA"));
    assert_refused(&with("PAYPAL-AUTH-ALGO", ""));
    assert_refused(&with("PAYPAL-TRANSMISSION-ID", "t-3"));
    assert_refused(&with("PAYPAL-TRANSMISSION-TIME", &at(7)));
    assert_refused(&with("PAYPAL-CERT-URL", "https://evil.example/v1/notifications/certs/CERT-1"));
    assert_refused(&with("PAYPAL-TRANSMISSION-SIG", ""));
    assert_refused(&send(&paypal_headers(&server, "t-4", &at(0), "another-webhook", body), body));
    assert_refused(&send(&paypal_headers(&server, "t-5", &at(-5 * 86_400), WEBHOOK_ID, body), body));
    // A retry of three days ago.
    let late = br#"{"id":"WH-9","event_type":"BILLING.SUBSCRIPTION.CANCELLED"}"#;
    assert_answer(
        &send(&paypal_headers(&server, "t-6", &at(-3 * 86_400), WEBHOOK_ID, late), late),
        200,
        RECEIVED,
    );

    let events: Vec<_> =
        events(&daemon).iter().map(|event| (event["id"].clone(), event["type"].clone())).collect();
    assert_eq!(
        events,
        [
            (json!("WH-1"), json!("PAYMENT.CAPTURE.COMPLETED")),
            (json!("WH-9"), json!("BILLING.SUBSCRIPTION.CANCELLED"))
        ]
    );
    assert_eq!(server.requests().len(), 1, "one certificate is fetched once");
}

/// A body like `wanted`, of the same length as `original` and with its CRC-32: each `a` of the note may become a `c`.
fn with_the_crc_of(original: &[u8], wanted: &[u8]) -> Vec<u8> {
    let mut body = wanted.to_vec();
    let note = String::from_utf8_lossy(wanted).find("aaaa").unwrap();
    // What one letter changes in the sum, whatever the others are: CRC-32 is linear.
    let sum = crc32fast::hash(&body);
    let effect = |place: usize| {
        let mut changed = wanted.to_vec();
        changed[place] ^= b'a' ^ b'c';
        crc32fast::hash(&changed) ^ sum
    };
    // The letters that make up each bit, by elimination.
    let mut rows: Vec<(u32, u64)> = (0..40).map(|letter| (effect(note + letter), 1 << letter)).collect();
    let (mut difference, mut letters) = (crc32fast::hash(original) ^ sum, 0u64);
    for bit in 0..32 {
        let Some(at) = rows.iter().position(|(effect, _)| effect >> bit & 1 == 1) else { continue };
        let (effect, by) = rows.swap_remove(at);
        for row in rows.iter_mut().filter(|(of, _)| of >> bit & 1 == 1) {
            *row = (row.0 ^ effect, row.1 ^ by);
        }
        if difference >> bit & 1 == 1 {
            difference ^= effect;
            letters ^= by;
        }
    }
    assert_eq!(difference, 0);
    (0..40).filter(|letter| letters >> letter & 1 == 1).for_each(|letter| body[note + letter] = b'c');
    body
}

// ---- tokens

fn jwt(head: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", BASE64URL.encode(head.to_string()), BASE64URL.encode(claims.to_string()));
    let signature = BASE64URL.encode(sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

#[test]
fn a_token_of_plaid_is_verified_with_the_key_that_its_api_gives() {
    let key = SigningKey::from_slice(&[7; 32]).unwrap();
    let point = key.verifying_key().to_sec1_point(false);
    let (x, y) = (BASE64URL.encode(point.x().unwrap()), BASE64URL.encode(point.y().unwrap()));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let server = WebServer::start_secured(&["production.plaid.test"], move |request| {
        count.fetch_add(1, Ordering::SeqCst);
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let expected = json!({ "client_id": "client", "secret": "of-the-client", "key_id": "kid-1" });
        match request.method == "POST" && body == expected {
            true => WebReply::text(
                json!({ "key": { "alg": "ES256", "crv": "P-256", "kid": "kid-1", "kty": "EC", "use": "sig", "x": x, "y": y,
                    "created_at": 1_560_466_150, "expired_at": null }, "request_id": "r" })
                .to_string(),
            ),
            false => WebReply::status(400),
        }
    });
    let scheme = localized("plaid", "plaid.com", "plaid.test", server.port());
    let (daemon, _dns) = daemon(&format!("{scheme}\n{}", source("client:of-the-client")), &server, "");
    let body = br#"{"webhook_type":"ITEM","webhook_code":"ERROR","item_id":"i"}"#;
    let sign = |message: &[u8]| {
        let signature: p256::ecdsa::Signature = key.sign(message);
        signature.to_bytes().to_vec()
    };
    let head = json!({ "alg": "ES256", "kid": "kid-1", "typ": "JWT" });
    let claims = |seconds: i64| json!({ "iat": unix_now() + seconds, "request_body_sha256": hex::encode(Sha256::digest(body)) });
    let send = |token: &str, body: &[u8]| post(&daemon, &[("Plaid-Verification", token)], body);
    let good = jwt(&head, &claims(0), sign);
    assert_answer(&send(&good, body), 200, RECEIVED);
    assert_answer(&send(&good, body), 200, DUPLICATE);
    assert_refused(&send(&good, br#"{"webhook_type":"ITEM","webhook_code":"ERROR","item_id":"j"}"#));
    assert_refused(&send(&jwt(&head, &claims(-310), sign), body));
    assert_refused(&send(&jwt(&head, &claims(310), sign), body));
    assert_refused(&send(&jwt(&head, &json!({ "iat": unix_now() }), sign), body));
    assert_refused(&send(&jwt(&head, &claims(0), |_| vec![1; 64]), body));
    for algorithm in ["none", "HS256"] {
        // The public key as if it were a shared one.
        let head = json!({ "alg": algorithm, "kid": "kid-1" });
        let forge = |message: &[u8]| {
            let mut hmac = Hmac::<Sha256>::new_from_slice(point.as_bytes()).unwrap();
            hmac.update(message);
            hmac.finalize().into_bytes().to_vec()
        };
        assert_refused(&send(&jwt(&head, &claims(0), forge), body));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    // The API has no such key, which may be its fault.
    assert_later(&send(&jwt(&json!({ "alg": "ES256", "kid": "kid-2" }), &claims(0), sign), body));
    for odd in ["", "../kid", &"k".repeat(129)] {
        assert_refused(&send(&jwt(&json!({ "alg": "ES256", "kid": odd }), &claims(0), sign), body));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    let events = events(&daemon);
    assert_eq!((events.len(), &events[0]["type"]), (1, &json!("ITEM.ERROR")));
    assert!(!daemon.log().contains("of-the-client"), "the secret is in the log");
}

#[test]
fn a_token_of_monday_is_for_this_url_and_a_challenge_comes_back() {
    let secret = "a-signing-secret-of-the-app";
    let scheme = localized("monday", "monday.com", "monday.com", 443);
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .toml(&format!("{scheme}\n{}", source(secret)))
        .start();
    let challenge =
        post(&daemon, &[], br#"{"challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}"#);
    let expected = r#"{"challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}"#;
    assert_answer(&challenge, 200, expected);

    let token = |audience: &str, expires: i64, key: &str| {
        let claims = json!({ "accountId": 1, "userId": 2, "aud": audience, "exp": unix_now() + expires });
        jwt(&json!({ "alg": "HS256", "typ": "JWT" }), &claims, |message| {
            let mut hmac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
            hmac.update(message);
            hmac.finalize().into_bytes().to_vec()
        })
    };
    let body =
        br#"{"event":{"type":"create_pulse","triggerUuid":"u-1","triggerTime":"2026-01-11T09:07:28.210Z"}}"#;
    let send = |token: &str| post(&daemon, &[("Authorization", token)], body);
    let url = "https://hooks.example.com/in";
    let good = token(url, 300, secret);
    assert_answer(&send(&good), 200, RECEIVED);
    assert_answer(&send(&good), 200, DUPLICATE);
    assert_refused(&send(&token("https://hooks.example.com/other", 300, secret)));
    assert_refused(&send(&token(url, -1, secret)));
    assert_refused(&send(&token(url, 300, "another-secret-of-somebody")));
    assert_refused(&send(&good[..good.len() - 4]));
    assert_refused(&send(""));
    let (head, rest) = good.split_once('.').unwrap();
    let none = BASE64URL.encode(r#"{"alg":"none"}"#);
    assert_refused(&send(&good.replace(head, &none)));
    assert_refused(&send(&format!("{none}.{}.", rest.split_once('.').unwrap().0)));
    let events = events(&daemon);
    assert_eq!((events.len(), &events[0]["id"]), (1, &json!("u-1")));
}

// ---- Lark

/// base64 of an initialisation vector and of AES-256 in CBC mode under the SHA-256 of the key.
fn sealed(key: &str, body: &str) -> String {
    use cbc::cipher::{BlockModeEncrypt as _, KeyIvInit as _, block_padding::Pkcs7};
    let vector = [9; 16];
    let mut text = body.as_bytes().to_vec();
    text.resize(body.len() + 16, 0);
    let cipher = cbc::Encryptor::<aes::Aes256>::new_from_slices(&Sha256::digest(key), &vector).unwrap();
    let text = cipher.encrypt_padded::<Pkcs7>(&mut text, body.len()).unwrap();
    json!({ "encrypt": BASE64.encode([&vector[..], text].concat()) }).to_string()
}

#[test]
fn an_encrypted_body_of_lark_becomes_the_event_once_its_signature_holds() {
    let (key, token) = ("an-encrypt-key-of-lark", "a-verification-token");
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .toml(&format!(
            "[[source]]\nname = \"lark\"\npath = \"/in\"\nscheme = \"lark\"\nsecrets = [{key:?}]\nverify_token = {token:?}\n"
        ))
        .start();
    let signed = |key: &str, body: &[u8]| {
        let now = unix_now().to_string();
        let text = [now.as_bytes(), b"nonce-1", key.as_bytes(), body].concat();
        let signature = hex::encode(Sha256::digest(text));
        post(
            &daemon,
            &[
                ("X-Lark-Request-Timestamp", &now),
                ("X-Lark-Request-Nonce", "nonce-1"),
                ("X-Lark-Signature", &signature),
            ],
            body,
        )
    };
    let plain = r#"{"schema":"2.0","header":{"event_id":"e-1","event_type":"im.message.receive_v1","create_time":"1781980909800","tenant_key":"t"},"event":{"text":"ciao"}}"#;
    let body = sealed(key, plain);
    assert_answer(&signed(key, body.as_bytes()), 200, RECEIVED);
    assert_answer(&signed(key, body.as_bytes()), 200, DUPLICATE);
    assert_refused(&signed("another-encrypt-key", body.as_bytes()));
    assert_refused(&signed(key, sealed("another-encrypt-key", plain).as_bytes()));
    assert_refused(&post(&daemon, &[], body.as_bytes()));
    // An extension of the hash: its padding is no UTF-8, whatever follows.
    assert_refused(&signed(key, &[b"\x80\x00\x00", body.as_bytes()].concat()));
    let event = daemon.event("e-1");
    assert_eq!((&event["type"], &event["organization"]), (&json!("im.message.receive_v1"), &json!("t")));
    assert!(event.to_string().contains("ciao"), "{event}");

    // The test of the URL is encrypted and not signed. Every failure has one answer.
    let test = |token: &str| format!(r#"{{"challenge":"c-1","token":"{token}","type":"url_verification"}}"#);
    let answer = post(&daemon, &[], sealed(key, &test(token)).as_bytes());
    assert_answer(&answer, 200, r#"{"challenge":"c-1"}"#);
    assert_refused(&post(&daemon, &[], sealed(key, &test("another-token")).as_bytes()));
    assert_refused(&post(&daemon, &[], sealed("another-encrypt-key", &test(token)).as_bytes()));
    assert_refused(&post(&daemon, &[], br#"{"encrypt":"AAAA"}"#));
    let many: Vec<_> = (0..30).map(|_| post(&daemon, &[], br#"{"encrypt":"AAAA"}"#).status).collect();
    assert!(many.contains(&429), "{many:?}");
    assert_eq!(events(&daemon).len(), 1);
}
