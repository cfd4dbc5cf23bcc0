//! Tests the requests of many senders in tests/data/senders.json. The senders' formulas signed them, and
//! the senders' own libraries checked most of them.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use posthouse_model::{
    config::{Scheme, Secret, Source},
    text_time,
};
use serde::Deserialize;

use super::{Draft, Verifier, event, fixtures, request::RawRequest, sign_request};

#[derive(Debug, Deserialize)]
struct Vector {
    name: String,
    scheme: String,
    kind: Option<String>,
    needs: Option<String>,
    secrets: Vec<String>,
    now: i64,
    method: String,
    url: String,
    query: Option<String>,
    headers: Vec<(String, String)>,
    body_b64: String,
    expect: String,
    strict: Option<String>,
    events: Option<Vec<Expected>>,
}

/// The event that a row reads from a request.
#[derive(Debug, PartialEq, Deserialize)]
struct Expected {
    id: String,
    #[serde(rename = "type")]
    event_type: String,
    time: Option<String>,
    organization: Option<String>,
}

/// The vectors of the schemes that posthouse ships, except handshakes.
fn vectors() -> Vec<Vector> {
    #[derive(Deserialize)]
    struct File {
        vectors: Vec<Vector>,
    }
    let file: File = serde_json::from_str(include_str!("../../../../tests/data/senders.json")).unwrap();
    let shipped = |vector: &Vector| {
        vector.kind.is_none() && vector.needs.is_none() && Scheme::named(&vector.scheme).is_some()
    };
    file.vectors.into_iter().filter(shipped).collect()
}

impl Vector {
    fn source(&self) -> Source {
        let scheme = Scheme::named(&self.scheme).unwrap();
        Source {
            tolerance: scheme.tolerance().unwrap_or(Duration::from_mins(5)),
            scheme,
            url: Some(self.url.clone()),
            secrets: self.secrets.iter().map(Secret::new).collect(),
            ..fixtures::source("standard-webhooks")
        }
    }

    fn request(&self) -> RawRequest {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        RawRequest {
            method: self.method.parse().unwrap(),
            query: self.query.clone(),
            headers,
            body: Bytes::from(BASE64.decode(&self.body_b64).unwrap()),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.now).unwrap()
    }

    fn is_valid(&self) -> bool {
        match self.strict.as_ref().unwrap_or(&self.expect).as_str() {
            "valid" => true,
            "invalid" => false,
            other => panic!("{}: {other}", self.name),
        }
    }
}

#[test]
fn each_is_judged_as_the_senders_library_judges_it() {
    let mut wrong = Vec::new();
    let vectors = vectors();
    assert!(vectors.len() >= 300, "{}", vectors.len());
    for vector in &vectors {
        let source = vector.source();
        let verifier = Verifier::new(&source).unwrap_or_else(|error| panic!("{}: {error}", vector.name));
        let request = vector.request();
        let verdict = verifier.verify(&request, vector.now());
        if verdict.is_ok() != vector.is_valid() {
            wrong.push(format!("{}: {:?}", vector.name, verdict.err().map(|refusal| refusal.to_string())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_event_of_each_is_read_where_the_row_says() {
    let mut wrong = Vec::new();
    for vector in vectors().iter().filter(|vector| vector.events.is_some()) {
        let source = vector.source();
        let verifier = Verifier::new(&source).unwrap();
        let request = vector.request();
        let Ok(verified) = verifier.verify(&request, vector.now()) else { continue };
        let read = event::read(&verified, &source.name, vector.now());
        let Some([expected]) = vector.events.as_deref() else { continue };
        let fits = read.as_ref().is_ok_and(|event| {
            event.id.as_str() == expected.id
                && event.event_type.as_str() == expected.event_type
                && event.organization.as_deref() == expected.organization.as_deref()
                && event.occurred_at == expected.time.as_ref().and_then(|time| text_time(time))
        });
        if !fits {
            wrong.push(format!("{}: {read:?}\n  {expected:?}", vector.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_sign_makes_is_what_the_sender_makes() {
    let mut made = 0;
    for vector in vectors().iter().filter(|vector| vector.is_valid()) {
        let (source, request) = (vector.source(), vector.request());
        let verifier = Verifier::new(&source).unwrap();
        let form = request.headers.get("content-type").and_then(|value| value.to_str().ok());
        let draft = Draft {
            method: &request.method,
            query: request.query.as_deref(),
            id: "id-1",
            at: vector.now(),
            content_type: form.unwrap_or("application/json"),
            body: &request.body,
        };
        let Ok(signed) = sign_request(&source, &draft) else {
            assert!(source.scheme.rows[0].signature.algorithm.is_public(), "{}", vector.name);
            continue;
        };
        let mut headers = HeaderMap::new();
        for (name, value) in &signed.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers.insert("content-type", draft.content_type.parse().unwrap());
        let again = RawRequest { headers, query: signed.query, ..request };
        let verdict = verifier.verify(&again, vector.now());
        assert!(verdict.is_ok(), "{}: {:?} {:?}", vector.name, verdict.err(), signed.headers);
        made += 1;
    }
    assert!(made > 80, "{made}");
}
