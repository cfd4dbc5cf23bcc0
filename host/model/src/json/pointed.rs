//! Finds the values in JSON text that JSON pointers select.

use std::ops::Range;

use super::{
    string,
    tokens::{Token, Tokens},
};

/// The parts of a pointer that are still to be followed.
type Rest<'p> = &'p [String];

/// The byte ranges of all values that one of these pointers selects, in their order. No range lies within
/// another.
///
/// A part `*` selects every member or element. If several members have the same name, each is selected. The
/// text must be JSON; for any other text the ranges are unspecified.
pub fn pointed_at<'p>(json: &str, pointers: impl IntoIterator<Item = Rest<'p>>) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut tokens = Tokens::of(json);
    let mut open: Vec<Level<'p>> = Vec::new();
    let mut whole = Some(pointers.into_iter().collect::<Vec<_>>());
    while let Some((begin, token)) = tokens.next() {
        match token {
            Token::Colon => continue,
            Token::Comma => {
                if let Some(level) = open.last_mut() {
                    level.next();
                }
                continue;
            }
            Token::Close(_) => {
                open.pop();
                continue;
            }
            Token::String(name) => {
                if let Some(level) = open.last_mut().filter(|level| level.at_name) {
                    level.named(name);
                    continue;
                }
            }
            Token::Open(_) | Token::Other(_) => {}
        }
        // A value begins here.
        let live = match open.last() {
            Some(level) => level.below(),
            None => whole.take().unwrap_or_default(),
        };
        let opens = matches!(token, Token::Open(_));
        if live.iter().any(|rest| rest.is_empty()) {
            if opens {
                skip(&mut tokens);
            }
            found.push(begin..tokens.end());
        } else if opens && live.is_empty() {
            skip(&mut tokens);
        } else if opens {
            let object = token == Token::Open("{");
            open.push(Level { live, at_name: object, object, name: String::new(), index: 0 });
        }
    }
    found
}

/// Skips to the end of the object or array that has just been opened.
fn skip(tokens: &mut Tokens<'_>) {
    let mut depth = 1usize;
    for (_, token) in tokens {
        match token {
            Token::Open(_) => depth += 1,
            Token::Close(_) => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return;
        }
    }
}

/// An object or an array that some pointers lead into.
struct Level<'p> {
    live: Vec<Rest<'p>>,
    object: bool,
    /// The next string is a name.
    at_name: bool,
    name: String,
    index: usize,
}

impl<'p> Level<'p> {
    fn named(&mut self, name: &str) {
        self.name = string(name).unwrap_or_default().into_owned();
        self.at_name = false;
    }

    fn next(&mut self) {
        self.at_name = self.object;
        self.index += 1;
    }

    /// The rests of the pointers that lead through the current member or element.
    fn below(&self) -> Vec<Rest<'p>> {
        let leads = |part: &String| match part.as_str() {
            "*" => true,
            part if self.object => part == self.name,
            part => part.parse() == Ok(self.index),
        };
        let on = |rest: &Rest<'p>| rest.split_first().filter(|(part, _)| leads(part)).map(|(_, rest)| rest);
        self.live.iter().filter_map(on).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found<'j>(json: &'j str, pointers: &[&str]) -> Vec<&'j str> {
        let parts = |pointer: &&str| pointer.split('/').skip(1).map(str::to_owned).collect::<Vec<_>>();
        let pointers: Vec<_> = pointers.iter().map(parts).collect();
        pointed_at(json, pointers.iter().map(Vec::as_slice)).into_iter().map(|range| &json[range]).collect()
    }

    #[test]
    fn values_are_found_where_they_stand_however_they_are_written() {
        let json = r#"{"a": {"b":[ 1.0, {"c" :"x","c":"\ud800"}, []], "*":0}, "\u0061":{"b":[[7]]},"":{"":-0}, "z":[{"b":2}]}"#;
        for (pointers, expected) in [
            (&["/a/b/0"][..], &["1.0", "[7]"][..]),
            (&["/a/b/1/c"], &[r#""x""#, r#""\ud800""#]),
            (&["/a/b/*"], &["1.0", r#"{"c" :"x","c":"\ud800"}"#, "[]", "[7]"]),
            (&["/*/b"], &[r#"[ 1.0, {"c" :"x","c":"\ud800"}, []]"#, "[[7]]"]),
            (&["/a/b/0/0"], &["7"]),
            (&["//"], &["-0"]),
            (&["/a", "/a/b"], &[r#"{"b":[ 1.0, {"c" :"x","c":"\ud800"}, []], "*":0}"#, r#"{"b":[[7]]}"#]),
            (&["/z/*/b", "/z/0/b", "/z/b"], &["2"]),
            (&["/none", "/a/none", "/a/b/9", "/a/b/0/0/0"], &[]),
        ] {
            assert_eq!(found(json, pointers), expected, "{pointers:?}");
        }
        assert_eq!(found("7", &["/a"]), [""; 0]);
    }

    #[test]
    fn depth_is_no_danger() {
        let deep = format!("{{\"a\":{}{},\"b\":1}}", "[".repeat(300_000), "]".repeat(300_000));
        assert_eq!(found(&deep, &["/b", "/a/0/0"]).last(), Some(&"1"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in r#"[\[\]{}",:a0\\ é*]{0,40}"#) {
            for pointer in ["/a", "/*", "/0/*", "//a"] {
                let mut end = 0;
                for range in pointed_at(&text, [[pointer[1..].to_owned()].as_slice()]) {
                    prop_assert!(range.start >= end && text.get(range.clone()).is_some());
                    end = range.end;
                }
                let _ = found(&text, &[pointer]);
            }
        }
    }
}
