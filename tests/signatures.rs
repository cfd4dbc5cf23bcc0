//! Signatures made by the real libraries of senders. `posthouse verify` judges each correctly for the time
//! when it was made, and the daemon judges it correctly over HTTP now.
//!
//! The daemon's clock can't be set, so over HTTP a case is moved to the present, with its defects. Its
//! timestamp moves by the time between the case and the present, within any odd text around it (`+1765281881`
//! stays a plus and a number). If an entry of its signature header was right, for the timestamp as sent or
//! for the case's time, it is made again for the moved timestamp. Every other entry stays unchanged. So what
//! was wrong stays wrong, and in the same way.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what fails here fails a test")]

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit as _, Mac as _};
use posthouse_harness::{Answer, Daemon, Headers, unix_now};
use serde::Deserialize;
use serde_json::Value;
use sha2::Sha256;

#[test]
fn posthouse_verify_judges_each_as_it_should() {
    let (good, bad) = sources();
    let daemon = configured(good.values()).prepare();
    for vector in vectors() {
        let secret = bad.get(&vector.key()).map(|source| configured([source]).prepare());
        let (daemon, source) = match &secret {
            Some(own) => (own, &bad[&vector.key()]),
            None => (&daemon, &good[&vector.key()]),
        };
        let headers: Vec<_> = vector.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let now = vector.now.to_string();
        let mut arguments = vec!["verify", "--source", &source.name, "--at", &now];
        headers.iter().for_each(|header| arguments.extend(["-H", header]));
        let output = daemon.cli_with_input(&arguments, &vector.body());
        match vector.valid() {
            true => assert!(output.code == Some(0) && output.stdout == "valid\n", "{vector:?}\n{output:?}"),
            false => assert!(
                output.code == Some(1) && output.stdout.starts_with("invalid: "),
                "{vector:?}\n{output:?}"
            ),
        }
    }
}

