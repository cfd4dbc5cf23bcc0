//! Both signature schemes from the sender's side. They are written from their descriptions and not from the
//! daemon's code, so that one checks the other.

use std::time::UNIX_EPOCH;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Names and values of headers, in the order in which they are sent.
pub type Headers = Vec<(String, String)>;

/// Signs bodies with one secret and one scheme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signer {
    /// <https://www.standardwebhooks.com>: the secret is `whsec_` and the key in base64.
    Standard(String),
    /// The formula of Scalekit's page: `scalekit-signature: t=…,v1=…`, with the secret's text as the key.
    Documented(String),
}

impl Signer {
    /// The headers for `body`, signed at the Unix time `at`. The documented scheme signs no id.
    ///
    /// # Panics
    /// If a Standard Webhooks secret is not base64 after `whsec_`.
    pub fn sign(&self, id: &str, at: i64, body: &[u8]) -> Headers {
        match self {
            Self::Standard(secret) => {
                let key = BASE64.decode(secret.trim_start_matches("whsec_")).expect("a secret in base64");
                let signature = BASE64.encode(hmac(&key, &[format!("{id}.{at}.").as_bytes(), body]));
                vec![
                    ("webhook-id".into(), id.into()),
                    ("webhook-timestamp".into(), at.to_string()),
                    ("webhook-signature".into(), format!("v1,{signature}")),
                ]
            }
            Self::Documented(secret) => {
                let signature = hex::encode(hmac(secret.as_bytes(), &[format!("{at}.").as_bytes(), body]));
                vec![("scalekit-signature".into(), format!("t={at},v1={signature}"))]
            }
        }
    }

    /// The headers for `body`, signed now.
    pub fn sign_now(&self, id: &str, body: &[u8]) -> Headers {
        self.sign(id, unix_now(), body)
    }
}

/// Seconds since 1970.
pub fn unix_now() -> i64 {
    UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs() as i64)
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("an HMAC key has any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf 'evt_1.1700000000.{}' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0001…1f -binary | base64`,
    /// and `printf '1700000000.{}' | openssl dgst -sha256 -hmac page-secret`.
    #[test]
    fn openssl_signs_the_same() {
        let standard = Signer::Standard("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".into());
        assert_eq!(
            standard.sign("evt_1", 1_700_000_000, b"{}")[2].1,
            "v1,bXtchBV0Hi1flm60IFUb87JKA3d/Yvv8UoEjbNotegk="
        );
        let documented = Signer::Documented("page-secret".into());
        assert_eq!(
            documented.sign("", 1_700_000_000, b"{}")[0].1,
            "t=1700000000,v1=cd172e26c4428172879289d4160ab4271da1a70856bc49c355c78d51b095081a"
        );
    }
}
