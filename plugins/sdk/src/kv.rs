//! Keys and values in the plugin's own name space.
//!
//! An attempt sees its own writes. What it read is checked when it commits: if another attempt changed
//! it meanwhile, this one runs again from the start, so reading, changing and writing is safe.
//! [`increment`] never runs into that.

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};

pub use crate::bindings::posthouse::plugin::kv::Entry;
use crate::{bindings::posthouse::plugin::kv::Error as HostError, host};

/// The most entries that come with one listing.
const PAGE: u32 = 1000;

/// The value of a key.
///
/// # Errors
/// [`Error::InvalidKey`].
pub fn get(key: &str) -> Result<Option<Vec<u8>>, Error> {
    Ok(host::kv::get(key)?)
}

/// The value of a key, which is text.
///
/// # Errors
/// [`Error::InvalidKey`], [`Error::Unreadable`] where it is not UTF-8.
pub fn get_string(key: &str) -> Result<Option<String>, Error> {
    get(key)?.map(|value| String::from_utf8(value).map_err(|error| Error::unreadable(key, error))).transpose()
}

/// The value of a key, which is JSON.
///
/// # Errors
/// [`Error::InvalidKey`], [`Error::Unreadable`] where it is not such JSON.
pub fn get_json<T: DeserializeOwned>(key: &str) -> Result<Option<T>, Error> {
    get(key)?
        .map(|value| serde_json::from_slice(&value).map_err(|error| Error::unreadable(key, error)))
        .transpose()
}

/// The value of a key, which is a decimal number; 0 where the key is absent.
///
/// # Errors
/// [`Error::InvalidKey`], [`Error::Unreadable`] where it is no number.
pub fn get_number(key: &str) -> Result<i64, Error> {
    match get_string(key)? {
        None => Ok(0),
        Some(text) => text.parse().map_err(|error| Error::unreadable(key, error)),
    }
}

/// Gives a key a value.
///
/// # Errors
/// [`Error::InvalidKey`], [`Error::ValueTooLarge`], [`Error::Quota`].
pub fn set(key: &str, value: impl AsRef<[u8]>) -> Result<(), Error> {
    Ok(host::kv::set(key, value.as_ref())?)
}

/// Gives a key a value, as JSON.
///
/// # Errors
/// As of [`set`], and [`Error::Unreadable`] where there is no JSON for it.
pub fn set_json<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<(), Error> {
    set(key, serde_json::to_vec(value).map_err(|error| Error::unreadable(key, error))?)
}

/// Deletes a key; that it is not there is no error.
///
/// # Errors
/// [`Error::InvalidKey`].
pub fn delete(key: &str) -> Result<(), Error> {
    Ok(host::kv::delete(key)?)
}

/// Adds to a decimal number, an absent one being 0.
///
/// # Errors
/// [`Error::InvalidKey`], [`Error::NotAnInteger`], [`Error::Quota`].
pub fn increment(key: &str, by: i64) -> Result<(), Error> {
    Ok(host::kv::increment(key, by)?)
}

/// One page of entries: those whose key starts with `prefix`, after the key `after`, at most `limit`.
///
/// # Errors
/// [`Error::InvalidKey`].
pub fn list(prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<Entry>, Error> {
    Ok(host::kv::list(prefix, after, limit)?)
}

/// Every entry whose key starts with `prefix`, in the order of their keys, fetched by the page.
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
    /// The plugin's name space is full.
    Quota(String),
    /// What stands there is no decimal number within 64 bits, or would leave them.
    NotAnInteger(String),
    /// What stands there is not what the caller wanted.
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
