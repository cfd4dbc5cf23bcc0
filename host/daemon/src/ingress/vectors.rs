//! Tests the requests of many senders in tests/data/senders.json. The senders' formulas signed them, and
//! the senders' own libraries checked most of them.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use posthouse_model::{
    config::{Scheme, Secret, Source, scheme::Place},
    text_time,
};
use serde::Deserialize;

use super::{
    Draft, Refusal, Verified, Verifier,
    event::{self, Arrived},
    fixtures,
    handshake::{Shaken, Test},
    published::PublishedKey,
    request::RawRequest,
    sign_request,
};

#[derive(Debug, Deserialize)]
struct Vector {
    name: String,
    scheme: String,
    kind: Option<String>,
    needs: Option<String>,
    certificates: Option<BTreeMap<String, String>>,
    jwks: Option<serde_json::Value>,
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
    verify_token: Option<String>,
    learn: Option<String>,
    answer: Option<ExpectedAnswer>,
}

/// The answer to a handshake.
#[derive(Debug, Deserialize)]
struct ExpectedAnswer {
    status: u16,
    content_type: Option<String>,
    body: Option<String>,
    json: Option<serde_json::Value>,
    headers: Option<BTreeMap<String, String>>,
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
    all().into_iter().filter(|vector| vector.kind.is_none()).collect()
}

