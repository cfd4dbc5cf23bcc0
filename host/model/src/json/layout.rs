//! Lays out JSON text for people. Only white space between its tokens changes.

use std::fmt::Write as _;

use serde::de::IgnoredAny;

use super::tokens::{Token, Tokens};

/// Text that is nested deeper stays as it is: its indentation would be larger than the text.
const DEEPEST: usize = 64;

/// The text with a line for each member and element. None if it is not JSON, or is nested too deeply.
pub fn laid_out(json: &str) -> Option<String> {
    serde_json::from_str::<IgnoredAny>(json).ok()?;
    let mut laid_out = String::with_capacity(json.len() * 2);
    let mut depth = 0;
    let mut tokens = Tokens::of(json).map(|(_, token)| token).peekable();
    while let Some(token) = tokens.next() {
        match token {
            Token::Open(bracket) => {
                laid_out.push_str(bracket);
                if !matches!(tokens.peek(), Some(Token::Close(_))) {
                    depth += 1;
                    line(&mut laid_out, depth)?;
                } else if let Some(Token::Close(bracket)) = tokens.next() {
                    laid_out.push_str(bracket);
                }
            }
            Token::Close(bracket) => {
                depth -= 1;
                line(&mut laid_out, depth)?;
                laid_out.push_str(bracket);
            }
            Token::Comma => {
                laid_out.push(',');
                line(&mut laid_out, depth)?;
            }
            Token::Colon => laid_out.push_str(": "),
            Token::String(text) | Token::Other(text) => laid_out.push_str(text),
        }
    }
    Some(laid_out)
}

/// Begins a line at this depth. None if that is too deep.
fn line(text: &mut String, depth: usize) -> Option<()> {
    if depth > DEEPEST {
        return None;
    }
    write!(text, "\n{:1$}", "", depth * 2).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_stays_as_it_is_written() {
        let json = r#"{"z":0.10,"a":[123456789012345678901234567890,1E400,-0],"a":{},"\ud800":"\u00e9 : , {\"",
            "e" :[ ] , "n": null}"#;
        let expected = r#"{
  "z": 0.10,
  "a": [
    123456789012345678901234567890,
    1E400,
    -0
  ],
  "a": {},
  "\ud800": "\u00e9 : , {\"",
  "e": [],
  "n": null
}"#;
        assert_eq!(laid_out(json).as_deref(), Some(expected));
        assert_eq!(laid_out("7").as_deref(), Some("7"));
        assert_eq!(laid_out("{} {}"), None);
        assert_eq!(laid_out("[1"), None);
    }

    #[test]
    fn what_is_nested_deeply_is_not_laid_out() {
        let nested = |depth| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(laid_out(&nested(DEEPEST)).is_some());
        assert_eq!(laid_out(&nested(DEEPEST + 1)), None);
        assert_eq!(laid_out(&nested(500_000)), None);
    }
}
