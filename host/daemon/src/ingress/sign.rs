//! Signs as a sender does: for `posthouse sign`, for `posthouse send`, and for tests.

use std::convert::Infallible;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64URL},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;
use posthouse_model::{
    SourceName,
    config::{
        self,
        scheme::{Algorithm, Encoding, SignatureForm, TimeUnit},
    },
};
use sha2::{Digest as _, Sha256};
use url::form_urlencoded;

use super::{
    Refusal,
    claim::Claim,
    crypto::SharedKey,
    keys::{Key, KeyError, Keyring},
    plan::{At, Bit, Family, Step},
    request::{Address, Head},
};

/// Why nothing can be signed for a source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// A secret of the source cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The source has public keys only.
    #[error("source `{0}` has public keys only, so nobody but its sender can sign for it")]
    PublicKeysOnly(SourceName),
    /// The sender has not brought its key yet.
    #[error("source `{0}` has no key yet; its sender brings it after `posthouse senders learn {0}`")]
    NoKey(SourceName),
    /// Every receiver would refuse this id.
    #[error("`{0}` can't be signed: an id is not empty and holds no dot")]
    BadId(String),
    /// The sender writes its signature into the body, so no headers can sign it.
    #[error("scheme `{0}` has its signature in the body; post a body that its sender has signed")]
    InBody(String),
    /// The request lacks a part that is signed.
    #[error("this request can't be signed: {0}")]
    Incomplete(Refusal),
}

/// A request to be signed.
#[derive(Debug, Clone, Copy)]
pub struct Draft<'a> {
    /// The method.
    pub method: &'a Method,
    /// The raw query.
    pub query: Option<&'a str>,
    /// The event's id. A scheme without an id in its headers ignores it.
    pub id: &'a str,
    /// The time of signing.
    pub at: Timestamp,
    /// The `Content-Type`: some schemes sign a form in another way.
    pub content_type: &'a str,
    /// The body.
    pub body: &'a [u8],
}

/// A signed request, as its sender would post it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The headers of its family, in the order in which senders write them.
    pub headers: Vec<(String, String)>,
    /// The raw query. A scheme may put a hash of the body there.
    pub query: Option<String>,
}

/// The headers with which the source's sender would sign this body at this time, in a POST without a query.
///
/// # Errors
/// [`SignError`] if the source has no secret to sign with, or the id cannot be signed.
pub fn sign(
    source: &config::Source,
    id: &str,
    at: Timestamp,
    body: &[u8],
) -> Result<Vec<(String, String)>, SignError> {
    let draft = Draft { method: &Method::POST, query: None, id, at, content_type: "application/json", body };
    sign_request(source, &draft).map(|signed| signed.headers)
}

/// Signs a request with the first shared secret, in the first row of the scheme that accepts it.
///
/// # Errors
/// [`SignError`] if the source has no secret to sign with, or the request lacks a part that is signed.
pub fn sign_request(source: &config::Source, draft: &Draft<'_>) -> Result<Signed, SignError> {
    let keyrings = Keyring::all(source)?;
    let signer = Signer::choose(source, &keyrings)?;
    let Signer { keyring, family, .. } = signer;
    if family.signature.header().is_none() {
        return Err(SignError::InBody(source.scheme.name.to_string()));
    }
    let query = with_digest(family, draft);
    let mut headers = headers(keyring, family, draft);
    let value = signer.signature(draft, &headers, query.as_deref())?;
    let signature = &keyring.plan.row.signature;
    // The last header is that of the signature. It has the time already, if the time is an entry of it.
    if let Some((_, text)) = headers.last_mut() {
        match &signature.form {
            SignatureForm::One { prefix } => *text = format!("{prefix}{value}"),
            SignatureForm::Entries { between, separator, label, .. } => {
                if !text.is_empty() {
                    text.push(*between);
                }
                text.push_str(&format!("{label}{separator}{value}"));
            }
        }
    }
    headers.splice(0..0, unsigned_id(family, draft));
    Ok(Signed { headers, query })
}

