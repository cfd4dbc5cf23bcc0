//! `kv` of plugins that have a database: rows of `posthouse_kv`, within the attempt's own transaction.
//!
//! As in the store, the writes of an attempt are staged until it commits; then the transaction makes them.
//! Reads need no separate check, because the transaction is serializable.
//!
//! The size of a plugin's data is counted once from the rows, and then updated by each commit. If transactions
//! counted it, every write of a plugin would conflict with every other.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;
use posthouse_model::{KvChange, KvWrite};

/// The writes that an attempt has staged.
#[derive(Debug, Clone, Default)]
pub(super) struct Written {
    pub(super) plugin: String,
    pub(super) writes: BTreeMap<String, KvWrite>,
    /// The limit of the plugin's data after the commit, in bytes.
    pub(super) most: u64,
    pub(super) sizes: Sizes,
}

impl Written {
    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// The changes that the writes amount to; `before` returns the current value of a key. None if they are no
    /// longer possible or would exceed the limit; then the attempt has to run again.
    pub(super) fn changes<E>(
        &self,
        mut before: impl FnMut(&str) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Option<(Vec<KvChange>, i64)>, E> {
        let mut changes = Vec::with_capacity(self.writes.len());
        let mut delta = 0;
        for (key, write) in &self.writes {
            let Ok(change) = KvChange::of(key, write, before(key)?.as_deref()) else { return Ok(None) };
            delta += change.delta;
            changes.push(change);
        }
        let most = i64::try_from(self.most).unwrap_or(i64::MAX);
        let over = delta > 0 && self.sizes.get(&self.plugin).is_some_and(|bytes| bytes + delta > most);
        Ok((!over).then_some((changes, delta)))
    }
}

/// The bytes of each plugin's keys and values, if they were counted.
#[derive(Debug, Clone, Default)]
pub(super) struct Sizes(Arc<Mutex<HashMap<String, i64>>>);

impl Sizes {
    pub(super) fn get(&self, plugin: &str) -> Option<i64> {
        self.0.lock().get(plugin).copied()
    }

    pub(super) fn counted(&self, plugin: &str, bytes: i64) -> i64 {
        *self.0.lock().entry(plugin.to_owned()).or_insert(bytes)
    }

    pub(super) fn changed(&self, plugin: &str, delta: i64) {
        if let Some(bytes) = self.0.lock().get_mut(plugin) {
            *bytes += delta;
        }
    }
}
