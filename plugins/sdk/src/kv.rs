//! Keys and values in the plugin's own namespace.
//!
//! An attempt sees its own writes. The host checks at the commit whether another attempt has changed a value
//! that this attempt read. If so, this attempt runs again from the start. So it is safe to read, change and
//! write a value. [`increment`] does not conflict, unless the plugin has a database.

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};

pub use crate::bindings::posthouse::plugin::kv::Entry;
use crate::{bindings::posthouse::plugin::kv::Error as HostError, host};

/// The maximum number of entries in one page.
const PAGE: u32 = 1000;

/// Returns the value of a key.
///
/// # Errors
/// [`Error::InvalidKey`].
pub fn get(key: &str) -> Result<Option<Vec<u8>>, Error> {
    Ok(host::kv::get(key)?)
}

/// Returns the value of a key as text.
///
/// # Errors
/// [`Error::InvalidKey`], [`Error::Unreadable`] if it is not UTF-8.
pub fn get_string(key: &str) -> Result<Option<String>, Error> {
    get(key)?.map(|value| String::from_utf8(value).map_err(|error| Error::unreadable(key, error))).transpose()
}

/// Returns the value of a key, parsed as JSON.
///
/// # Errors
/// [`Error::InvalidKey`], [`Error::Unreadable`] if it is not such JSON.
pub fn get_json<T: DeserializeOwned>(key: &str) -> Result<Option<T>, Error> {
    get(key)?
        .map(|value| serde_json::from_slice(&value).map_err(|error| Error::unreadable(key, error)))
        .transpose()
}

/// Returns the value of a key as a decimal number; 0 if the key is absent.
///
/// # Errors
/// [`Error::InvalidKey`], [`Error::Unreadable`] if it is not a number.
pub fn get_number(key: &str) -> Result<i64, Error> {
    match get_string(key)? {
        None => Ok(0),
        Some(text) => text.parse().map_err(|error| Error::unreadable(key, error)),
    }
}

/// Sets the value of a key.
///
/// # Errors
/// [`Error::InvalidKey`], [`Error::ValueTooLarge`], [`Error::Quota`].
pub fn set(key: &str, value: impl AsRef<[u8]>) -> Result<(), Error> {
    Ok(host::kv::set(key, value.as_ref())?)
}

/// Sets the value of a key to JSON.
///
/// # Errors
/// As for [`set`], and [`Error::Unreadable`] if the value cannot be represented as JSON.
pub fn set_json<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<(), Error> {
    set(key, serde_json::to_vec(value).map_err(|error| Error::unreadable(key, error))?)
}

/// Deletes a key. A missing key is not an error.
///
/// # Errors
/// [`Error::InvalidKey`].
pub fn delete(key: &str) -> Result<(), Error> {
    Ok(host::kv::delete(key)?)
}

/// Adds to a decimal number; an absent one counts as 0.
///
/// # Errors
/// [`Error::InvalidKey`], [`Error::NotAnInteger`], [`Error::Quota`].
pub fn increment(key: &str, by: i64) -> Result<(), Error> {
    Ok(host::kv::increment(key, by)?)
}

/// Returns one page of entries: those whose key starts with `prefix`, after the key `after`, at most `limit`.
///
/// # Errors
/// [`Error::InvalidKey`].
pub fn list(prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<Entry>, Error> {
    Ok(host::kv::list(prefix, after, limit)?)
}

/// Iterates over all entries whose key starts with `prefix`, in the order of their keys. It fetches one page
/// at a time.
pub fn entries(prefix: &str) -> impl Iterator<Item = Result<Entry, Error>> {
    let mut page = Vec::new().into_iter();
    let mut after: Option<String> = None;
    let mut done = false;
    std::iter::from_fn(move || {
        if page.len() == 0 && !done {
            match list(prefix, after.as_deref(), PAGE) {
                Ok(found) => {
                    done = found.len() < PAGE as usize;
                    after = found.last().map(|entry| entry.key.clone());
                    page = found.into_iter();
                }
                Err(error) => {
                    done = true;
                    return Some(Err(error));
                }
            }
        }
        page.next().map(Ok)
    })
}

/// Why a call of this module failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The key is empty, or longer than the limit.
    InvalidKey(String),
    /// The value is longer than the limit.
    ValueTooLarge(String),
    /// The plugin's namespace is full.
    Quota(String),
    /// The value is not a decimal 64-bit integer, or would overflow.
    NotAnInteger(String),
    /// The value does not have the requested type.
    Unreadable(String),
}

impl Error {
    fn unreadable(key: &str, problem: impl fmt::Display) -> Self {
        Self::Unreadable(format!("the value of kv key `{key}` is not what was expected: {problem}"))
    }
}

impl From<HostError> for Error {
    fn from(error: HostError) -> Self {
        match error {
            HostError::InvalidKey(message) => Self::InvalidKey(message),
            HostError::ValueTooLarge(message) => Self::ValueTooLarge(message),
            HostError::Quota(message) => Self::Quota(message),
            HostError::NotAnInteger(message) => Self::NotAnInteger(message),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidKey(message)
            | Self::ValueTooLarge(message)
            | Self::Quota(message)
            | Self::NotAnInteger(message)
            | Self::Unreadable(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}
