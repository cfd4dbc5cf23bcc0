//! Decimal integers in the values of `kv`: what an increment reads and what it writes.

/// Why a number can't be added to a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// The value is no decimal integer of 64 bits.
    #[error("the value is no decimal number within 64 bits")]
    NotAnInteger,
    /// The sum is smaller than -2^63 or larger than 2^63 - 1.
    #[error("the sum does not fit a number of 64 bits")]
    OutOfRange,
}

/// Adds a number to a decimal integer. A key that does not exist counts as 0.
///
/// A decimal integer is ASCII text: an optional `+` or `-`, and one or more digits, with leading zeros or
/// without. Nothing else may surround it, not even a space or a line end. Its bounds are those of [`i64`].
/// The sum has no leading zeros and no `+`, so it has at most 20 bytes.
///
/// # Errors
/// [`DecimalError`], and then nothing may be written.
pub fn add_decimal(value: Option<&[u8]>, by: i64) -> Result<Vec<u8>, DecimalError> {
    let number: i64 = match value {
        None => 0,
        Some(value) => std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or(DecimalError::NotAnInteger)?,
    };
    let sum = number.checked_add(by).ok_or(DecimalError::OutOfRange)?;
    Ok(sum.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn added(value: &str, by: i64) -> Result<String, DecimalError> {
        add_decimal(Some(value.as_bytes()), by).map(|sum| String::from_utf8(sum).unwrap())
    }

    #[test]
    fn a_sum_is_written_in_one_way_only() {
        assert_eq!(add_decimal(None, -7).unwrap(), b"-7");
        assert_eq!(add_decimal(None, 0).unwrap(), b"0");
        for (value, by, sum) in [("40", 2, "42"), ("+40", 2, "42"), ("007", 0, "7"), ("-1", 1, "0")] {
            assert_eq!(added(value, by).as_deref(), Ok(sum), "{value} + {by}");
        }
    }

    #[test]
    fn what_is_no_decimal_integer_is_refused() {
        let texts = ["", "-", "+", " 1", "1 ", "1\n", "1.0", "1e3", "0x1", "1_000", "--1", "\u{661}", "ten"];
        for text in texts {
            assert_eq!(added(text, 1), Err(DecimalError::NotAnInteger), "{text:?}");
        }
        assert_eq!(add_decimal(Some(&[0xff]), 1), Err(DecimalError::NotAnInteger));
    }

    #[test]
    fn the_bounds_are_those_of_64_bits() {
        let (least, most) = (i64::MIN.to_string(), i64::MAX.to_string());
        assert_eq!(added(&most, 0).as_deref(), Ok(&*most));
        assert_eq!(added(&least, 0).as_deref(), Ok(&*least));
        assert_eq!(added(&most, 1), Err(DecimalError::OutOfRange));
        assert_eq!(added(&least, -1), Err(DecimalError::OutOfRange));
        assert_eq!(added("9223372036854775808", -1), Err(DecimalError::NotAnInteger));
    }

    proptest! {
        #[test]
        fn a_sum_is_again_a_number_of_at_most_20_bytes(value: i64, by: i64) {
            match (added(&value.to_string(), by), value.checked_add(by)) {
                (Ok(sum), Some(expected)) => {
                    prop_assert!(sum.len() <= 20);
                    prop_assert_eq!(sum, expected.to_string());
                }
                (got, expected) => prop_assert_eq!((got, expected), (Err(DecimalError::OutOfRange), None)),
            }
        }
    }
}
