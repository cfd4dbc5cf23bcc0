//! Tests the samples of `posthouse send`: signed as their senders sign, each is the event that its name says.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use ed25519_dalek::Signer as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;
use p256::pkcs8::EncodePublicKey as _;
use posthouse_model::{
    SenderRequest, SenderSamples,
    config::{
        Secret, Source,
        scheme::{Algorithm, Scheme, shipped},
    },
};

use super::{
    Draft, RawRequest, Verifier,
    event::{self, Arrived},
    fixtures::{self, NOW},
    sign_in_body, sign_request,
};

const SECRET: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
/// The private half of a key pair.
const PRIVATE: [u8; 32] = [7; 32];

fn source(scheme: &Scheme) -> Source {
    let secret = match scheme.rows[0].signature.algorithm {
        Algorithm::Ed25519 => {
            hex::encode(ed25519_dalek::SigningKey::from_bytes(&PRIVATE).verifying_key().as_bytes())
        }
        Algorithm::EcdsaP256 => {
            let key = p256::ecdsa::SigningKey::from_slice(&PRIVATE).unwrap();
            BASE64.encode(key.verifying_key().to_public_key_der().unwrap().as_bytes())
        }
        Algorithm::Basic => format!("desk:{SECRET}"),
        _ => SECRET.to_owned(),
    };
    Source {
        scheme: Scheme::named(&scheme.name).unwrap(),
        url: Some("https://hooks.example.com/in".to_owned()),
        secrets: vec![Secret::new(secret)],
        ..fixtures::source("standard-webhooks")
    }
}

/// What the owner of the private key adds: Discord and SendGrid sign the time and the body.
fn by_the_owner(scheme: &Scheme, body: &str) -> Vec<(String, String)> {
    let text = format!("{NOW}{body}");
    let (names, value) = match scheme.rows[0].signature.algorithm {
        Algorithm::Ed25519 => {
            let signature = ed25519_dalek::SigningKey::from_bytes(&PRIVATE).sign(text.as_bytes());
            (["x-signature-timestamp", "x-signature-ed25519"], hex::encode(signature.to_bytes()))
        }
        _ => {
            let key = p256::ecdsa::SigningKey::from_slice(&PRIVATE).unwrap();
            let signature: p256::ecdsa::Signature = key.sign(text.as_bytes());
            let names = ["x-twilio-email-event-webhook-timestamp", "x-twilio-email-event-webhook-signature"];
            (names, BASE64.encode(signature.to_der().as_bytes()))
        }
    };
    vec![(names[0].to_owned(), NOW.to_string()), (names[1].to_owned(), value)]
}

fn signed(scheme: &Scheme, source: &Source, request: SenderRequest) -> RawRequest {
    let SenderRequest { mut headers, content_type, mut body, .. } = request;
    let at = Timestamp::from_second(NOW).unwrap();
    let bytes = body.clone().into_bytes();
    let draft = Draft { method: &Method::POST, query: None, id: "evt-1", at, content_type, body: &bytes };
    let mut query = None;
    if scheme.rows[0].signature.algorithm.is_public() {
        let error = sign_request(source, &draft).unwrap_err().to_string();
        assert!(error.contains("public keys only"), "{error}");
        headers.extend(by_the_owner(scheme, &body));
    } else if let Some(signature) = sign_in_body(source, &draft).unwrap() {
        body = body.replace("{signature}", &signature);
    } else {
        let signed = sign_request(source, &draft).unwrap();
        headers.extend(signed.headers);
        query = signed.query;
    }
    headers.push(("content-type".to_owned(), content_type.to_owned()));
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(&value).unwrap());
    }
    RawRequest { method: Method::POST, query, headers: map, body: Bytes::from(body) }
}

#[test]
fn every_sample_is_the_event_that_its_name_says() {
    let samples = SenderSamples::read().unwrap();
    let at = Timestamp::from_second(NOW).unwrap();
    let is_own = |scheme: &&Arc<Scheme>| scheme.rows[0].key_source.is_none();
    for scheme in shipped().iter().filter(|scheme| !scheme.has_envelope()).filter(is_own) {
        let source = source(scheme);
        let verifier = Verifier::new(&source).unwrap();
        for name in samples.names(&scheme.name) {
            let sample = samples.request(&scheme.name, name, "evt-1", at).unwrap();
            let expected = sample.event_type.clone();
            let request = signed(scheme, &source, sample);
            let verified = verifier.verify(&request, at);
            let verified = verified.unwrap_or_else(|error| panic!("{} {name}: {error}", scheme.name));
            let events = event::read(&verified, &source.name, at);
            let events = events.unwrap_or_else(|error| panic!("{} {name}: {error}", scheme.name));
            let [Arrived { event, .. }] = &events[..] else { panic!("{} {name}: {events:?}", scheme.name) };
            assert_eq!(event.event_type.as_str(), expected, "{}", scheme.name);
            let time = event.occurred_at.map(|time| time.as_second());
            assert!(time.is_none_or(|time| time == NOW), "{} {name}: {time:?}", scheme.name);
        }
    }
}
