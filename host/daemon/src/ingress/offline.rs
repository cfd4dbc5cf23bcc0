//! Explains to a person why a signature is invalid: `posthouse verify`.
//!
//! It runs the same code as the daemon. In addition it tries the usual mistakes, and reports the one that
//! explains the failure. A sender never sees these hints.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;
use parking_lot::Mutex;
use posthouse_egress::first_certificate;
use posthouse_model::config::{self, scheme::shipped};
use serde_json::Value;

use super::{
    KeyError, RawRequest, Refusal, Verifier, altered,
    body::content_coding,
    event,
    keychain::Wanted,
    plan::{Family, Plan},
    published::PublishedKey,
};

/// A timestamp in milliseconds is at least this many seconds off.
const MILLISECONDS: u64 = 1_000_000_000_000;

/// The verdict, and hints that may explain it.
#[derive(Debug)]
pub struct Explanation {
    /// Whether the signature is valid.
    pub verdict: Result<(), Unverified>,
    /// Sentences for a person. None shows a secret.
    pub hints: Vec<String>,
}

/// Why a signature is invalid, or could not be checked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// A secret of the source cannot be used.
    #[error("{}", .0.problem())]
    Key(#[from] KeyError),
    /// A header that no HTTP request can have.
    #[error("`{0}` is no header that a request can carry")]
    Header(String),
    /// The daemon would refuse the request.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// A request to be verified offline.
#[derive(Debug, Clone)]
pub struct Offline {
    /// Its method.
    pub method: Method,
    /// Its raw query.
    pub query: Option<String>,
    /// Its headers, in this order.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Bytes,
    /// The keys that the daemon would fetch.
    pub given: Given,
}

/// Published keys that a person vouches for.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// The file of a certificate, in PEM or DER, of any issuer.
    pub certificate: Option<Vec<u8>>,
    /// JSON with keys of RFC 7517: `{"keys":[…]}`, an array of keys, or one.
    pub jwks: Option<Value>,
}

impl Given {
    /// The key that a request names. A certificate counts for any URL that the scheme allows.
    fn key(&self, wanted: &Wanted, at: Timestamp) -> Result<PublishedKey, String> {
        let key = match (&self.certificate, &self.jwks) {
            (Some(file), _) => PublishedKey::of_certificate(&first_certificate(file)?)?,
            (None, Some(jwks)) => {
                let keys = jwks.get("keys").unwrap_or(jwks);
                let one = std::slice::from_ref(keys);
                let mut keys = keys.as_array().map_or(one, Vec::as_slice).iter();
                let found = keys.find_map(|key| PublishedKey::of_jwk(key, &wanted.id, at).ok());
                found.ok_or("no key of the file fits the request's `kid` and is valid")?
            }
            (None, None) => {
                return Err(format!(
                    "the daemon fetches `{}`; give it with --certificate or --jwks",
                    wanted.id
                ));
            }
        };
        key.check(at).map(|()| key)
    }
}

/// Verifies a request as the daemon would at this time.
pub fn verify_offline(source: &config::Source, request: &Offline, at: Timestamp) -> Explanation {
    let Offline { method, query, headers, body, given } = request.clone();
    let prepared = Verifier::new(source).map_err(Unverified::from).and_then(|verifier| {
        Ok((verifier, RawRequest { method, query, headers: header_map(&headers)?, body }))
    });
    let (verifier, request) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            let place = match &error {
                Unverified::Key(key) => key.place(),
                _ => None,
            };
            let hints = place.map(|place| format!("{place}: that secret; the daemon does not start with it"));
            return Explanation { verdict: Err(error), hints: hints.into_iter().collect() };
        }
    };
    let unusable = Mutex::new(None);
    let published = |wanted: &Wanted| match given.key(wanted, at) {
        Ok(key) => Some(key),
        Err(reason) => {
            *unusable.lock() = Some(reason);
            None
        }
    };
    match verifier.verify_with(&request, at, &published) {
        Ok(verified) => {
            let refused = event::read(&verified, &source.name, at).err();
            let hint = |error| format!("the signature holds, and yet the answer would be 400: {error}");
            Explanation { verdict: Ok(()), hints: refused.map(hint).into_iter().collect() }
        }
        Err(refusal) => {
            let mut hints = hints(source, &verifier, &request, &refusal);
            hints.extend(unusable.into_inner());
            Explanation { verdict: Err(refusal.into()), hints }
        }
    }
}

fn header_map(headers: &[(String, String)]) -> Result<HeaderMap, Unverified> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let unusable = || Unverified::Header(name.clone());
        let (name, value) = (name.trim(), value.trim_matches([' ', '\t']));
        map.append(
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable())?,
            HeaderValue::from_bytes(value.as_bytes()).map_err(|_| unusable())?,
        );
    }
    Ok(map)
}

