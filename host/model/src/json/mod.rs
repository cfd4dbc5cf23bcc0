//! JSON text: reads single members and skips everything else unparsed. [`laid_out`] and [`Tokens`] are for
//! text that people see.
//!
//! A sender's JSON may contain what Rust's types cannot hold: half of a surrogate pair in a string or a name,
//! a number beyond 64 bits, any depth. Such values do no harm unless something reads them, so nothing here
//! builds a value of the skipped parts. The rules for what is read:
//!
//! - If several members have the same name, the last one counts.
//! - Half of a surrogate pair (`"\ud800"`) becomes U+FFFD.
//! - A number keeps its text, digit for digit.

mod layout;
mod pointed;
mod tokens;

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

pub use self::{
    layout::laid_out,
    pointed::pointed_at,
    tokens::{Token, Tokens},
};

/// A JSON string as bytes: UTF-8, except that half of a surrogate pair has three bytes (WTF-8).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JsonStr<'a>(Cow<'a, [u8]>);

impl<'a> JsonStr<'a> {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text, with U+FFFD for each half of a surrogate pair.
    pub fn into_text(self) -> Cow<'a, str> {
        match self.0 {
            Cow::Borrowed(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Cow::Borrowed(text),
                Err(_) => Cow::Owned(mended(bytes.to_owned())),
            },
            Cow::Owned(bytes) => {
                Cow::Owned(String::from_utf8(bytes).unwrap_or_else(|error| mended(error.into_bytes())))
            }
        }
    }
}

/// Replaces each half of a surrogate pair. Both have three bytes: `ED A0 80` to `ED BF BF`, and `EF BF BD`.
fn mended(mut bytes: Vec<u8>) -> String {
    for at in 0..bytes.len().saturating_sub(2) {
        if bytes[at] == 0xed && bytes[at + 1] >= 0xa0 {
            bytes[at..at + 3].copy_from_slice("\u{fffd}".as_bytes());
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

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
        // Reads bytes, because serde_json refuses half of a surrogate pair in a `str`.
        deserializer.deserialize_bytes(Bytes)
    }
}

/// The text of a JSON string. None for any other JSON.
pub fn string(json: &str) -> Option<Cow<'_, str>> {
    serde_json::from_str::<JsonStr<'_>>(json).ok().map(JsonStr::into_text)
}

/// The text of a JSON string that is not empty, or a number as it is written.
pub fn scalar(json: &str) -> Option<Cow<'_, str>> {
    match json.as_bytes().first()? {
        b'"' => string(json).filter(|text| !text.is_empty()),
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(json)),
        _ => None,
    }
}

/// The JSON text of a member of an object, or of an element of an array.
pub fn member<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    let mut reader = serde_json::Deserializer::from_str(json);
    Step(name).deserialize(&mut reader).ok().flatten()
}

/// The JSON texts of these members of an object, in one pass.
pub fn members<'a, const N: usize>(json: &'a str, names: [&str; N]) -> [Option<&'a str>; N] {
    let mut reader = serde_json::Deserializer::from_str(json);
    Several(names).deserialize(&mut reader).unwrap_or([None; N])
}

struct Several<'n, const N: usize>([&'n str; N]);

impl<'de, const N: usize> DeserializeSeed<'de> for Several<'_, N> {
    type Value = [Option<&'de str>; N];

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Several<'_, N> {
    type Value = [Option<&'de str>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(name) = map.next_key::<JsonStr<'de>>()? {
            match self.0.iter().position(|wanted| wanted.as_bytes() == name.as_bytes()) {
                Some(at) => found[at] = Some(map.next_value::<&RawValue>()?.get()),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

struct Step<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Step<'_> {
    type Value = Option<&'de str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let [found] = Several([self.0]).visit_map(map)?;
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut left: usize = match self.0 {
            "0" => 0,
            text if text.starts_with(['0', '+']) => return Err(A::Error::custom("no index")),
            text => text.parse().map_err(A::Error::custom)?,
        };
        let mut found = None;
        while let Some(element) = seq.next_element::<&RawValue>()? {
            if found.is_none() && left == 0 {
                found = Some(element.get());
            }
            left = left.wrapping_sub(1);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_a_surrogate_pair_is_one_replacement_character_wherever_it_is() {
        for (json, text) in [
            (r#""\ud800""#, "\u{fffd}"),
            (r#""a\udfffb\ud83d\ude80\ud83d""#, "a\u{fffd}b🚀\u{fffd}"),
            (r#""\ud800\ud800\udc00""#, "\u{fffd}𐀀"),
            (r#""\u0000 í""#, "\0 í"),
        ] {
            assert_eq!(string(json).as_deref(), Some(text), "{json}");
        }
        assert_eq!(string("7"), None);
        assert_eq!(string("[34]"), None);
    }

    #[test]
    fn what_is_not_read_may_be_anything_and_of_several_the_last_is_read() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        let json = format!(
            r#"{{"a":1,"\ud800":"\udc00","":2,"deep":{deep},"big":1e400,"a":12345678901234567890123,"b":[{deep},0.10]}}"#
        );
        assert_eq!(member(&json, "a"), Some("12345678901234567890123"));
        assert_eq!(member(&json, ""), Some("2"));
        assert_eq!(
            members(&json, ["big", "none", "a"]),
            [Some("1e400"), None, Some("12345678901234567890123")]
        );
        assert_eq!(member(&json, "b").and_then(|list| member(list, "1")), Some("0.10"));
        assert_eq!(members("[1]", ["a"]), [None]);
    }
}
