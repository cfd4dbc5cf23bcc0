//! Shortens texts that people read.

/// The text, cut after at most `bytes` bytes, between two characters. A text that was cut ends with `…`, which does
/// not count.
pub fn shortened(text: impl Into<String>, bytes: usize) -> String {
    let mut text = text.into();
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_text_that_is_too_long_is_cut_and_never_within_a_character() {
        for (text, bytes, expected) in
            [("", 0, ""), ("abc", 3, "abc"), ("abcd", 3, "abc…"), ("aäb", 2, "a…"), ("ä", 0, "…")]
        {
            assert_eq!(shortened(text, bytes), expected, "{text} in {bytes}");
        }
    }
}
