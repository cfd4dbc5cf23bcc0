//! Signature schemes, as data: a new sender is a new row here, not a new branch elsewhere.
//!
//! A row says under which headers the parts of a signature come, how the signature header falls into
//! entries, what text is signed, and how keys and signatures are written. [`super::verify`] and
//! [`super::sign`] read any row; only the clock tolerance and the secrets come from config.toml.

use http::HeaderMap;

use crate::config::SchemeName;

/// One way of signing.
#[derive(Debug)]
pub(super) struct Scheme {
    /// What config.toml calls it.
    pub(super) name: &'static str,
    /// The families of headers it comes under. A request carries exactly one of them, each header once.
    pub(super) families: &'static [Family],
    /// What stands between two entries of the signature header.
    pub(super) between_entries: char,
    /// What stands between the version and the value of an entry.
    pub(super) within_entry: char,
    /// The parts of the signed text, which dots join.
    pub(super) signed: &'static [Part],
    /// The versions of a signature; entries of any other are skipped. Signing uses the first.
    pub(super) versions: &'static [Version],
    /// How config.toml writes a secret.
    pub(super) secret: SecretText,
    /// Where the event's id comes from.
    pub(super) event_id: EventIdFrom,
}

impl Scheme {
    /// The signed text, piece by piece, so that nobody has to copy the body.
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
    /// The header with the message's id, where the scheme has one.
    pub(super) id: Option<&'static str>,
    /// Where the time of signing stands.
    pub(super) timestamp: Place,
    /// The header with the signatures.
    pub(super) signatures: &'static str,
}

impl Family {
    /// Its headers, in the order in which they are written.
    pub(super) fn headers(&self) -> impl Iterator<Item = &'static str> {
        let timestamp = match self.timestamp {
            Place::Header(name) => Some(name),
            Place::Entry(_) => None,
        };
        self.id.into_iter().chain(timestamp).chain([self.signatures])
    }

    /// Whether a request carries any of its headers.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        self.headers().any(|name| headers.contains_key(name))
    }
}

/// Where a part stands.
#[derive(Debug)]
pub(super) enum Place {
    /// In a header of its own.
    Header(&'static str),
    /// In the signature header, as the entry of this version.
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
    /// What its entries begin with.
    pub(super) label: &'static str,
    /// How it is made.
    pub(super) algorithm: Algorithm,
    /// How it is written.
    pub(super) encoding: Encoding,
}

/// How a signature is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// RFC 2104 with SHA-256; a shared key.
    HmacSha256,
    /// RFC 8032; the receiver holds a public key.
    Ed25519,
}

/// How a signature is written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Encoding {
    /// RFC 4648 section 4, padded, its spare bits zero.
    Base64,
    /// RFC 4648 section 8, in either case.
    Hex,
}

/// How config.toml writes a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SecretText {
    /// `whsec_` and a base64 key, or `whpk_` and a base64 public key; a text without a prefix is a
    /// base64 key, as the senders' own libraries have it.
    Base64,
    /// The text itself, whatever it begins with, is the key.
    Literal,
}

/// Where the event's id comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EventIdFrom {
    /// It is the signed id.
    SignedId,
    /// It is the body's member `id`.
    Body,
}

/// <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>, under
/// its own header names and those of Svix, where it comes from.
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

/// What Scalekit's page on webhooks shows: `scalekit-signature: t=1765281881,v1=…`.
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

/// The rows that a name in config.toml stands for. Signing uses the first that it has a secret for.
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
