//! The store: events, deliveries, attempts, key-value data and the outbox, durable.
//!
//! [`Store`] is the handle. Behind it one thread, the committer, turns operations into batches, and an engine
//! makes each batch durable. The handle, the committer and the lanes know no database. An engine does not
//! know the callers that wait for it.
//!
//! ```text
//!   writes, lanes ──Op──► committer ──Batch──► engine ──► disk
//!        ▲                    │  ◄──Committed───┘
//!        └──answers, jobs─────┘
//!   reads ────────────────────────────────────► engine (its own connections)
//! ```
//!
//! | file | contents |
//! | --- | --- |
//! | `writes`, `reads`, `lanes`, `decisions`, `retention` | the handle's methods, by subject |
//! | `catching_up` | how far a sender's list was compared with the store, and what is missing |
//! | `op` | operations and outcomes, as plain data |
//! | `committer`, `shared`, `first_attempts`, `meters` | the committer, and what it publishes |
//! | `engine` | what an engine promises: MUST and SHOULD |
//! | `leases`, `fairness` | parts that an engine may use |
//! | `sqlite` | the SQLite engine: every statement and every connection of the store |
//! | `memory`, `conformance`, `testing` | for tests: a second engine, the suite that each engine passes, fixtures |
//!
//! # What is on disk, and what a restart does
//!
//! A commit is durable before its outcome is reported, so a crash at any point leaves one of these states:
//!
//! | the crash happens | on disk | after the restart |
//! | --- | --- | --- |
//! | before the commit of `accept` | nothing | the sender got no answer, and retries |
//! | after it | the event; its deliveries ready or leased | leased ones are ready again and run; a retry of the sender is a duplicate |
//! | while an attempt runs, or before its completion commits | as above: nothing of the attempt | it runs again from the start, with the same attempt number |
//! | after the commit of the completion | effects, attempt, outbox items and "done", together | nothing is left to run; outbox items are sent |
//! | while an outbox item is being sent | the item, leased | it is sent again, under the same Message-ID |
//! | after a `Retry` has committed | the attempt; the delivery waiting | it runs when it is due, or at once if that time has passed |
//!
//! If a plugin has a database, its attempt has committed there before its completion arrives here;
//! `dispatch/commit.rs` says what a crash in between leaves. The store contributes three things.
//! [`Store::complete_durably`] returns when the completion is on disk. `may_have_run` of a job says whether
//! to look for such a commit. [`Store::done_among`] says which markers are no longer needed.
//!
//! Counters, key sizes and the next numbers are written by the transaction that changes them, so the ledger
//! adds up after any crash. No lease of an earlier process is valid.
//!
//! With less than `min_free` left on the disk, nothing more is accepted, and stored work continues. A full
//! disk fails the batch that met it: nothing of the batch remains, and the store continues. Completions of
//! such a batch are carried over and retried. After any other failed write the state of the disk is unknown:
//! the store refuses everything until a restart reads the disk again.

mod catching_up;
mod committer;
#[cfg(test)]
mod conformance;
mod decisions;
mod engine;
mod error;
mod fairness;
mod first_attempts;
mod histogram;
mod lanes;
mod leases;
#[cfg(test)]
mod memory;
mod meters;
mod op;
mod reads;
mod retention;
mod shared;
mod sqlite;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod time;
mod types;
mod writes;

use std::{path::PathBuf, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

pub use catching_up::{
    CatchUpState, CatchUpStep, EventNames, MAX_MISSING, MissingEvent, StoredHead, StoredHeads,
};
pub use decisions::{
    Begun, DecidedBy, DecisionDetail, DecisionEnd, DecisionFilter, DecisionRun, DecisionSummary, NewDecision,
    OpenDecision,
};
pub use engine::Features;
pub use error::{OpenError, StoreError};
pub use first_attempts::{FirstAttempt, FirstAttempts, Watcher, watch};
pub use lanes::Lane;
pub use meters::{PluginMeters, StoreMeters};
pub use reads::{Entries, Reading, Value};
// Only an engine with a file has these: backups, restores and inspections.
pub use sqlite::{
    Allowed, Backup, BackupError, Contents, CopyError, Inspection, Integrity, KeptOut, LeftoverError,
    PluginDatabases, RestoreError, Restored, Written, empty_log, empty_store_log, inspect, keep_out,
    newest_event, restore, restore_is_unfinished,
};
pub use types::{
    Accepted, AttemptDetail, AuditEntry, AuditFilter, AuditId, Completed, DeadGroup, DeliveryDetail,
    DeliveryFilter, DeliveryPage, DeliveryPlace, DeliverySummary, EventDetail, EventFilter, EventPage,
    EventSummary, LastEvent, Names, Offer, Origin, OutboxFilter, OutboxId, OutboxJob, OutboxResult,
    OutboxSlots, OutboxSummary, Payloads, PluginChange, PluginRecord, PluginRevision, PluginStats,
    PluginUpdate, Point, Recent, StoreStats, TypeStats, Verdict,
};
pub use writes::Submitted;

use posthouse_model::{Env, Usage};

use self::{
    committer::{Command, Reply},
    op::{Op, Outcome},
    reads::{Reads, page},
};

/// The result of a call to the store.
type Answer<T> = Result<T, StoreError>;

/// How to open a store.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The file; a missing folder is created.
    pub path: PathBuf,
    /// How long finished events are kept.
    pub retention: Duration,
    /// The limit of unfinished deliveries; at the limit, events are refused.
    pub max_backlog: u64,
    /// With less free space than this on the disk, events are refused. 0: no limit.
    pub min_free: u64,
    /// With more bytes in use than this, finished events are removed early; none: no limit.
    pub max_size: Option<u64>,
}

