//! The changes of an attempt. They are staged while the guest runs, and committed with "delivery done" or
//! dropped.

use std::collections::BTreeMap;

use super::{Derived, KvRead, KvWrite, OutboxItem};

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
