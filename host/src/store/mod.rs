//! The store: events, deliveries, attempts, key-value data and the outbox, durable.
//!
//! All SQL is below this folder, behind one handle. (contract stub)

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::model::*;
use jiff::Timestamp;
use serde::Serialize;

/// How to open a store.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    pub path: PathBuf,
    pub retention: Duration,
    pub max_backlog: u64,
}

/// Why a store could not be opened. Each message names the file and the way out.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the store `{0}` is locked: another posthouse runs on this folder")]
    Locked(PathBuf),
    #[error("the store `{path}` was written by a newer posthouse (schema {found}, this one knows {known})")]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("the store `{path}` can't be opened: {reason}")]
    Unusable { path: PathBuf, reason: String },
}

/// Why the store did not do what it was asked; nothing of it was written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error("the backlog of {0} unfinished deliveries is at its bound")]
    Backlog(u64),
    #[error("the store has stopped after a failed write: {0}")]
    Poisoned(String),
    #[error("the store could not write: {0}")]
    Io(String),
    #[error("the store is closing")]
    Closed,
}

/// What became of an event that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// On disk, with its deliveries.
    Stored(EventSeq),
    /// Same source and id were seen before; nothing was written.
    Duplicate,
}

/// What a finished attempt asks of the store.
#[derive(Debug)]
pub enum Verdict {
    /// Commit the effects and "done" in one transaction.
    Done(Effects),
    /// Nothing took effect; run again at this time.
    Retry(Timestamp),
    /// Nothing took effect; give up.
    Dead,
}

/// The handle; cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<()>);

impl Store {
    /// Opens or makes the store, takes the folder's lock, migrates, makes every lease of an earlier
    /// run ready again, and starts the writer thread.
    pub fn open(_options: StoreOptions, _ambient: Ambient) -> Result<Self, OpenError> {
        unimplemented!()
    }
    /// Takes in an event with a delivery for each plugin; returns when both are on disk.
    pub async fn accept(&self, _event: NewEvent, _plugins: Vec<PluginId>) -> Result<Accepted, StoreError> {
        unimplemented!()
    }
    /// Opens the lane by which a plugin's leased deliveries come, at most `capacity` at once.
    /// Dropping the lane, or `Lane::close`, gives what it still holds back to the store.
    pub async fn open_lane(&self, _plugin: PluginId, _capacity: usize) -> Result<Lane, StoreError> {
        unimplemented!()
    }
    /// Hands in a finished attempt. Returns when it is queued; the commit follows. On a conflict the
    /// job comes through its lane again at once, `conflicts` one higher, and nothing was written.
    /// A token that no longer holds: nothing is written (counted and logged).
    pub async fn complete(&self, _job: Job, _attempt: Attempt, _verdict: Verdict) -> Result<(), StoreError> {
        unimplemented!()
    }
    /// Gives a job back unrun: ready again, its attempt not counted.
    pub async fn release(&self, _job: Job) -> Result<(), StoreError> {
        unimplemented!()
    }
    /// Returns when all queued before it is committed.
    pub async fn flush(&self) -> Result<(), StoreError> {
        unimplemented!()
    }
    /// Ends the writer: everything queued is committed, the WAL folded in, the lock given up.
    pub async fn close(&self) -> Result<(), StoreError> {
        unimplemented!()
    }
    /// None while the store takes events; else why not (poisoned).
    pub fn failure(&self) -> Option<String> {
        unimplemented!()
    }

    // ---- plugins
    /// The id of a name, made at its first use.
    pub async fn plugin_id(&self, _name: &str) -> Result<PluginId, StoreError> {
        unimplemented!()
    }
    /// Writes down what is known of a plugin.
    pub async fn save_plugin(&self, _plugin: PluginRecord) -> Result<(), StoreError> {
        unimplemented!()
    }
    /// Every plugin ever seen, by name.
    pub async fn plugins(&self) -> Result<Vec<PluginRecord>, StoreError> {
        unimplemented!()
    }
    /// Drops a plugin that is gone, its kv and its unfinished deliveries (which become dead letters).
    pub async fn forget_plugin(&self, _plugin: PluginId) -> Result<(), StoreError> {
        unimplemented!()
    }

