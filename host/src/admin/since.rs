//! Times as people write them: `24h`, `7d`, `1h 30m`, or an RFC 3339 timestamp.

use std::{fmt, str::FromStr, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A moment in the past: so long ago, or this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Since {
    /// So long before now.
    Ago(Duration),
    /// Then.
    At(Timestamp),
}

/// The text is no such time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no time; `24h`, `7d` and `2026-03-01T12:00:00Z` are")]
pub struct ParseSinceError(String);

impl Since {
    /// The moment it means when it is `now`; the beginning of time where it is further back.
    pub fn before(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(then) => then,
            Self::Ago(span) => now.saturating_sub(span).unwrap_or(Timestamp::MIN),
        }
    }
}

impl FromStr for Since {
    type Err = ParseSinceError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        text.parse().map(Self::At).or_else(|_| {
            humantime::parse_duration(text).map(Self::Ago).map_err(|_| ParseSinceError(text.to_owned()))
        })
    }
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ago(span) => humantime::format_duration(*span).fmt(f),
            Self::At(then) => then.fmt(f),
        }
    }
}

impl TryFrom<String> for Since {
    type Error = ParseSinceError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Since> for String {
    fn from(since: Since) -> String {
        since.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_timestamps_are_times() {
        let now: Timestamp = "2026-03-08T12:00:00Z".parse().unwrap();
        for (text, then) in [
            ("24h", "2026-03-07T12:00:00Z"),
            ("7d", "2026-03-01T12:00:00Z"),
            ("1h 30m", "2026-03-08T10:30:00Z"),
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
            ("2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05Z"),
        ] {
            let since: Since = text.parse().unwrap();
            assert_eq!(since.before(now), then.parse().unwrap(), "{text}");
            assert_eq!(since.to_string().parse::<Since>().unwrap(), since, "{text}");
        }
        assert_eq!("500000000d".parse::<Since>().unwrap().before(now), Timestamp::MIN);
    }

    #[test]
    fn other_texts_are_not() {
        for odd in ["", "yesterday", "-1h", "24", "7 parsecs", "2026-13-01T00:00:00Z"] {
            let error = odd.parse::<Since>().unwrap_err().to_string();
            assert!(error.contains(odd), "{error}");
        }
    }
}
