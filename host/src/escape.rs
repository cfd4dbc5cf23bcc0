//! Escapes text from outside before it reaches the log or a terminal.
//!
//! File names, event types, answers of servers and lines of guests hold what their authors like. A line break
//! forges a second line of the log, an escape sequence moves the cursor or renames the window, and a mark of
//! writing direction shows a name backwards. Each such character leaves as its escape: `\u{1b}` in text,
//! `\u001b` in JSON.

use std::{
    borrow::Cow,
    fmt::{self, Write},
};

/// Whether a terminal or a viewer of text obeys the character in place of showing it: control characters
/// (C0, DEL, C1), separators of lines, marks that turn the direction of writing, and invisible tags.
pub(crate) fn steers(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
                | '\u{fff9}'..='\u{fffb}' | '\u{e0001}' | '\u{e0020}'..='\u{e007f}'
        )
}

/// The text on one line, with an escape in place of each character that steers.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    escaped(text, steers)
}

/// Several lines as they are, with an escape in place of all else that steers.
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

/// JSON that means the same, on one line. serde_json escapes C0 alone; what else steers stands in strings
/// only, where its escape is the same text.
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

/// Writes on, with an escape in place of each character that steers.
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
