//! State that the handle and the committer share: whether the store works, and its counters.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::RwLock;
use posthouse_model::PluginId;
use tokio::sync::watch;

use super::{StoreError, meters::Meters, reads::Reads};

pub(super) struct Shared {
    pub(super) reads: Reads,
    failure: OnceLock<String>,
    kv_bytes: RwLock<HashMap<PluginId, u64>>,
    unfinished: AtomicU64,
    trouble: RwLock<Option<String>>,
    oversize: AtomicBool,
    /// The counters for the metrics.
    pub(super) meters: Arc<Meters>,
    /// Counts the commits, for readers that want to see what is new.
    pub(super) commits: watch::Sender<u64>,
}

impl Shared {
    pub(super) fn new(reads: Reads) -> Self {
        Self {
            reads,
            failure: OnceLock::new(),
            kv_bytes: RwLock::default(),
            unfinished: AtomicU64::new(0),
            trouble: RwLock::default(),
            oversize: AtomicBool::new(false),
            meters: Arc::default(),
            commits: watch::Sender::new(0),
        }
    }

    /// Whether more is in use than `max_size`, and no event may be removed.
    pub(super) fn is_oversize(&self) -> bool {
        self.oversize.load(Ordering::Relaxed)
    }

    pub(super) fn publish_oversize(&self, oversize: bool) {
        self.oversize.store(oversize, Ordering::Relaxed);
    }

    /// Why nothing is written any more.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.get().cloned()
    }

    /// Why the last write was rolled back, until one succeeds.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.read().clone()
    }

    pub(super) fn publish_trouble(&self, trouble: Option<String>) {
        *self.trouble.write() = trouble;
    }

    /// Stops all writing until a restart. Returns the first reason given.
    pub(super) fn poison(&self, reason: String) -> String {
        self.failure.get_or_init(|| reason).clone()
    }

    /// Ends all reads.
    pub(super) fn close(&self) {
        self.reads.close();
    }

    /// Why the committer did not answer.
    pub(super) fn stopped(&self) -> StoreError {
        match self.failure() {
            Some(reason) => StoreError::Poisoned(reason),
            None => StoreError::Closed,
        }
    }

    pub(super) fn kv_bytes(&self, plugin: PluginId) -> u64 {
        self.kv_bytes.read().get(&plugin).copied().unwrap_or(0)
    }

    pub(super) fn publish_kv_bytes(&self, sizes: impl IntoIterator<Item = (PluginId, u64)>) {
        let mut sizes = sizes.into_iter().peekable();
        if sizes.peek().is_some() {
            self.kv_bytes.write().extend(sizes);
        }
    }

    /// Deliveries that were neither done nor dead at the last commit.
    pub(super) fn unfinished(&self) -> u64 {
        self.unfinished.load(Ordering::Relaxed)
    }

    pub(super) fn publish_unfinished(&self, unfinished: u64) {
        self.unfinished.store(unfinished, Ordering::Relaxed);
    }
}
