//! Keys and values of a plugin: the reads of an attempt, the writes that it staged, and the values after the commit.

use super::decimal::{DecimalError, add_decimal};

/// The number that the store gave to the last write of a key. A key that was deleted and set again has
/// another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KvVersion(pub i64);

/// A read of an attempt that must still be valid when it commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvRead {
    /// This key had this version. None means that it did not exist.
    Key {
        /// The key.
        key: String,
        /// Its version when it was read.
        version: Option<KvVersion>,
    },
    /// A listing returned exactly these keys with these versions.
    List {
        /// The prefix of the keys.
        prefix: String,
        /// The key after which it began.
        after: Option<String>,
        /// The number of keys that was asked for.
        limit: u32,
        /// The result, in order.
        found: Vec<(String, KvVersion)>,
    },
}

/// A staged change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvWrite {
    /// The key gets this value.
    Set(Vec<u8>),
    /// The key is deleted.
    Delete,
    /// This is added to the key's decimal number, as [`add_decimal`] does it.
    Add(i64),
}

impl KvWrite {
    /// The value of the key after this write. `before` is the value now. None means that the key does not
    /// exist.
    ///
    /// # Errors
    /// [`DecimalError`] if an addition is not possible.
    pub fn applied(&self, before: Option<&[u8]>) -> Result<Option<Vec<u8>>, DecimalError> {
        match self {
            Self::Set(value) => Ok(Some(value.clone())),
            Self::Delete => Ok(None),
            Self::Add(by) => add_decimal(before, *by).map(Some),
        }
    }
}

/// The new value of one key, as the commit computes it from a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvChange {
    /// The key.
    pub key: String,
    /// Its new value. None deletes it.
    pub value: Option<Vec<u8>>,
    /// How many bytes of keys and values the change adds. It is negative if the change frees some.
    pub delta: i64,
}

impl KvChange {
    /// The change that `write` makes to this key, whose value is `before` now.
    ///
    /// # Errors
    /// [`DecimalError`] if an addition is not possible.
    pub fn of(key: &str, write: &KvWrite, before: Option<&[u8]>) -> Result<Self, DecimalError> {
        let value = write.applied(before)?;
        let size = |value: Option<&[u8]>| value.map_or(0, |value| key.len() as i64 + value.len() as i64);
        let delta = size(value.as_deref()) - size(before);
        Ok(Self { key: key.to_owned(), value, delta })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_the_bytes_that_it_adds_and_frees() {
        let change = |write: KvWrite, before: Option<&str>| {
            KvChange::of("key", &write, before.map(str::as_bytes)).map(|change| (change.value, change.delta))
        };
        let value = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(change(KvWrite::Set(b"new".to_vec()), None), Ok((value("new"), 6)));
        assert_eq!(change(KvWrite::Set(b"new".to_vec()), Some("older")), Ok((value("new"), -2)));
        assert_eq!(change(KvWrite::Set(Vec::new()), None), Ok((value(""), 3)), "an empty value is a value");
        assert_eq!(change(KvWrite::Delete, Some("older")), Ok((None, -8)));
        assert_eq!(change(KvWrite::Delete, None), Ok((None, 0)));
        assert_eq!(change(KvWrite::Add(1), Some("9")), Ok((value("10"), 1)));
        assert_eq!(change(KvWrite::Add(1), None), Ok((value("1"), 4)));
        assert_eq!(change(KvWrite::Add(1), Some("x")), Err(DecimalError::NotAnInteger));
    }
}