#[test]
fn the_daemon_judges_each_as_it_should() {
    let (good, _) = sources();
    let daemon = configured(good.values()).start();
    for vector in vectors() {
        let Some(source) = good.get(&vector.key()) else { continue };
        let answer = vector.posted_now(&daemon, &source.path());
        let expected = match vector.valid() {
            true if is_event(&vector.body()) => 200,
            true => 400,
            false => 401,
        };
        assert_eq!(answer.status, expected, "{vector:?}\n{answer}");
        if !vector.valid() {
            assert_eq!(answer.body, r#"{"error":"Invalid signature"}"#, "{vector:?}");
        }
    }
    assert_eq!(daemon.stats()["balanced"], true, "{}", daemon.stats());
}

#[test]
fn the_daemon_does_not_start_with_a_secret_that_anybody_has() {
    let (_, bad) = sources();
    assert!(!bad.is_empty());
    for source in bad.values() {
        let output = configured([source]).refused();
        assert!(output.code == Some(78) && output.stderr.contains("secret"), "{output:?}");
    }
}

#[test]
fn an_empty_secret_makes_every_signature_invalid_and_no_daemon() {
    for scheme in ["standard-webhooks", "scalekit-documented", "scalekit"] {
        for secret in ["", " ", "whsec_"] {
            let source = Source { name: "hollow".into(), scheme, secrets: vec![secret.into()] };
            let daemon = configured([&source]).prepare();
            let output = daemon.cli_with_input(&["verify", "--source", "hollow"], b"{}");
            assert_eq!(output.code, Some(1), "{scheme}, {secret:?}: {output:?}");
            assert!(
                output.stdout.starts_with("invalid: secret 1 of source `hollow` is empty"),
                "{scheme}, {secret:?}: {output:?}"
            );
            let output = daemon.cli(&["check"]);
            assert!(output.code == Some(78) && output.stderr.contains("is empty"), "{output:?}");
            assert_eq!(configured([&source]).refused().code, Some(78), "{scheme}, {secret:?}");
        }
    }
}

#[test]
fn a_placeholder_makes_every_signature_invalid_and_no_daemon() {
    for scheme in ["standard-webhooks", "scalekit-documented", "scalekit"] {
        for (secret, problem) in [
            ("${SCALEKIT_WEBHOOK_SECRET}", "holds a placeholder (`${…}`)"),
            ("$SCALEKIT_WEBHOOK_SECRET", "holds a placeholder (`$…`)"),
            ("%SECRET%", "holds a placeholder (`%…%`)"),
            ("{{ secret }}", "holds a placeholder (`{{…}}`)"),
            ("<your signing secret>", "holds a placeholder (`<…>`)"),
            ("'whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8='", "is in quotes"),
            ("v1,whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "begins with `v1,`"),
            ("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\r", "begins or ends with white space"),
            ("your-secret-here", "is a placeholder that anybody can guess"),
            ("changeme", "is a placeholder that anybody can guess"),
            ("xxxxxxxxxxxx", "is one character or byte over and over"),
            ("SCALEKIT_WEBHOOK_SECRET=whsec_AAEC", "is a whole line `NAME=…`"),
        ] {
            let source = Source { name: "hollow".into(), scheme, secrets: vec![secret.into()] };
            let daemon = configured([&source]).prepare();
            // Signed with this text, as an attacker who guesses it would.
            let body = b"{\"id\":\"evt_1\",\"type\":\"user.created\"}";
            let now = unix_now().to_string();
            let hmac = mac(secret.as_bytes(), &[now.as_bytes(), b".", body]);
            let header = format!("scalekit-signature: t={now},v1={}", hex::encode(hmac));
            let output = daemon.cli_with_input(&["verify", "--source", "hollow", "-H", &header], body);
            assert_eq!(output.code, Some(1), "{scheme}, {secret:?}: {output:?}");
            let told = format!("invalid: secret 1 of source `hollow` {problem}");
            assert!(output.stdout.starts_with(&told), "{scheme}, {secret:?}: {output:?}");
            assert!(output.stderr.contains("config.toml:"), "{output:?}");
            for arguments in [&["check"][..], &["doctor"]] {
                let output = daemon.cli(arguments);
                let said = format!("{}{}", output.stdout, output.stderr);
                assert!(
                    output.code != Some(0) && said.contains(problem),
                    "{arguments:?} {secret:?}: {output:?}"
                );
                assert!(said.contains("config.toml:") && !said.contains(secret.trim_end()), "{said}");
            }
            let refused = configured([&source]).refused();
            assert!(refused.code == Some(78) && refused.stderr.contains(problem), "{refused:?}");
        }
    }
}

/// One case in the file.
#[derive(Debug, Clone, Deserialize)]
struct Vector {
    name: String,
    scheme: String,
    secrets: Vec<String>,
    now: i64,
    headers: Headers,
    body_b64: String,
    expect: String,
    why: String,
}

fn vectors() -> Vec<Vector> {
    #[derive(Deserialize)]
    struct File {
        vectors: Vec<Vector>,
    }
    let file: File = serde_json::from_str(include_str!("data/webhook-signatures.json")).unwrap();
    for vector in &file.vectors {
        assert!(matches!(&*vector.expect, "valid" | "invalid"), "{} ({})", vector.name, vector.why);
    }
    file.vectors
}

/// A `[[source]]` for the cases that share a scheme and secrets.
#[derive(Debug)]
struct Source {
    name: String,
    scheme: &'static str,
    secrets: Vec<String>,
}

/// The sources, by scheme and secrets.
type Sources = BTreeMap<(String, Vec<String>), Source>;

/// The sources of all cases: those with which a daemon starts, and those with an empty key.
fn sources() -> (Sources, Sources) {
    let (mut good, mut bad) = (Sources::new(), Sources::new());
    for vector in vectors() {
        let of_its_kind =
            if vector.secrets.iter().any(|secret| key(secret).is_empty()) { &mut bad } else { &mut good };
        let name = format!("case-{}", of_its_kind.len());
        let scheme = match &*vector.scheme {
            "standard-webhooks" | "svix" => "standard-webhooks",
            "scalekit-seed" => "scalekit-documented",
            other => panic!("a scheme that nobody knows: {other}"),
        };
        let source = Source { name, scheme, secrets: vector.secrets.clone() };
        of_its_kind.entry(vector.key()).or_insert(source);
    }
    (good, bad)
}

fn configured<'a>(sources: impl IntoIterator<Item = &'a Source>) -> posthouse_harness::Builder {
    let tables: String = sources.into_iter().map(Source::toml).collect();
    Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).toml(&tables)
}

impl Source {
    fn path(&self) -> String {
        format!("/webhooks/{}", self.name)
    }

    fn toml(&self) -> String {
        let Self { name, scheme, secrets, .. } = self;
        let path = self.path();
        format!("[[source]]\nname = {name:?}\npath = {path:?}\nscheme = {scheme:?}\nsecrets = {secrets:?}\n")
    }
}

impl Vector {
    fn key(&self) -> (String, Vec<String>) {
        (self.scheme.clone(), self.secrets.clone())
    }

