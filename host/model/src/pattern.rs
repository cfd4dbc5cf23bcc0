//! Patterns of event types: `user.created`, `membership.*`, `*`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::EventType;

/// Selects event types: one by name, all below a prefix (`membership.*`), or all (`*`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(String);

/// The text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a pattern of event types; examples are `user.created`, `membership.*` and `*`")]
pub struct InvalidPattern(String);

impl Pattern {
    /// Checks a pattern: an event type, a prefix that ends in `.*`, or `*`.
    ///
    /// # Errors
    /// [`InvalidPattern`] if it is none of these.
    pub fn new(text: &str) -> Result<Self, InvalidPattern> {
        let stem = text.strip_suffix(".*").unwrap_or(text);
        if text == "*" || EventType::new(stem).is_ok() {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidPattern(text.to_owned()))
        }
    }

    /// Whether the pattern matches this type.
    pub fn matches(&self, event_type: &EventType) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => event_type.as_str().starts_with(prefix),
            None => event_type.as_str() == self.0,
        }
    }

    /// The text of the pattern.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Pattern {
    type Error = InvalidPattern;
    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        Self::new(&text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> String {
        pattern.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_one_type_a_family_or_all() {
        let created = EventType::new("user.created").unwrap();
        for (pattern, means) in
            [("*", true), ("user.*", true), ("user.created", true), ("use.*", false), ("user.deleted", false)]
        {
            assert_eq!(Pattern::new(pattern).unwrap().matches(&created), means, "{pattern}");
        }
    }

    #[test]
    fn odd_patterns_are_refused() {
        for odd in ["", "**", "user*", "*.created", "user.*.x", ".*"] {
            assert!(Pattern::new(odd).is_err(), "{odd}");
        }
    }
}
