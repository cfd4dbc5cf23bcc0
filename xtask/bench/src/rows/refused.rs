//! The CPU time of a refused request beside that of an accepted one of the same source, for the headers that cost a
//! receiver most. docs/senders.md has the limits that bound them.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use ed25519_dalek::{Signer as _, SigningKey};
use posthouse_harness::{Daemon, Source, unix_now};

use super::rate::pid;
use crate::{
    bench::{Bench, PATH, Round},
    noop,
    requests::{Batch, SIGNATURE, body},
    table::{Row, median},
};

const REFUSED: &str = r#"{"error":"Invalid signature"}"#;
const DUPLICATE: &str = r#"{"received":true,"duplicate":true}"#;
/// The most entries of a signature header that are read.
const ENTRIES: usize = 64;
/// The longest signature header that is read, in bytes.
const LONGEST: usize = 8 * 1024;

/// Those of the source with several shared secrets. Its sender signs with the first.
const SECRETS: [&str; 4] = [
    Source::SECRET,
    "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    "whsec_Zm91ciBzZWNyZXRzIG9mIG9uZSBzb3VyY2U=",
    "whsec_YW5vdGhlciBvbmUgb2YgdGhlIGZvdXIga2V5cyE=",
];

/// Measures each case. A ratio above 2 breaks a promise.
pub(crate) fn measure(bench: &mut Bench) {
    let daemon = daemon(bench, &SECRETS);
    let wrong = vec![format!("v1,{SIGNATURE}"); ENTRIES].join(" ");
    let long = format!("v1,{}", "A".repeat(LONGEST - 3));
    let accepted = |bench: &Bench| bench.round(daemon.address(), pid(&daemon), noop::ANSWER);
    for (name, signatures) in
        [("64 signatures, four secrets", wrong.clone()), ("8 KiB of one signature", long)]
    {
        let refused = |bench: &Bench| repeated(bench, &daemon, unix_now(), &signatures, REFUSED);
        case(bench, name, accepted, refused);
    }

    let keys = [[7; 32], [8; 32]].map(|seed| SigningKey::from_bytes(&seed));
    let public = keys.each_ref().map(|key| format!("whpk_{}", BASE64.encode(key.verifying_key().as_bytes())));
    let daemon = self::daemon(bench, &public.each_ref().map(String::as_str));
    let signed = |at: i64| {
        let text = format!("{ID}.{at}.{}", body());
        format!("v1a,{}", BASE64.encode(keys[0].sign(text.as_bytes()).to_bytes()))
    };
    // A signature of another text: well-formed, so that it is checked with each key.
    let other = format!("v1a,{}", BASE64.encode(keys[0].sign(b"another text").to_bytes()));
    let many = [vec![other; 2], vec![format!("v1,{SIGNATURE}"); ENTRIES - 2]].concat().join(" ");
    let at = unix_now();
    let headers =
        [("webhook-id", ID), ("webhook-timestamp", &at.to_string()), ("webhook-signature", &signed(at))]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let first = daemon.connect().post(PATH, &headers.to_vec(), body().as_bytes()).expect("an answer");
    assert_eq!(first.status, 200, "{first}");
    let accepted = |bench: &Bench| {
        let at = unix_now();
        repeated(bench, &daemon, at, &signed(at), DUPLICATE)
    };
    let refused = |bench: &Bench| repeated(bench, &daemon, unix_now(), &many, REFUSED);
    case(bench, "two public-key signatures, two keys", accepted, refused);
}

/// The id of every request here.
const ID: &str = "evt_refused";

/// A daemon whose source has these secrets.
fn daemon(bench: &Bench, secrets: &[&str]) -> Daemon {
    let table = format!(
        "[[source]]\nname = \"scalekit\"\npath = {PATH:?}\nscheme = \"standard-webhooks\"\nsecrets = {secrets:?}\n"
    );
    bench.daemon_of(&table).start()
}

/// A round of one request, again and again.
fn repeated(bench: &Bench, daemon: &Daemon, at: i64, signatures: &str, expected: &'static str) -> Round {
    let body = body();
    let text = format!(
        "POST {PATH} HTTP/1.1\r\nhost: localhost\r\nuser-agent: posthouse-bench\r\n\
         content-type: application/json\r\nwebhook-id: {ID}\r\nwebhook-timestamp: {at}\r\n\
         webhook-signature: {signatures}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    bench.round_of(|count| Batch::repeat(text.into(), count), daemon.address(), pid(daemon), expected)
}

/// Adds the row of a case: rounds of both alternate, after one of each that does not count.
fn case(
    bench: &mut Bench,
    name: &str,
    accepted: impl Fn(&Bench) -> Round,
    refused: impl Fn(&Bench) -> Round,
) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for round in 0..=bench.arguments.rounds {
        let both = (accepted(bench), refused(bench));
        if round > 0 {
            good.push(both.0);
            bad.push(both.1);
        }
    }
    let cpu = |rounds: &[Round]| median(rounds, |round| round.subject_cpu).subject_cpu;
    let (accepted, refused) = (cpu(&good), cpu(&bad));
    bench.add(Row {
        name: format!("refused: {name}"),
        value: format!("{refused:.1} µs"),
        ratio: Some(refused / accepted),
        subject_cpu: Some(refused),
        note: format!("CPU of a refused request; ratio to an accepted one of that source, {accepted:.1} µs"),
        ..Row::default()
    });
}
