//! The cause in a failure's reason: the reason without the parts that differ from event to event.
//!
//! Ids, numbers, addresses, dates and quoted values become `…`, so that a thousand dead letters with one
//! cause are one group and not a thousand. The parts that tell causes apart stay: names in backticks, the
//! names of tables and constraints, status codes, hosts, and the source position of a panic.
//!
//! ```text
//!   user usr_9f2c (ada@example.com) not found in org 42       user … (…) not found in org …
//!   the answer to `GET https://a.example/users/42?x=1` is 503  the answer to `GET https://a.example/users/…` is 503
//!   panicked at src/lib.rs:42:5: index 7 is out of bounds      panicked at src/lib.rs:42:5: index … is out of bounds
//! ```
//!
//! A reason that is one value and nothing else has the cause `…`, which says nothing ([`says_nothing`]).
//! Such a cause is shown with an example beside it.
//!
//! The cause of a cause is the same, so a group can be selected by its cause or by the reason of any member.

/// The most bytes of a reason that are read.
const LOOKED_AT: usize = 2048;

/// The most characters of a cause.
const LONGEST: usize = 200;

/// The most characters of a quoted value. A quote that ends later is not a quote.
const QUOTED: usize = 400;

/// The replacement of a value.
const VALUE: &str = "…";

/// Words before a number that is a code with few values.
const CODES: [&str; 9] =
    ["status", "http", "code", "sqlstate", "errno", "error", "answered", "signal", "exit"];

/// Words before a text in double quotes that is a name and not a value.
const NAMES: [&str; 10] = [
    "constraint",
    "relation",
    "column",
    "table",
    "index",
    "schema",
    "database",
    "function",
    "extension",
    "limit",
];

/// The endings of source files, by which a source position is recognised.
const SOURCES: [&str; 9] = [".rs:", ".js:", ".mjs:", ".ts:", ".py:", ".go:", ".c:", ".cc:", ".cpp:"];

/// The cause in a reason, of at most 200 characters. Empty if the reason is.
pub fn cause(reason: &str) -> String {
    let mut cause = generalized(&reason[..reason.floor_char_boundary(LOOKED_AT)]);
    // A cut text may read otherwise. If it does not settle, the last form is used.
    for _ in 0..4 {
        let again = generalized(&cause);
        if again == cause {
            break;
        }
        cause = again;
    }
    cause
}

/// Whether a cause contains no word, because its reasons are values and nothing else: `…`, or `"…"`.
pub fn says_nothing(cause: &str) -> bool {
    !cause.is_empty() && !cause.contains(char::is_alphanumeric)
}

fn generalized(text: &str) -> String {
    let mut general = General { out: String::with_capacity(text.len().min(4 * LONGEST)), value_end: None };
    general.text(text);
    let mut out = general.out.trim().to_owned();
    if let Some((end, _)) = out.char_indices().nth(LONGEST) {
        let whole = out[..end].rfind(' ').filter(|space| *space > end / 2).unwrap_or(end);
        out.truncate(whole);
        out.truncate(out.trim_end_matches([' ', '…']).len());
        out.push_str(" …");
    }
    out
}

/// A text whose values are being replaced.
struct General {
    out: String,
    /// The end of the last value in `out`.
    value_end: Option<usize>,
}

