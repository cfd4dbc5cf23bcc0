//! Signs as a sender does: for `posthouse sign`, for `posthouse send`, and for tests.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hmac::Mac;
use jiff::Timestamp;
use posthouse_model::{SourceName, config};

use super::{
    keys::{KeyError, Keyring},
    scheme::{Encoding, Place},
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
    /// Every receiver would refuse this id.
    #[error("`{0}` can't be signed: an id is not empty and holds no dot")]
    BadId(String),
}

/// The headers with which the source's sender would sign this body at this time. Signing uses the first shared
/// secret in the first scheme that accepts it. A scheme without an id in its headers ignores `id`.
///
/// # Errors
/// [`SignError`] if the source has no secret to sign with, or the id cannot be signed.
pub fn sign(
    source: &config::Source,
    id: &str,
    at: Timestamp,
    body: &[u8],
) -> Result<Vec<(&'static str, String)>, SignError> {
    let keyrings = Keyring::all(source)?;
    let (scheme, key) = keyrings
        .iter()
        .find_map(|keyring| Some((keyring.scheme, keyring.shared.first()?)))
        .ok_or_else(|| SignError::PublicKeysOnly(source.name.clone()))?;
    let (family, version) = (&scheme.families[0], &scheme.versions[0]);
    if family.id.is_some() && (id.is_empty() || id.contains('.')) {
        return Err(SignError::BadId(id.to_owned()));
    }

    let timestamp = at.as_second().to_string();
    let mut hmac = key.clone();
    scheme.signed_text(id, &timestamp, body).for_each(|piece| hmac.update(piece));
    let mac = hmac.finalize().into_bytes();
    let signature = match version.encoding {
        Encoding::Base64 => BASE64.encode(mac),
        Encoding::Hex => hex::encode(mac),
    };

    let entry = |label: &str, value: &str| format!("{label}{}{value}", scheme.within_entry);
    let mut headers: Vec<_> = family.id.map(|name| (name, id.to_owned())).into_iter().collect();
    let mut signatures = entry(version.label, &signature);
    match family.timestamp {
        Place::Header(name) => headers.push((name, timestamp)),
        Place::Entry(label) => {
            signatures = format!("{}{}{signatures}", entry(label, &timestamp), scheme.between_entries);
        }
    }
    headers.push((family.signatures, signatures));
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use posthouse_model::config::{SchemeName, Secret, Source};

    use super::*;

    use crate::ingress::fixtures;

    #[test]
    fn headers_are_those_of_real_senders() {
        let at = Timestamp::from_second(1_614_265_330).unwrap();
        let source = Source {
            secrets: vec![Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")],
            ..fixtures::source(SchemeName::StandardWebhooks)
        };
        let headers = sign(&source, "msg_p5jXN8AQM9LWM0D4loKWxJek", at, br#"{"test": 2432232314}"#).unwrap();
        assert_eq!(
            headers,
            [
                ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned()),
                ("webhook-timestamp", "1614265330".to_owned()),
                ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=".to_owned()),
            ]
        );
    }

    #[test]
    fn a_literal_secret_signs_in_the_scheme_that_takes_it() {
        let at = Timestamp::from_second(17).unwrap();
        let source =
            Source { secrets: vec![Secret::new("not base64!")], ..fixtures::source(SchemeName::Scalekit) };
        let headers = sign(&source, "ignored.id", at, b"{}").unwrap();
        assert_eq!(headers.len(), 1);
        assert!(headers[0].1.starts_with("t=17,v1="), "{headers:?}");
    }

    #[test]
    fn what_nobody_would_accept_is_not_signed() {
        let at = Timestamp::from_second(17).unwrap();
        let source = fixtures::source(SchemeName::StandardWebhooks);
        assert!(matches!(sign(&source, "a.b", at, b""), Err(SignError::BadId(_))));
        let public = "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";
        let source = Source { secrets: vec![Secret::new(public)], ..source };
        assert!(matches!(sign(&source, "a", at, b""), Err(SignError::PublicKeysOnly(_))));
    }
}
