//! The time of an event, in the formats that senders write.
//!
//! Texts are RFC 3339 with the common liberties: a blank in place of `T`, small letters, offsets without a
//! colon, a name for UTC, any number of digits of a second. Numbers, and texts that are numbers, count from
//! 1970 in seconds, milliseconds, microseconds or nanoseconds. The size determines the unit: within the
//! accepted years, a number is a time in at most one of the four.
//!
//! Anything else is no time, because a wrong time would make an old event look new. Examples are a text
//! without an offset and a date without a time. Another is a year outside of 1990 to 2099, such as the zero
//! value of many languages.

use jiff::{Timestamp, civil::DateTime, tz::Offset};

use super::json;

/// The members of an event that may contain its time. The first member that contains one counts.
///
/// `occurred_at` is Scalekit's own, `timestamp` that of Standard Webhooks, `created_at` that of Scalekit's
/// page. All are members of the body itself: times within `data` are about the object and not the event.
pub const TIME_MEMBERS: [&str; 3] = ["occurred_at", "timestamp", "created_at"];

/// 1990-01-01T00:00:00Z, in nanoseconds since 1970.
const EARLIEST: i128 = 631_152_000_000_000_000;
/// 2100-01-01T00:00:00Z, the first time that is not accepted.
const LATEST: i128 = 4_102_444_800_000_000_000;
/// The longest text that is parsed, in bytes.
const LONGEST: usize = 64;

/// The time in a member's JSON text. None if it is not a time, or not certain to be one.
pub fn event_time(json: &str) -> Option<Timestamp> {
    let json = json.trim_ascii();
    let nanoseconds = match json.as_bytes().first()? {
        b'"' => {
            let text = json::string(json)?;
            return text_time(&text);
        }
        b'0'..=b'9' if json.len() <= LONGEST => count(json),
        _ => None,
    }?;
    Timestamp::from_nanosecond(nanoseconds).ok()
}

/// The time that a text states. None if it is not a time, or not certain to be one.
pub fn text_time(text: &str) -> Option<Timestamp> {
    if text.len() > LONGEST {
        return None;
    }
    let text = text.trim_ascii();
    let nanoseconds = calendar(text).or_else(|| count(text))?;
    Timestamp::from_nanosecond(nanoseconds).ok()
}

fn accepted(nanoseconds: i128) -> Option<i128> {
    (EARLIEST..LATEST).contains(&nanoseconds).then_some(nanoseconds)
}

/// A decimal number of some unit since 1970, in nanoseconds. It is exact: no floating point is involved.
fn count(text: &str) -> Option<i128> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let digits = || whole.bytes().chain(fraction.bytes());
    if whole.is_empty() || !digits().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number =
        digits().try_fold(0i128, |sum, digit| sum.checked_mul(10)?.checked_add(i128::from(digit - b'0')))?;
    let exponent = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    [9, 6, 3, 0].into_iter().find_map(|unit| accepted(shifted(number, exponent.checked_add(unit)?)?))
}

/// `number` × 10^`places`, rounded down. None if that is out of range.
fn shifted(number: i128, places: i32) -> Option<i128> {
    let factor = 10i128.checked_pow(places.unsigned_abs());
    match places {
        0.. => number.checked_mul(factor?),
        _ => factor.map(|factor| number / factor),
    }
}

/// A date, a time and an offset, as nanoseconds since 1970.
fn calendar(text: &str) -> Option<i128> {
    let mut rest = text;
    let year = digits(&mut rest, 4)?;
    let month = after(&mut rest, '-', 2)?;
    let day = after(&mut rest, '-', 2)?;
    rest = rest.strip_prefix(['T', 't', ' '])?;
    let hour = digits(&mut rest, 2)?;
    let minute = after(&mut rest, ':', 2)?;
    // A leap second counts as the second before it.
    let second = after(&mut rest, ':', 2).filter(|second| *second <= 60)?.min(59);
    let mut nanosecond = 0;
    if let Some(fraction) = rest.strip_prefix(['.', ',']) {
        let end = fraction.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(fraction.len());
        if end == 0 {
            return None;
        }
        nanosecond = format!("{:0<9.9}", &fraction[..end]).parse().ok()?;
        rest = &fraction[end..];
    }
    let offset = offset(rest.strip_prefix(' ').unwrap_or(rest))?;
    let part = |number: i32| i8::try_from(number).ok();
    let local = DateTime::new(
        i16::try_from(year).ok()?,
        part(month)?,
        part(day)?,
        part(hour)?,
        part(minute)?,
        part(second)?,
        nanosecond,
    );
    accepted(offset.to_timestamp(local.ok()?).ok()?.as_nanosecond())
}

/// Parses `Z`, `UTC`, `GMT`, `+01:00`, `+0100` or `+01`.
fn offset(text: &str) -> Option<Offset> {
    if ["z", "utc", "gmt"].iter().any(|name| text.eq_ignore_ascii_case(name)) {
        return Some(Offset::UTC);
    }
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let mut rest = &text[1..];
    let hours = digits(&mut rest, 2)?;
    let minutes = match rest {
        "" => 0,
        _ => {
            rest = rest.strip_prefix(':').unwrap_or(rest);
            digits(&mut rest, 2)?
        }
    };
    if !rest.is_empty() || hours > 23 || minutes > 59 {
        return None;
    }
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
}