/// The signature that the source's sender writes into this body, which has some text in its place. None if its
/// signature is in a header.
///
/// # Errors
/// As [`sign_request`].
pub fn sign_in_body(source: &config::Source, draft: &Draft<'_>) -> Result<Option<String>, SignError> {
    let keyrings = Keyring::all(source)?;
    let signer = Signer::choose(source, &keyrings)?;
    match signer.family.signature.header() {
        Some(_) => Ok(None),
        None => signer.signature(draft, &[], draft.query).map(Some),
    }
}

/// The key with which a request is signed, and how.
#[derive(Clone, Copy)]
struct Signer<'a> {
    source: &'a config::Source,
    keyring: &'a Keyring,
    key: &'a SharedKey,
    family: &'a Family,
}

impl<'a> Signer<'a> {
    /// The first shared secret, in the first row that accepts it.
    fn choose(source: &'a config::Source, keyrings: &'a [Keyring]) -> Result<Self, SignError> {
        let none = || match source.brings_key && source.secrets.is_empty() {
            true => SignError::NoKey(source.name.clone()),
            false => SignError::PublicKeysOnly(source.name.clone()),
        };
        let signs = |key: &&SharedKey| !matches!(key, SharedKey::Name(_));
        let shared = |keyring: &'a Keyring| Some((keyring, keyring.shared.iter().find(signs)?));
        let (keyring, key) = keyrings.iter().find_map(shared).ok_or_else(none)?;
        let family = keyring.plan.families.first().ok_or_else(none)?;
        Ok(Self { source, keyring, key, family })
    }

    /// The signature of a request with these headers and this query.
    fn signature(
        &self,
        draft: &Draft<'_>,
        headers: &[(String, String)],
        query: Option<&str>,
    ) -> Result<String, SignError> {
        let Self { source, keyring, key, family } = *self;
        let signature = &keyring.plan.row.signature;
        if signature.algorithm.is_bearer() {
            let fits = |text: &&str| Key::is_shared(text, &keyring.plan);
            let secret = source.secrets.iter().map(config::Secret::expose).find(fits);
            let secret = secret.ok_or_else(|| SignError::PublicKeysOnly(source.name.clone()))?;
            return Ok(match signature.algorithm {
                Algorithm::Basic => format!("Basic {}", BASE64.encode(secret)),
                _ => secret.to_owned(),
            });
        }
        if signature.algorithm.is_jwt() {
            return Ok(token(source, key, draft.at));
        }
        let mut map = HeaderMap::new();
        let content_type = [("content-type".to_owned(), draft.content_type.to_owned())];
        for (name, value) in headers.iter().chain(&content_type) {
            let bad = || SignError::BadId(draft.id.to_owned());
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
            map.append(name, HeaderValue::from_str(value).map_err(|_| bad())?);
        }
        let address = Address::of(source);
        let head = Head { method: draft.method.as_str(), query, headers: &map };
        let body = Bytes::copy_from_slice(draft.body);
        let incomplete = |refusal| match refusal {
            Refusal::BadId(_) => SignError::BadId(draft.id.to_owned()),
            refusal => SignError::Incomplete(refusal),
        };
        let claim = Claim::read(keyring, family, &address, head).map_err(incomplete)?;
        let value = claim.with_body(&body).and_then(|whole| whole.value(key)).map_err(incomplete)?;
        Ok(match signature.encoding {
            Encoding::Base64 => BASE64.encode(value.bytes()),
            Encoding::Hex | Encoding::HexAnyCase => hex::encode(value.bytes()),
        })
    }
}

/// A JWT for the source's URL that expires after five minutes.
fn token(source: &config::Source, key: &SharedKey, at: Timestamp) -> String {
    let url = source.url.as_deref().unwrap_or_default();
    let claims = serde_json::json!({ "aud": url, "iat": at.as_second(), "exp": at.as_second() + 300 });
    let head = BASE64URL.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{head}.{}", BASE64URL.encode(claims.to_string()));
    let Ok(value) = key.value(|_, sink| {
        sink(signed.as_bytes());
        Ok::<(), Infallible>(())
    });
    format!("{signed}.{}", BASE64URL.encode(value.bytes()))
}