/// The handle; cheap to clone. When the last one is dropped the store closes automatically.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    options: StoreOptions,
    env: Env,
    queue: mpsc::Sender<Command>,
    shared: Arc<shared::Shared>,
    walks: Mutex<retention::Walks>,
}

impl Store {
    /// Opens or creates the store, locks it, migrates its schema, makes the leases of an earlier run ready
    /// again, and starts the committer. Blocks meanwhile.
    ///
    /// # Errors
    /// Each [`OpenError`] names the file and the fix.
    pub fn open(options: StoreOptions, env: Env) -> Result<Self, OpenError> {
        let (engine, reads) = sqlite::open(&options, &env)?;
        Self::start(options, env, engine, Reads::Sqlite(reads))
    }

    /// Opens a store of the in-memory engine, whose leases hold for `lease_time`.
    #[cfg(test)]
    fn open_in_memory(
        disk: &Arc<memory::Disk>,
        options: StoreOptions,
        env: Env,
        lease_time: Option<i64>,
    ) -> Result<Self, OpenError> {
        let (engine, reads) = memory::open(Arc::clone(disk), &options, lease_time);
        Self::start(options, env, engine, Reads::Memory(reads))
    }

    fn start(
        options: StoreOptions,
        env: Env,
        engine: impl engine::Engine,
        reads: Reads,
    ) -> Result<Self, OpenError> {
        let shared = Arc::new(shared::Shared::new(reads));
        let queue = committer::start(engine, Arc::clone(&shared), env.clone())
            .map_err(|error| OpenError::Unusable { path: options.path.clone(), reason: error.to_string() })?;
        Ok(Self(Arc::new(Inner { options, env, queue, shared, walks: Mutex::default() })))
    }

    /// Stops the committer: it commits everything queued, closes the engine and releases its lock. Then every
    /// call fails.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`] if the store had stopped before.
    pub async fn close(&self) -> Answer<()> {
        let (reply, closed) = oneshot::channel();
        if self.0.queue.send(Command::Close(reply)).await.is_ok() {
            let _ = closed.await;
        }
        self.failure().map_or(Ok(()), |reason| Err(StoreError::Poisoned(reason)))
    }

    /// Changes with each commit of this process. Without receivers it costs the committer nothing.
    pub fn commits(&self) -> tokio::sync::watch::Receiver<u64> {
        self.shared().commits.subscribe()
    }

    /// Why the store accepts nothing until a restart; none while it accepts events.
    pub fn failure(&self) -> Option<String> {
        self.shared().failure()
    }

    /// The error of the last write, if no write has succeeded since; most likely the disk is full.
    pub fn trouble(&self) -> Option<String> {
        self.shared().trouble()
    }

    /// The number of unfinished deliveries, and its limit.
    pub fn backlog(&self) -> Usage {
        Usage { used: self.shared().unfinished(), limit: self.max_backlog() }
    }

    /// The free space to keep on a disk, in bytes.
    pub fn min_free(&self) -> u64 {
        self.0.options.min_free
    }

    /// Enqueues a command; waits while the queue is full.
    async fn send(&self, command: Command) -> Answer<()> {
        if self.failure().is_some() {
            return Err(self.stopped());
        }
        self.0.queue.send(command).await.map_err(|_| self.stopped())
    }

    /// Reserves a slot in the queue for a later command.
    async fn reserve(&self) -> Answer<mpsc::OwnedPermit<Command>> {
        self.0.queue.clone().reserve_owned().await.map_err(|_| self.stopped())
    }

    /// Runs an operation in a batch, and returns its outcome once it is durable.
    async fn ask(&self, op: Op) -> Answer<Outcome> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Do(op, Reply::Outcome(reply))).await?;
        answer.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// Why the committer did not answer.
    fn stopped(&self) -> StoreError {
        self.shared().stopped()
    }

    fn shared(&self) -> &shared::Shared {
        &self.0.shared
    }

    fn reads(&self) -> &Reads {
        &self.shared().reads
    }

    fn env(&self) -> &Env {
        &self.0.env
    }

    fn walks(&self) -> &Mutex<retention::Walks> {
        &self.0.walks
    }

    fn retention_nanos(&self) -> i64 {
        i64::try_from(self.0.options.retention.as_nanos()).unwrap_or(i64::MAX)
    }

    fn max_backlog(&self) -> u64 {
        self.0.options.max_backlog
    }

    fn max_size(&self) -> Option<u64> {
        self.0.options.max_size
    }
}
