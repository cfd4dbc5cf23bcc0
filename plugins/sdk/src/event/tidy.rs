//! Removes from a JSON text the parts that JSON allows but serde's derived types cannot handle.
//!
//! - If a later member has the same name, the earlier one is removed, because the later one counts.
//! - A lone surrogate (`\ud800`) becomes `\ufffd`.
//!
//! Everything else stays byte for byte. The code does not recurse, so depth does not matter.

use std::{borrow::Cow, collections::HashSet, ops::Range};

use super::json::JsonStr;

/// Returns the tidied text. If the input is not JSON, the result is not JSON either.
pub(super) fn tidy(json: &str) -> String {
    let mut edits = Edits::default();
    let mut open: Vec<Open<'_>> = Vec::new();
    let bytes = json.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'{' => open.push(Open { names: Some(Vec::new()), at_name: true }),
            b'[' => open.push(Open { names: None, at_name: false }),
            b'}' | b']' => {
                if let Some(Open { names: Some(names), .. }) = open.pop() {
                    edits.cut_replaced(&names);
                }
            }
            b',' => {
                if let Some(object) = open.last_mut() {
                    object.at_name = true;
                }
            }
            b'"' => {
                let end = edits.mend(bytes, at);
                if let Some(Open { names: Some(names), at_name }) = open.last_mut()
                    && std::mem::take(at_name)
                {
                    let name = json.get(at..end).and_then(|name| serde_json::from_str(name).ok());
                    names.push((name.map_or(Cow::Borrowed(&[]), |JsonStr(name)| name), at));
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    edits.applied(json)
}

/// An object or an array that is still open.
struct Open<'a> {
    /// The names of an object's members, and the offset of each member.
    names: Option<Vec<(Cow<'a, [u8]>, usize)>>,
    /// Whether the next string is a name, if this is an object.
    at_name: bool,
}

/// Parts of the text and their replacements.
#[derive(Default)]
struct Edits(Vec<(Range<usize>, &'static str)>);

impl Edits {
    /// Removes each member that has a later one with the same name.
    fn cut_replaced(&mut self, names: &[(Cow<'_, [u8]>, usize)]) {
        let mut later = HashSet::new();
        let mut next = 0;
        for (name, begin) in names.iter().rev() {
            if !later.insert(name) {
                self.0.push((*begin..next, ""));
            }
            next = *begin;
        }
    }

    /// Scans a string from its opening quote, replaces lone surrogates, and returns its end.
    fn mend(&mut self, bytes: &[u8], begin: usize) -> usize {
        let mut at = begin + 1;
        loop {
            match bytes.get(at) {
                None => return bytes.len(),
                Some(b'"') => return at + 1,
                Some(b'\\') => {
                    at = match (unit(bytes, at), unit(bytes, at + 6)) {
                        (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => at + 12,
                        (Some(0xd800..=0xdfff), _) => {
                            self.0.push((at..at + 6, "\\ufffd"));
                            at + 6
                        }
                        _ => at + 2,
                    };
                }
                Some(_) => at += 1,
            }
        }
    }

    fn applied(mut self, json: &str) -> String {
        // A removed part includes all edits within it.
        self.0.sort_by_key(|(part, _)| (part.start, std::cmp::Reverse(part.end)));
        let (mut text, mut kept) = (String::with_capacity(json.len()), 0);
        for (part, replacement) in self.0 {
            if part.start >= kept {
                text.push_str(json.get(kept..part.start).unwrap_or_default());
                text.push_str(replacement);
                kept = part.end;
            }
        }
        text.push_str(json.get(kept..).unwrap_or_default());
        text
    }
}

/// The UTF-16 unit of a `\uXXXX` escape that begins here, if there is one.
fn unit(bytes: &[u8], at: usize) -> Option<u32> {
    let escape = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u32::from_str_radix(std::str::from_utf8(escape).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_replaced_goes_and_the_rest_stays_byte_for_byte() {
        for (json, tidied) in [
            (r#"{"a":1,"b":2}"#, r#"{"a":1,"b":2}"#),
            (r#"{ "a" : 1 , "b":2, "a":3 }"#, r#"{ "b":2, "a":3 }"#),
            (r#"{"a":1,"a":2,"a":0.10}"#, r#"{"a":0.10}"#),
            (
                r#"{"a":{"b":1,"b":2},"x":[{"c":1,"c":2}],"a":{"b":3,"b":4}}"#,
                r#"{"x":[{"c":2}],"a":{"b":4}}"#,
            ),
            (r#"{"\u0061":1,"a":1e400}"#, r#"{"a":1e400}"#),
            (
                r#"["\ud800","\\ud800","\ud83d\ude80","\udfffx\ud800"]"#,
                r#"["\ufffd","\\ud800","\ud83d\ude80","\ufffdx\ufffd"]"#,
            ),
            (r#"{"\ud800":1,"\udfff":2,"\ud800":3}"#, r#"{"\ufffd":2,"\ufffd":3}"#),
            (r#"{"a":"{\"a\":1,","b":"}"}"#, r#"{"a":"{\"a\":1,","b":"}"}"#),
        ] {
            assert_eq!(tidy(json), tidied, "{json}");
        }
    }

    #[test]
    fn nothing_makes_it_panic() {
        for json in [
            "",
            "\"",
            "\"\\",
            "\"\\u",
            "{\"a\":1,\"a",
            "}",
            "]]",
            "{,,\"a\",\"a\",",
            "\"\\ud800",
            "é\"\\é\"",
            "{\"\\q\":1,\"\\q\":1}",
        ] {
            let _ = tidy(json);
        }
        let deep = "{\"a\":".repeat(100_000);
        assert_eq!(tidy(&deep), deep);
    }
}
