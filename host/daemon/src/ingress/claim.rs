//! A claim: what the headers of a request say about its sender, and the check of its signatures.
//!
//! Each entry is compared with each key, in constant time. No match ends the comparison early, so the time
//! taken does not reveal which key matched. A value in an ambiguous spelling makes the request invalid; among
//! the entries of a signature header, it is only skipped.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use ed25519_dalek::Signature;
use hmac::Mac;
use http::HeaderMap;
use jiff::Timestamp;
use subtle::{Choice, ConstantTimeEq};

use super::{
    keys::Keyring,
    refusal::{MAX_ED25519, MAX_ENTRIES, MAX_HEADER, Refusal},
    scheme::{Algorithm, Encoding, EventIdFrom, Family, Place, Scheme},
};

/// What a request says about itself: well-formed, not verified yet.
pub(super) struct Claim<'k, 'r> {
    keyring: &'k Keyring,
    family: &'static Family,
    /// Empty if the scheme signs no id.
    id: &'r str,
    timestamp: &'r str,
    /// `timestamp` as a number.
    signed_at: i64,
    signatures: &'r str,
}

impl<'k, 'r> Claim<'k, 'r> {
    /// Reads the headers of one family. Each must be present exactly once.
    ///
    /// # Errors
    /// [`Refusal`] names the header that is missing, repeated or malformed.
    pub(super) fn read(
        keyring: &'k Keyring,
        family: &'static Family,
        headers: &'r HeaderMap,
    ) -> Result<Self, Refusal> {
        let id = match family.id {
            Some(name) => {
                let id = only(headers, name)?;
                if id.is_empty() || id.contains('.') {
                    return Err(Refusal::BadId(name));
                }
                id
            }
            None => "",
        };
        let signatures = only(headers, family.signatures)?;
        let (name, timestamp) = match family.timestamp {
            Place::Header(name) => (name, only(headers, name)?),
            Place::Entry(label) => (label, only_entry(keyring.scheme, signatures, label)?),
        };
        let signed_at = unix_seconds(timestamp).ok_or(Refusal::BadTimestamp(name))?;
        Ok(Self { keyring, family, id, timestamp, signed_at, signatures })
    }

    /// Checks that the time of signing is at most `tolerance` seconds away from `now`.
    ///
    /// # Errors
    /// [`Refusal::Stale`] or [`Refusal::Future`], with the distance.
    pub(super) fn check_age(&self, tolerance: u64, now: Timestamp) -> Result<(), Refusal> {
        let now = now.as_second();
        let distance = now.abs_diff(self.signed_at);
        match distance > tolerance {
            false => Ok(()),
            true if self.signed_at < now => Err(Refusal::Stale { age: distance, tolerance }),
            true => Err(Refusal::Future { ahead: distance, tolerance }),
        }
    }

    /// Checks that one of the keys made a signature over this body.
    ///
    /// # Errors
    /// [`Refusal::Mismatch`] if none did; another [`Refusal`] if no entry can be compared.
    pub(super) fn check_signatures(&self, body: &[u8]) -> Result<(), Refusal> {
        let Keyring { scheme, shared, public } = self.keyring;
        let candidates = self.candidates()?;
        let signed_text = || scheme.signed_text(self.id, self.timestamp, body);

        let mut fits = Choice::from(0);
        for key in shared {
            let mut hmac = key.clone();
            signed_text().for_each(|piece| hmac.update(piece));
            let expected = hmac.finalize().into_bytes();
            for candidate in &candidates {
                if let Candidate::Hmac(mac) = candidate {
                    fits |= expected.as_slice().ct_eq(mac);
                }
            }
        }
        if !public.is_empty() && candidates.iter().any(|candidate| matches!(candidate, Candidate::Ed25519(_)))
        {
            let message = signed_text().collect::<Vec<_>>().concat();
            for key in public {
                for candidate in &candidates {
                    if let Candidate::Ed25519(signature) = candidate {
                        fits |= Choice::from(u8::from(key.verify_strict(&message, signature).is_ok()));
                    }
                }
            }
        }
        if bool::from(fits) { Ok(()) } else { Err(Refusal::Mismatch) }
    }

