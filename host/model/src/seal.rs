//! A seal: 56 bytes after a file's content that prove the file complete and unchanged.
//!
//! ```text
//!   content │ "posthouse seal 1" (16) │ bytes of the content (8, little-endian) │ SHA-256 (32)
//! ```
//!
//! The SHA-256 covers the content, the 24 bytes before itself, and the purpose of the file, which the file does
//! not contain. So a seal detects a changed bit anywhere. It also detects a file that was cut short or
//! lengthened, or that was put in the place of another.
//!
//! A seal detects damage and mix-ups. It has no key, so it does not stop anyone who can write the file.

use sha2::{Digest as _, Sha256};

/// The length of a seal, in bytes.
pub const BYTES: usize = MAGIC.len() + 8 + 32;

const MAGIC: &[u8; 16] = b"posthouse seal 1";

/// Why a content is not the sealed one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It does not end in a seal.
    #[error("it has no checksum at its end")]
    Missing,
    /// The content is shorter or longer than the sealed one.
    #[error("it has {found} bytes, and its checksum is for {sealed}")]
    Length {
        /// The length that was sealed, in bytes.
        sealed: u64,
        /// The actual length, in bytes.
        found: u64,
    },
    /// At least one bit differs.
    #[error("its SHA-256 differs from the one that was written with it")]
    Altered,
}

/// Computes a seal over a content, part by part.
#[derive(Default)]
pub struct Sealer {
    sha256: Sha256,
    length: u64,
}

impl Sealer {
    /// Adds the next part of the content.
    pub fn update(&mut self, part: &[u8]) {
        self.sha256.update(part);
        self.length += part.len() as u64;
    }

    /// The seal of the content so far.
    pub fn seal(mut self, purpose: &str) -> [u8; BYTES] {
        let mut seal = [0; BYTES];
        let (head, sha256) = seal.split_at_mut(BYTES - 32);
        let (magic, length) = head.split_at_mut(MAGIC.len());
        magic.copy_from_slice(MAGIC);
        length.copy_from_slice(&self.length.to_le_bytes());
        self.sha256.update(&*head);
        self.sha256.update(purpose);
        sha256.copy_from_slice(&self.sha256.finalize());
        seal
    }

    /// Checks that `seal` is the seal of the content so far.
    ///
    /// # Errors
    /// [`Broken`] says how it differs.
    pub fn check(self, seal: &[u8], purpose: &str) -> Result<(), Broken> {
        if !is_seal(seal) {
            return Err(Broken::Missing);
        }
        let mut length = [0; 8];
        length.copy_from_slice(&seal[MAGIC.len()..BYTES - 32]);
        let (sealed, found) = (u64::from_le_bytes(length), self.length);
        if sealed != found {
            return Err(Broken::Length { sealed, found });
        }
        if self.seal(purpose) == seal { Ok(()) } else { Err(Broken::Altered) }
    }
}

/// Whether these bytes have the shape of a seal.
pub fn is_seal(bytes: &[u8]) -> bool {
    bytes.len() == BYTES && bytes.starts_with(MAGIC)
}

/// Content whose seal is valid.
#[derive(Debug, Clone, Copy)]
pub struct Whole<'a>(&'a [u8]);

impl<'a> Whole<'a> {
    /// Checks sealed bytes, and returns their content.
    ///
    /// # Errors
    /// [`Broken`] says how it differs from what was sealed.
    pub fn of(sealed: &'a [u8], purpose: &str) -> Result<Self, Broken> {
        let at = sealed.len().checked_sub(BYTES).ok_or(Broken::Missing)?;
        let (content, seal) = sealed.split_at(at);
        let mut sealer = Sealer::default();
        sealer.update(content);
        sealer.check(seal, purpose).map(|()| Self(content))
    }

    /// The bytes, without the seal.
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(content: &[u8], purpose: &str) -> Vec<u8> {
        let mut sealer = Sealer::default();
        content.chunks(7).for_each(|part| sealer.update(part));
        [content, &sealer.seal(purpose)].concat()
    }

    #[test]
    fn a_content_with_any_single_bit_changed_is_not_whole() {
        for content in [&b""[..], b"content", &[7; 300]] {
            let mut bytes = sealed(content, "test");
            assert_eq!(Whole::of(&bytes, "test").unwrap().bytes(), content);
            for bit in 0..bytes.len() * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(Whole::of(&bytes, "test").is_err(), "bit {bit}");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn a_content_that_is_cut_lengthened_doubled_or_of_another_purpose_is_not_whole() {
        let bytes = sealed(b"content", "test");
        for cut in 0..bytes.len() {
            assert!(Whole::of(&bytes[..cut], "test").is_err(), "{cut}");
            assert!(Whole::of(&bytes[cut + 1..], "test").is_err(), "{cut}");
        }
        for more in [&b"x"[..], &bytes, &bytes[bytes.len() - BYTES..]] {
            assert!(Whole::of(&[&bytes, more].concat(), "test").is_err(), "{more:?}");
            assert!(Whole::of(&[more, &bytes].concat(), "test").is_err(), "{more:?}");
        }
        assert_eq!(Whole::of(&bytes, "tests").unwrap_err(), Broken::Altered);
    }
}
