//! What the tests of this folder share.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;

use super::RawRequest;
use crate::{
    config::{SchemeName, Secret, Source},
    model::{Pattern, SourceName},
};

/// A source named `crm` with one secret, which serves in every scheme.
pub(super) fn source(scheme: SchemeName) -> Source {
    Source {
        name: SourceName::new("crm").unwrap(),
        path: "/webhooks/crm".into(),
        scheme,
        secrets: vec![Secret::new("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")],
        tolerance: Duration::from_secs(300),
        events: vec![Pattern::new("*").unwrap()],
    }
}

/// A request with these headers, in this order.
pub(super) fn request(headers: &[(&str, &str)], body: &[u8]) -> RawRequest {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    RawRequest { headers: map, body: Bytes::copy_from_slice(body) }
}

/// The headers of a sender that signs any id and timestamp, however odd. Written out apart from
/// `sign`, so that the two check each other.
pub(super) fn standard_headers(
    source: &Source,
    id: &str,
    timestamp: &str,
    body: &[u8],
) -> Vec<(&'static str, String)> {
    let key = BASE64.decode(source.secrets[0].expose().strip_prefix("whsec_").unwrap()).unwrap();
    let mut hmac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    hmac.update(format!("{id}.{timestamp}.").as_bytes());
    hmac.update(body);
    vec![
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", timestamp.to_owned()),
        ("webhook-signature", format!("v1,{}", BASE64.encode(hmac.finalize().into_bytes()))),
    ]
}