    /// The entries that can be compared. Entries of an unknown version or malformed entries are skipped.
    fn candidates(&self) -> Result<Vec<Candidate>, Refusal> {
        let scheme = self.keyring.scheme;
        let mut candidates = Vec::new();
        let mut of_public_keys = 0;
        for (index, entry) in scheme.entries(self.signatures).enumerate() {
            if index >= MAX_ENTRIES {
                return Err(Refusal::TooMany);
            }
            let Some(candidate) = entry.and_then(|(label, value)| Candidate::read(scheme, label, value))
            else {
                continue;
            };
            of_public_keys += usize::from(matches!(candidate, Candidate::Ed25519(_)));
            if of_public_keys > MAX_ED25519 {
                return Err(Refusal::TooMany);
            }
            candidates.push(candidate);
        }
        if candidates.is_empty() {
            return Err(Refusal::NoneUsable(self.family.signatures));
        }
        Ok(candidates)
    }

    /// The event's id, if the scheme signs it in a header.
    pub(super) fn event_id(&self) -> Option<&'r str> {
        (self.keyring.scheme.event_id == EventIdFrom::SignedId).then_some(self.id)
    }
}

/// A well-formed signature, ready for comparison.
enum Candidate {
    Hmac([u8; 32]),
    Ed25519(Signature),
}

impl Candidate {
    fn read(scheme: &Scheme, label: &str, value: &str) -> Option<Self> {
        let version = scheme.versions.iter().find(|version| version.label == label)?;
        match version.algorithm {
            Algorithm::HmacSha256 => decode(version.encoding, value).map(Self::Hmac),
            Algorithm::Ed25519 => {
                decode(version.encoding, value).map(|bytes| Self::Ed25519(Signature::from_bytes(&bytes)))
            }
        }
    }
}

impl Scheme {
    /// The entries of a signature header, each as version and value. An entry of another form is `None`.
    fn entries<'r>(&self, header: &'r str) -> impl Iterator<Item = Option<(&'r str, &'r str)>> {
        let within = self.within_entry;
        header.split(self.between_entries).map(move |entry| entry.split_once(within))
    }
}

/// The value of a header that must be present exactly once.
fn only<'r>(headers: &'r HeaderMap, name: &'static str) -> Result<&'r str, Refusal> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(Refusal::Missing(name))?;
    if values.next().is_some() {
        return Err(Refusal::Repeated(name));
    }
    if value.len() > MAX_HEADER {
        return Err(Refusal::TooLong(name));
    }
    std::str::from_utf8(value.as_bytes()).map_err(|_| Refusal::NotText(name))
}

/// The value of the only entry with this label.
fn only_entry<'r>(scheme: &Scheme, header: &'r str, label: &'static str) -> Result<&'r str, Refusal> {
    let mut values = scheme.entries(header).flatten().filter(|(of, _)| *of == label).map(|(_, value)| value);
    let value = values.next().ok_or(Refusal::Missing(label))?;
    if values.next().is_some() { Err(Refusal::Repeated(label)) } else { Ok(value) }
}

/// Parses a time that matches `[1-9][0-9]*`.
fn unix_seconds(text: &str) -> Option<i64> {
    let digits_only = text.bytes().all(|byte| byte.is_ascii_digit());
    if digits_only && !text.starts_with('0') { text.parse().ok() } else { None }
}

/// Decodes exactly `N` bytes and accepts only their canonical spelling; hexadecimal digits may have either
/// case.
fn decode<const N: usize>(encoding: Encoding, text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    match encoding {
        Encoding::Base64 => (BASE64.decode_slice(text, &mut bytes) == Ok(N)).then_some(bytes),
        Encoding::Hex => hex::decode_to_slice(text, &mut bytes).ok().map(|()| bytes),
    }
}
