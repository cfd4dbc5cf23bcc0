//! A JSON Web Token (RFC 7519), signed in the compact form of RFC 7515.
//!
//! The row fixes the algorithm. A token that names another one is none, `none` included.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde_json::{Map, Value};

/// A token, not verified.
pub(super) struct Jwt<'r> {
    /// The signed text.
    pub(super) signed: &'r str,
    pub(super) signature: Vec<u8>,
    /// The id of the key.
    pub(super) key_id: Option<String>,
    claims: Map<String, Value>,
}

impl<'r> Jwt<'r> {
    /// Reads a token of this algorithm. None if the text is none.
    pub(super) fn read(text: &'r str, algorithm: &str) -> Option<Self> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (head, claims) = signed.split_once('.')?;
        let head = object(head)?;
        // An extension that has to be understood, and is not (RFC 7515, 4.1.11).
        if head.get("alg")?.as_str()? != algorithm || head.contains_key("crit") {
            return None;
        }
        let key_id = head.get("kid").and_then(Value::as_str).map(str::to_owned);
        Some(Self { signed, signature: BASE64URL.decode(signature).ok()?, key_id, claims: object(claims)? })
    }

    /// The text of a claim: a string that is not empty, or a number.
    pub(super) fn claim(&self, name: &str) -> Option<String> {
        match self.claims.get(name)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// The second at which it expires, if it says one.
    pub(super) fn expires(&self) -> Option<f64> {
        self.claims.get("exp").map(|expires| expires.as_f64().unwrap_or(0.0))
    }
}

fn object(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&BASE64URL.decode(part).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(head: &str, claims: &str) -> String {
        format!("{}.{}.AAAA", BASE64URL.encode(head), BASE64URL.encode(claims))
    }

    #[test]
    fn the_row_and_not_the_token_chooses_the_algorithm() {
        let read = |head: &str| Jwt::read(&token(head, "{}"), "ES256").is_some();
        assert!(read(r#"{"alg":"ES256","typ":"JWT"}"#));
        for head in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"HS256"}"#,
            r#"{"alg":"es256"}"#,
            r#"{"alg":["ES256"]}"#,
            r#"{"alg":"ES256","crit":["exp"]}"#,
            r"{}",
            r#"["ES256"]"#,
        ] {
            assert!(!read(head), "{head}");
        }
    }

    #[test]
    fn what_is_no_token_is_none_and_claims_are_texts() {
        let good = token(r#"{"alg":"HS256"}"#, r#"{"a":"x","b":17,"c":"","d":[1],"exp":"soon"}"#);
        for text in [
            "",
            "a.b",
            "a.b.c",
            &good.replace('.', ""),
            &format!("{good}="),
            &format!("{good}."),
            &format!(" {good}"),
        ] {
            assert!(Jwt::read(text, "HS256").is_none(), "{text}");
        }
        let token = Jwt::read(&good, "HS256").unwrap();
        let claims = ["a", "b", "c", "d", "e"].map(|name| token.claim(name));
        assert_eq!(claims, [Some("x".into()), Some("17".into()), None, None, None]);
        assert_eq!(token.expires(), Some(0.0), "what is no time has passed");
    }
}
