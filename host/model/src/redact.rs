//! Masking: which values of a source's payloads people must not see, and how they are hidden.
//!
//! A plugin gets the payload unchanged. posthouse masks what people see: the body, and each text that results
//! from handling it (log lines, errors), wherever such a value occurs in it.
//!
//! A plugin may also have kept a value of an earlier event, of the same source or another. posthouse does not
//! remember those values. So if any source has masks, two rules by form apply to all events: a mail address
//! or a telephone number is masked in every text, and nothing shows the parts of an outbox item that the
//! plugin chose.

use std::{fmt, sync::OnceLock};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::IgnoredAny;
use serde_json::Number;

use super::{
    Masker,
    json::{Token, Tokens, pointed_at, string},
    strangers::mask_reachable,
};

/// The text in place of a masked value.
pub const REDACTED: &str = "[redacted]";

/// The same as a JSON string.
const MASK: &str = "\"[redacted]\"";

/// All characters except those that stay unescaped in every part of a URL.
const URL: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Shorter values are not searched for in other texts: they would be found everywhere.
const SHORTEST: usize = 4;

/// A JSON pointer (RFC 6901), such as `/data/user/email`. A part `*` means every member or element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    text: String,
    parts: Vec<String>,
}

/// The text is not a pointer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a JSON pointer; write one that begins with `/`, such as \"/data/user/email\"")]
pub struct InvalidPointer(String);

impl Pointer {
    /// Reads a pointer.
    ///
    /// # Errors
    /// If it does not begin with `/`, or has a `~` that escapes nothing.
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

/// The parts of a source's payloads that are masked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redact {
    pointers: Vec<Pointer>,
    /// Some source has masks, so a text may contain masked values of other events.
    by_form: bool,
}

impl Redact {
    /// Masks the values that these pointers select.
    pub fn new(pointers: Vec<Pointer>) -> Self {
        Self { pointers, by_form: false }
    }

    /// The masks for an event of one of these sources, which are given with their names. If it is of none of
    /// them, it was derived, or its source is no longer in config.toml. Then everything is masked that any of
    /// their pointers selects.
    pub fn among<'a>(sources: impl Iterator<Item = (&'a str, &'a Self)>, of: &str) -> Self {
        let (mut own, mut all) = (None, Vec::new());
        for (name, redact) in sources {
            all.extend_from_slice(&redact.pointers);
            if name == of {
                own = Some(redact.pointers.clone());
            }
        }
        Self { by_form: !all.is_empty(), pointers: own.unwrap_or(all) }
    }

    /// Whether nothing is masked.
    pub fn is_empty(&self) -> bool {
        self.pointers.is_empty() && !self.by_form
    }

    /// The pointers.
    pub fn pointers(&self) -> &[Pointer] {
        &self.pointers
    }

    /// Masks a body, and remembers the hidden values. Each selected value is replaced in place, and all else
    /// stays byte for byte. A body that is not JSON is masked whole.
    pub fn mask(&self, body: &[u8]) -> Mask {
        let by_form = self.by_form;
        if self.pointers.is_empty() {
            return Mask { by_form, ..Mask::default() };
        }
        let json = std::str::from_utf8(body).ok();
        let Some(json) = json.filter(|json| serde_json::from_str::<IgnoredAny>(json).is_ok()) else {
            return Mask { body: Some(REDACTED.to_owned()), by_form, ..Mask::default() };
        };
        let (mut masked, mut kept) = (String::with_capacity(json.len()), 0);
        let mut values = Vec::new();
        for hidden in pointed_at(json, self.pointers.iter().map(|pointer| &*pointer.parts)) {
            masked.push_str(&json[kept..hidden.start]);
            masked.push_str(MASK);
            kept = hidden.end;
            collect(&json[hidden], &mut values);
        }
        masked.push_str(&json[kept..]);
        Mask { body: Some(masked), by_form, ..Mask::default() }.with(values)
    }
}

/// Collects every text and number in this JSON, in each of the forms in which another text may contain it.
fn collect(json: &str, values: &mut Vec<String>) {
    let mut tokens = Tokens::of(json).peekable();
    while let Some((_, token)) = tokens.next() {
        match token {
            Token::String(token) => {
                let text = string(token).unwrap_or_default();
                let name = matches!(tokens.peek(), Some((_, Token::Colon)));
                // The name of a member counts as a value if it can't be a programmer's word.
                if !name || !text.chars().all(|letter| letter.is_ascii_alphabetic() || "_-".contains(letter))
                {
                    of_text(&text, token, values);
                }
            }
            Token::Other(number)
                if number.starts_with(|first: char| first == '-' || first.is_ascii_digit()) =>
            {
                values.push(number.to_owned());
                // The form in which a program writes the number after reading it.
                if let Ok(number) = serde_json::from_str::<Number>(number) {
                    let number = number.to_string();
                    values.extend(number.strip_suffix(".0").map(str::to_owned));
                    values.push(number);
                }
            }
            _ => {}
        }
    }
}

/// The text itself, as the sender escaped it, and as JSON, Rust and URLs escape it.
fn of_text(text: &str, token: &str, values: &mut Vec<String>) {
    let debug = format!("{text:?}");
    let json = serde_json::to_string(text).unwrap_or_default();
    let url = utf8_percent_encode(text, URL).to_string();
    let quoted = [token, &json, &debug]
        .map(|quoted| quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default());
    values.extend(quoted.into_iter().chain([text, &url]).map(str::to_owned));
}

/// The hidden values of one payload.
#[derive(Debug, Clone, Default)]
pub struct Mask {
    body: Option<String>,
    values: Vec<String>,
    /// Built from the values when it is first needed.
    masker: OnceLock<Option<Masker>>,
    by_form: bool,
}