/// The vectors of the schemes that posthouse ships.
fn all() -> Vec<Vector> {
    #[derive(Deserialize)]
    struct File {
        vectors: Vec<Vector>,
    }
    let file: File = serde_json::from_str(include_str!("../../../../tests/data/senders.json")).unwrap();
    let shipped = |vector: &Vector| Scheme::named(&vector.scheme).is_some();
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
            brings_key: self.secrets.is_empty() && self.needs.is_none(),
            verify_token: self.verify_token.as_ref().map(Secret::new),
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

    /// The verdict, with the keys that a fetch would give.
    fn verify<'r>(&self, verifier: &'r Verifier, request: &'r RawRequest) -> Result<Verified<'r>, Refusal> {
        verifier.verify_with(request, self.now(), &|wanted| {
            if let Some(pem) = self.certificates.as_ref().and_then(|all| all.get(&wanted.id)) {
                let der = posthouse_egress::first_certificate(pem.as_bytes()).unwrap();
                return Some(PublishedKey::of_certificate(&der).unwrap());
            }
            let keys = self.jwks.as_ref()?.as_array()?;
            keys.iter().find_map(|key| PublishedKey::of_jwk(key, &wanted.id, self.now()).ok())
        })
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
        let verdict = vector.verify(&verifier, &request);
        if verdict.is_ok() != vector.is_valid() {
            wrong.push(format!("{}: {:?}", vector.name, verdict.err().map(|refusal| refusal.to_string())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_event_of_each_is_read_where_the_row_says() {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for vector in vectors().iter().filter(|vector| vector.events.is_some()) {
        let source = vector.source();
        let verifier = Verifier::new(&source).unwrap();
        let request = vector.request();
        let Ok(verified) = vector.verify(&verifier, &request) else { continue };
        let read = event::read(&verified, &source.name, vector.now());
        let Some(expected) = vector.events.as_deref() else { continue };
        // The time of Xero has no offset; its name says that it is in UTC.
        let time = |expected: &Expected| {
            let time = expected.time.as_ref()?;
            text_time(time).or_else(|| text_time(&format!("{time}Z")))
        };
        let fits = read.as_ref().is_ok_and(|events| {
            events.len() == expected.len()
                && events.iter().zip(expected).all(|(Arrived { event, .. }, expected)| {
                    event.id.as_str() == expected.id
                        && event.event_type.as_str() == expected.event_type
                        && event.organization.as_deref() == expected.organization.as_deref()
                        && event.occurred_at == time(expected)
                        && serde_json::from_slice::<serde_json::Value>(&event.body).is_ok()
                })
        });
        if !fits {
            wrong.push(format!("{}: {read:?}\n  {expected:?}", vector.name));
        }
        seen += expected.len();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 120, "{seen}");
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
            let signature = &source.scheme.rows[0].signature;
            let is_in_body = matches!(signature.at, Place::Json(_));
            assert!(signature.algorithm.is_public() || is_in_body, "{}", vector.name);
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

#[tokio::test]
async fn each_handshake_is_answered_as_its_sender_wants() {
    let mut answered = 0;
    for vector in all() {
        let Some(expected) = &vector.answer else { continue };
        let (source, request) = (vector.source(), vector.request());
        let verifier = Verifier::new(&source).unwrap();
        if vector.name.starts_with("xero") {
            let verified = verifier.verify(&request, vector.now()).unwrap();
            let events = event::read(&verified, &source.name, vector.now()).unwrap();
            assert!(events.is_empty(), "{}", vector.name);
            continue;
        }
        let test = |body, verified| Test { head: request.head(), body, verified };
        let mut shaken = verifier.handshake(&test(None, false), None);
        if shaken == Shaken::No && verifier.may_shake(request.head(), false) {
            shaken = verifier.handshake(&test(Some(&request.body[..]), false), None);
        }
        if shaken == Shaken::No {
            let verified = verifier.verify(&request, vector.now()).unwrap();
            shaken = verifier.handshake(&test(Some(&request.body[..]), true), Some(verified.plan()));
        }
        let answer = match (shaken, &vector.learn) {
            (Shaken::Answer(answer), None) => answer,
            (Shaken::Key(key, answer), Some(brought)) if key.expose() == brought => answer,
            (shaken, _) => panic!("{}: {shaken:?}", vector.name),
        };
        let response = answer.response();
        for (name, value) in expected.headers.iter().flatten() {
            assert_eq!(response.headers()[name], value, "{}", vector.name);
        }
        assert_eq!(response.status(), expected.status, "{}", vector.name);
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        let kind = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        let fits = match (&kind, &expected.content_type) {
            (Some(kind), Some(expected)) => kind.starts_with(expected),
            (kind, expected) => kind.is_none() && expected.is_none(),
        };
        assert!(fits, "{}: {kind:?}", vector.name);
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        match &expected.json {
            Some(json) => assert_eq!(serde_json::from_slice::<serde_json::Value>(&body).unwrap(), *json),
            None => assert_eq!(body, expected.body.clone().unwrap_or_default(), "{}", vector.name),
        }
        answered += 1;
    }
    assert_eq!(answered, 15);
}

#[test]
fn the_cases_with_published_keys_are_there_and_become_events() {
    let mut types = BTreeMap::<String, Vec<String>>::new();
    let (mut valid, mut invalid) = (0, 0);
    for vector in vectors().iter().filter(|vector| vector.needs.is_some()) {
        let (source, request) = (vector.source(), vector.request());
        let verifier = Verifier::new(&source).unwrap();
        // Without the key, nothing is valid.
        assert!(verifier.verify(&request, vector.now()).is_err(), "{}", vector.name);
        let Ok(verified) = vector.verify(&verifier, &request) else {
            invalid += 1;
            continue;
        };
        valid += 1;
        let read = event::read(&verified, &source.name, vector.now()).unwrap();
        let read = read.iter().map(|Arrived { event, .. }| event.event_type.to_string());
        types.entry(vector.scheme.clone()).or_default().extend(read);
    }
    assert_eq!((valid, invalid), (9, 19));
    let types = ["paypal", "plaid", "sns"].map(|scheme| types[scheme].join(" "));
    assert_eq!(
        types,
        [
            "PAYMENT.CAPTURE.COMPLETED BILLING.SUBSCRIPTION.CANCELLED BILLING.SUBSCRIPTION.CANCELLED",
            "TRANSACTIONS.SYNC_UPDATES_AVAILABLE TRANSACTIONS.SYNC_UPDATES_AVAILABLE ITEM.ERROR",
            "Notification Notification SubscriptionConfirmation",
        ]
    );
}
