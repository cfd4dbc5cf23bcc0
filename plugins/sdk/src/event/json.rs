//! Reads single members of an event's JSON and skips everything else unparsed. So a member that nobody reads
//! cannot fail an attempt, whatever it contains.
//!
//! - Of several members with one name the last one counts.
//! - A lone surrogate (`"\ud800"`) becomes U+FFFD, and so does U+0000, which PostgreSQL cannot store.
//! - A number keeps its text, digit for digit.

use std::{borrow::Cow, fmt, rc::Rc};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// A JSON string as bytes: UTF-8, except that a lone surrogate has three bytes (WTF-8).
pub(super) struct JsonStr<'a>(pub(super) Cow<'a, [u8]>);

impl<'de: 'a, 'a> Deserialize<'de> for JsonStr<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl<'de> Visitor<'de> for Bytes {
            type Value = JsonStr<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(JsonStr(Cow::Borrowed(bytes)))
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(JsonStr(Cow::Owned(bytes.to_owned())))
            }
        }
        // As bytes, because serde_json refuses a lone surrogate in a `str`.
        deserializer.deserialize_bytes(Bytes)
    }
}

/// The text of a scalar.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) text: String,
    /// Whether the text contained an invalid character and now has U+FFFD instead.
    pub(super) mended: bool,
}

impl Text {
    /// Returns the text of a string that is not empty, or of a number as written. None for any other JSON.
    pub(super) fn of(json: &str) -> Option<Self> {
        match json.as_bytes().first()? {
            b'"' => {
                let JsonStr(bytes) = serde_json::from_str(json).ok()?;
                Some(Self::mending(bytes.into_owned())).filter(|text| !text.text.is_empty())
            }
            b'-' | b'0'..=b'9' => Some(Self { text: json.to_owned(), mended: false }),
            _ => None,
        }
    }

    fn mending(mut bytes: Vec<u8>) -> Self {
        let mut mended = false;
        for at in 0..bytes.len().saturating_sub(2) {
            // Both have three bytes: `ED A0 80` to `ED BF BF`, and `EF BF BD`.
            if bytes[at] == 0xed && bytes[at + 1] >= 0xa0 {
                bytes[at..at + 3].copy_from_slice("\u{fffd}".as_bytes());
                mended = true;
            }
        }
        let mut text = String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        if text.contains('\0') {
            text = text.replace('\0', "\u{fffd}");
            mended = true;
        }
        Self { text, mended }
    }
}

/// The members of an object, each as its JSON text. Cheap to clone.
#[derive(Clone)]
pub(super) struct Object<'a>(Rc<[Member<'a>]>);

/// A member's name, as WTF-8, and the JSON text of its value.
type Member<'a> = (Cow<'a, [u8]>, &'a str);

impl<'a> Object<'a> {
    /// Reads the names of an object. It parses a value only on request.
    ///
    /// # Errors
    /// The text is not a JSON object.
    pub(super) fn read(json: &'a str) -> serde_json::Result<Self> {
        serde_json::from_str(json)
    }

    /// The JSON text of the last member of this name.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().rev().find(|(known, _)| **known == *name.as_bytes()).map(|(_, value)| *value)
    }

    /// The object in a member.
    pub(super) fn object(&self, name: &str) -> Option<Self> {
        Self::read(self.get(name)?).ok()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((JsonStr(name), value)) = map.next_entry::<JsonStr<'de>, &'de RawValue>()? {
                    members.push((name, value.get()));
                }
                Ok(Object(members.into()))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// The JSON texts of an array's elements; none for any other JSON.
pub(super) fn elements(json: &str) -> Vec<&str> {
    serde_json::from_str::<Vec<&RawValue>>(json).unwrap_or_default().into_iter().map(RawValue::get).collect()
}
