//! A thousand random schemes of the grammar. Each verifies its sender's request. It refuses the request if one
//! bit of the body or the signature has changed, with another key and at another time.
//!
//! The sender here follows the description of the grammar and shares no code with `sign` or `claim`.

use std::{ffi::OsString, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use ed25519_dalek::Signer as _;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;
use p256::pkcs8::EncodePublicKey as _;
use posthouse_model::config::{Environment, Loaded, Secrets, Source};
use proptest::prelude::*;
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};

use super::{Verifier, fixtures::NOW, request::RawRequest};

const URL: &str = "https://hooks.example.com/in/random";

#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Sha1,
    Sha256,
    Sha512,
    Bare,
    Ed25519,
    P256,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum TimeAt {
    None,
    Header,
    Entry,
    Body,
}

/// A scheme, and the choices of its sender.
#[derive(Debug, Clone)]
struct Random {
    way: Way,
    base64: bool,
    /// The label, and the separators of entries and labels. None: one signature after a prefix.
    entries: Option<(&'static str, char, char)>,
    prefix: &'static str,
    time: TimeAt,
    unit: &'static str,
    tolerance: i64,
    /// The parts of the signed text besides time, body and key, by number.
    parts: Vec<u8>,
    /// Where the body, the time and the key go among them.
    places: [prop::sample::Index; 3],
    key: [u8; 32],
    key_form: u8,
    id: String,
    note: String,
    query: Option<String>,
    offset: i64,
}

fn random() -> impl Strategy<Value = Random> {
    let ways = [Way::Sha1, Way::Sha256, Way::Sha512, Way::Bare, Way::Ed25519, Way::P256];
    let times = [TimeAt::None, TimeAt::Header, TimeAt::Entry, TimeAt::Body];
    let entries = [None, Some(("v1", ',', '=')), Some(("h1", ';', '=')), Some(("v1a", ' ', ','))];
    (
        (prop::sample::select(ways.to_vec()), any::<bool>(), prop::sample::select(entries.to_vec())),
        (prop::sample::select(vec!["", "v0=", "sha256="]), prop::sample::select(times.to_vec())),
        (prop::sample::select(vec!["s", "ms", "rfc3339"]), 5i64..600),
        (prop::collection::vec(0u8..6, 0..6), any::<[prop::sample::Index; 3]>()),
        (any::<[u8; 32]>(), 0u8..4),
        ("[A-Z0-9]{1,20}", "\\PC{0,30}", prop::option::of("[a-z]=[a-z0-9%]{0,10}"), -1i64..=1),
    )
        .prop_map(|(signature, form, time, text, key, request)| Random {
            way: signature.0,
            base64: signature.1 || signature.0 == Way::P256,
            entries: signature.2,
            prefix: form.0,
            // An entry has a name only where there are entries.
            time: if form.1 == TimeAt::Entry && signature.2.is_none() { TimeAt::Header } else { form.1 },
            unit: if form.1 == TimeAt::Body && time.0 == "rfc3339" { "ms" } else { time.0 },
            tolerance: time.1,
            parts: text.0,
            places: text.1,
            key: key.0,
            key_form: key.1,
            id: request.0,
            note: request.1,
            query: request.2,
            offset: request.3,
        })
}

/// The parts of a signed text: in the grammar, and as this sender knows them.
struct Part {
    grammar: &'static str,
    text: Vec<u8>,
}

struct NoEnvironment;

impl Environment for NoEnvironment {
    fn variable(&self, _: &str) -> Option<OsString> {
        None
    }
}

impl Random {
    /// The time of signing as sent, if its second is `second`.
    fn time(&self, second: i64) -> String {
        match self.unit {
            "s" => second.to_string(),
            "ms" => (second * 1000).to_string(),
            _ => Timestamp::from_second(second).unwrap().to_string(),
        }
    }

    fn body(&self, second: i64) -> Vec<u8> {
        let time = self.time(second);
        serde_json::json!({ "time": time, "note": self.note, "number": 17, "type": "a.b" }).to_string().into()
    }

