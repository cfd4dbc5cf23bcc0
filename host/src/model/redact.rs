//! Masking: which values of a source's payloads nobody is to read, and how they are kept from being read.
//!
//! A plugin gets the payload as it came; what is masked is what people see: the body, and each text that
//! came of handling it (log lines, errors, the summary of a mail), wherever such a value stands in it.

use std::fmt;

use serde_json::Value;

use super::Masker;

/// What stands in place of a masked value.
pub const REDACTED: &str = "[redacted]";

/// A shorter value is not looked for in other texts: it would be found everywhere.
const SHORTEST: usize = 4;

/// A JSON pointer (RFC 6901), such as `/data/user/email`; a part `*` means every member or item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    text: String,
    parts: Vec<String>,
}

/// The text is no pointer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no JSON pointer; one begins with `/`, such as \"/data/user/email\"")]
pub struct InvalidPointer(String);

impl Pointer {
    /// Reads a pointer.
    ///
    /// # Errors
    /// Where it does not begin with `/`, or has a `~` that escapes nothing.
    pub fn new(text: &str) -> Result<Self, InvalidPointer> {
        let invalid = || InvalidPointer(text.to_owned());
        let parts = text.strip_prefix('/').ok_or_else(invalid)?;
        let part = |part: &str| {
            let rest = part.replace("~0", "").replace("~1", "");
            (!rest.contains('~')).then(|| part.replace("~1", "/").replace("~0", "~")).ok_or_else(invalid)
        };
        Ok(Self { text: text.to_owned(), parts: parts.split('/').map(part).collect::<Result<_, _>>()? })
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What is masked of a source's payloads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redact(Vec<Pointer>);

impl Redact {
    /// Masks what these point at.
    pub fn new(pointers: Vec<Pointer>) -> Self {
        Self(pointers)
    }

    /// Whether nothing is masked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The pointers.
    pub fn pointers(&self) -> &[Pointer] {
        &self.0
    }

    /// Masks a body, and remembers what was in it. One that is not JSON is masked whole.
    pub fn mask(&self, body: &[u8]) -> Mask {
        if self.is_empty() {
            return Mask { body: None, masker: None };
        }
        let Ok(mut value) = serde_json::from_slice::<Value>(body) else {
            return Mask { body: Some(REDACTED.to_owned()), masker: None };
        };
        let mut values = Vec::new();
        for pointer in &self.0 {
            hide(&mut value, &pointer.parts, &mut values);
        }
        values.retain(|text| text.len() >= SHORTEST && text != REDACTED);
        Mask { body: Some(value.to_string()), masker: Masker::new(values) }
    }
}

/// Replaces what the pointer means, and collects the texts that stood there.
fn hide(value: &mut Value, parts: &[String], values: &mut Vec<String>) {
    let Some((part, rest)) = parts.split_first() else {
        collect(value, values);
        *value = REDACTED.into();
        return;
    };
    match value {
        Value::Object(members) if part == "*" => {
            members.values_mut().for_each(|member| hide(member, rest, values));
        }
        Value::Array(items) if part == "*" => items.iter_mut().for_each(|item| hide(item, rest, values)),
        Value::Object(members) => {
            if let Some(member) = members.get_mut(part) {
                hide(member, rest, values);
            }
        }
        Value::Array(items) => {
            if let Some(item) = part.parse::<usize>().ok().and_then(|at| items.get_mut(at)) {
                hide(item, rest, values);
            }
        }
        _ => {}
    }
}

fn collect(value: &Value, values: &mut Vec<String>) {
    match value {
        Value::String(text) => values.push(text.clone()),
        Value::Number(number) => values.push(number.to_string()),
        Value::Array(items) => items.iter().for_each(|item| collect(item, values)),
        Value::Object(members) => members.values().for_each(|member| collect(member, values)),
        Value::Null | Value::Bool(_) => {}
    }
}

/// What was masked of one payload.
#[derive(Debug, Clone, Default)]
pub struct Mask {
    body: Option<String>,
    masker: Option<Masker>,
}

impl Mask {
    /// The body with its masks; none where nothing is to be masked.
    pub fn body(&self) -> Option<&str> {
        self.body.as_deref()
    }

    /// Masks each of the payload's hidden values in a text, whatever the case of its ASCII letters.
    pub fn text(&self, text: &mut String) {
        if let Some(masker) = &self.masker {
            masker.mask(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redact(pointers: &[&str]) -> Redact {
        Redact::new(pointers.iter().map(|text| Pointer::new(text).unwrap()).collect())
    }

    #[test]
    fn what_is_pointed_at_is_masked_and_nothing_else() {
        let body =
            br#"{"data":{"user":{"email":"Ada@example.com","id":"usr_1"},"list":[{"n":12345},{"n":1}]}}"#;
        let mask = redact(&["/data/user/email", "/data/list/*/n", "/data/never/there"]).mask(body);
        let value: Value = serde_json::from_str(mask.body().unwrap()).unwrap();
        assert_eq!(value["data"]["user"]["email"], REDACTED);
        assert_eq!(value["data"]["user"]["id"], "usr_1");
        assert_eq!(value["data"]["list"][1]["n"], REDACTED);
        let mut text = "mail to ada@EXAMPLE.com (12345), 1 of usr_1".to_owned();
        mask.text(&mut text);
        assert_eq!(text, "mail to [redacted] ([redacted]), 1 of usr_1");
    }

    #[test]
    fn all_below_an_object_is_masked() {
        let mask = redact(&["/data"]).mask(br#"{"data":{"name":"Lovelace","tags":["first"]}}"#);
        assert_eq!(mask.body(), Some(r#"{"data":"[redacted]"}"#));
        let mut text = "Lovelace was first, näh".to_owned();
        mask.text(&mut text);
        assert_eq!(text, "[redacted] was [redacted], näh");
    }

    #[test]
    fn without_pointers_nothing_changes_and_what_is_no_json_goes_whole() {
        assert_eq!(redact(&[]).mask(b"{").body(), None);
        assert_eq!(redact(&["/a"]).mask(b"{").body(), Some(REDACTED));
    }

    #[test]
    fn a_pointer_has_its_grammar() {
        assert_eq!(Pointer::new("/a~1b/c~0d").unwrap().parts, ["a/b", "c~d"]);
        for odd in ["", "data/user", "$.data", "/a~2"] {
            assert!(Pointer::new(odd).is_err(), "{odd}");
        }
    }
}
