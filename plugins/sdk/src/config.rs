//! The plugin's own table of config.toml, `[plugin.<name>.config]`.
//!
//! If the table has a mistake, the attempt is rejected with a message that says what to write. After fixing
//! it the operator replays the dead letters.

use std::{fmt::Display, str::FromStr};

use serde::de::DeserializeOwned;

use crate::{Failure, host};

/// Returns a value as text, or none if the key is absent. Values other than strings are returned as JSON.
pub fn get(key: &str) -> Option<String> {
    host::config::get(key)
}

/// Returns a value as text.
///
/// # Errors
/// [`Error::Missing`] if the key is absent or empty.
pub fn require(key: &str) -> Result<String, Error> {
    get(key).filter(|value| !value.is_empty()).ok_or_else(|| Error::Missing(key.to_owned()))
}

/// Returns a value parsed from text, such as a number, or `default` if the key is absent.
///
/// # Errors
/// [`Error::Invalid`] if it does not parse.
pub fn parse_or<T: FromStr<Err: Display>>(key: &str, default: T) -> Result<T, Error> {
    match get(key) {
        None => Ok(default),
        Some(value) => value.parse().map_err(|error: T::Err| Error::invalid(key, error)),
    }
}

/// Returns a value that is an array or a table, or none if the key is absent.
///
/// # Errors
/// [`Error::Invalid`] if it is something else.
pub fn json<T: DeserializeOwned>(key: &str) -> Result<Option<T>, Error> {
    get(key).map(|value| serde_json::from_str(&value).map_err(|error| Error::invalid(key, error))).transpose()
}

/// Returns one text or several, for `"a"` as well as `["a", "b"]`. The result is empty if the key is absent.
///
/// # Errors
/// [`Error::Invalid`] if an array contains anything but texts.
pub fn texts(key: &str) -> Result<Vec<String>, Error> {
    match get(key) {
        None => Ok(Vec::new()),
        Some(value) if value.starts_with('[') => {
            serde_json::from_str(&value).map_err(|error| Error::invalid(key, error))
        }
        Some(value) => Ok(vec![value]),
    }
}

/// A mistake in the plugin's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// This key is required.
    Missing(String),
    /// This key's value does not parse.
    Invalid {
        /// The key.
        key: String,
        /// The problem.
        problem: String,
    },
}

impl Error {
    /// An error that the value of `key` is invalid.
    pub fn invalid(key: &str, problem: impl Display) -> Self {
        Self::Invalid { key: key.to_owned(), problem: problem.to_string() }
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(key) => {
                write!(f, "`{key}` is missing: add a line `{key} = …` to this plugin's ")?;
            }
            Self::Invalid { key, problem } => {
                write!(f, "`{key}` is not valid ({problem}): fix the line `{key} = …` in this plugin's ")?;
            }
        }
        f.write_str("`[plugin.<name>.config]` in config.toml")
    }
}

impl std::error::Error for Error {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::reject(error.to_string())
    }
}