    fn parts(&self, second: i64, body: &[u8]) -> Vec<Part> {
        let part = |grammar, text: &[u8]| Part { grammar, text: text.to_owned() };
        let with_query = |text: &str| match &self.query {
            Some(query) => format!("{text}?{query}").into_bytes(),
            None => text.as_bytes().to_vec(),
        };
        let plain = |number: &u8| match number {
            0 => part(".", b"."),
            1 => part("{method}", b"POST"),
            2 => Part { grammar: "{url}", text: with_query(URL) },
            3 => Part { grammar: "{path}", text: with_query("/in/random") },
            4 => part("{header:x-id}", self.id.as_bytes()),
            _ => part("{json:/number}", b"17"),
        };
        let mut parts: Vec<_> = self.parts.iter().map(plain).collect();
        let mut insert = |index: usize, new: Part| {
            let at = self.places[index].index(parts.len() + 1);
            parts.insert(at, new);
        };
        insert(0, part("{body}", body));
        if self.time != TimeAt::None {
            insert(1, part("{timestamp}", self.time(second).as_bytes()));
        }
        if self.way == Way::Bare {
            insert(2, part("{key}", &self.key_bytes()));
        }
        parts
    }

    /// The secret in config.toml, and the grammar of the key.
    fn secret(&self) -> (String, String) {
        match self.way {
            Way::Ed25519 => {
                let key = ed25519_dalek::SigningKey::from_bytes(&self.key).verifying_key();
                (hex::encode(key.as_bytes()), "{ encoding = \"hex\" }".into())
            }
            Way::P256 => {
                let der = self.p256().verifying_key().to_public_key_der().unwrap();
                (BASE64.encode(der.as_bytes()), "{ encoding = \"spki\" }".into())
            }
            _ => match self.key_form {
                0 => (format!("k{}", hex::encode(self.key)), "{}".into()),
                1 => (
                    format!("key_{}", BASE64.encode(self.key)),
                    "{ prefix = \"key_\", encoding = \"base64\" }".into(),
                ),
                2 => (hex::encode(self.key), "{ encoding = \"hex\" }".into()),
                _ => (format!("key_x{}", hex::encode(self.key)), "{ prefix = \"key_\" }".into()),
            },
        }
    }

    fn key_bytes(&self) -> Vec<u8> {
        match self.key_form {
            0 => format!("k{}", hex::encode(self.key)).into_bytes(),
            1 | 2 => self.key.to_vec(),
            _ => format!("x{}", hex::encode(self.key)).into_bytes(),
        }
    }

    fn p256(&self) -> p256::ecdsa::SigningKey {
        // All but a few of 2^256 are scalars, and proptest tries none of those.
        p256::ecdsa::SigningKey::from_slice(&self.key)
            .unwrap_or_else(|_| p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap())
    }

    fn source(&self) -> Source {
        let algorithm = match self.way {
            Way::Sha1 => "hmac-sha1",
            Way::Sha256 => "hmac-sha256",
            Way::Sha512 => "hmac-sha512",
            Way::Bare => "sha256",
            Way::Ed25519 => "ed25519",
            Way::P256 => "ecdsa-p256",
        };
        let encoding = if self.base64 { "base64" } else { "hex" };
        let form = match self.entries {
            Some((label, between, separator)) => {
                format!("entries = \"{between}\", separator = \"{separator}\", label = \"{label}\"")
            }
            None => format!("prefix = \"{}\"", self.prefix),
        };
        let at = match self.time {
            TimeAt::None => None,
            TimeAt::Header => Some("header:x-time"),
            TimeAt::Entry => Some("entry:t"),
            TimeAt::Body => Some("json:/time"),
        };
        let time = at.map(|at| {
            let Self { unit, tolerance, .. } = self;
            format!("timestamp = {{ at = \"{at}\", unit = \"{unit}\", tolerance = \"{tolerance}s\" }}\n")
        });
        let signed: String = self.parts(0, b"").iter().map(|part| part.grammar).collect();
        let (secret, key) = self.secret();
        let text = format!(
            "[scheme.random]\n\
             signature = {{ header = \"x-signature\", algorithm = \"{algorithm}\", encoding = \"{encoding}\", {form} }}\n\
             {}signed = \"{signed}\"\nkey = {key}\nevent = {{ type = \"{{json:/type}}\" }}\n\
             [[source]]\nname = \"random\"\npath = \"/in/random\"\nurl = \"{URL}\"\nscheme = \"random\"\n\
             secrets = [\"{secret}\"]\n",
            time.unwrap_or_default()
        );
        let loaded = Loaded::parse(&text, Path::new("config.toml"), &NoEnvironment, Secrets::All);
        loaded.unwrap_or_else(|error| panic!("{text}\n{error}")).config.sources.remove(0)
    }

