//! `Retry-After`: how long the other side asks clients to wait (RFC 9110, 10.2.3).

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

/// The wait in a `Retry-After`: a number of seconds, or the time until a date. None if it cannot be parsed. A
/// number that is too large becomes the longest duration. A date in the past means no wait.
pub fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(text.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    Some(until.duration_since(SystemTime::from(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read_and_nothing_overflows() {
        let after = |text: &str| {
            retry_after(text, "2026-03-01T12:00:00Z".parse().unwrap()).map(|wait| wait.as_secs())
        };
        assert_eq!([after("17"), after(" 0 "), after("00017")], [Some(17), Some(0), Some(17)]);
        assert_eq!([after("18446744073709551615"), after("99999999999999999999999")], [Some(u64::MAX); 2]);
        assert_eq!(after("Sun, 01 Mar 2026 12:00:30 GMT"), Some(30));
        assert_eq!(after("Sunday, 01-Mar-26 12:01:00 GMT"), Some(60));
        assert_eq!(after("Sun Mar  1 12:00:05 2026"), Some(5));
        assert_eq!(after("Sun, 01 Mar 2026 11:00:00 GMT"), Some(0));
        for odd in ["soon", "-1", "+1", "1.5", "", "1 s", "\u{e9}", "Sun, 99 Mar 2026 12:00:30 GMT"] {
            assert_eq!(after(odd), None, "{odd}");
        }
    }
}
