//! Escapes text from outside before it reaches the log or a terminal.
//!
//! Authors control the text of file names, event types, answers of servers and lines of guests. A line break
//! forges a second log line, an escape sequence moves the cursor or renames the window, and a bidirectional
//! mark shows a name backwards. These functions replace each such character by its escape: `\u{1b}` in text,
//! `\u001b` in JSON.

use std::{
    borrow::Cow,
    fmt::{self, Write},
};

/// Whether a terminal or viewer interprets the character instead of showing it. Such are control characters
/// (C0, DEL, C1), line separators, marks that change the writing direction, and invisible tags.
pub(crate) fn steers(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
                | '\u{fff9}'..='\u{fffb}' | '\u{e0001}' | '\u{e0020}'..='\u{e007f}'
        )
}

/// The text as one line, with each character that [`steers`] replaced by its escape.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    escaped(text, steers)
}

/// Several lines, with each character that [`steers`] except the line break replaced by its escape.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c != '\n' && steers(c))
}

fn escaped(text: &str, escapes: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&escapes) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if escapes(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// Equivalent JSON on one line. serde_json escapes only C0. The other characters that [`steers`] reports occur
/// only in strings, where their escapes mean the same text.
pub(crate) fn json(json: &str) -> Cow<'_, str> {
    if !json.contains(steers) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if steers(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string does not fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// A writer that passes text on with each character that [`steers`] escaped.
pub(crate) struct Escaping<W>(pub(crate) W);

impl<W: Write> Write for Escaping<W> {
    fn write_str(&mut self, written: &str) -> fmt::Result {
        self.0.write_str(&text(written))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ODD: &str = "a\u{1b}[2Jb\r\n\u{9b}c\u{202e}d\u{7f}e\u{2028}\u{e0041}ü 你好";

    #[test]
    fn nothing_that_steers_is_left_and_nothing_else_is_changed() {
        assert_eq!(text(ODD), "a\\u{1b}[2Jb\\r\\n\\u{9b}c\\u{202e}d\\u{7f}e\\u{2028}\\u{e0041}ü 你好");
        assert!(matches!(text("ü 你好 👩‍🚀"), Cow::Borrowed("ü 你好 👩‍🚀")));
        let mut written = String::new();
        write!(Escaping(&mut written), "{ODD}").unwrap();
        assert_eq!(written, text(ODD));
        let all: String = (0..0x3000)
            .chain(0xfe00..0x1_0000)
            .chain(0xe_0000..0xe_0100)
            .filter_map(char::from_u32)
            .collect();
        assert!(!text(&all).contains(steers) && !json(&all).contains(steers));
    }

    #[test]
    fn lines_stay_lines() {
        assert_eq!(lines("a\nb\rc\n"), "a\nb\\rc\n");
    }

    #[test]
    fn escaped_json_means_the_same() {
        let value = serde_json::json!({ ODD: [ODD, "plain"] });
        let told = value.to_string();
        let escaped = json(&told);
        assert!(!escaped.contains(steers), "{escaped:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }
}