    fn valid(&self) -> bool {
        self.expect == "valid"
    }

    fn body(&self) -> Vec<u8> {
        BASE64.decode(&self.body_b64).unwrap()
    }

    /// Posts the case as if it had been made now. Posts it again if the second has changed meanwhile, because
    /// some cases are at the very limit.
    fn posted_now(&self, daemon: &Daemon, path: &str) -> Answer {
        loop {
            let now = unix_now();
            let headers = self.moved_to(now);
            let answer = daemon.connect().post(path, &headers, &self.body()).expect("an answer");
            if unix_now() == now {
                return answer;
            }
        }
    }

    /// Its headers, moved to this time.
    fn moved_to(&self, now: i64) -> Headers {
        let mut remade = 0;
        let headers: Headers = self
            .headers
            .iter()
            .map(|(name, value)| {
                let value = match &*name.to_ascii_lowercase() {
                    "webhook-timestamp" | "svix-timestamp" => self.moved(value, now),
                    "webhook-signature" | "svix-signature" => {
                        let entry = |entry: &str| self.remade(entry, now, &mut remade);
                        value.split(' ').map(entry).collect::<Vec<_>>().join(" ")
                    }
                    "scalekit-signature" => {
                        let entry = |entry: &str| match entry.strip_prefix("t=") {
                            Some(timestamp) => format!("t={}", self.moved(timestamp, now)),
                            None => self.remade(entry, now, &mut remade),
                        };
                        value.split(',').map(entry).collect::<Vec<_>>().join(",")
                    }
                    _ => value.clone(),
                };
                (name.clone(), value)
            })
            .collect();
        assert!(!self.valid() || remade > 0, "no entry of a good signature could be signed again: {self:?}");
        headers
    }

    /// A timestamp, moved: the time of the case wherever it occurs in the text, or the number that the text
    /// is.
    fn moved(&self, timestamp: &str, now: i64) -> String {
        let time = self.now.to_string();
        match timestamp.parse::<i64>() {
            _ if timestamp.contains(&time) => timestamp.replace(&time, &now.to_string()),
            Ok(number) if number.to_string() == timestamp => (number + now - self.now).to_string(),
            _ => timestamp.to_owned(),
        }
    }

    /// An entry, made again if it was right.
    fn remade(&self, entry: &str, now: i64, remade: &mut usize) -> String {
        for secret in &self.secrets {
            for timestamp in self.timestamps() {
                for label in ["v0", "v1", "v1a", "v2", "V1"] {
                    if entry == self.entry(label, secret, &timestamp) {
                        *remade += 1;
                        return self.entry(label, secret, &self.moved(&timestamp, now));
                    }
                }
            }
        }
        entry.to_owned()
    }

    /// The times for which its signatures may have been made: the header's text, and the time of the case.
    fn timestamps(&self) -> Vec<String> {
        let sent = self.headers.iter().filter_map(|(name, value)| match &*name.to_ascii_lowercase() {
            "webhook-timestamp" | "svix-timestamp" => Some(value.clone()),
            "scalekit-signature" => {
                value.split(',').find_map(|entry| entry.strip_prefix("t=")).map(str::to_owned)
            }
            _ => None,
        });
        sent.chain([self.now.to_string()]).collect()
    }

    /// The entry that a good sender makes with this secret for this time.
    fn entry(&self, label: &str, secret: &str, timestamp: &str) -> String {
        let body = self.body();
        if self.scheme == "scalekit-seed" {
            let mac = mac(secret.as_bytes(), &[timestamp.as_bytes(), b".", &body]);
            return format!("{label}={}", hex::encode(mac));
        }
        let id = self.headers.iter().find(|(name, _)| name.to_ascii_lowercase().ends_with("-id"));
        let id = id.map_or("", |(_, value)| value);
        let mac = mac(&key(secret), &[id.as_bytes(), b".", timestamp.as_bytes(), b".", &body]);
        format!("{label},{}", BASE64.encode(mac))
    }
}

/// The key in a secret of Standard Webhooks, or the text if it contains none.
fn key(secret: &str) -> Vec<u8> {
    let text = secret.split_once('_').map_or(secret, |(_, text)| text);
    BASE64.decode(text).unwrap_or_else(|_| text.into())
}

fn mac(key: &[u8], pieces: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    pieces.iter().for_each(|piece| mac.update(piece));
    mac.finalize().into_bytes().to_vec()
}

/// Whether a daemon accepts the body once its signature is valid: it names its type.
fn is_event(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|body| body["type"].is_string())
}