/// Hints that may explain the refusal.
fn hints(
    source: &config::Source,
    verifier: &Verifier,
    request: &RawRequest,
    refusal: &Refusal,
) -> Vec<String> {
    match refusal {
        Refusal::Stale { .. } | Refusal::Future { .. } => age_hints(verifier, request, refusal),
        Refusal::Unsigned => scheme_hints(source, verifier, request),
        Refusal::Mismatch => mismatch_hints(source, verifier, request),
        _ => Vec::new(),
    }
}

fn age_hints(verifier: &Verifier, request: &RawRequest, refusal: &Refusal) -> Vec<String> {
    let mut hints = match verifier.check_signatures(request) {
        Ok(()) => vec!["apart from its time the signature holds".to_owned()],
        // Nobody knows.
        Err(Refusal::Unfetched(_)) => Vec::new(),
        Err(other) => vec![format!("nor would it hold at any other time: {other}")],
    };
    if matches!(refusal, Refusal::Future { ahead, .. } if *ahead >= MILLISECONDS) {
        hints.push("the timestamp looks like milliseconds; senders sign seconds".to_owned());
    }
    hints
}

fn scheme_hints(source: &config::Source, verifier: &Verifier, request: &RawRequest) -> Vec<String> {
    let expected: Vec<_> =
        verifier.families().map(|family| format!("`{}`", family.signature.name())).collect();
    let mut hints = vec![format!("a signed request carries {}", expected.join(" or "))];
    let has = |plan: Plan| {
        let by_header = |family: &Family| !family.headers.is_empty() && family.is_in(&request.headers);
        plan.families.iter().any(by_header)
    };
    let others = shipped().iter().filter(|scheme| scheme.rows.len() == 1 && has(Plan::new(&scheme.rows[0])));
    let others: Vec<_> = others.map(|scheme| format!("`{}`", scheme.name)).collect();
    if !others.is_empty() {
        hints.push(format!(
            "this one is signed as scheme {}; source `{}` has another",
            others.join(" or "),
            source.name
        ));
    }
    hints
}

fn mismatch_hints(source: &config::Source, verifier: &Verifier, request: &RawRequest) -> Vec<String> {
    let fits = |verifier: &Verifier, body: Bytes| {
        let request = RawRequest { body, ..request.clone() };
        verifier.check_signatures(&request).is_ok()
    };
    let mut hints = Vec::new();
    let fitting = altered::originals(&request.body)
        .into_iter()
        .find(|original| fits(verifier, Bytes::copy_from_slice(&original.bytes)));
    hints.extend(fitting.map(|original| format!("it fits the body {}", original.what)));
    if fits(&Verifier::misreading(source), request.body.clone()) {
        hints.push(
            "it fits if the secret is read another way: its sender takes the text itself for the key \
             where the scheme decodes base64, or decodes it where the scheme takes all of the text"
                .to_owned(),
        );
    }
    if hints.is_empty() {
        hints.extend(compressed(request));
    }
    if hints.is_empty() {
        hints.push(
            "check that the secret is this endpoint's, and that nothing between the sender and here \
             changes the body: the signature is over its very bytes"
                .to_owned(),
        );
    }
    hints
}

/// Reports that the body is compressed, by its header or its first bytes.
fn compressed(request: &RawRequest) -> Option<String> {
    let coding = content_coding(&request.headers);
    let coding = coding.as_deref().or_else(|| altered::compression(&request.body))?;
    Some(format!(
        "the body is compressed ({}), and senders sign it as it was before: verify it unpacked, and have the sender, or \
         the proxy in between, send it without `Content-Encoding`",
        coding.escape_debug()
    ))
}

#[cfg(test)]
mod tests {
    use posthouse_model::config::{Scheme, Secret, Source};

    use super::*;

