//! Findings about config.toml: what is wrong, at which line and column, and how to fix it. A finding is one
//! line and never shows a secret.

use std::{fmt, path::PathBuf};

/// Why config.toml was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("`{path}` can't be read: {reason}; name the configuration with --config FILE")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        reason: String,
    },
    /// Everything that is wrong, in the order of the file, one line each.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Wrong(Vec<Finding>),
}

/// A finding at a position in config.toml: `config.toml:3:1: unknown key …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, by the name that the user gave.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The character within the line, from 1.
    pub column: usize,
    /// The problem, and how to fix it.
    pub message: String,
}

impl Finding {
    /// A finding at a byte offset of the text.
    pub(super) fn at(file: impl Into<PathBuf>, text: &str, byte: usize, message: String) -> Self {
        let before = text.get(..byte.min(text.len())).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            file: file.into(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file.display(), self.line, self.column, self.message)
    }
}

/// The candidate that `word` most likely means; none if no candidate is close.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, candidate)| *distance <= 1.max(word.len().max(candidate.len()) / 3))
        .map(|(_, candidate)| candidate)
}

/// The words as a list for a sentence: "`a`, `b` and `c`".
pub(super) fn listed(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.as_slice() {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// A user's text for one line: escaped, and cut to 60 characters.
pub fn shown(text: &str) -> String {
    const MOST: usize = 60;
    let cut: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST).is_some() { cut + "…" } else { cut }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let text = "a = 1\n# ä\nbé = 2";
        let place = |byte| {
            let finding = Finding::at("f", text, byte, String::new());
            (finding.line, finding.column)
        };
        assert_eq!(place(0), (1, 1));
        assert_eq!(place(4), (1, 5));
        assert_eq!(place(text.find("bé").unwrap()), (3, 1));
        assert_eq!(place(text.find("= 2").unwrap()), (3, 4));
        assert_eq!(place(usize::MAX), (3, 7));
    }

    #[test]
    fn the_nearest_is_near() {
        let keys = ["listen", "max_body", "max_requests"];
        assert_eq!(nearest("lisen", keys), Some("listen"));
        assert_eq!(nearest("max-body", keys), Some("max_body"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest("x", []), None);
    }

    #[test]
    fn what_is_shown_stays_on_one_line() {
        assert_eq!(shown("a\nb"), "a\\nb");
        assert_eq!(shown(&"ä".repeat(100)), "ä".repeat(60) + "…");
        assert_eq!(listed(&["a", "b", "c"]), "`a`, `b` and `c`");
    }
}
