//! The contract of a storage engine.
//!
//! An engine has two halves. [`Session`] writes: the committer's thread owns it and passes it one [`Batch`]
//! at a time. `Reads` answers queries from any thread: `reads.rs` has a method for each query, and an engine
//! has the same methods.
//!
//! ```text
//!   committer ── Batch: now, operations in order, room of each open lane, who waits for outbox items ──► engine
//!             ◄── Committed: an outcome for each, jobs leased here, leases that ended, when to look next ──┘
//!             ◄── Failed: rolled back, and the next batch may succeed; or in doubt, and the store stops
//! ```
//!
//! # Rules for every engine
//!
//! - A batch is all or nothing. It MUST be durable when [`Session::commit`] returns [`Committed`]. After
//!   [`Failed::RolledBack`] nothing of it is stored or remembered.
//! - Operations apply in the order of the batch: a later one MUST see what an earlier one did.
//! - A refused operation MUST leave nothing behind. It refuses itself alone ([`Outcome::Refused`]).
//! - A completion takes effect at most once for each delivery, and only while its job's lease holds. A lease
//!   that does not hold is an outcome (`Completed::LostLease`) and never an error. A lease MAY expire
//!   ([`Features::leases_expire`]); it ends no later than the process that took it.
//! - An attempt takes effect as if it had run alone. If something that it read has changed, the outcome is
//!   `Completed::Conflict`, nothing is written, and the job is among [`Committed::again`].
//! - Of the unfinished deliveries of one plugin and order key only the oldest MAY run.
//! - A job MUST NOT be among [`Committed::jobs`] unless its lease is in the same commit. An engine SHOULD move
//!   an event out of its operation into the job rather than read it back.
//! - Ids grow over time; they need not be contiguous. A reader MAY see a higher id before a lower one.
//! - A read MUST see every commit whose outcome was reported before the read began in this process.
//! - The contract does not assume that this process is the only one. Changes of another process show at the
//!   next commit or read. An engine for a single process refuses a second one.

use std::time::Duration;

use posthouse_model::{Job, OutboxKind, PluginId, Trial};

use super::{
    OutboxJob, OutboxSlots,
    committer::Committer,
    op::{Op, Outcome},
};

/// An open engine, before the committer's thread owns it.
pub(super) trait Engine: Send + 'static {
    /// Opens the session on the calling thread, serves the committer until it ends, then closes. If the
    /// session cannot be opened, the engine reports that to the committer.
    fn run(self, committer: Committer);
}

/// The writing half of an engine, owned by the committer's thread.
pub(super) trait Session {
    /// The values that the committer publishes before the first batch.
    fn opened(&self) -> Opened;

    /// Applies a batch in one transaction.
    ///
    /// The engine MAY take operations out of `batch.ops` and leave [`Op::Nothing`]; it MUST leave every
    /// [`Op::Complete`] and [`Op::ReleaseOutbox`], which the committer carries over if the batch fails.
    fn commit(&mut self, batch: &mut Batch) -> impl Future<Output = Result<Committed, Failed>>;

    /// Work between two batches, requested by [`super::committer::Nudge`].
    fn maintain(&mut self) {}
}

/// The state that an engine found when it opened.
#[derive(Debug, Default)]
pub(super) struct Opened {
    /// Bytes of keys and values by plugin.
    pub(super) kv_bytes: Vec<(PluginId, u64)>,
    /// Unfinished deliveries: neither done nor dead.
    pub(super) unfinished: u64,
}

/// The input of one transaction.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The time of all rows that the transaction writes, in nanoseconds since 1970.
    pub(super) now: i64,
    /// The operations, in the order in which they apply.
    pub(super) ops: Vec<Op>,
    /// The lanes that are open, at most one for each plugin.
    pub(super) rooms: Vec<Room>,
    /// The callers that wait for outbox items; the longest wait first.
    pub(super) waiters: Vec<(OutboxKind, OutboxSlots)>,
}

/// An open lane as an engine sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) plugin: PluginId,
    /// The lane's number. Another lane of the plugin has another number.
    pub(super) lane: u64,
    /// The maximum number of jobs that it may hold.
    pub(super) capacity: usize,
    /// Jobs that it holds when the batch begins.
    pub(super) held: usize,
    /// The deliveries that it takes, if it is the lane of a trial.
    pub(super) trial: Option<Trial>,
}

/// A batch that is durable.
#[derive(Debug, Default)]
pub(super) struct Committed {
    /// One for each operation, in their order.
    pub(super) outcomes: Vec<Outcome>,
    /// Deliveries that the batch leased to this process, oldest first within a lane.
    pub(super) jobs: Vec<Job>,
    /// Jobs with a conflict, which keep their leases, with `conflicts` one higher.
    pub(super) again: Vec<Job>,
    /// The lane of each lease of this process that ended.
    pub(super) ended: Vec<u64>,
    /// The leased items of each waiter, in the order of `Batch::waiters`; empty if it keeps waiting.
    pub(super) outbox: Vec<Vec<OutboxJob>>,
    /// When an open lane or a waiter next has something to take, in nanoseconds since 1970; none: not before
    /// another batch.
    pub(super) next: Option<i64>,
    /// Unfinished deliveries: neither done nor dead.
    pub(super) unfinished: u64,
    /// Bytes of keys and values of each plugin for which they changed.
    pub(super) kv_bytes: Vec<(PluginId, u64)>,
    /// Whether the batch changed anything. A batch that did not says nothing about the disk.
    pub(super) wrote: bool,
    /// The duration of the sync.
    pub(super) commit_time: Duration,
    /// The duration of the whole batch, including the sync.
    pub(super) took: Duration,
}

/// Why a batch did not commit.
#[derive(Debug, Clone)]
pub(super) enum Failed {
    /// It was rolled back completely; the next one may succeed. The disk was full, or the file was locked.
    RolledBack(String),
    /// The state of the disk is unknown: the store stops until a restart reads it again.
    InDoubt(String),
}

/// The features of an engine beyond the contract. The conformance suite skips the categories of missing features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// It keeps one file, which `posthouse backup` copies while the daemon runs.
    pub backup: bool,
    /// It knows its size and enforces `max_size`.
    pub size_bound: bool,
    /// Leases expire.
    pub leases_expire: bool,
    /// It counts what charts and searches show.
    pub charts: bool,
}