    /// The request as its sender makes it at this second.
    fn request(&self, second: i64) -> RawRequest {
        let body = self.body(second);
        let text = self.parts(second, &body).into_iter().flat_map(|part| part.text).collect::<Vec<_>>();
        let key = self.key_bytes();
        let value = match self.way {
            Way::Sha1 => mac::<Hmac<Sha1>>(&key, &text),
            Way::Sha256 => mac::<Hmac<Sha256>>(&key, &text),
            Way::Sha512 => mac::<Hmac<Sha512>>(&key, &text),
            Way::Bare => Sha256::digest(&text).to_vec(),
            Way::Ed25519 => ed25519_dalek::SigningKey::from_bytes(&self.key).sign(&text).to_bytes().to_vec(),
            Way::P256 => {
                let signature: p256::ecdsa::Signature = self.p256().sign(&text);
                signature.to_der().as_bytes().to_vec()
            }
        };
        let value = if self.base64 { BASE64.encode(value) } else { hex::encode(value) };
        let time = self.time(second);
        let signature = match self.entries {
            Some((label, between, separator)) => {
                let entry = format!("{label}{separator}{value}");
                match self.time {
                    TimeAt::Entry => format!("t{separator}{time}{between}{entry}"),
                    _ => entry,
                }
            }
            None => format!("{}{value}", self.prefix),
        };
        let mut headers = HeaderMap::new();
        let mut insert =
            |name, value: &str| headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        insert("x-signature", &signature);
        insert("x-id", &self.id);
        if self.time == TimeAt::Header {
            insert("x-time", &time);
        }
        RawRequest { method: Method::POST, query: self.query.clone(), headers, body: Bytes::from(body) }
    }
}

fn mac<M: Mac + KeyInit>(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = <M as KeyInit>::new_from_slice(key).unwrap();
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

fn flipped(bytes: &[u8], at: &prop::sample::Index, bit: u8) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    flipped[at.index(bytes.len())] ^= 1 << bit;
    flipped
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn each_verifies_what_it_signs_and_refuses_what_differs(
        scheme in random(),
        other in any::<[u8; 32]>(),
        at: prop::sample::Index,
        bit in 0u8..8,
    ) {
        let now = Timestamp::from_second(NOW).unwrap();
        let source = scheme.source();
        let verifier = Verifier::new(&source).unwrap();
        let good = scheme.request(NOW + scheme.offset * scheme.tolerance);
        let verdict = verifier.verify(&good, now);
        prop_assert!(verdict.is_ok(), "{:?}\n{:?}", verdict.err(), good);

        let body = RawRequest { body: Bytes::from(flipped(&good.body, &at, bit)), ..good.clone() };
        prop_assert!(verifier.verify(&body, now).is_err(), "a bit of the body");

        let signature = flipped(good.headers["x-signature"].as_bytes(), &at, bit);
        if let Ok(value) = HeaderValue::from_bytes(&signature) {
            let mut changed = good.clone();
            changed.headers.insert("x-signature", value);
            prop_assert!(verifier.verify(&changed, now).is_err(), "a bit of the signature");
        }

        if other != scheme.key {
            let stranger = Random { key: other, ..scheme.clone() };
            prop_assert!(verifier.verify(&stranger.request(NOW), now).is_err(), "another key");
        }

        if scheme.time != TimeAt::None {
            for second in [NOW - scheme.tolerance - 1, NOW + scheme.tolerance + 1] {
                let request = scheme.request(second);
                let verdict = verifier.verify(&request, now);
                let label = verdict.err().map(|refusal| refusal.label());
                prop_assert!(matches!(label, Some("stale-timestamp" | "future-timestamp")), "{:?}", label);
            }
        }
    }
}