impl Mask {
    /// The masked body. None if nothing is masked.
    pub fn body(&self) -> Option<&str> {
        self.body.as_deref()
    }

    /// Also masks the hidden values of another payload.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.by_form |= other.by_form;
        if other.values.is_empty() { self } else { self.with(other.values) }
    }

    /// The mask for a text that results from these payloads, each given with the name of its source.
    pub fn of_all<'a>(
        payloads: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        redact: impl Fn(&str) -> Redact,
    ) -> Self {
        let payloads = payloads.into_iter();
        payloads.fold(Self::default(), |mask, (source, body)| mask.and(redact(source).mask(body)))
    }

    /// Masks these values.
    pub fn of_values(values: &[String]) -> Self {
        Self::default().with(values.to_vec())
    }

    /// Adds these values, except for those that are too short to search for.
    fn with(self, more: Vec<String>) -> Self {
        let Self { body, mut values, by_form, .. } = self;
        values.extend(more);
        values.retain(|text| text.len() >= SHORTEST && text != REDACTED);
        values.sort_unstable();
        values.dedup();
        Self { body, values, masker: OnceLock::new(), by_form }
    }

    /// Whether nothing that a plugin chose may be shown, because it may be from another event.
    pub fn hides_words_of_plugins(&self) -> bool {
        self.by_form
    }

    /// Masks each of the payload's hidden values in a text, ignoring the case of ASCII letters. If any source
    /// has masks, mail addresses and telephone numbers are masked too.
    pub fn text(&self, text: &mut String) {
        self.values(text);
        if self.by_form {
            mask_reachable(text);
        }
    }

    /// Masks each of the payload's hidden values in a text, and nothing by its form.
    pub fn values(&self, text: &mut String) {
        if let Some(masker) = self.masker.get_or_init(|| Masker::new(&self.values)) {
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
        assert_eq!(
            mask.body(),
            Some(
                r#"{"data":{"user":{"email":"[redacted]","id":"usr_1"},"list":[{"n":"[redacted]"},{"n":"[redacted]"}]}}"#
            )
        );
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
    fn all_but_what_is_masked_stays_as_it_came() {
        let body = r#"{ "z":0.10, "id":12345678901234567890123,"a":{"n":1E400, "n":1e999},"a" : {"n":"\ud800"},
            "deep":[[[{"\ud800":-0}]]] ,"secret" : [ {"x":1} ] }"#;
        let mask = redact(&["/a/n", "/secret"]).mask(body.as_bytes());
        let expected = r#"{ "z":0.10, "id":12345678901234567890123,"a":{"n":"[redacted]", "n":"[redacted]"},"a" : {"n":"[redacted]"},
            "deep":[[[{"\ud800":-0}]]] ,"secret" : "[redacted]" }"#;
        assert_eq!(mask.body(), Some(expected));
    }

    #[test]
    fn a_value_is_masked_in_each_of_its_spellings() {
        let body = r#"{"data":{"name":"Zo\u00eb \"Q\" O'Neil","by":{"ada@example.com":{"first_name":"x"}},"n":12345.0}}"#;
        let mask = redact(&["/data"]).mask(body.as_bytes());
        for text in [
            "hello Zoë \"Q\" O'Neil!",
            r#"hello Zo\u00eb \"Q\" O'Neil!"#,
            r#"hello Zoë \"Q\" O'Neil!"#,
            "hello Zo%C3%AB%20%22Q%22%20O%27Neil!",
            "hello ADA@example.com!",
            "hello ada%40example.com!",
            "hello 12345.0!",
            "hello 12345!",
        ] {
            let mut masked = text.to_owned();
            mask.text(&mut masked);
            assert_eq!(masked, "hello [redacted]!", "{text}");
        }
        let mut harmless = "first_name of data".to_owned();
        mask.text(&mut harmless);
        assert_eq!(harmless, "first_name of data");
    }

    #[test]
    fn without_pointers_nothing_changes_and_what_is_no_json_goes_whole() {
        assert_eq!(redact(&[]).mask(b"{").body(), None);
        assert_eq!(redact(&["/a"]).mask(b"{").body(), Some(REDACTED));
    }

    #[test]
    fn where_any_source_has_masks_the_form_counts_for_all() {
        let (crm, shop) = (redact(&["/data/email"]), Redact::default());
        let of = |name| Redact::among([("crm", &crm), ("shop", &shop)].into_iter(), name);
        let body = br#"{"data":{"email":"ada@example.com","name":"Lovelace"}}"#;
        for (name, masks_body) in [("crm", true), ("shop", false), ("plugin:x", true), ("gone", true)] {
            let mask = of(name).mask(body);
            assert_eq!(mask.body().is_some(), masks_body, "{name}");
            let mut text = "Lovelace, bob@example.org, +441632960961".to_owned();
            mask.text(&mut text);
            assert_eq!(text, "Lovelace, [redacted], [redacted]", "{name}");
            assert!(mask.hides_words_of_plugins());
        }
        let mut text = "Lovelace".to_owned();
        of("shop").mask(b"{}").and(redact(&["/data/name"]).mask(body)).text(&mut text);
        assert_eq!(text, REDACTED);
        let none = Redact::among([("shop", &shop)].into_iter(), "shop");
        assert!(none.is_empty() && !none.mask(body).hides_words_of_plugins());
    }

    #[test]
    fn a_pointer_has_its_grammar() {
        assert_eq!(Pointer::new("/a~1b/c~0d").unwrap().parts, ["a/b", "c~d"]);
        for odd in ["", "data/user", "$.data", "/a~2"] {
            assert!(Pointer::new(odd).is_err(), "{odd}");
        }
    }
}