/// Takes this many digits off the front.
fn digits(rest: &mut &str, many: usize) -> Option<i32> {
    let (taken, left) = rest.split_at_checked(many)?;
    if !taken.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    *rest = left;
    taken.parse().ok()
}

/// Takes a separator and this many digits off the front.
fn after(rest: &mut &str, separator: char, many: usize) -> Option<i32> {
    *rest = rest.strip_prefix(separator)?;
    digits(rest, many)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Option<Timestamp> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn one_moment_in_every_spelling_is_that_moment() {
        for json in [
            r#""2024-01-15T10:30:00Z""#,
            r#""2024-01-15t10:30:00z""#,
            r#""2024-01-15 10:30:00Z""#,
            r#"" 2024-01-15T10:30:00Z ""#,
            r#""2024-01-15T10:30:00.000Z""#,
            r#""2024-01-15T10:30:00,0Z""#,
            r#""2024-01-15T11:30:00+01:00""#,
            r#""2024-01-15T05:00:00-05:30""#,
            r#""2024-01-15 10:30:00+00""#,
            r#""2024-01-15 12:30:00 +0200""#,
            r#""2024-01-15 10:30:00 UTC""#,
            r#""2024-01-15T10:30:00-00:00""#,
            r#""2024-01-15T10:30:00\u005a""#,
            "1705314600",
            "1705314600.0",
            "1705314600000",
            "1705314600000000",
            "1705314600000000000",
            "1.7053146e9",
            "17053146E+2",
            "1705314600000e-3",
            r#""1705314600""#,
            r#""1705314600000""#,
            r#""1705314600.000""#,
        ] {
            assert_eq!(event_time(json), at("2024-01-15T10:30:00Z"), "{json}");
        }
    }

    #[test]
    fn parts_of_a_second_are_kept_to_the_nanosecond() {
        for (json, time) in [
            (r#""2024-01-15T10:30:00.123456789999Z""#, "2024-01-15T10:30:00.123456789Z"),
            (r#""2024-01-15T10:30:00.5+00:00""#, "2024-01-15T10:30:00.5Z"),
            ("1705314600.123456789123", "2024-01-15T10:30:00.123456789Z"),
            ("1705314600123", "2024-01-15T10:30:00.123Z"),
            ("1705314600123.5", "2024-01-15T10:30:00.1235Z"),
            ("1705314600123456", "2024-01-15T10:30:00.123456Z"),
            (r#""1705314600123456789""#, "2024-01-15T10:30:00.123456789Z"),
            (r#""2016-12-31T23:59:60Z""#, "2016-12-31T23:59:59Z"),
            (r#""2099-12-31T23:59:59Z""#, "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!(event_time(json), at(time), "{json}");
        }
    }

    #[test]
    fn what_is_no_time_or_not_certain_to_be_one_is_none() {
        let long = format!("\"{}\"", "1".repeat(1000));
        for json in [
            "",
            "null",
            "true",
            "{}",
            "[1705314600]",
            "0",
            "-1705314600",
            "1",
            "20240115",
            "20240115103000",
            "20240115103000123",
            "99999999999",
            "1e400",
            "1e-400",
            "1e99999999999",
            "99999999999999999999999999999999999999999999",
            r#""""#,
            r#""0""#,
            r#""-1705314600""#,
            r#""0x65a50aa8""#,
            r#""now""#,
            r#""yesterday""#,
            r#""2024-01-15""#,
            r#""2024-01-15T10:30:00""#,
            r#""2024-01-15T10:30Z""#,
            r#""2024-02-30T10:30:00Z""#,
            r#""2024-13-01T10:30:00Z""#,
            r#""2024-01-15T24:00:00Z""#,
            r#""2024-01-15T10:30:61Z""#,
            r#""2024-01-15T10:30:00.Z""#,
            r#""2024-01-15T10:30:00+24:00""#,
            r#""2024-01-15T10:30:00+1:00""#,
            r#""2024-01-15T10:30:00Z!""#,
            r#""0001-01-01T00:00:00Z""#,
            r#""1970-01-01T00:00:00Z""#,
            r#""9999-12-31T23:59:59Z""#,
            r#""２０２４-01-15T10:30:00Z""#,
            r#""\ud800""#,
            &long,
        ] {
            assert_eq!(event_time(json), None, "{json}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(json: String) {
            let _ = event_time(&json);
            let _ = event_time(&format!("{json:?}"));
        }

        #[test]
        fn a_number_is_one_moment_in_all_four_units(second in 631_152_000i64..4_102_444_800) {
            let moment = Timestamp::from_second(second).ok();
            for zeros in ["", "000", "000000", "000000000"] {
                prop_assert_eq!(event_time(&format!("{second}{zeros}")), moment);
                prop_assert_eq!(event_time(&format!("\"{second}{zeros}\"")), moment);
            }
        }
    }
}