    // ---- kv, read while a guest runs (synchronous: microseconds from the page cache)
    pub fn kv_get(&self, _plugin: PluginId, _key: &str) -> Result<Option<(Vec<u8>, KvVersion)>, StoreError> {
        unimplemented!()
    }
    pub fn kv_list(
        &self,
        _plugin: PluginId,
        _prefix: &str,
        _after: Option<&str>,
        _limit: u32,
    ) -> Result<Vec<(String, Vec<u8>, KvVersion)>, StoreError> {
        unimplemented!()
    }
    /// Bytes of all keys and values of the plugin, as committed.
    pub fn kv_bytes(&self, _plugin: PluginId) -> u64 {
        unimplemented!()
    }

    // ---- outbox
    /// Waits until an item is due, then leases up to `limit` of them.
    pub async fn lease_outbox(&self, _limit: usize) -> Result<Vec<OutboxJob>, StoreError> {
        unimplemented!()
    }
    pub async fn complete_outbox(&self, _item: OutboxId, _result: OutboxResult) -> Result<(), StoreError> {
        unimplemented!()
    }

    pub async fn outbox(&self, _filter: OutboxFilter) -> Result<Vec<OutboxSummary>, StoreError> {
        unimplemented!()
    }
    /// Makes given-up items ready again: those named, or all where none is. Returns how many.
    pub async fn replay_outbox(&self, _items: Vec<OutboxId>) -> Result<u64, StoreError> {
        unimplemented!()
    }

    // ---- for people (readers; synchronous inside spawn_blocking)
    pub async fn events(&self, _filter: EventFilter) -> Result<Vec<EventSummary>, StoreError> {
        unimplemented!()
    }
    /// All of one event. `id` alone, or with its source where several sources have it.
    pub async fn event(
        &self,
        _source: Option<SourceName>,
        _id: &str,
    ) -> Result<Vec<EventDetail>, StoreError> {
        unimplemented!()
    }
    pub async fn deliveries(&self, _filter: DeliveryFilter) -> Result<Vec<DeliverySummary>, StoreError> {
        unimplemented!()
    }
    pub async fn count_deliveries(&self, _filter: DeliveryFilter) -> Result<u64, StoreError> {
        unimplemented!()
    }
    /// New deliveries of old events, each linked to the one it replays; returns their ids. Runs in
    /// slices so that the writer stays free.
    pub async fn replay_deliveries(&self, _filter: DeliveryFilter) -> Result<u64, StoreError> {
        unimplemented!()
    }
    /// A new delivery of the event for each of the plugins.
    pub async fn replay_event(
        &self,
        _event: EventSeq,
        _plugins: Vec<PluginId>,
    ) -> Result<Vec<DeliveryId>, StoreError> {
        unimplemented!()
    }
    /// The ledger of deliveries, and the last 24 h by event type.
    pub async fn stats(&self) -> Result<StoreStats, StoreError> {
        unimplemented!()
    }
    /// Removes events finished before `retention` ago, in small slices; returns how many.
    pub async fn prune(&self) -> Result<u64, StoreError> {
        unimplemented!()
    }
}

/// Receives a plugin's jobs.
pub struct Lane(());
impl Lane {
    /// The next leased delivery; none when the lane or the store is closed.
    pub async fn next(&mut self) -> Option<Job> {
        unimplemented!()
    }
    /// Nothing more comes; what was queued and not received becomes ready again.
    pub async fn close(self) {
        unimplemented!()
    }
    /// Jobs received (or queued) whose completion has not committed yet.
    pub fn outstanding(&self) -> usize {
        unimplemented!()
    }
}

