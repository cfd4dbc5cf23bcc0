//! Keys, and the values that they produce. Every comparison here takes constant time.

use ed25519_dalek::VerifyingKey;
use hmac::{Hmac, KeyInit, Mac as _};
use p256::ecdsa::{self, signature::Verifier as _};
use posthouse_model::config::scheme::Algorithm;
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};
use subtle::{Choice, ConstantTimeEq as _};

/// The longest value, in bytes: that of HMAC-SHA512.
const LONGEST: usize = 64;

/// An HMAC, a hash, or the hash of a token.
#[derive(Clone, Copy)]
pub(super) struct Value {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Value {
    /// A value of these bytes, of which there are at most 64.
    pub(super) fn of(from: &[u8]) -> Self {
        let mut bytes = [0; LONGEST];
        let length = from.len().min(LONGEST);
        bytes[..length].copy_from_slice(&from[..length]);
        Self { bytes, length }
    }

    /// The hash of a token. Comparing two hashes takes a time that does not depend on the length of the token.
    pub(super) fn of_token(token: &[u8]) -> Self {
        Self::of(&Sha256::digest(token))
    }

    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Whether the two are equal.
    pub(super) fn fits(&self, other: &Self) -> Choice {
        self.bytes().ct_eq(other.bytes())
    }
}

/// The length of a value of this algorithm, in bytes. None if it is no HMAC and no hash, or is within a JWT.
pub(super) fn length_of(algorithm: Algorithm) -> Option<usize> {
    match algorithm {
        Algorithm::HmacSha1 => Some(20),
        Algorithm::HmacSha256 | Algorithm::Sha256 => Some(32),
        Algorithm::HmacSha512 => Some(64),
        _ => None,
    }
}

/// A key that both sides have. An HMAC is prepared with it, and each use begins with a clone.
pub(super) enum SharedKey {
    HmacSha1(Hmac<Sha1>),
    HmacSha256(Hmac<Sha256>),
    HmacSha512(Hmac<Sha512>),
    /// A key within the text that is hashed.
    Sha256(Vec<u8>),
    /// The hash of a token or of `user:password`.
    Token(Value),
    /// A text that a published key signs with: a name of this source.
    Name(Vec<u8>),
}

impl SharedKey {
    /// A key for this algorithm. None if the key is empty, or the algorithm has public keys.
    pub(super) fn new(algorithm: Algorithm, key: &[u8]) -> Option<Self> {
        if key.is_empty() {
            return None;
        }
        match algorithm {
            Algorithm::HmacSha1 => Hmac::new_from_slice(key).ok().map(Self::HmacSha1),
            Algorithm::HmacSha256 | Algorithm::JwtHs256 => {
                Hmac::new_from_slice(key).ok().map(Self::HmacSha256)
            }
            Algorithm::HmacSha512 => Hmac::new_from_slice(key).ok().map(Self::HmacSha512),
            Algorithm::Sha256 => Some(Self::Sha256(key.to_owned())),
            Algorithm::Token | Algorithm::Basic => Some(Self::Token(Value::of_token(key))),
            Algorithm::RsaSha1 | Algorithm::RsaSha256 | Algorithm::JwtEs256 => {
                Some(Self::Name(key.to_owned()))
            }
            Algorithm::Ed25519 | Algorithm::EcdsaP256 => None,
        }
    }

    /// The value that a sender with this key sends. `compose` hands out the signed text in pieces. It gets the key
    /// if that is part of the text.
    ///
    /// # Errors
    /// That of `compose`.
    pub(super) fn value<E>(
        &self,
        compose: impl FnOnce(&[u8], &mut dyn FnMut(&[u8])) -> Result<(), E>,
    ) -> Result<Value, E> {
        Ok(match self {
            Self::HmacSha1(keyed) => {
                let mut hmac = keyed.clone();
                compose(b"", &mut |piece| hmac.update(piece))?;
                Value::of(&hmac.finalize().into_bytes())
            }
            Self::HmacSha256(keyed) => {
                let mut hmac = keyed.clone();
                compose(b"", &mut |piece| hmac.update(piece))?;
                Value::of(&hmac.finalize().into_bytes())
            }
            Self::HmacSha512(keyed) => {
                let mut hmac = keyed.clone();
                compose(b"", &mut |piece| hmac.update(piece))?;
                Value::of(&hmac.finalize().into_bytes())
            }
            Self::Sha256(key) => {
                let mut hash = Sha256::new();
                compose(key, &mut |piece| hash.update(piece))?;
                Value::of(&hash.finalize())
            }
            Self::Token(value) => *value,
            // It makes no signature.
            Self::Name(name) => Value::of_token(name),
        })
    }

    /// The key as a text, where it is one.
    pub(super) fn text(&self) -> Option<&[u8]> {
        match self {
            Self::Sha256(text) | Self::Name(text) => Some(text),
            _ => None,
        }
    }
}

/// The public half of a sender's key.
pub(super) enum PublicKey {
    Ed25519(VerifyingKey),
    EcdsaP256(ecdsa::VerifyingKey),
}

impl PublicKey {
    /// A point of large order. None for any other bytes.
    pub(super) fn ed25519(bytes: &[u8]) -> Option<Self> {
        let key = VerifyingKey::from_bytes(bytes.try_into().ok()?).ok()?;
        (!key.is_weak()).then_some(Self::Ed25519(key))
    }

    /// A SubjectPublicKeyInfo of P-256, in DER.
    pub(super) fn p256(der: &[u8]) -> Option<Self> {
        use p256::pkcs8::DecodePublicKey as _;
        ecdsa::VerifyingKey::from_public_key_der(der).ok().map(Self::EcdsaP256)
    }

    /// Whether this key's owner signed the message.
    pub(super) fn fits(&self, message: &[u8], signature: &PublicSignature) -> Choice {
        let fits = match (self, signature) {
            (Self::Ed25519(key), PublicSignature::Ed25519(signature)) => {
                key.verify_strict(message, signature).is_ok()
            }
            (Self::EcdsaP256(key), PublicSignature::EcdsaP256(signature)) => {
                key.verify(message, signature).is_ok()
            }
            _ => false,
        };
        Choice::from(u8::from(fits))
    }
}

/// A signature for a public key.
pub(super) enum PublicSignature {
    Ed25519(ed25519_dalek::Signature),
    EcdsaP256(ecdsa::Signature),
}
