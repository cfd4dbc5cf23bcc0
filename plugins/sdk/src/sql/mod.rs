//! SQL on the one database that config.toml grants: `database = "app"`.
//!
//! All statements of an attempt, and its `kv`, are one transaction. The host commits it when `handle` returns
//! `Ok`, together with the staged mails, requests and events. Otherwise it rolls it back. The same statements
//! run on SQLite and on PostgreSQL if they use only what both have: `$1` for parameters,
//! `INSERT … ON CONFLICT … DO UPDATE … RETURNING`, and the types `TEXT`, `BIGINT`, `DOUBLE PRECISION` and
//! `BOOLEAN`.
//!
//! ```
//! use posthouse_sdk::{Failure, sql};
//!
//! fn rename(user: &str, name: Option<&str>) -> Result<Option<String>, Failure> {
//!     sql::execute("UPDATE users SET name = $2 WHERE id = $1", &[&user, &name])?;
//!     let row = sql::query_row("SELECT email FROM users WHERE id = $1", &[&user])?;
//!     Ok(row.map(|row| row.get("email")).transpose()?)
//! }
//! ```

mod migrations;
mod value;

use std::fmt;

pub use migrations::Migrations;
pub use value::{FromValue, Micros, ToValue, Uuid};

pub use crate::bindings::posthouse::plugin::sql::Value;
use crate::{
    bindings::posthouse::plugin::sql::{Error as HostError, Rows as HostRows},
    host,
};

/// Runs one statement and returns its rows.
///
/// # Errors
/// See [`Error`]; the attempt may continue after [`Error::Statement`].
pub fn query(statement: &str, parameters: &[&dyn ToValue]) -> Result<Rows, Error> {
    Ok(Rows(host::sql::query(statement, &values(parameters))?))
}

/// Runs one statement and returns its first row, if there is one.
///
/// # Errors
/// As for [`query`].
pub fn query_row(statement: &str, parameters: &[&dyn ToValue]) -> Result<Option<OwnedRow>, Error> {
    let HostRows { columns, rows } = query(statement, parameters)?.0;
    Ok(rows.into_iter().next().map(|values| OwnedRow { columns, values }))
}

/// Runs one statement and returns the number of rows it changed.
///
/// # Errors
/// As for [`query`].
pub fn execute(statement: &str, parameters: &[&dyn ToValue]) -> Result<u64, Error> {
    Ok(host::sql::execute(statement, &values(parameters))?)
}

fn values(parameters: &[&dyn ToValue]) -> Vec<Value> {
    parameters.iter().map(|parameter| parameter.to_value()).collect()
}

/// The rows that a statement returned.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows(HostRows);

impl Rows {
    /// The rows, in their order.
    pub fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        self.0.rows.iter().map(|values| Row { columns: &self.0.columns, values })
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.0.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.0.rows.is_empty()
    }
}

/// One row of [`Rows`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row<'a> {
    columns: &'a [String],
    values: &'a [Value],
}

impl Row<'_> {
    /// Returns the value in the column of this name.
    ///
    /// # Errors
    /// [`Error::Column`] if there is no such column, or its value has another type.
    pub fn get<T: FromValue>(&self, column: &str) -> Result<T, Error> {
        let index = self.columns.iter().position(|name| name == column);
        let Some(value) = index.and_then(|index| self.values.get(index)) else {
            return Err(Error::Column(format!(
                "there is no column `{column}`; the columns are `{}`",
                self.columns.join("`, `")
            )));
        };
        T::from_value(value).ok_or_else(|| {
            let (wanted, kind) = (T::WANTED, value::kind(value));
            Error::Column(format!("column `{column}` was expected to be {wanted}, and is {kind}"))
        })
    }
}

/// A single row.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnedRow {
    columns: Vec<String>,
    values: Vec<Value>,
}

impl OwnedRow {
    /// Like [`Row::get`].
    ///
    /// # Errors
    /// As for [`Row::get`].
    pub fn get<T: FromValue>(&self, column: &str) -> Result<T, Error> {
        Row { columns: &self.columns, values: &self.values }.get(column)
    }
}

/// Why a call of this module failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Not granted; the message contains the line for config.toml that would allow it.
    Denied(String),
    /// Not exactly one statement, or one that only the host may run, such as `COMMIT`.
    Refused(String),
    /// The database refused the statement and rolled it back; the attempt may continue.
    Statement {
        /// Five characters, as in SQL:2016; `HY000` if the engine gives none.
        sqlstate: String,
        /// The database's message.
        message: String,
    },
    /// A table could not be created or changed. Either the plugin's migration is wrong, or another attempt is
    /// creating the table at the same time. In that case the table exists at the next attempt.
    Migration(String),
    /// More rows, bytes or parameters than one call may pass.
    Limit(String),
    /// The rows have no such column, or its value has another type than the requested one.
    Column(String),
}

impl Error {
    /// The SQLSTATE, if this is the database's error.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Statement { sqlstate, .. } => Some(sqlstate),
            _ => None,
        }
    }

    /// Whether the same call would fail in the same way again. For a statement the SQLSTATE decides: the
    /// statement or a value in it is wrong, or the role lacks a privilege. Any other error may disappear: a
    /// violated constraint may hold once another event has arrived.
    pub(crate) fn is_lasting(&self) -> bool {
        const LASTING: [&str; 5] = ["07", "0A", "21", "22", "42"];
        match self {
            Self::Statement { sqlstate, .. } => LASTING.iter().any(|class| sqlstate.starts_with(class)),
            Self::Migration(_) => false,
            Self::Denied(_) | Self::Refused(_) | Self::Limit(_) | Self::Column(_) => true,
        }
    }
}

impl From<HostError> for Error {
    fn from(error: HostError) -> Self {
        match error {
            HostError::Denied(message) => Self::Denied(message),
            HostError::Refused(message) => Self::Refused(message),
            HostError::Limit(message) => Self::Limit(message),
            HostError::Statement(error) => {
                Self::Statement { sqlstate: error.sqlstate, message: error.message }
            }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Statement { sqlstate, message } => {
                write!(f, "the database says: {message} (SQLSTATE {sqlstate})")
            }
            Self::Denied(message)
            | Self::Refused(message)
            | Self::Migration(message)
            | Self::Limit(message)
            | Self::Column(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests;
