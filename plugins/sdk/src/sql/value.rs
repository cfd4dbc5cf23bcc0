//! Conversion between Rust's types and the values of a statement.
//!
//! The conversion from values is tolerant where the engines differ: SQLite has no type for booleans, times,
//! JSON or UUIDs, and returns an integer or a text instead.

use super::Value;
use crate::Timestamp;

/// A type that can be a parameter.
pub trait ToValue {
    /// The parameter.
    fn to_value(&self) -> Value;
}

/// A type that a column can be read as.
pub trait FromValue: Sized {
    /// The expected type, for messages.
    const WANTED: &'static str;

    /// Converts a value. None if the value has another type.
    fn from_value(value: &Value) -> Option<Self>;
}

/// A time, in microseconds since 1970-01-01T00:00:00Z, which is the precision of databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Micros(pub i64);

impl Micros {
    /// Converts the time of an event, which is in nanoseconds.
    pub fn of(at: Timestamp) -> Self {
        Self((at / 1000) as i64)
    }
}

/// A UUID in its hyphenated form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uuid(pub String);

macro_rules! to_value {
    ($($type:ty, $value:ident => $make:expr;)+) => {
        $(impl ToValue for $type {
            fn to_value(&self) -> Value {
                let $value = self;
                $make
            }
        })+
    };
}

to_value! {
    Value, value => value.clone();
    bool, value => Value::Boolean(*value);
    i64, value => Value::Integer(*value);
    i32, value => Value::Integer((*value).into());
    u32, value => Value::Integer((*value).into());
    f64, value => Value::Float(*value);
    str, value => Value::Text(value.to_owned());
    String, value => Value::Text(value.clone());
    [u8], value => Value::Bytes(value.to_owned());
    Vec<u8>, value => Value::Bytes(value.clone());
    Micros, value => Value::Timestamp(value.0);
    Uuid, value => Value::Uuid(value.0.clone());
    serde_json::Value, value => Value::Json(value.to_string());
}

impl<T: ToValue + ?Sized> ToValue for &T {
    fn to_value(&self) -> Value {
        (**self).to_value()
    }
}

impl<T: ToValue> ToValue for Option<T> {
    fn to_value(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::to_value)
    }
}

macro_rules! from_value {
    ($($type:ty, $wanted:literal: $($pattern:pat => $make:expr),+;)+) => {
        $(impl FromValue for $type {
            const WANTED: &'static str = $wanted;

            fn from_value(value: &Value) -> Option<Self> {
                match value {
                    $($pattern => $make,)+
                    _ => None,
                }
            }
        })+
    };
}

from_value! {
    bool, "a boolean":
        Value::Boolean(value) => Some(*value),
        Value::Integer(value @ 0..=1) => Some(*value == 1);
    i64, "an integer":
        Value::Integer(value) => Some(*value);
    f64, "a number":
        Value::Float(value) => Some(*value),
        Value::Integer(value) => Some(*value as f64);
    String, "text":
        Value::Text(value) | Value::Json(value) | Value::Uuid(value) => Some(value.clone());
    Vec<u8>, "bytes":
        Value::Bytes(value) => Some(value.clone());
    Micros, "a timestamp":
        Value::Timestamp(value) | Value::Integer(value) => Some(Self(*value));
    Uuid, "a UUID":
        Value::Uuid(value) | Value::Text(value) => Some(Self(value.clone()));
    serde_json::Value, "JSON":
        Value::Json(value) | Value::Text(value) => serde_json::from_str(value).ok();
}

impl FromValue for Value {
    const WANTED: &'static str = "anything";

    fn from_value(value: &Value) -> Option<Self> {
        Some(value.clone())
    }
}

impl<T: FromValue> FromValue for Option<T> {
    const WANTED: &'static str = T::WANTED;

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(None),
            some => T::from_value(some).map(Some),
        }
    }
}

/// The type of a value, for messages.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Boolean(_) => "a boolean",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a float",
        Value::Text(_) => "text",
        Value::Bytes(_) => "bytes",
        Value::Timestamp(_) => "a timestamp",
        Value::Json(_) => "JSON",
        Value::Uuid(_) => "a UUID",
    }
}
