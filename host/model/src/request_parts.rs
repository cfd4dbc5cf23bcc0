//! What an event keeps of its request besides the body.
//!
//! `[[source]] headers` and the sender's row choose the headers. Guests get them; the headers that prove who sent the
//! request are kept apart, and only a plugin that was granted them gets those too.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The most bytes of the names and values of all headers that an event keeps, those of its signature included.
pub const KEPT_HEADERS: usize = 8 << 10;

/// The content type of almost every webhook. Events share this text.
pub const JSON: &str = "application/json";

/// The longest content type that is kept, in bytes.
const CONTENT_TYPE: usize = 255;

/// The parts of its request that an event keeps besides the body. Empty for an event that no request brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestParts {
    /// The content type of the request, as the sender wrote it. `application/json` if the body is one event of several
    /// in the request.
    pub content_type: Option<Cow<'static, str>>,
    /// Headers, by their names in lower case, in the order in which config.toml lists the names.
    pub headers: Vec<(String, String)>,
    /// The headers that prove who sent the request. Empty unless a plugin was granted those of this source.
    pub signature: Vec<(String, String)>,
    /// The body as it was sent, if the event's body is another: that of a form, which became JSON.
    pub original: Option<Bytes>,
}

/// The headers as they are stored. Members are only added, each with a default.
#[derive(Default, Serialize, Deserialize)]
struct Stored<'a> {
    #[serde(default, skip_serializing_if = "is_empty")]
    headers: Cow<'a, [(String, String)]>,
    #[serde(default, skip_serializing_if = "is_empty")]
    signature: Cow<'a, [(String, String)]>,
}

fn is_empty(headers: &[(String, String)]) -> bool {
    headers.is_empty()
}

impl RequestParts {
    /// A content type as it is kept: none if it is longer than any that is in use.
    pub fn content_type(text: &str) -> Option<Cow<'static, str>> {
        match text {
            JSON => Some(Cow::Borrowed(JSON)),
            other => (1..=CONTENT_TYPE).contains(&other.len()).then(|| Cow::Owned(other.to_owned())),
        }
    }

    /// The headers as JSON text. None if there are none.
    pub fn stored_headers(&self) -> Option<String> {
        if self.headers.is_empty() && self.signature.is_empty() {
            return None;
        }
        let stored =
            Stored { headers: Cow::Borrowed(&self.headers), signature: Cow::Borrowed(&self.signature) };
        serde_json::to_string(&stored).ok()
    }

    /// The parts that a store has. Headers that can't be read are left out.
    pub fn from_store(content_type: Option<&str>, headers: Option<&str>, original: Option<&[u8]>) -> Self {
        let stored: Stored<'_> = headers.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        Self {
            content_type: content_type.and_then(Self::content_type),
            headers: stored.headers.into_owned(),
            signature: stored.signature.into_owned(),
            original: original.map(Bytes::copy_from_slice),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_again_and_nothing_takes_no_room() {
        let pair = |name: &str| vec![(name.to_owned(), "a \"b\"\té".to_owned())];
        for (headers, signature) in
            [(pair("x-a"), pair("x-s")), (pair("x-a"), Vec::new()), (Vec::new(), pair("x-s"))]
        {
            let parts = RequestParts {
                content_type: RequestParts::content_type("text/plain; charset=utf-8"),
                headers,
                signature,
                original: Some(Bytes::from_static(b"a=b")),
            };
            let stored = parts.stored_headers();
            let read =
                RequestParts::from_store(parts.content_type.as_deref(), stored.as_deref(), Some(b"a=b"));
            assert_eq!(read, parts);
        }
        assert_eq!(RequestParts::default().stored_headers(), None);
        assert_eq!(RequestParts::from_store(None, None, None), RequestParts::default());
        assert_eq!(RequestParts::from_store(None, Some("{damaged"), None), RequestParts::default());
    }

    #[test]
    fn a_content_type_has_a_bound_and_the_usual_one_takes_no_room() {
        assert!(matches!(RequestParts::content_type(JSON), Some(Cow::Borrowed(JSON))));
        assert_eq!(RequestParts::content_type(""), None);
        assert_eq!(RequestParts::content_type(&"a".repeat(CONTENT_TYPE + 1)), None);
    }
}
