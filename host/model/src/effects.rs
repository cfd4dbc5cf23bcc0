//! The changes of an attempt. They are staged while the guest runs, and committed with "delivery done" or
//! dropped.

use std::collections::BTreeMap;

use super::{Derived, OutboxItem};

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
    /// This is added to the key's decimal number. A key that does not exist counts as 0.
    Add(i64),
}

/// Everything that an attempt changed, and the reads that it relied on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// Reads that must still be valid.
    pub reads: Vec<KvRead>,
    /// Changes, by key.
    pub writes: BTreeMap<String, KvWrite>,
    /// Items that leave after the commit, in the order staged.
    pub outbox: Vec<OutboxItem>,
    /// Derived events, in the order staged.
    pub emitted: Vec<Derived>,
    /// The most bytes that all keys and values of the plugin may have after the commit. None means no limit.
    pub kv_limit: Option<u64>,
}
