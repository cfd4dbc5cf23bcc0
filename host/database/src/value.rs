//! The values between a guest and a database, and the limits of one call.

use posthouse_model::octets;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A parameter or a column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// Nothing.
    Null,
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Float(#[serde(serialize_with = "write_float", deserialize_with = "read_float")] f64),
    /// A text.
    Text(String),
    /// Bytes.
    Bytes(#[serde(with = "octets")] Vec<u8>),
    /// Microseconds since 1970-01-01T00:00:00Z, without leap seconds.
    Timestamp(i64),
    /// JSON text.
    Json(String),
    /// A UUID in its hyphenated form.
    Uuid(String),
}

/// Writes a number as text, since JSON has neither infinities nor NaN.
fn write_float<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn read_float<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

impl Value {
    /// Its size against a limit, in bytes.
    pub(super) fn bytes(&self) -> usize {
        8 + match self {
            Self::Text(text) | Self::Json(text) | Self::Uuid(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            _ => 0,
        }
    }
}

/// The result of a query.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Rows {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// As many values in a row as there are columns.
    pub rows: Vec<Vec<Value>>,
}

/// The limits of one call.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Rows of an answer.
    pub rows: usize,
    /// Bytes of an answer, and of the parameters.
    pub bytes: usize,
}

/// The most parameters of one statement.
const PARAMETERS: usize = 1000;

impl Bounds {
    /// Refuses parameters that exceed a limit.
    pub(super) fn check_parameters(&self, parameters: &[Value]) -> Result<(), String> {
        if parameters.len() > PARAMETERS {
            return Err(format!("{} parameters; {PARAMETERS} is the limit", parameters.len()));
        }
        let bytes: usize = parameters.iter().map(Value::bytes).sum();
        if bytes > self.bytes {
            return Err(format!("the parameters have {bytes} bytes; limit `sql_bytes` is {}", self.bytes));
        }
        Ok(())
    }
}

/// Collects rows up to the limits.
pub(super) struct Gather {
    bounds: Bounds,
    bytes: usize,
    rows: Rows,
}

impl Gather {
    pub(super) fn new(bounds: Bounds, columns: Vec<String>) -> Self {
        let bytes = columns.iter().map(|column| 8 + column.len()).sum();
        Self { bounds, bytes, rows: Rows { columns, rows: Vec::new() } }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// The limit that the row exceeds.
    pub(super) fn push(&mut self, row: Vec<Value>) -> Result<(), String> {
        if self.rows.rows.len() >= self.bounds.rows {
            return Err(format!("the answer has more rows than limit `sql_rows` ({})", self.bounds.rows));
        }
        self.bytes += 8 + row.iter().map(Value::bytes).sum::<usize>();
        if self.bytes > self.bounds.bytes {
            return Err(format!("the answer has more bytes than limit `sql_bytes` ({})", self.bounds.bytes));
        }
        self.rows.rows.push(row);
        Ok(())
    }

    pub(super) fn finish(self) -> Rows {
        self.rows
    }
}