impl General {
    fn text(&mut self, text: &str) {
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let taken = if let Some(inner) = self.quoted(rest, first) {
                self.quote(first, inner);
                inner.len() + first.len_utf8() + closing(first).map_or(0, char::len_utf8)
            } else if let Some(inner) = detail(rest) {
                self.push(")=(");
                self.value();
                self.push(")");
                inner.len() + ")=()".len()
            } else if is_word(first) {
                let end = rest.find(|char: char| !is_word(char)).unwrap_or(rest.len());
                let word = rest[..end].trim_end_matches(['.', ':', '?', '=', '&']);
                // A word of only such characters stays a word.
                let word = if word.is_empty() { &rest[..end] } else { word };
                self.word(word);
                word.len()
            } else {
                if !first.is_whitespace() {
                    self.out.push(first);
                } else if !self.out.ends_with(' ') {
                    self.out.push(' ');
                }
                first.len_utf8()
            };
            rest = &rest[taken..];
        }
    }

    /// The text between the quote with which `rest` begins and the one that ends it.
    fn quoted<'t>(&self, rest: &'t str, first: char) -> Option<&'t str> {
        let close = closing(first)?;
        // An apostrophe is not a quote.
        if first == '\'' && self.out.ends_with(char::is_alphanumeric) {
            return None;
        }
        let inner = &rest[first.len_utf8()..];
        let end = inner.char_indices().take(QUOTED).find(|(at, char)| {
            *char == close && (close != '\'' || !inner[at + 1..].starts_with(char::is_alphanumeric))
        });
        end.map(|(at, _)| &inner[..at])
    }

    fn quote(&mut self, open: char, inner: &str) {
        let name = open == '`' || open == '"' && NAMES.contains(&self.word_before().as_str());
        let close = closing(open).unwrap_or(open);
        if name {
            self.out.push(open);
            self.text(inner);
            self.out.push(close);
        } else {
            self.unit(&format!("{open}{VALUE}{close}"));
        }
    }

    fn word(&mut self, word: &str) {
        if let Some((scheme, _)) = word.split_once("://").filter(|(scheme, _)| !scheme.is_empty()) {
            let at = scheme.len() + "://".len();
            self.url(&word[..at], &word[at..]);
        } else if let Some((key, value)) = word.split_once('=').filter(|(key, _)| !key.is_empty()) {
            self.word(key);
            self.push("=");
            self.word(value);
        } else if is_place(word) || self.is_code(word) || !is_value(word) {
            self.push(word);
        } else {
            self.value();
        }
    }

    /// Scheme and host, and the parts of the path that are not values.
    fn url(&mut self, scheme: &str, rest: &str) {
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        // A login in the URL is left out.
        let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        self.push(scheme);
        self.push(host);
        for part in path.split('/').filter(|part| !part.is_empty()) {
            self.push("/");
            let version =
                part.strip_prefix('v').is_some_and(|n| n.len() < 3 && n.bytes().all(|b| b.is_ascii_digit()));
            if !version && (is_value(part) || part == VALUE) {
                self.push(VALUE);
                break;
            }
            self.push(part);
        }
    }

    /// Whether the word is a code with few values: a status, an SQLSTATE, an errno.
    fn is_code(&self, word: &str) -> bool {
        let short =
            word.len() <= 5 && word.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
        short && (CODES.contains(&self.word_before().as_str()) || self.out.ends_with("` is "))
    }

    /// The word before the current position, in lower case.
    fn word_before(&self) -> String {
        let before = self.out.trim_end_matches(|char: char| !char.is_alphanumeric());
        let start = before
            .rfind(|char: char| !char.is_alphanumeric())
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        before[start..].to_ascii_lowercase()
    }

    fn push(&mut self, text: &str) {
        self.out.push_str(text);
    }

    fn value(&mut self) {
        self.unit(VALUE);
    }

    /// Adds a value. If it follows another in a list, they become one value, because lists differ in length.
    fn unit(&mut self, unit: &str) {
        if let Some(end) = self.value_end {
            let between = self.out[end..].trim();
            let listed = !self.out[end..].is_empty()
                && (matches!(between, "and" | "or")
                    || between.chars().all(|char| matches!(char, ',' | ';' | '|' | '&' | ' ')));
            if listed && self.out[..end].ends_with(unit) {
                self.out.truncate(end);
                return;
            }
        }
        self.out.push_str(unit);
        self.value_end = Some(self.out.len());
    }
}

/// The quote that ends a text with this opening quote. None if it is not a quote.
fn closing(open: char) -> Option<char> {
    Some(match open {
        '"' | '\'' | '`' => open,
        '“' | '„' => '”',
        '‘' => '’',
        '«' => '»',
        _ => return None,
    })
}

/// The value in PostgreSQL's message about a key, `(email)=(ada@example.com)`, from its `)=(` on.
fn detail(rest: &str) -> Option<&str> {
    let inner = rest.strip_prefix(")=(")?;
    inner.find(')').map(|end| &inner[..end])
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || "_-.@+:/%~=#$\\&?…".contains(char)
}

/// Whether a word differs from event to event: it has a digit, is an address, or looks like an id.
fn is_value(word: &str) -> bool {
    word.chars().any(|char| char.is_numeric() || char == '@' || char == '…') || is_id(word)
}

/// Whether a word without a digit is an id: a prefix, and letters whose case is mixed as in no name.
fn is_id(word: &str) -> bool {
    let Some((prefix, id)) = word.rsplit_once(['_', '-']) else { return false };
    let mixed = id.bytes().skip(1).any(|byte| byte.is_ascii_uppercase())
        && id.bytes().any(|byte| byte.is_ascii_lowercase());
    (1..=6).contains(&prefix.len())
        && id.len() >= 8
        && mixed
        && id.bytes().all(|byte| byte.is_ascii_alphabetic())
}

