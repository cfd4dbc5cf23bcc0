//! `kv` of plugins that have a database: rows of `posthouse_kv`, in the attempt's own transaction.
//!
//! What an attempt writes is staged until it commits, as in the store; then the transaction writes it. The
//! reads need no check of their own: the transaction is serializable.
//!
//! The size of a plugin's data is counted once from the rows, and from then on by what commits. To count
//! it within a transaction would make every write of the plugin conflict with every other.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::model::KvWrite;

/// What an attempt has staged.
#[derive(Debug, Clone, Default)]
pub(super) struct Written {
    pub(super) plugin: String,
    pub(super) writes: BTreeMap<String, KvWrite>,
    /// The most bytes that the plugin's data may have afterwards.
    pub(super) most: u64,
    pub(super) sizes: Sizes,
}

/// What becomes of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) key: String,
    pub(super) value: Option<Vec<u8>>,
}

impl Written {
    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// What the writes come to, `before` telling what stands under a key. None: they are not possible any
    /// more, or would go over the limit; the attempt has to see that for itself.
    pub(super) fn changes<E>(
        &self,
        mut before: impl FnMut(&str) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Option<(Vec<Change>, i64)>, E> {
        let mut changes = Vec::with_capacity(self.writes.len());
        let mut delta = 0;
        for (key, write) in &self.writes {
            let before = before(key)?;
            let value = match write {
                KvWrite::Set(value) => Some(value.clone()),
                KvWrite::Delete => None,
                KvWrite::Add(by) => match sum(before.as_deref(), *by) {
                    Some(sum) => Some(sum),
                    None => return Ok(None),
                },
            };
            let size = |value: Option<&Vec<u8>>| value.map_or(0, |value| (key.len() + value.len()) as i64);
            delta += size(value.as_ref()) - size(before.as_ref());
            changes.push(Change { key: key.clone(), value });
        }
        let most = i64::try_from(self.most).unwrap_or(i64::MAX);
        let over = delta > 0 && self.sizes.get(&self.plugin).is_some_and(|bytes| bytes + delta > most);
        Ok((!over).then_some((changes, delta)))
    }
}

/// The number that stands there, and what is added to it.
fn sum(before: Option<&[u8]>, by: i64) -> Option<Vec<u8>> {
    let base: i64 = match before {
        Some(value) => std::str::from_utf8(value).ok()?.parse().ok()?,
        None => 0,
    };
    Some(base.checked_add(by)?.to_string().into_bytes())
}

/// Bytes of each plugin's keys and values, as far as they were counted.
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
