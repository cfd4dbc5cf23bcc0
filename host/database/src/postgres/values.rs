//! Converts values to and from PostgreSQL. A parameter is sent as text, and the server parses it by the type
//! that the statement gives it. So a value fits every type that its text fits. A column is received in binary.

use std::{error::Error, fmt};

use bytes::{BufMut as _, BytesMut};
use jiff::{Span, Timestamp, civil};
use tokio_postgres::types::{Format, FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};

use crate::Value;

/// Microseconds from 1970 to 2000, PostgreSQL's epoch.
const EPOCH: i64 = 946_684_800_000_000;

/// A parameter. Its `Debug` shows nothing, because the client library would log it.
pub(super) struct Parameter(pub(super) Value);

impl fmt::Debug for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

type Written = Result<IsNull, Box<dyn Error + Sync + Send>>;

impl ToSql for Parameter {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Written {
        let integer = [Type::INT2, Type::INT4, Type::INT8].contains(ty);
        match &self.0 {
            Value::Null => return Ok(IsNull::Yes),
            Value::Bytes(bytes) if *ty == Type::BYTEA => out.put_slice(bytes),
            Value::Bytes(_) => return Err(format!("bytes can't be passed as {ty}").into()),
            Value::Timestamp(time) if is_timestamp(ty) => {
                out.put_i64(time.checked_sub(EPOCH).ok_or("a timestamp before the earliest of PostgreSQL")?);
            }
            Value::Timestamp(time) => put(out, Timestamp::from_microsecond(*time)?),
            Value::Boolean(boolean) => put(out, boolean),
            Value::Integer(number) => put(out, number),
            Value::Float(number) if integer && number.fract() == 0.0 => put(out, number),
            Value::Float(number) => put(out, format_args!("{number:?}")),
            Value::Text(text) | Value::Json(text) | Value::Uuid(text) => out.put_slice(text.as_bytes()),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, ty: &Type) -> Format {
        match self.0 {
            Value::Bytes(_) if *ty == Type::BYTEA => Format::Binary,
            Value::Timestamp(_) if is_timestamp(ty) => Format::Binary,
            _ => Format::Text,
        }
    }

