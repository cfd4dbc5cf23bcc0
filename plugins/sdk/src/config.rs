//! The plugin's own table of config.toml, `[plugin.<name>.config]`.
//!
//! A mistake in it is refused for good, with a message that says what to write: after mending it the
//! operator replays the dead letters.

use std::{fmt::Display, str::FromStr};

use serde::de::DeserializeOwned;

use crate::{Failure, host};

/// A value as text, or none where the key is absent. What is no string in config.toml comes as JSON.
pub fn get(key: &str) -> Option<String> {
    host::config::get(key)
}

/// A value as text.
///
/// # Errors
/// [`Error::Missing`] where the key is absent or empty.
pub fn require(key: &str) -> Result<String, Error> {
    get(key).filter(|value| !value.is_empty()).ok_or_else(|| Error::Missing(key.to_owned()))
}

/// A value that is parsed from text, such as a number; or `default` where the key is absent.
///
/// # Errors
/// [`Error::Invalid`] where it does not parse.
pub fn parse_or<T: FromStr<Err: Display>>(key: &str, default: T) -> Result<T, Error> {
    match get(key) {
        None => Ok(default),
        Some(value) => value.parse().map_err(|error: T::Err| Error::invalid(key, error)),
    }
}

/// A value that is an array or a table, or none where the key is absent.
///
/// # Errors
/// [`Error::Invalid`] where it is something else.
pub fn json<T: DeserializeOwned>(key: &str) -> Result<Option<T>, Error> {
    get(key).map(|value| serde_json::from_str(&value).map_err(|error| Error::invalid(key, error))).transpose()
}

/// One text or several: `"a"` as well as `["a", "b"]`. None where the key is absent.
///
/// # Errors
/// [`Error::Invalid`] where an array holds something else than texts.
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
    /// This key is needed.
    Missing(String),
    /// This key's value does not parse.
    Invalid {
        /// Which.
        key: String,
        /// What is wrong.
        problem: String,
    },
}

impl Error {
    /// The value of `key` is of no use.
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
                write!(f, "`{key}` is of no use ({problem}): mend the line `{key} = …` in this plugin's ")?;
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