/// Whether a word is a position in a source file.
fn is_place(word: &str) -> bool {
    SOURCES.iter().any(|ending| word.contains(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn one_group(reasons: &[&str]) {
        let causes: Vec<_> = reasons.iter().map(|reason| cause(reason)).collect();
        assert!(causes.iter().all(|cause| *cause == causes[0]), "{causes:#?}");
    }

    #[track_caller]
    fn groups(reasons: &[&str]) {
        let mut causes: Vec<_> = reasons.iter().map(|reason| cause(reason)).collect();
        causes.sort();
        causes.dedup();
        assert_eq!(causes.len(), reasons.len(), "{causes:#?}");
    }

    #[test]
    fn ids_numbers_addresses_and_values_split_no_group() {
        one_group(&["event evt_01J9Z is too old", "event evt_7 is too old", "event 42 is too old"]);
        one_group(&[
            "no user 0f8fad5b-d9cb-469f-a165-70867728950e",
            "no user 7c9e6679-7425-40de-944b-e07fc1f90ae7",
            "no user usr_kZqWvBTrPl",
            "no user deadbeef01",
            "no user 0xABCDEF12",
            "no user -17.5",
            "no user 1_000_000",
            "no user ada.lovelace@example.com",
        ]);
        one_group(&["bad address 10.0.0.1:5432", "bad address 192.168.7.20:80", "bad address 2001:db8::7"]);
        one_group(&["since 2026-03-01T12:00:00Z", "since 2025-12-31T23:59:59.123+01:00"]);
        one_group(&[
            "no member 'ada' in \"x y\"",
            "no member 'bob c' in \"\"",
            "no member 'it's 5' in \"z\"",
        ]);
        one_group(&["user «ada» is unknown", "user «grüße 🐎» is unknown"]);
        one_group(&["ids 1, 2 and 3 are gone", "ids 7 are gone", "ids 8, 9 are gone"]);
        one_group(&["user_id=42 is gone", "user_id=usr_9 is gone"]);
        one_group(&[
            "Key (email)=(ada@example.com) already exists.",
            "Key (email)=(bob@example.com) already exists.",
            "Key (email)=(bob) already exists.",
        ]);
        one_group(&[
            "the answer to `POST https://a.example/v1/users/42?key=1` is 503",
            "the answer to `POST https://a.example/v1/users/usr_77#x` is 503",
        ]);
        one_group(&[
            "panicked at src/lib.rs:42:5:\nindex out of bounds: the len is 3 but the index is 7",
            "panicked at src/lib.rs:42:5:\nindex out of bounds: the len is 0 but the index is 12",
        ]);
        one_group(&["a\n  b", "a b"]);
    }

    #[test]
    fn what_tells_causes_apart_stays() {
        groups(&[
            "the answer to `GET https://a.example/` is 404",
            "the answer to `GET https://a.example/` is 503",
        ]);
        groups(&["the other side answered 404", "the other side answered 500 Internal Server Error"]);
        groups(&["https://a.example/users/1", "https://b.example/users/1", "https://a.example/orders/1"]);
        groups(&["limit `time` (8 s) reached", "limit `memory` (64 MiB) reached", "limit \"stack\" reached"]);
        groups(&["missing field `email` at line 1", "missing field `name` at line 1"]);
        groups(&[
            "panicked at src/lib.rs:42:5: boom",
            "panicked at src/lib.rs:43:5: boom",
            "panicked at src/lib.rs:43:5: bang",
        ]);
        groups(&["ValueError: boom", "TypeError: boom", "ValueError: bang"]);
        groups(&[
            "violates unique constraint \"users_email_key\"",
            "violates unique constraint \"orders_pkey\"",
        ]);
        groups(&["SQLSTATE 23505", "SQLSTATE 42P01", "error code 23503"]);
        groups(&["refused (os error 111)", "refused (os error 113)"]);
        groups(&["", "nothing"]);
    }

    #[test]
    fn a_cause_without_a_word_is_known() {
        for reason in ["9f2c".repeat(1_000).as_str(), "usr_9f2c", "42, 43", "\"ada\"", "…", "?"] {
            assert!(says_nothing(&cause(reason)), "{reason}: {}", cause(reason));
        }
        for reason in ["", "asked to fail", "no user 42", &"x".repeat(4_000)] {
            assert!(!says_nothing(&cause(reason)), "{reason}: {}", cause(reason));
        }
    }

    #[test]
    fn it_reads_like_the_reason() {
        for (reason, expected) in [
            ("user usr_9f2c (ada@example.com) not found in org 42", "user … (…) not found in org …"),
            ("it can't be: 'ada' isn't there", "it can't be: '…' isn't there"),
            ("see https://ada:pw@a.example/v1/users/42?x=1.", "see https://a.example/v1/users/…."),
            ("asked to fail", "asked to fail"),
            ("an unclosed 'quote", "an unclosed 'quote"),
            ("  padded \t text ", "padded text"),
            ("", ""),
        ] {
            assert_eq!(cause(reason), expected);
        }
    }

    #[test]
    fn a_cause_is_bounded_and_its_own_cause() {
        let pieces = [
            "user ",
            "usr_1",
            "'",
            "\"",
            "`",
            "…",
            " ",
            ",",
            "=",
            "(",
            ")=(",
            "https://",
            "a.example",
            "/",
            "?",
            "42",
            "status 404",
            "limit ",
            "` is ",
            "é",
            "🐎",
            "src/lib.rs:4:2",
            "\n",
            "and ",
            "@",
            "word",
            "“",
            "”",
            ":",
            "://",
        ];
        use std::hash::BuildHasher as _;
        let mut state = std::collections::hash_map::RandomState::new().hash_one(0);
        eprintln!("seed {state}");
        for round in 0..3_000_u32 {
            let mut text = String::new();
            for _ in 0..(round % 80) {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
            }
            let first = cause(&text);
            assert!(first.chars().count() <= LONGEST + 2, "{text:?}: {first:?}");
            assert_eq!(cause(&first), first, "of {text:?}");
        }
        for long in ["x".repeat(100_000), "é ".repeat(50_000), "'".repeat(10_000), "9 ".repeat(10_000)] {
            assert!(cause(&long).chars().count() <= LONGEST + 2);
        }
    }
}
