//! Signs requests by Standard Webhooks, so that their receiver can tell them from a stranger's.
//!
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>: the signed text is
//! `{id}.{timestamp}.{body}`. A signature is `v1,` and the HMAC-SHA256 in base64. With several keys there is one for each,
//! separated by spaces, so that the receiver can change its key.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use posthouse_model::{Secret, webhook_key};
use sha2::Sha256;

/// The headers that only the signer sets.
const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";
const SIGNATURE: &str = "webhook-signature";

/// The keys of a grant.
pub(super) struct Signer(Vec<Hmac<Sha256>>);

impl Signer {
    /// A signer with these keys. None if there are none.
    pub(super) fn new(secrets: &[Secret]) -> Option<Self> {
        // The reader of config.toml has checked them.
        let key = |secret: &Secret| Hmac::new_from_slice(&webhook_key(secret.expose())?).ok();
        let keys: Vec<_> = secrets.iter().filter_map(key).collect();
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// Sets the headers of a request with this id and body, signed now. It replaces what others have set.
    pub(super) fn sign(&self, headers: &mut HeaderMap, id: &HeaderValue, now: Timestamp, body: &[u8]) {
        let time = HeaderValue::from(now.as_second().max(0));
        let signature = |key: &Hmac<Sha256>| {
            let mut mac = key.clone();
            for part in [id.as_bytes(), b".", time.as_bytes(), b".", body] {
                mac.update(part);
            }
            format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
        };
        let signatures = self.0.iter().map(signature).collect::<Vec<_>>().join(" ");
        headers.insert(ID, id.clone());
        headers.insert(TIMESTAMP, time);
        // It consists of base64, commas and spaces, which a header may hold.
        if let Ok(mut value) = HeaderValue::from_str(&signatures) {
            value.set_sensitive(true);
            headers.insert(SIGNATURE, value);
        }
    }

    /// Removes the headers that only the signer sets.
    pub(super) fn clear(headers: &mut HeaderMap) {
        for name in [ID, TIMESTAMP, SIGNATURE] {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf 'dlv_1-1.1700000000.{}' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0001…1f -binary | base64`
    #[test]
    fn openssl_signs_the_same_and_each_key_signs() {
        let first = Secret::new("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
        let second = Secret::new("whsec_c2Vjb25kIGtleSBvZiAyNCBieXRlcyE=");
        let signer = Signer::new(&[first, second]).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(ID, HeaderValue::from_static("forged"));
        headers.insert(SIGNATURE, HeaderValue::from_static("v1,forged"));
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        signer.sign(&mut headers, &HeaderValue::from_static("dlv_1-1"), now, b"{}");
        let text = |name: &str| headers[name].to_str().unwrap();
        assert_eq!([text(ID), text(TIMESTAMP), text(SIGNATURE)], ["dlv_1-1", "1700000000", SIGNED]);
        assert_eq!(headers.len(), 3);
    }

    const SIGNED: &str =
        "v1,OrY3rT3QgM6Te3p3LIrLo4Mn2EkmACFwWfwoFw/7kto= v1,LGpQNIlLlt1pk+EX/b0RuFk/hOn2+gBBiT63moCm22Q=";
}