/// The headers of a family, the last one without its signature.
fn headers(keyring: &Keyring, family: &Family, draft: &Draft<'_>) -> Vec<(String, String)> {
    let row = &keyring.plan.row;
    let time = match row.timestamp.as_ref().map(|time| time.unit) {
        Some(TimeUnit::Milliseconds) => draft.at.as_millisecond().to_string(),
        Some(TimeUnit::Rfc3339) => draft.at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Some(TimeUnit::Seconds) | None => draft.at.as_second().to_string(),
    };
    let is_time = |name: &HeaderName| matches!(&family.timestamp, Some(At::Header(time)) if time == name);
    let lists = |name: &HeaderName| {
        family.signed.iter().any(|step| matches!(step, Step::Headers(list) if list == name))
    };
    let value = |name: &HeaderName| {
        if Some(name) == family.signature.header() {
            match (&family.timestamp, &row.signature.form) {
                (Some(At::Entry(label)), SignatureForm::Entries { separator, .. }) => {
                    format!("{label}{separator}{time}")
                }
                _ => String::new(),
            }
        } else if is_time(name) {
            time.clone()
        } else if lists(name) {
            let mut listed: Vec<_> = family
                .headers
                .iter()
                .filter(|name| Some(*name) != family.signature.header())
                .map(|name| name.as_str())
                .collect();
            listed.sort_unstable();
            listed.join(",")
        } else {
            draft.id.to_owned()
        }
    };
    family.headers.iter().map(|name| (name.as_str().to_owned(), value(name))).collect()
}

/// The header with the event's id, if the sender has one that it does not sign.
fn unsigned_id(family: &Family, draft: &Draft<'_>) -> Option<(String, String)> {
    match family.event.id.first().map(Vec::as_slice) {
        Some([Bit::Place(At::Header(name))]) if !family.headers.contains(name) => {
            Some((name.as_str().to_owned(), draft.id.to_owned()))
        }
        _ => None,
    }
}

/// The query, with the hash of the body if the scheme has it there.
fn with_digest(family: &Family, draft: &Draft<'_>) -> Option<String> {
    let query = draft.query.map(str::to_owned);
    let has = |name: &str| {
        let mut fields = form_urlencoded::parse(draft.query.unwrap_or_default().as_bytes());
        fields.any(|(of, _)| of == name)
    };
    match &family.digest {
        Some(At::Query(name)) if !draft.content_type.contains("form-urlencoded") && !has(name) => {
            let before = query.filter(|query| !query.is_empty()).map(|query| query + "&").unwrap_or_default();
            Some(format!("{before}{name}={}", hex::encode(Sha256::digest(draft.body))))
        }
        _ => query,
    }
}

#[cfg(test)]
mod tests {
    use posthouse_model::config::{Secret, Source};

    use super::*;

    use crate::ingress::fixtures;

    #[test]
    fn headers_are_those_of_real_senders() {
        let at = Timestamp::from_second(1_614_265_330).unwrap();
        let source = Source {
            secrets: vec![Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")],
            ..fixtures::source("standard-webhooks")
        };
        let headers = sign(&source, "msg_p5jXN8AQM9LWM0D4loKWxJek", at, br#"{"test": 2432232314}"#).unwrap();
        assert_eq!(
            headers,
            [
                ("webhook-id".to_owned(), "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned()),
                ("webhook-timestamp".to_owned(), "1614265330".to_owned()),
                (
                    "webhook-signature".to_owned(),
                    "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=".to_owned()
                ),
            ]
        );
    }

    #[test]
    fn a_literal_secret_signs_in_the_scheme_that_takes_it() {
        let at = Timestamp::from_second(17).unwrap();
        let source = Source { secrets: vec![Secret::new("not base64!")], ..fixtures::source("scalekit") };
        let headers = sign(&source, "ignored.id", at, b"{}").unwrap();
        assert_eq!(headers.len(), 1);
        assert!(headers[0].1.starts_with("t=17,v1="), "{headers:?}");
    }

    #[test]
    fn what_nobody_would_accept_is_not_signed() {
        let at = Timestamp::from_second(17).unwrap();
        let source = fixtures::source("standard-webhooks");
        assert!(matches!(sign(&source, "a.b", at, b""), Err(SignError::BadId(_))));
        let public = "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";
        let source = Source { secrets: vec![Secret::new(public)], ..source };
        assert!(matches!(sign(&source, "a", at, b""), Err(SignError::PublicKeysOnly(_))));
    }
}