    to_sql_checked!();
}

fn is_timestamp(ty: &Type) -> bool {
    *ty == Type::TIMESTAMPTZ || *ty == Type::TIMESTAMP
}

fn put(out: &mut BytesMut, text: impl fmt::Display) {
    out.put_slice(text.to_string().as_bytes());
}

/// A value of a column.
pub(super) struct Column(pub(super) Value);

impl<'a> FromSql<'a> for Column {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        read(ty, raw).map(Self).ok_or_else(|| format!("a value of {ty} that can't be read").into())
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(Value::Null))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Whether columns of the type can be read.
pub(super) fn is_known(ty: &Type) -> bool {
    match ty.kind() {
        Kind::Enum(_) => true,
        Kind::Domain(base) => is_known(base),
        _ => {
            matches!(
                *ty,
                Type::BOOL
                    | Type::INT2
                    | Type::INT4
                    | Type::INT8
                    | Type::OID
                    | Type::FLOAT4
                    | Type::FLOAT8
                    | Type::NUMERIC
                    | Type::BYTEA
                    | Type::TIMESTAMP
                    | Type::TIMESTAMPTZ
                    | Type::DATE
                    | Type::TIME
                    | Type::JSON
                    | Type::JSONB
                    | Type::UUID
                    | Type::VOID
            ) || is_text(ty)
        }
    }
}

fn is_text(ty: &Type) -> bool {
    matches!(*ty, Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::XML)
        || ty.name() == "citext"
}

pub(super) fn read(ty: &Type, raw: &[u8]) -> Option<Value> {
    let text = |raw: &[u8]| String::from_utf8(raw.to_vec()).ok();
    match ty.kind() {
        Kind::Enum(_) => return text(raw).map(Value::Text),
        Kind::Domain(base) => return read(base, raw),
        _ => {}
    }
    Some(match *ty {
        Type::BOOL => Value::Boolean(*raw.first()? != 0),
        Type::INT2 => Value::Integer(i16::from_be_bytes(raw.try_into().ok()?).into()),
        Type::INT4 => Value::Integer(i32::from_be_bytes(raw.try_into().ok()?).into()),
        Type::INT8 => Value::Integer(i64::from_be_bytes(raw.try_into().ok()?)),
        Type::OID => Value::Integer(u32::from_be_bytes(raw.try_into().ok()?).into()),
        Type::FLOAT4 => Value::Float(f32::from_be_bytes(raw.try_into().ok()?).into()),
        Type::FLOAT8 => Value::Float(f64::from_be_bytes(raw.try_into().ok()?)),
        Type::NUMERIC => Value::Text(numeric(raw)?),
        Type::BYTEA => Value::Bytes(raw.to_vec()),
        // The two infinities become the earliest and the latest timestamp.
        Type::TIMESTAMP | Type::TIMESTAMPTZ => {
            Value::Timestamp(i64::from_be_bytes(raw.try_into().ok()?).saturating_add(EPOCH))
        }
        Type::DATE => Value::Text(date(i32::from_be_bytes(raw.try_into().ok()?))),
        Type::TIME => Value::Text(time(i64::from_be_bytes(raw.try_into().ok()?))?),
        Type::JSON => Value::Json(text(raw)?),
        Type::JSONB => Value::Json(text(raw.get(1..)?)?),
        Type::UUID => Value::Uuid(uuid(raw)?),
        Type::VOID => Value::Null,
        _ if is_text(ty) => Value::Text(text(raw)?),
        _ => return None,
    })
}

fn uuid(raw: &[u8]) -> Option<String> {
    let digits = hex::encode(raw);
    let parts =
        [digits.get(..8)?, digits.get(8..12)?, digits.get(12..16)?, digits.get(16..20)?, digits.get(20..)?];
    Some(parts.join("-"))
}

fn date(days: i32) -> String {
    match days {
        i32::MAX => "infinity".to_owned(),
        i32::MIN => "-infinity".to_owned(),
        // PostgreSQL's dates reach beyond the years that a `Span` can count.
        days => Span::new()
            .try_days(days)
            .and_then(|span| civil::date(2000, 1, 1).checked_add(span))
            .map_or_else(|_| format!("2000-01-01 + {days} days"), |date| date.to_string()),
    }
}

fn time(microseconds: i64) -> Option<String> {
    // PostgreSQL distinguishes 24:00 from 00:00.
    if microseconds == 86_400_000_000 {
        return Some("24:00:00".to_owned());
    }
    Some(
        civil::Time::midnight()
            .checked_add(Span::new().try_microseconds(microseconds).ok()?)
            .ok()?
            .to_string(),
    )
}

/// A number of any length, in decimal. Its digits are in groups of four.
fn numeric(raw: &[u8]) -> Option<String> {
    let word = |at: usize| Some(u16::from_be_bytes(raw.get(2 * at..2 * at + 2)?.try_into().ok()?));
    let (groups, weight, sign, scale) = (word(0)?, word(1)?.cast_signed(), word(2)?, word(3)?);
    match sign {
        0xC000 => return Some("NaN".to_owned()),
        0xD000 => return Some("Infinity".to_owned()),
        0xF000 => return Some("-Infinity".to_owned()),
        _ => {}
    }
    let group = |at: i32| match usize::try_from(at) {
        Ok(at) if at < usize::from(groups) => word(4 + at).unwrap_or_default(),
        _ => 0,
    };
    let weight = i32::from(weight);
    let mut text = String::from(if sign == 0x4000 { "-" } else { "" });
    let mut whole: String = (0..=weight).map(|at| format!("{:04}", group(at))).collect();
    whole = whole.trim_start_matches('0').to_owned();
    text.push_str(if whole.is_empty() { "0" } else { &whole });
    if scale > 0 {
        // The digits before the first group are zeros.
        let last = weight + i32::from(scale.div_ceil(4));
        let fraction: String = (weight + 1..=last).map(|at| format!("{:04}", group(at))).collect();
        text.push('.');
        text.push_str(fraction.get(..usize::from(scale))?);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_numbers_are_written_out() {
        let number = |weight: i16, sign: u16, scale: u16, groups: &[u16]| {
            let mut raw = Vec::new();
            for word in [groups.len() as u16, weight.cast_unsigned(), sign, scale].iter().chain(groups) {
                raw.extend(word.to_be_bytes());
            }
            numeric(&raw).unwrap()
        };
        assert_eq!(number(0, 0, 0, &[]), "0");
        assert_eq!(number(0, 0x4000, 2, &[12, 3400]), "-12.34");
        assert_eq!(number(1, 0, 0, &[1, 1]), "10001");
        assert_eq!(number(2, 0, 0, &[1]), "100000000");
        assert_eq!(number(-1, 0, 3, &[10]), "0.001");
        assert_eq!(number(-3, 0, 10, &[1200]), "0.0000000012");
        assert_eq!(number(0, 0, 5, &[7]), "7.00000");
    }
}
