//! A public key that its sender publishes: in a certificate, or as a JSON Web Key (RFC 7517).

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use jiff::{SignedDuration, Timestamp};
use p256::ecdsa::{self, signature::Verifier as _};
use posthouse_model::config::scheme::Algorithm;
use ring::signature::{
    RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
};
use serde_json::Value;
use x509_cert::{
    Certificate,
    der::{Decode as _, asn1::ObjectIdentifier},
};

/// The key's algorithm in a certificate: rsaEncryption (RFC 8017, appendix A.1).
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// A key that may verify signatures.
#[derive(Debug)]
pub(super) enum PublishedKey {
    Rsa {
        /// An RSAPublicKey (RFC 8017) in DER.
        key: Vec<u8>,
        /// The certificate is valid from here.
        from: Timestamp,
        /// The certificate is valid until here.
        until: Timestamp,
    },
    P256(ecdsa::VerifyingKey),
}

impl PublishedKey {
    /// The RSA key of a certificate in DER.
    ///
    /// # Errors
    /// The certificate can't be read, or has another kind of key.
    pub(super) fn of_certificate(der: &[u8]) -> Result<Self, String> {
        let certificate =
            Certificate::from_der(der).map_err(|error| format!("the certificate can't be read: {error}"))?;
        let certificate = certificate.tbs_certificate;
        let spki = certificate.subject_public_key_info;
        let key = spki.subject_public_key.as_bytes().filter(|_| spki.algorithm.oid == RSA);
        let key = key.ok_or("the certificate has no RSA key")?.to_vec();
        let validity = certificate.validity;
        let from = time(validity.not_before.to_unix_duration()).ok_or("the certificate has no valid time")?;
        let until = time(validity.not_after.to_unix_duration()).unwrap_or(Timestamp::MAX);
        Ok(Self::Rsa { key, from, until })
    }

    /// The key with this id, as an object of RFC 7517 or within its member `key`.
    ///
    /// # Errors
    /// The object is another key, or one that must not be used any more.
    pub(super) fn of_jwk(answer: &Value, id: &str, now: Timestamp) -> Result<Self, String> {
        let key = answer.get("key").unwrap_or(answer);
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        if text("kid") != Some(id) {
            return Err("the answer has no key of this id".to_owned());
        }
        if text("kty") != Some("EC")
            || text("crv") != Some("P-256")
            || text("alg").is_some_and(|of| of != "ES256")
        {
            return Err("the key is none of ES256".to_owned());
        }
        // A member of Plaid: the second after which the key signs nothing any more.
        let expired = key.get("expired_at").filter(|at| !at.is_null());
        if expired.is_some_and(|at| at.as_i64().is_none_or(|second| second <= now.as_second())) {
            return Err("the key has expired".to_owned());
        }
        let coordinate = |name: &str| {
            let bytes = text(name).and_then(|text| BASE64URL.decode(text).ok());
            bytes.filter(|bytes| bytes.len() == 32)
        };
        let (Some(x), Some(y)) = (coordinate("x"), coordinate("y")) else {
            return Err("the key has no point".to_owned());
        };
        let point = [&[4][..], &x, &y].concat();
        ecdsa::VerifyingKey::from_sec1_bytes(&point)
            .map(Self::P256)
            .map_err(|_| "the key is no point of the curve".to_owned())
    }

    /// Checks that the key may be used at this time.
    ///
    /// # Errors
    /// Its certificate is not valid yet, or has expired.
    pub(super) fn check(&self, now: Timestamp) -> Result<(), String> {
        match self {
            Self::Rsa { from, .. } if now < *from => Err(format!("the certificate is valid from {from}")),
            Self::Rsa { until, .. } if now > *until => Err(format!("the certificate has expired on {until}")),
            _ => Ok(()),
        }
    }

    /// Whether the key's owner signed the message.
    pub(super) fn fits(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match (self, algorithm) {
            (Self::Rsa { key, .. }, Algorithm::RsaSha256) => {
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key).verify(message, signature).is_ok()
            }
            (Self::Rsa { key, .. }, Algorithm::RsaSha1) => {
                let sha1 = &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY;
                UnparsedPublicKey::new(sha1, key).verify(message, signature).is_ok()
            }
            (Self::P256(key), Algorithm::JwtEs256) => ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            _ => false,
        }
    }
}

fn time(since_1970: Duration) -> Option<Timestamp> {
    Timestamp::from_duration(SignedDuration::try_from(since_1970).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_of_another_kind_or_id_is_refused() {
        let now = Timestamp::from_second(1_769_916_653).unwrap();
        // A key of the test vectors.
        let good = json!({
            "alg": "ES256", "crv": "P-256", "kid": "k", "kty": "EC", "use": "sig",
            "x": "mJ-hEEBhIXxOThnuevFPwO4LVHBOXOgi7jau7roxc1s",
            "y": "UOl4FrKVjeHhwiogdQVzPG1Z-FiaXcgvF5szhySKurU",
        });
        let with = |name: &str, value: Value| {
            let mut key = good.clone();
            key[name] = value;
            PublishedKey::of_jwk(&json!({ "key": key }), "k", now).is_ok()
        };
        assert!(PublishedKey::of_jwk(&good, "k", now).is_ok());
        assert!(with("expired_at", Value::Null) && with("expired_at", json!(now.as_second() + 1)));
        assert!(!with("expired_at", json!(now.as_second())) && !with("expired_at", json!("soon")));
        for (name, value) in [
            ("kid", json!("j")),
            ("kty", json!("RSA")),
            ("crv", json!("P-384")),
            ("alg", json!("RS256")),
            ("x", json!("AAAA")),
            ("y", good["x"].clone()),
            ("x", Value::Null),
        ] {
            assert!(!with(name, value.clone()), "{name} {value}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_an_error() {
        for bytes in [&b""[..], b"\x30", b"\x30\x82\xff\xff", &[0x30; 300]] {
            assert!(PublishedKey::of_certificate(bytes).is_err());
        }
    }
}
