//! Converts values to and from SQLite. SQLite has integers, floats, texts and bytes. The declared type of a
//! column tells what else a value is.
//!
//! | value | stored as | read from a column declared as |
//! | --- | --- | --- |
//! | boolean | 0 or 1 | `BOOLEAN`, `BOOL` |
//! | timestamp | microseconds since 1970 | `TIMESTAMP…`, `DATETIME` |
//! | json | text | `JSON`, `JSONB` |
//! | uuid | text | `UUID` |
//!
//! NaN is refused, because SQLite would store NULL instead.

use rusqlite::types::{ToSqlOutput, Value as Owned, ValueRef};

use crate::Value;

/// The part of a column's declared type that the storage class lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Declared {
    Boolean,
    Timestamp,
    Json,
    Uuid,
    Float,
    Other,
}

impl Declared {
    pub(super) fn of(declared: Option<&str>) -> Self {
        let Some(declared) = declared else { return Self::Other };
        let word = declared.split(['(', ' ']).next().unwrap_or_default().to_ascii_lowercase();
        match word.as_str() {
            "boolean" | "bool" => Self::Boolean,
            "timestamp" | "timestamptz" | "datetime" => Self::Timestamp,
            "json" | "jsonb" => Self::Json,
            "uuid" => Self::Uuid,
            "real" | "double" | "float" | "float4" | "float8" => Self::Float,
            _ => Self::Other,
        }
    }
}

/// Converts a value to a parameter.
pub(super) fn write(value: &Value) -> Result<ToSqlOutput<'_>, String> {
    Ok(ToSqlOutput::Borrowed(match value {
        Value::Null => ValueRef::Null,
        Value::Boolean(boolean) => return Ok(ToSqlOutput::Owned(Owned::Integer((*boolean).into()))),
        Value::Integer(number) | Value::Timestamp(number) => ValueRef::Integer(*number),
        Value::Float(number) if number.is_nan() => {
            return Err("SQLite can't keep the number NaN; pass null or a text".to_owned());
        }
        Value::Float(number) => ValueRef::Real(*number),
        Value::Text(text) | Value::Json(text) | Value::Uuid(text) => ValueRef::Text(text.as_bytes()),
        Value::Bytes(bytes) => ValueRef::Blob(bytes),
    }))
}

/// Reads a value of a column. A text that is not UTF-8 becomes bytes.
pub(super) fn read(value: ValueRef<'_>, declared: Declared) -> Value {
    match (value, declared) {
        (ValueRef::Null, _) => Value::Null,
        (ValueRef::Integer(number @ (0 | 1)), Declared::Boolean) => Value::Boolean(number == 1),
        (ValueRef::Integer(number), Declared::Timestamp) => Value::Timestamp(number),
        // A column with numeric affinity has converted a JSON text to a number.
        (ValueRef::Integer(number), Declared::Json) => Value::Json(number.to_string()),
        (ValueRef::Real(number), Declared::Json) => Value::Json(serde_json::Value::from(number).to_string()),
        (ValueRef::Integer(number), Declared::Float) => Value::Float(number as f64),
        (ValueRef::Integer(number), _) => Value::Integer(number),
        (ValueRef::Real(number), _) => Value::Float(number),
        (ValueRef::Blob(bytes), _) => Value::Bytes(bytes.to_vec()),
        (ValueRef::Text(bytes), declared) => match String::from_utf8(bytes.to_vec()) {
            Err(error) => Value::Bytes(error.into_bytes()),
            Ok(text) => match declared {
                Declared::Json => Value::Json(text),
                Declared::Uuid => Value::Uuid(text),
                Declared::Timestamp => timestamp(&text).map_or(Value::Text(text), Value::Timestamp),
                _ => Value::Text(text),
            },
        },
    }
}

/// Parses a text like the one of SQLite's `CURRENT_TIMESTAMP`, which is UTC.
fn timestamp(text: &str) -> Option<i64> {
    let time = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let civil: jiff::civil::DateTime = text.parse().ok()?;
        Some(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    })?;
    Some(time.as_microsecond())
}
