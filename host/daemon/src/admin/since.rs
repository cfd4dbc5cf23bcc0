//! Parses times as people write them: a date, a date with a time, `today`, `yesterday`, `7d`, RFC 3339,
//! seconds since 1970.
//!
//! The command line, the search form and the API all read times here. A time without a zone is UTC, because
//! posthouse shows every time in UTC.

use std::{fmt, str::FromStr, time::Duration};

use jiff::{
    SignedDuration, Timestamp, ToSpan,
    civil::{Date, DateTime, Time},
    tz::{Offset, TimeZone},
};
use serde::{Deserialize, Serialize};

/// The number of digits of a number of seconds since 1970.
const SECONDS_DIGITS: std::ops::RangeInclusive<usize> = 9..=11;
/// The number of digits of a number of milliseconds since 1970.
const MILLIS_DIGITS: std::ops::RangeInclusive<usize> = 12..=14;

/// A limit of a time range, as a person wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Since {
    /// This long before now.
    Ago(Duration),
    /// A point in time.
    At(Timestamp),
    /// A whole day, UTC.
    Day(Date),
    /// A whole day, UTC, counted back from today: 0 is today, 1 is yesterday.
    DaysBack(u8),
}

/// The text is not a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a time; write `2h`, `7d`, `today`, `yesterday`, `2026-11-30`, `2026-11-30 14:00` (UTC), \
     `2026-11-30T14:00:00+01:00` or seconds since 1970"
)]
pub struct ParseSinceError(String);

impl Since {
    /// The start of a range that begins with this: for a day, its first moment. `Timestamp::MIN` if it is
    /// further back than a timestamp can be.
    pub fn start(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(then) => then,
            Self::Ago(span) => now.saturating_sub(span).unwrap_or(Timestamp::MIN),
            Self::Day(date) => midnight(date),
            Self::DaysBack(days) => midnight(day_before(now, days)),
        }
    }

    /// The end of a range that ends with this: for a day, its last moment. So `since` and `until` with the
    /// same date select that date.
    pub fn end(self, now: Timestamp) -> Timestamp {
        let last = |date: Date| {
            let next = date.tomorrow().map_or(Timestamp::MAX, midnight);
            next.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(next)
        };
        match self {
            Self::At(_) | Self::Ago(_) => self.start(now),
            Self::Day(date) => last(date),
            Self::DaysBack(days) => last(day_before(now, days)),
        }
    }
}

fn midnight(date: Date) -> Timestamp {
    date.to_zoned(TimeZone::UTC).map_or(Timestamp::MIN, |midnight| midnight.timestamp())
}

fn day_before(now: Timestamp, days: u8) -> Date {
    let today = now.to_zoned(TimeZone::UTC).date();
    today.saturating_sub(i64::from(days).days())
}

impl FromStr for Since {
    type Err = ParseSinceError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        read(text).ok_or_else(|| ParseSinceError(text.chars().take(60).collect()))
    }
}

fn read(text: &str) -> Option<Since> {
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "now" => return Some(Since::Ago(Duration::ZERO)),
        "today" => return Some(Since::DaysBack(0)),
        "yesterday" => return Some(Since::DaysBack(1)),
        _ => {}
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return of_number(text);
    }
    let span = lower.strip_suffix("ago").map_or(lower.as_str(), str::trim_end);
    if let Ok(span) = humantime::parse_duration(span) {
        return Some(Since::Ago(span));
    }
    if let Ok(then) = text.parse::<Timestamp>() {
        return Some(Since::At(then));
    }
    let (date, rest) = match text.find([' ', 'T', 't']) {
        Some(at) => (&text[..at], Some(text[at + 1..].trim())),
        None => (text, None),
    };
    let date = date.parse::<Date>().ok()?;
    match rest {
        None => Some(Since::Day(date)),
        Some(rest) => of_day(date, rest),
    }
}

/// Seconds or milliseconds since 1970, told apart by the number of digits. Eight digits are a date.
fn of_number(text: &str) -> Option<Since> {
    if text.len() == 8 {
        return text.parse().ok().map(Since::Day);
    }
    let number: i64 = text.parse().ok()?;
    if SECONDS_DIGITS.contains(&text.len()) {
        Timestamp::from_second(number).ok().map(Since::At)
    } else if MILLIS_DIGITS.contains(&text.len()) {
        Timestamp::from_millisecond(number).ok().map(Since::At)
    } else {
        None
    }
}