/// What is known of a plugin, as the store keeps it.
#[derive(Debug, Clone, Serialize)]
pub struct PluginRecord {
    pub id: PluginId,
    pub name: String,
    /// SHA-256 of the file, hexadecimal; none before a first revision was loaded.
    pub revision: Option<String>,
    pub description: String,
    /// The subscription in force.
    pub events: Vec<Pattern>,
    pub requires: Vec<Capability>,
    /// None: serving.
    pub held: Option<HeldReason>,
    /// What the last load said, where it failed.
    pub last_error: Option<String>,
    /// Pause and resume by an operator; kept beside `held`, which may have other reasons.
    pub paused: bool,
    pub loaded_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct OutboxId(pub i64);

#[derive(Debug, Clone)]
pub struct OutboxJob {
    pub id: OutboxId,
    pub delivery: DeliveryId,
    pub plugin: PluginId,
    pub attempt: u32,
    pub item: OutboxItem,
}

#[derive(Debug, Clone)]
pub enum OutboxResult {
    Sent,
    Retry { due: Timestamp, error: String },
    Dead { error: String },
}

#[derive(Debug, Clone, Default)]
pub struct OutboxFilter {
    pub state: Option<String>,
    pub limit: u32,
    pub before: Option<OutboxId>,
}

#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    pub event_type: Option<Pattern>,
    pub source: Option<String>,
    pub organization: Option<String>,
    pub since: Option<Timestamp>,
    pub limit: u32,
    /// keyset: only events with a smaller seq
    pub before: Option<EventSeq>,
}

#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    pub state: Option<DeliveryState>,
    pub plugin: Option<String>,
    pub event: Option<EventSeq>,
    pub event_type: Option<Pattern>,
    /// finished, or made, since
    pub since: Option<Timestamp>,
    pub limit: u32,
    pub before: Option<DeliveryId>,
}

#[derive(Debug, Clone, Serialize)]
pub struct EventSummary {
    pub seq: EventSeq,
    pub source: String,
    pub id: String,
    #[serde(rename = "type")]
    pub event_type: String,
    pub organization: Option<String>,
    pub occurred_at: Option<Timestamp>,
    pub received_at: Timestamp,
    pub bytes: u64,
    /// number of deliveries by state
    pub deliveries: std::collections::BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Serialize)]
pub struct EventDetail {
    #[serde(flatten)]
    pub summary: EventSummary,
    pub body: String,
    pub history: Vec<DeliveryDetail>,
}

#[derive(Debug, Clone, Serialize)]
pub struct DeliverySummary {
    pub id: DeliveryId,
    pub event: String,
    pub source: String,
    #[serde(rename = "type")]
    pub event_type: String,
    pub plugin: String,
    pub state: DeliveryState,
    /// why it is held
    pub held: Option<HeldReason>,
    pub attempts: u32,
    pub due_at: Option<Timestamp>,
    pub made_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    pub error: Option<String>,
    pub replay_of: Option<DeliveryId>,
}

#[derive(Debug, Clone, Serialize)]
pub struct DeliveryDetail {
    #[serde(flatten)]
    pub summary: DeliverySummary,
    pub attempt_log: Vec<AttemptDetail>,
    pub outbox: Vec<OutboxSummary>,
}

#[derive(Debug, Clone, Serialize)]
pub struct AttemptDetail {
    pub number: u32,
    pub started_at: Timestamp,
    pub duration_us: u64,
    pub outcome: Outcome,
    pub error: Option<String>,
    pub trace: Option<String>,
    pub logs: Vec<LogLine>,
}

#[derive(Debug, Clone, Serialize)]
pub struct OutboxSummary {
    pub id: OutboxId,
    pub delivery: DeliveryId,
    pub kind: String,
    /// addresses and subject of a mail; never its text
    pub summary: String,
    pub state: String,
    pub attempts: u32,
    pub due_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub error: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct StoreStats {
    /// deliveries ever made
    pub made: u64,
    /// by state; the sum must be `made`
    pub states: std::collections::BTreeMap<DeliveryState, u64>,
    pub by_type: Vec<TypeStats>,
    pub outbox: std::collections::BTreeMap<String, u64>,
    pub plugins: Vec<PluginStats>,
    pub conflicts: u64,
    pub lost_leases: u64,
    pub store_bytes: u64,
    pub wal_bytes: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct TypeStats {
    #[serde(rename = "type")]
    pub event_type: String,
    pub total: u64,
    pub completed: u64,
    pub failed: u64,
    pub average_ms: f64,
    pub p99_ms: f64,
}

#[derive(Debug, Clone, Serialize)]
pub struct PluginStats {
    pub plugin: String,
    pub made: u64,
    pub states: std::collections::BTreeMap<DeliveryState, u64>,
    pub oldest_open: Option<Timestamp>,
}