    use crate::ingress::{
        fixtures::{self, BODY, NOW},
        sign,
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// The verdict and the hints, one a line.
    fn explain(source: &Source, headers: &[(String, String)], body: &str) -> String {
        let request = Offline {
            method: Method::POST,
            query: None,
            headers: headers.to_vec(),
            body: Bytes::copy_from_slice(body.as_bytes()),
            given: Given::default(),
        };
        let explanation = verify_offline(source, &request, at(NOW));
        let verdict = explanation.verdict.map_or_else(|error| error.to_string(), |()| "valid".to_owned());
        [vec![verdict], explanation.hints].concat().join("\n")
    }

    #[test]
    fn a_good_request_is_valid_whatever_stands_around_its_headers() {
        let source = fixtures::source("standard-webhooks");
        let headers = sign(&source, "msg_1", at(NOW), BODY.as_bytes()).unwrap();
        assert_eq!(explain(&source, &headers, BODY), "valid");
        let spaced: Vec<_> =
            headers.iter().map(|(name, value)| (name.to_uppercase(), format!(" {value}\t"))).collect();
        assert_eq!(explain(&source, &spaced, BODY), "valid");
    }

    #[test]
    fn a_valid_request_that_is_no_event_says_so() {
        let source = fixtures::source("standard-webhooks");
        let headers = sign(&source, "msg_1", at(NOW), b"").unwrap();
        let explained = explain(&source, &headers, "");
        assert!(explained.starts_with("valid\n") && explained.contains("400"), "{explained}");
    }

    #[test]
    fn each_usual_mistake_is_named() {
        let source = fixtures::source("standard-webhooks");
        let signed =
            |source: &Source, second, body: &str| sign(source, "msg_1", at(second), body.as_bytes()).unwrap();
        let other = Source { secrets: vec![Secret::new("whsec_BBBB")], ..source.clone() };
        let documented = Source { scheme: Scheme::named("scalekit-documented").unwrap(), ..source.clone() };
        let literal = {
            use base64::{Engine, engine::general_purpose::STANDARD};
            let key = STANDARD.encode(source.secrets[0].expose());
            Source { secrets: vec![Secret::new(key)], ..source.clone() }
        };
        for (headers, body, explained) in [
            (
                signed(&source, NOW - 412, BODY),
                BODY,
                "412 s old; the tolerance is 300 s\napart from its time",
            ),
            (signed(&other, NOW - 412, BODY), BODY, "412 s old; the tolerance is 300 s\nnor would it hold"),
            (signed(&source, NOW * 100, BODY), BODY, "in the future"),
            (signed(&source, NOW, BODY), &format!("{BODY}\n"), "without the line break"),
            (signed(&source, NOW, &format!("{BODY}\r\n")), BODY, "one more line break"),
            (signed(&literal, NOW, BODY), BODY, "read another way"),
            (signed(&other, NOW, BODY), BODY, "check that the secret"),
            (signed(&documented, NOW, BODY), BODY, "signed as scheme `scalekit-documented`"),
            (vec![], BODY, "`webhook-signature` or `svix-signature`"),
            (vec![("a b".into(), "c".into())], BODY, "`a b` is no header"),
        ] {
            let found = explain(&source, &headers, body);
            assert!(found.contains(explained), "{found:?} should say {explained:?}");
        }
        let milliseconds =
            fixtures::standard_headers(&source, "msg_1", &(NOW * 1000).to_string(), BODY.as_bytes());
        assert!(explain(&source, &milliseconds, BODY).contains("milliseconds"));
    }

    #[test]
    fn a_body_that_was_altered_on_its_way_is_found_out() {
        let source = fixtures::source("standard-webhooks");
        let signed = |body: &str| sign(&source, "msg_1", at(NOW), body.as_bytes()).unwrap();
        let laid_out = BODY.replace(",", ",\r\n    ").replace(":", " : ") + "\r\n";
        assert!(explain(&source, &signed(BODY), &laid_out).contains("it fits the body written on one line"));
        assert!(
            explain(&source, &signed(&BODY.replace(":", ": ").replace(",", ", ")), BODY)
                .contains("blanks after")
        );
        let with = |name: &str, value: &str| {
            let mut headers = signed(BODY);
            headers.push((name.to_owned(), value.to_owned()));
            explain(&source, &headers, "no such body")
        };
        assert!(with("Content-Encoding", "br").contains("the body is compressed (br)"));
        assert!(with("Content-Encoding", "identity").contains("check that the secret"));
    }

    #[test]
    fn a_placeholder_is_named_as_the_cause() {
        let secret = Secret::new("${SECRET}").written_at("config.toml:5:12");
        let source = Source { secrets: vec![secret], ..fixtures::source("scalekit") };
        let signed = sign(&fixtures::source("scalekit"), "msg_1", at(NOW), BODY.as_bytes()).unwrap();
        let found = explain(&source, &signed, BODY);
        assert!(found.starts_with("secret 1 of source `crm` holds a placeholder (`${…}`)"), "{found}");
        assert!(found.contains("\nconfig.toml:5:12: "), "{found}");
    }

    #[test]
    fn an_empty_secret_verifies_nothing() {
        let source = Source { secrets: vec![Secret::new("")], ..fixtures::source("standard-webhooks") };
        assert!(explain(&source, &[], BODY).contains("secret 1 of source `crm` is empty"));
    }
}
