//! Signature schemes, as data: to support a new sender, add a row here, not a branch elsewhere.
//!
//! A row names the headers of a signature's parts, the form of the signature header's entries, the signed text,
//! and the encoding of keys and signatures. [`super::verify`] and [`super::sign`] read any row. Only the clock
//! tolerance and the secrets are in config.toml.

use http::HeaderMap;
use posthouse_model::config::SchemeName;

/// One way of signing.
#[derive(Debug)]
pub(super) struct Scheme {
    /// The name in config.toml.
    pub(super) name: &'static str,
    /// Its families of headers. A request has exactly one of them, and each header once.
    pub(super) families: &'static [Family],
    /// Separates two entries of the signature header.
    pub(super) between_entries: char,
    /// Separates the version of an entry from its value.
    pub(super) within_entry: char,
    /// The parts of the signed text, joined by dots.
    pub(super) signed: &'static [Part],
    /// The versions of a signature. Entries of any other version are skipped. Signing uses the first.
    pub(super) versions: &'static [Version],
    /// The form of a secret in config.toml.
    pub(super) secret: SecretText,
    /// The source of the event's id.
    pub(super) event_id: EventIdFrom,
}

impl Scheme {
    /// The signed text in pieces, so that callers need not copy the body.
    pub(super) fn signed_text<'a>(
        &self,
        id: &'a str,
        timestamp: &'a str,
        body: &'a [u8],
    ) -> impl Iterator<Item = &'a [u8]> {
        self.signed.iter().enumerate().flat_map(move |(index, part)| {
            let dot: &[u8] = if index == 0 { b"" } else { b"." };
            let text = match part {
                Part::Id => id.as_bytes(),
                Part::Timestamp => timestamp.as_bytes(),
                Part::Body => body,
            };
            [dot, text]
        })
    }
}

/// The headers of one signature.
#[derive(Debug)]
pub(super) struct Family {
    /// The header with the message's id, if the scheme has one.
    pub(super) id: Option<&'static str>,
    /// The place of the time of signing.
    pub(super) timestamp: Place,
    /// The header with the signatures.
    pub(super) signatures: &'static str,
}

impl Family {
    /// Its headers, in the order in which a sender writes them.
    pub(super) fn headers(&self) -> impl Iterator<Item = &'static str> {
        let timestamp = match self.timestamp {
            Place::Header(name) => Some(name),
            Place::Entry(_) => None,
        };
        self.id.into_iter().chain(timestamp).chain([self.signatures])
    }

    /// Whether a request has any of its headers.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        self.headers().any(|name| headers.contains_key(name))
    }
}

/// The place of a part.
#[derive(Debug)]
pub(super) enum Place {
    /// A separate header.
    Header(&'static str),
    /// The entry with this label in the signature header.
    Entry(&'static str),
}

/// A part of the signed text.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// The message's id, as sent.
    Id,
    /// The time of signing, as sent.
    Timestamp,
    /// The body, as sent.
    Body,
}

/// A version of a signature.
#[derive(Debug)]
pub(super) struct Version {
    /// The label of its entries.
    pub(super) label: &'static str,
    /// How the signature is computed.
    pub(super) algorithm: Algorithm,
    /// How the signature is encoded.
    pub(super) encoding: Encoding,
}

/// How a signature is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// RFC 2104 with SHA-256; both sides share the key.
    HmacSha256,
    /// RFC 8032; the receiver has a public key.
    Ed25519,
}

/// How a signature is encoded.
#[derive(Debug, Clone, Copy)]
pub(super) enum Encoding {
    /// RFC 4648 section 4, with padding; the spare bits are zero.
    Base64,
    /// RFC 4648 section 8, in either case.
    Hex,
}

/// The form of a secret in config.toml.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SecretText {
    /// `whsec_` and a base64 key, or `whpk_` and a base64 public key. A text without a prefix is a base64 key,
    /// as in the senders' own libraries.
    Base64,
    /// The whole text is the key, including any prefix.
    Literal,
}

/// The source of the event's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EventIdFrom {
    /// The signed id.
    SignedId,
    /// The member `id` of the body.
    Body,
}

/// <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>, under its own
/// header names and those of Svix, where it was developed.
const STANDARD_WEBHOOKS: &Scheme = &Scheme {
    name: "standard-webhooks",
    families: &[
        Family {
            id: Some("webhook-id"),
            timestamp: Place::Header("webhook-timestamp"),
            signatures: "webhook-signature",
        },
        Family {
            id: Some("svix-id"),
            timestamp: Place::Header("svix-timestamp"),
            signatures: "svix-signature",
        },
    ],
    between_entries: ' ',
    within_entry: ',',
    signed: &[Part::Id, Part::Timestamp, Part::Body],
    versions: &[
        Version { label: "v1", algorithm: Algorithm::HmacSha256, encoding: Encoding::Base64 },
        Version { label: "v1a", algorithm: Algorithm::Ed25519, encoding: Encoding::Base64 },
    ],
    secret: SecretText::Base64,
    event_id: EventIdFrom::SignedId,
};

/// The scheme of Scalekit's page on webhooks: `scalekit-signature: t=1765281881,v1=…`.
const SCALEKIT_DOCUMENTED: &Scheme = &Scheme {
    name: "scalekit-documented",
    families: &[Family { id: None, timestamp: Place::Entry("t"), signatures: "scalekit-signature" }],
    between_entries: ',',
    within_entry: '=',
    signed: &[Part::Timestamp, Part::Body],
    versions: &[Version { label: "v1", algorithm: Algorithm::HmacSha256, encoding: Encoding::Hex }],
    secret: SecretText::Literal,
    event_id: EventIdFrom::Body,
};

/// Every row.
pub(super) const ALL: &[&Scheme] = &[STANDARD_WEBHOOKS, SCALEKIT_DOCUMENTED];

/// The rows of a name in config.toml. Signing uses the first row for which the source has a secret.
pub(super) fn rows(name: SchemeName) -> &'static [&'static Scheme] {
    match name {
        SchemeName::StandardWebhooks => &[STANDARD_WEBHOOKS],
        SchemeName::ScalekitDocumented => &[SCALEKIT_DOCUMENTED],
        SchemeName::Scalekit => &[STANDARD_WEBHOOKS, SCALEKIT_DOCUMENTED],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_that_is_signed_has_a_place() {
        for scheme in ALL {
            let signs_id = scheme.signed.iter().any(|part| matches!(part, Part::Id));
            for family in scheme.families {
                assert_eq!(family.id.is_some(), signs_id, "{}", scheme.name);
            }
            assert!(scheme.event_id != EventIdFrom::SignedId || signs_id, "{}", scheme.name);
        }
    }

    #[test]
    fn the_signed_text_is_joined_by_dots() {
        let text = |scheme: &Scheme| scheme.signed_text("msg_1", "17", b"{}").collect::<Vec<_>>().concat();
        assert_eq!(text(STANDARD_WEBHOOKS), b"msg_1.17.{}");
        assert_eq!(text(SCALEKIT_DOCUMENTED), b"17.{}");
    }
}
