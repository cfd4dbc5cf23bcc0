//! Fuzz targets for what senders post: the headers with the signature, and the body.

#![allow(clippy::expect_used, clippy::panic, reason = "a fuzz target panics where a promise is broken")]

use std::{collections::BTreeSet, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;
use posthouse_model::{
    Pattern, SourceName,
    config::{Respond, Scheme, Secret, Source},
};
use serde_json::{Value, value::RawValue};
use sha2::Sha256;

use super::{Given, InvalidPayload, Offline, RawRequest, Verifier, envelope, sign, verify_offline};

/// In seconds since 1970.
const NOW: i64 = 1_765_281_881;
const TOLERANCE: i64 = 300;
const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const SCHEMES: [&str; 3] = ["standard-webhooks", "scalekit-documented", "scalekit"];

fn source(scheme: &str) -> Source {
    Source {
        name: SourceName::new("crm").expect("a name"),
        path: "/webhooks/crm".into(),
        scheme: Scheme::named(scheme).expect("it is shipped"),
        url: None,
        secrets: vec![Secret::new(SECRET)],
        tolerance: Duration::from_secs(TOLERANCE.unsigned_abs()),
        events: vec![Pattern::new("*").expect("a pattern")],
        redact: Default::default(),
        respond: Respond::Accepted,
        rate: None,
        brings_key: false,
        catch_up: None,
        headers: Vec::new(),
        keeps_signatures: false,
        verify_token: None,
    }
}

fn now() -> Timestamp {
    Timestamp::from_second(NOW).expect("a time")
}

fn hmac(key: &[u8], text: &[&[u8]]) -> Vec<u8> {
    let mut hmac = Hmac::<Sha256>::new_from_slice(key).expect("any key will do");
    text.iter().for_each(|piece| hmac.update(piece));
    hmac.finalize().into_bytes().to_vec()
}

/// The signatures of Standard Webhooks and of Scalekit's page. This does not use [`super::sign`].
fn signatures(id: &str, time: &str, body: &[u8]) -> (String, String) {
    let key = BASE64.decode(&SECRET["whsec_".len()..]).expect("base64");
    let standard = hmac(&key, &[id.as_bytes(), b".", time.as_bytes(), b".", body]);
    let documented = hmac(SECRET.as_bytes(), &[time.as_bytes(), b".", body]);
    (BASE64.encode(standard), hex::encode(documented))
}

/// The first byte selects the scheme. Header lines up to an empty line follow, then the body. In a header's
/// value, `{standard}` and `{documented}` mean the valid signature of the id `evt_1` at [`NOW`], so that a
/// fuzzer need not guess one.
///
/// A request that is accepted has a valid signature in a header of its only family, and a time within the
/// tolerance. The offline check gives the same verdict, and nothing shows the secret.
pub(crate) fn signature(input: &[u8]) {
    let Some((&scheme, rest)) = input.split_first() else { return };
    let scheme = SCHEMES[usize::from(scheme) % SCHEMES.len()];
    let source = source(scheme);
    let (head, body) = rest
        .windows(2)
        .position(|two| two == b"\n\n")
        .map_or((rest, &b""[..]), |at| (&rest[..at], &rest[at + 2..]));
    let Ok(head) = std::str::from_utf8(head) else { return };
    let (standard, documented) = signatures("evt_1", &NOW.to_string(), body);
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let headers: Vec<(String, String)> = lines
        .map(|(name, value)| {
            let value = value.replace("{standard}", &standard).replace("{documented}", &documented);
            (name.trim().to_owned(), value.trim_matches([' ', '\t']).to_owned())
        })
        .collect();
    let mut map = HeaderMap::new();
    for (name, value) in &headers {
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
        else {
            return;
        };
        map.append(name, value);
    }

    let request = RawRequest::post(map, Bytes::copy_from_slice(body));
    let verifier = Verifier::new(&source).expect("the secret serves");
    let verdict = verifier.verify(&request, now());
    match &verdict {
        Ok(verified) => {
            assert_eq!(verified.body(), body);
            assert!(is_signed(scheme, &request.headers, body), "{:?}", request.headers);
        }
        Err(refusal) => {
            assert!(!refusal.label().is_empty() && !refusal.to_string().contains(SECRET), "{refusal}");
        }
    }
    let (body, given) = (request.body.clone(), Given::default());
    let again = Offline { method: Method::POST, query: None, headers, body, given };
    let offline = verify_offline(&source, &again, now());
    assert_eq!(offline.verdict.is_ok(), verdict.is_ok(), "{:?}", offline.verdict);
    assert!(!format!("{offline:?}").contains(&SECRET["whsec_".len()..]), "{offline:?}");
}

/// Whether the request has one of the scheme's families of headers, with a valid signature and a time within the
/// tolerance. The headers of another scheme mean nothing.
fn is_signed(scheme: &str, headers: &HeaderMap, body: &[u8]) -> bool {
    let one = |name: &str| {
        let mut values = headers.get_all(name).iter();
        // UTF-8, as the headers may be: an entry that nobody knows may contain anything.
        let value = values.next().and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
        value.filter(|_| values.next().is_none())
    };
    let is_fresh = |time: &str| time.parse::<i64>().is_ok_and(|time| (time - NOW).abs() <= TOLERANCE);
    let mut families = BTreeSet::new();
    for name in headers.keys() {
        let name = name.as_str();
        let standard = ["webhook-", "svix-"].into_iter().filter(|family| {
            name.strip_prefix(family).is_some_and(|rest| ["id", "timestamp", "signature"].contains(&rest))
        });
        families.extend(standard.filter(|_| scheme != "scalekit-documented"));
        families.extend((name == "scalekit-signature" && scheme != "standard-webhooks").then_some(name));
    }
    let families: Vec<&str> = families.into_iter().collect();
    match families[..] {
        ["scalekit-signature"] => one("scalekit-signature").is_some_and(|value| {
            let entries: Vec<(&str, &str)> =
                value.split(',').filter_map(|entry| entry.split_once('=')).collect();
            let times: Vec<&str> = entries.iter().filter(|(key, _)| *key == "t").map(|(_, t)| *t).collect();
            let [time] = times[..] else { return false };
            let right = signatures("", time, body).1;
            is_fresh(time)
                && entries.iter().any(|(key, value)| *key == "v1" && value.eq_ignore_ascii_case(&right))
        }),
        [family] => {
            let header = |name: &str| one(&format!("{family}{name}"));
            let (Some(id), Some(time), Some(entries)) =
                (header("id"), header("timestamp"), header("signature"))
            else {
                return false;
            };
            let right = format!("v1,{}", signatures(id, time, body).0);
            is_fresh(time) && entries.split(' ').any(|entry| entry == right)
        }
        _ => false,
    }
}

/// The first byte decides whether the event's id is in a header or in the body. The rest is the body, validly
/// signed.
///
/// posthouse reads the same values from a body as serde_json, and accepts at least as many bodies.
pub(crate) fn envelope(input: &[u8]) {
    let Some((&first, body)) = input.split_first() else { return };
    let id_in_body = first % 2 == 1;
    let source = source(SCHEMES[usize::from(id_in_body)]);
    let headers = sign(&source, "evt_1", now(), body).expect("the secret serves");
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        map.append(name, HeaderValue::from_str(&value).expect("visible ASCII"));
    }
    let request = RawRequest::post(map, Bytes::copy_from_slice(body));
    let verifier = Verifier::new(&source).expect("the secret serves");
    let verified = verifier.verify(&request, now()).expect("it is signed");
    let read = envelope::read(&verified, &source.name, now()).map(|arrived| arrived.event);
    let known: Option<Value> = serde_json::from_slice(body).ok();
    match (read, known) {
        (Ok(event), known) => {
            assert_eq!(event.body, body);
            let text = std::str::from_utf8(body).expect("it was read as text");
            let data = &text[event.data.start as usize..event.data.end as usize];
            if !data.is_empty() {
                serde_json::from_str::<&RawValue>(data).expect("`data` is JSON");
            }
            if let Some(known) = known {
                assert_eq!(known["type"], event.event_type.to_string());
                let id = if id_in_body { known["id"].as_str() } else { Some("evt_1") };
                assert_eq!(id, Some(event.id.to_string().as_str()));
                if !data.is_empty() {
                    assert_eq!(serde_json::from_str::<Value>(data).ok().as_ref(), known.get("data"));
                }
            }
            if let Some(at) = event.occurred_at {
                let year = at.to_zoned(jiff::tz::TimeZone::UTC).year();
                assert!((1990..2100).contains(&year), "{at}");
            }
        }
        (Err(InvalidPayload::NotUtf8 | InvalidPayload::Compressed(_)), known) => {
            assert!(known.is_none() && std::str::from_utf8(body).is_err());
        }
        (Err(error @ InvalidPayload::NotJson { .. }), Some(known)) => panic!("{error}: {known}"),
        (Err(InvalidPayload::NotAnObject), Some(known)) => assert!(!known.is_object(), "{known}"),
        (Err(error), _) => assert!(!error.label().is_empty() && !error.for_the_log().is_empty()),
    }
}
