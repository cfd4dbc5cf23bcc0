//! Encrypted bodies, as Lark and Feishu send them: base64 of an initialisation vector of 16 bytes and of AES-256 in
//! CBC mode with PKCS #7 padding, under the SHA-256 of the Encrypt Key.
//!
//! The cipher authenticates nothing. So the signature is verified first, and a body that was not signed is read only
//! for a test of the URL, whose answer is the same for every failure.

use aes::Aes256;
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use cbc::{
    Decryptor,
    cipher::{BlockModeDecrypt as _, KeyIvInit as _, block_padding::Pkcs7},
};
use sha2::{Digest as _, Sha256};

/// The length of the initialisation vector.
const VECTOR: usize = 16;

/// Decrypts a body. None if it was not encrypted with this key, or holds no JSON object.
pub(super) fn open(key: &[u8], sealed: &str) -> Option<Bytes> {
    let bytes = BASE64.decode(sealed).ok()?;
    let (vector, text) = bytes.split_at_checked(VECTOR)?;
    let mut text = text.to_vec();
    let cipher = Decryptor::<Aes256>::new_from_slices(&Sha256::digest(key), vector).ok()?;
    let length = cipher.decrypt_padded::<Pkcs7>(&mut text).ok()?.len();
    text.truncate(length);
    let is_object = std::str::from_utf8(&text).is_ok_and(|text| text.trim_ascii_start().starts_with('{'));
    is_object.then(|| Bytes::from(text))
}

#[cfg(test)]
pub(super) fn seal(key: &[u8], vector: [u8; VECTOR], body: &[u8]) -> String {
    use cbc::{Encryptor, cipher::BlockModeEncrypt as _};
    let mut text = body.to_vec();
    text.resize(body.len() + VECTOR, 0);
    let cipher = Encryptor::<Aes256>::new_from_slices(&Sha256::digest(key), &vector).unwrap();
    let text = cipher.encrypt_padded::<Pkcs7>(&mut text, body.len()).unwrap().to_vec();
    BASE64.encode([&vector[..], &text].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of Lark's page on Encrypt Keys, which decrypts to `hello world`, and so to no object.
    #[test]
    fn the_cipher_is_that_of_the_senders_page() {
        let bytes = BASE64.decode("P37w+VZImNgPEO1RBhJ6RtKl7n6zymIbEG1pReEzghk=").unwrap();
        let (vector, text) = bytes.split_at(VECTOR);
        let mut text = text.to_vec();
        let cipher = Decryptor::<Aes256>::new_from_slices(&Sha256::digest(b"test key"), vector).unwrap();
        assert_eq!(cipher.decrypt_padded::<Pkcs7>(&mut text).unwrap(), b"hello world");
        assert_eq!(open(b"test key", "P37w+VZImNgPEO1RBhJ6RtKl7n6zymIbEG1pReEzghk="), None);
    }

    #[test]
    fn what_was_sealed_is_opened_by_its_key_only() {
        for length in [0, 1, 13, 14, 15, 16, 17, 200] {
            let body = format!("{{\"a\":\"{}\"}}", "x".repeat(length));
            let sealed = seal(b"key", [7; VECTOR], body.as_bytes());
            assert_eq!(open(b"key", &sealed).unwrap(), body.as_bytes());
            assert_eq!(open(b"other", &sealed), None);
            assert_eq!(open(b"key", &sealed[4..]), None);
        }
        for odd in ["", "AAAA", "*", &BASE64.encode([0; 16]), &BASE64.encode([0; 33])] {
            assert_eq!(open(b"key", odd), None, "{odd}");
        }
    }
}
