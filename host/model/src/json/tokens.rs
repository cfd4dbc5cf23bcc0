//! Splits JSON text into tokens that keep their spelling and their position.
//!
//! It is used for text that people see: nothing is parsed, so nothing can change. Any text is split, JSON or
//! not, and nothing recurses.

/// A token as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    /// `{` or `[`.
    Open(&'a str),
    /// `}` or `]`.
    Close(&'a str),
    /// `,`.
    Comma,
    /// `:`.
    Colon,
    /// A string with its quotes, the name of a member included.
    String(&'a str),
    /// A number, `true`, `false` or `null`; or any other text that is not JSON.
    Other(&'a str),
}

/// The tokens of a text, each with the position of its first byte. White space between them is left out.
#[derive(Debug, Clone)]
pub struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    /// The tokens of this text.
    pub fn of(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The first byte after the last token.
    pub fn end(&self) -> usize {
        self.at
    }

    /// Takes this many bytes, which must end between two characters.
    fn take(&mut self, length: usize) -> &'a str {
        let end = self.at + length;
        let taken = &self.text[self.at..end];
        self.at = end;
        taken
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = (usize, Token<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.text.as_bytes();
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        self.at += bytes[self.at..].iter().take_while(|byte| blank(byte)).count();
        let (begin, rest) = (self.at, &bytes[self.at..]);
        let token = match rest.first()? {
            b'{' | b'[' => Token::Open(self.take(1)),
            b'}' | b']' => Token::Close(self.take(1)),
            b',' => {
                self.take(1);
                Token::Comma
            }
            b':' => {
                self.take(1);
                Token::Colon
            }
            b'"' => Token::String(self.take(string_length(rest))),
            _ => {
                let ends = |byte: &u8| blank(byte) || b"{}[],:\"".contains(byte);
                Token::Other(self.take(rest.iter().position(ends).unwrap_or(rest.len())))
            }
        };
        Some((begin, token))
    }
}

/// The bytes of a string from its opening quote to its closing one, or to the end of the text.
fn string_length(text: &[u8]) -> usize {
    let mut at = 1;
    loop {
        match text.get(at) {
            None => return text.len(),
            Some(b'"') => return at + 1,
            // JSON never escapes a character of several bytes. In other text, its end is still found.
            Some(b'\\') if text.get(at + 1).is_some_and(u8::is_ascii) => at += 2,
            Some(_) => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tokens_keep_their_spelling_and_their_place() {
        let json = " { \"a\\\"}\" : [ 0.10,-1E+400 ,\"\\ud800\"],\n\"é\":nul}";
        let tokens: Vec<_> = Tokens::of(json).map(|(_, token)| token).collect();
        use Token::{Close, Colon, Comma, Open, Other, String};
        let expected = [
            Open("{"),
            String("\"a\\\"}\""),
            Colon,
            Open("["),
            Other("0.10"),
            Comma,
            Other("-1E+400"),
            Comma,
            String("\"\\ud800\""),
            Close("]"),
            Comma,
            String("\"é\""),
            Colon,
            Other("nul"),
            Close("}"),
        ];
        assert_eq!(tokens, expected);
    }

    proptest! {
        #[test]
        fn of_any_text_nothing_is_lost_but_white_space(text: String) {
            let mut tokens = Tokens::of(&text);
            let mut kept = String::new();
            for (at, token) in &mut tokens {
                let token = match token {
                    Token::Comma => ",",
                    Token::Colon => ":",
                    Token::Open(text) | Token::Close(text) | Token::String(text) | Token::Other(text) => text,
                };
                prop_assert_eq!(&text[at..at + token.len()], token);
                kept += token;
            }
            prop_assert_eq!(tokens.end(), text.len());
            let blank = [' ', '\t', '\r', '\n'];
            prop_assert_eq!(kept.replace(blank, ""), text.replace(blank, ""));
        }
    }
}