/// A time on that day: `14:00`, `14:00:05.5`, followed by nothing, `Z`, `UTC` or an offset such as `+01:00`.
fn of_day(date: Date, text: &str) -> Option<Since> {
    let zone = text.find(['+', '-', 'Z', 'z', 'U', 'u']).unwrap_or(text.len());
    let (time, zone) = (text[..zone].trim(), text[zone..].trim());
    let time: Time = time.parse().ok()?;
    let offset = match zone.to_ascii_uppercase().as_str() {
        "" | "Z" | "UTC" => Offset::UTC,
        zone => offset(zone)?,
    };
    let then = offset.to_timestamp(DateTime::from_parts(date, time)).ok()?;
    Some(Since::At(then))
}

/// Parses `+01:00`, `+0100` or `+01`.
fn offset(text: &str) -> Option<Offset> {
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let digits = digits.replacen(':', "", 1);
    if !matches!(digits.len(), 2 | 4) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let hours: i32 = digits.get(..2)?.parse().ok()?;
    let minutes: i32 =
        digits.get(2..).filter(|rest| !rest.is_empty()).map_or(Some(0), |rest| rest.parse().ok())?;
    (minutes < 60).then_some(())?;
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ago(span) => humantime::format_duration(*span).fmt(f),
            Self::At(then) => then.fmt(f),
            Self::Day(date) => date.fmt(f),
            Self::DaysBack(0) => f.write_str("today"),
            Self::DaysBack(_) => f.write_str("yesterday"),
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

    const NOW: &str = "2026-03-08T12:00:00Z";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn whatever_people_write_for_a_time_is_one() {
        let now = at(NOW);
        for (text, then) in [
            ("now", NOW),
            ("24h", "2026-03-07T12:00:00Z"),
            ("2h ago", "2026-03-08T10:00:00Z"),
            ("7d", "2026-03-01T12:00:00Z"),
            ("1h 30m", "2026-03-08T10:30:00Z"),
            ("today", "2026-03-08T00:00:00Z"),
            ("Yesterday", "2026-03-07T00:00:00Z"),
            ("2026-01-02", "2026-01-02T00:00:00Z"),
            ("20260102", "2026-01-02T00:00:00Z"),
            ("2026-01-02 14:00", "2026-01-02T14:00:00Z"),
            ("2026-01-02T14:00", "2026-01-02T14:00:00Z"),
            ("2026-01-02 14:00Z", "2026-01-02T14:00:00Z"),
            ("2026-01-02 14:00 UTC", "2026-01-02T14:00:00Z"),
            ("2026-01-02 14:00 +02:00", "2026-01-02T12:00:00Z"),
            ("2026-01-02 14:00-0530", "2026-01-02T19:30:00Z"),
            ("2026-01-02 14:00:05.5", "2026-01-02T14:00:05.5Z"),
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
            ("2026-01-02 03:04:05Z", "2026-01-02T03:04:05Z"),
            ("2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05Z"),
            ("1767323045", "2026-01-02T03:04:05Z"),
            ("1767323045678", "2026-01-02T03:04:05.678Z"),
        ] {
            let since: Since = text.parse().unwrap();
            assert_eq!(since.start(now), at(then), "{text}");
            assert_eq!(since.to_string().parse::<Since>().unwrap(), since, "{text}");
        }
        assert_eq!("500000000d".parse::<Since>().unwrap().start(now), Timestamp::MIN);
    }

    #[test]
    fn a_range_that_ends_with_a_day_holds_all_of_it() {
        let now = at(NOW);
        for (text, last) in [
            ("2026-01-02", "2026-01-02T23:59:59.999999999Z"),
            ("yesterday", "2026-03-07T23:59:59.999999999Z"),
            ("today", "2026-03-08T23:59:59.999999999Z"),
            ("2026-01-02 14:00", "2026-01-02T14:00:00Z"),
            ("1h", "2026-03-08T11:00:00Z"),
        ] {
            assert_eq!(text.parse::<Since>().unwrap().end(now), at(last), "{text}");
        }
    }

    #[test]
    fn other_texts_are_not_and_the_error_shows_what_is() {
        for odd in [
            "",
            "tomorrow",
            "-1h",
            "24",
            "7 parsecs",
            "2026-13-01",
            "2026-02-30 10:00",
            "2026-01-02 25:00",
            "2026-01-02 14:00 CET",
            "2026-01-02 14:00+1",
            "2026-01-02 14:00+01:99",
            "2026-13-01T00:00:00Z",
            "ago",
            "99999999999999999999",
            "2026-01-02 ä",
            "ä",
        ] {
            let error = odd.parse::<Since>().unwrap_err().to_string();
            assert!(error.contains(odd) && error.contains("`yesterday`"), "{error}");
        }
    }
}
