//! Unique and correctly signed requests, at almost no cost during the measurement.
//!
//! All requests of a batch are one text, except for the id (in a header and in the body) and the signature.
//! Both are made beforehand, 67 bytes a request. A connection copies them into its own text before it sends.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit as _, Mac as _};
use posthouse_harness::{Source, unix_now};
use sha2::Sha256;

/// The placeholder of the id.
const ID: &str = "evt_0000000000000000000";
/// The placeholder of the base64 of an HMAC-SHA256.
pub(crate) const SIGNATURE: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// Signed requests, each to be sent once. The signatures are valid for five minutes.
pub(crate) struct Batch {
    text: Text,
    stamps: Vec<Stamp>,
    next: AtomicUsize,
}

/// A request's text, and the places in it where a stamp goes.
#[derive(Clone)]
pub(crate) struct Text {
    bytes: Vec<u8>,
    ids: Vec<usize>,
    signature: Option<usize>,
}

#[derive(Clone)]
pub(crate) struct Stamp {
    id: [u8; ID.len()],
    signature: [u8; SIGNATURE.len()],
}

impl Batch {
    /// Signs `count` requests for `path`, with ids greater than those of every batch before.
    pub(crate) fn sign(path: &str, count: usize) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        // Like a real sender's ids, they grow with time, so that two runs on one store have no id in common.
        let first = ((unix_now() as u64) << 28).max(NEXT_ID.load(Ordering::Relaxed));
        NEXT_ID.store(first + count as u64, Ordering::Relaxed);

        let at = unix_now().to_string();
        let body = body();
        let text = Text::new(path, &at, &body);
        let key = BASE64.decode(Source::SECRET.trim_start_matches("whsec_")).expect("a secret in base64");
        let keyed = Hmac::<Sha256>::new_from_slice(&key).expect("a key of any length");
        let in_body = body.find(ID).expect("the body's id");
        let sign = |number| {
            let id = format!("evt_{number:019}");
            let mut mac = keyed.clone();
            for part in [&id, ".", &at, ".", &body[..in_body], &id, &body[in_body + ID.len()..]] {
                mac.update(part.as_bytes());
            }
            let signature = BASE64.encode(mac.finalize().into_bytes());
            Stamp {
                id: id.into_bytes().try_into().expect("19 digits"),
                signature: signature.into_bytes().try_into().expect("44 characters"),
            }
        };
        Self { text, stamps: (first..first + count as u64).map(sign).collect(), next: AtomicUsize::new(0) }
    }

    /// The same request `count` times.
    pub(crate) fn repeat(bytes: Vec<u8>, count: usize) -> Self {
        let unused = Stamp { id: [0; ID.len()], signature: [0; SIGNATURE.len()] };
        let text = Text { bytes, ids: Vec::new(), signature: None };
        Self { text, stamps: vec![unused; count], next: AtomicUsize::new(0) }
    }

    /// A copy of the text, to be stamped and sent.
    pub(crate) fn text(&self) -> Text {
        self.text.clone()
    }

    /// The next request. None when all were taken.
    pub(crate) fn take(&self) -> Option<&Stamp> {
        self.stamps.get(self.next.fetch_add(1, Ordering::Relaxed))
    }
}

impl Text {
    fn new(path: &str, at: &str, body: &str) -> Self {
        let text = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nuser-agent: posthouse-bench\r\n\
             content-type: application/json\r\nwebhook-id: {ID}\r\nwebhook-timestamp: {at}\r\n\
             webhook-signature: v1,{SIGNATURE}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let ids: Vec<usize> = text.match_indices(ID).map(|(at, _)| at).collect();
        assert_eq!(ids.len(), 2, "an id in the header and in the body");
        let signature = text.find(SIGNATURE).expect("the signature's place");
        Self { ids, signature: Some(signature), bytes: text.into() }
    }

    /// The request with this stamp.
    pub(crate) fn stamped(&mut self, stamp: &Stamp) -> &[u8] {
        for at in &self.ids {
            self.bytes[*at..at + ID.len()].copy_from_slice(&stamp.id);
        }
        if let Some(at) = self.signature {
            self.bytes[at..at + SIGNATURE.len()].copy_from_slice(&stamp.signature);
        }
        &self.bytes
    }
}

/// A `user.created` of a realistic size, about 600 bytes.
pub(crate) fn body() -> String {
    format!(
        r#"{{"spec_version":"1","id":"{ID}","type":"user.created","object":"User","occurred_at":"2026-01-15T10:30:00.123456789Z","environment_id":"env_96736846679245078","organization_id":"org_102690563312124938","data":{{"user":{{"id":"usr_102701193205121289","email":"ada@example.com","first_name":"Ada","last_name":"Example","email_verified":true,"create_time":"2026-01-15T10:29:59.93Z","update_time":"2026-01-15T10:29:59.93Z","metadata":{{"plan":"team"}}}},"organization":{{"id":"org_102690563312124938","display_name":"Example Corp","external_id":"ext_corp_123"}}}},"display_name":"User Created"}}"#
    )
}

#[cfg(test)]
mod tests {
    use posthouse_harness::Signer;

    use super::*;

    #[test]
    fn stamped_requests_are_signed_and_unique() {
        let batch = Batch::sign("/webhooks/scalekit", 3);
        let mut text = batch.text();
        let mut ids = Vec::new();
        while let Some(stamp) = batch.take() {
            let request = String::from_utf8(text.stamped(stamp).to_vec()).unwrap();
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            let header = |name: &str| {
                head.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap().to_owned()
            };
            let (id, at) = (header("webhook-id"), header("webhook-timestamp").parse().unwrap());
            assert!(body.contains(&id), "{body}");
            assert_eq!(header("content-length"), body.len().to_string());
            let expected = Signer::Standard(Source::SECRET.into()).sign(&id, at, body.as_bytes());
            assert_eq!(header("webhook-signature"), expected[2].1);
            ids.push(id);
        }
        assert_eq!(ids.len(), 3);
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    }
}
