//! The store: events, deliveries, attempts, key-value data and the outbox, durable.
//!
//! All SQL is below this folder, behind one handle, and the tests speak to the handle alone, so that a
//! second engine can stand behind it one day. This one is SQLite: one writer thread that commits what
//! is queued in groups, and a few connections for readers.
//!
//! ```text
//!   inbox ──► queue ──► (an attempt runs) ──► complete ──► kv, outbox        the way of an event
//!   trial                                                     what runs while a breaker is open
//!   replay, retention, plugins, revisions                                         what else is written
//!   query, search, dead, stats, series, senders, audit, types               what people see
//!   backup, restore, copy, examine                                          a second file, and back
//!   writer, memory, minutes, shared, readers, gentle, checkpoint, schema           what carries it
//!   space, present, leftover                                                         its disk
//! ```
//!
//! # What is on disk, and what a restart does
//!
//! A commit is on disk before anybody hears of it (`synchronous = FULL`), so a crash at any point finds
//! one of these:
//!
//! | the crash comes | on disk | after the restart |
//! | --- | --- | --- |
//! | before the commit of `accept` | nothing | the sender had no answer, and sends again |
//! | after it | the event; its deliveries ready or leased | leased ones are ready again and run; a second sending is a duplicate |
//! | while an attempt runs, or before its completion commits | as above: nothing of the attempt | it runs again from the start, with the same attempt number |
//! | after the commit of the completion | effects, attempt, outbox items and "done", together | nothing is left to run; outbox items leave |
//! | while an outbox item is being sent | the item, leased | it is sent again, under the same Message-ID |
//! | after a `Retry` has committed | the attempt; the delivery waiting | it runs when it is due, or at once if that has passed |
//!
//! Where a plugin has a database, its attempt has committed there before the completion comes here: see
//! `dispatch/commit.rs` for what a crash in between finds. The store's part in it: [`Store::complete_durably`]
//! tells when it is on disk, `may_have_run` of a job says whether such a commit is to be looked for, and
//! [`Store::done_among`] which of them need no looking for any more.
//!
//! Counters, key sizes and the next numbers are written by the transaction that changes them, so that
//! the ledger adds up after any crash. Which delivery is leased under which token is known to the
//! writer alone: no token of an earlier process is ever valid.
//!
//! With less than `min_free` left on the disk nothing more is taken in, and what is there goes on. A full
//! disk fails the batch that found it; nothing of it remains and the store goes on. Completions
//! of such a batch are kept and tried again. After any other failed write nobody can say what the disk
//! holds: the store refuses everything until a restart reads it again.

mod audit;
mod backup;
mod checkpoint;
mod complete;
mod copy;
mod dead;
mod error;
mod examine;
mod gentle;
mod histogram;
mod inbox;
mod kv;
mod leftover;
mod memory;
mod meters;
mod minutes;
mod names;
mod order;
mod outbox;
mod plugins;
mod present;
mod query;
mod queue;
mod readers;
mod recent;
mod replay;
mod restore;
mod retention;
mod revisions;
mod schema;
mod sealed;
mod search;
mod senders;
mod series;
mod shared;
mod space;
mod stats;
#[cfg(test)]
mod tests;
mod time;
mod trial;
mod types;
mod watch;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

pub use backup::{Backup, BackupError, Beside, Contents, Written};
pub use complete::{Completed, HandedIn, Verdict};
pub use copy::CopyError;
pub use error::{OpenError, StoreError};
pub use examine::{Examination, Integrity, examine, newest_event, restore_is_unfinished};
pub use inbox::Accepted;
pub use leftover::{LeftoverError, put_away, put_away_of_store};
pub use meters::{PluginMeters, StoreMeters};
pub use queue::Lane;
pub use restore::{Allowed, RestoreError, Restored, restore};
pub use revisions::PluginRevision;
pub use schema::KeptOut;
pub use senders::Payloads;
pub use types::{
    AttemptDetail, AuditEntry, AuditFilter, AuditId, DeadGroup, DeliveryDetail, DeliveryFilter, DeliveryPage,
    DeliveryPlace, DeliverySummary, EventDetail, EventFilter, EventPage, EventSummary, LastEvent, Names,
    Origin, OutboxFilter, OutboxId, OutboxJob, OutboxResult, OutboxSummary, Places, PluginChange,
    PluginRecord, PluginStats, PluginUpdate, Point, Recent, StoreStats, TypeStats,
};
pub use watch::{FirstAttempt, FirstAttempts, Watcher, watch};

use crate::model::{Ambient, Usage};
use writer::{Op, Writer};

/// How to open a store.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The file; its folder is made where it is missing.
    pub path: PathBuf,
    /// How long finished events are kept.
    pub retention: Duration,
    /// The most unfinished deliveries; beyond it nothing is taken in.
    pub max_backlog: u64,
    /// Bytes that are to stay free on the disk; with less nothing is taken in. 0: no bound.
    pub min_free: u64,
    /// Bytes in use in the file, beyond which finished events leave before their time; none: no bound.
    pub max_size: Option<u64>,
}

/// Keeps a daemon from starting on the store at `path` until what this returns is dropped; none where one
/// runs on it.
///
/// # Errors
/// When its lock can't be opened.
pub fn keep_out(path: &Path) -> std::io::Result<Option<KeptOut>> {
    schema::keep_out(path)
}

/// The handle; cheap to clone. When the last one is dropped the store closes by itself.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    options: StoreOptions,
    ambient: Ambient,
    ops: mpsc::Sender<Op>,
    shared: Arc<shared::Shared>,
    gentle: gentle::Gentle,
    prune: Mutex<retention::Walks>,
}

impl Store {
    /// Opens or makes the store, takes its lock, brings its schema up to date, makes every lease of an
    /// earlier run ready again, and starts the writer. Blocks while it does.
    ///
    /// # Errors
    /// Each [`OpenError`] names the file and the way out.
    pub fn open(options: StoreOptions, ambient: Ambient) -> Result<Self, OpenError> {
        let unusable = |reason: String| OpenError::Unusable { path: options.path.clone(), reason };
        let mut opened = schema::open(&options.path, &ambient)?;
        queue::recover(&mut opened.writer).map_err(|error| unusable(error::said(&error)))?;
        let shared = shared::Shared::new(options.path.clone(), options.min_free)
            .map_err(|error| unusable(error.to_string()))?;
        shared.remember_files(&opened.writer).map_err(|error| unusable(error.to_string()))?;
        let shared = Arc::new(shared);
        let gentle = gentle::Gentle::start().map_err(|error| unusable(error.to_string()))?;
        let ops = writer::start(
            opened,
            options.path.clone(),
            options.max_backlog,
            ambient.clone(),
            Arc::clone(&shared),
        )
        .map_err(|error| unusable(error.to_string()))?;
        Ok(Self(Arc::new(Inner { options, ambient, ops, shared, gentle, prune: Mutex::default() })))
    }

    /// Returns when all queued before it is committed.
    ///
    /// # Errors
    /// When that could not be written.
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.write(|_| Ok(())).await
    }

    /// Ends the writer: everything queued is committed, the write-ahead log folded in, the lock given
    /// up. From then on every call fails.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`] where the store had stopped before.
    pub async fn close(&self) -> Result<(), StoreError> {
        let (reply, closed) = oneshot::channel();
        if self.0.ops.send(Op::Close(reply)).await.is_ok() {
            let _ = closed.await;
        }
        self.failure().map_or(Ok(()), |reason| Err(StoreError::Poisoned(reason)))
    }

    /// Changes with each commit; it costs the writer nothing that nobody looks.
    pub fn commits(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.shared.commits.subscribe()
    }

    /// None while the store takes events; else why not, until a restart.
    pub fn failure(&self) -> Option<String> {
        self.0.shared.failure()
    }

    /// Why the last write failed, where none has succeeded since: most likely the disk is full.
    pub fn trouble(&self) -> Option<String> {
        self.0.shared.trouble()
    }

    /// Why nothing is taken in while the disk is nearly full.
    pub fn shortage(&self) -> Option<StoreError> {
        self.0.shared.space().shortage()
    }

    /// Unfinished deliveries, and the most that may be.
    pub fn backlog(&self) -> Usage {
        Usage { used: self.shared().unfinished(), limit: self.max_backlog() }
    }

    /// Connections that read the store: those of guests, and those of people.
    pub fn readers(&self) -> [(&'static str, Usage); 2] {
        [("guests", self.shared().guests.usage()), ("people", self.shared().people.usage())]
    }

    /// Bytes that are free on the store's disk, and bytes that it has; none where the system does not say.
    pub fn disk(&self) -> Option<(u64, u64)> {
        let disk = rustix::fs::statvfs(self.path()).ok()?;
        Some((disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize)))
    }

    /// Queues an operation, waiting for room.
    async fn send(&self, op: Op) -> Result<(), StoreError> {
        if self.failure().is_some() {
            return Err(self.silence());
        }
        self.0.ops.send(op).await.map_err(|_| self.silence())
    }

    /// Room in the queue for one operation later.
    async fn reserve(&self) -> Result<mpsc::OwnedPermit<Op>, StoreError> {
        self.0.ops.clone().reserve_owned().await.map_err(|_| self.silence())
    }

    /// Runs `work` within a batch of the writer and returns what it returned, once that is committed.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let op = Op::Work(Box::new(move |writer| {
            let worked = work(writer);
            let (value, result) = match worked {
                Ok(value) => (Some(value), Ok(())),
                Err(error) => (None, Err(error)),
            };
            writer.staged.answers.push(Box::new(move |committed| {
                let answer = committed.and_then(|()| value.ok_or(StoreError::Closed));
                let _ = reply.send(answer);
            }));
            result
        }));
        self.send(op).await?;
        answer.await.unwrap_or_else(|_| Err(self.silence()))
    }

    /// Runs `read` on a reader's connection, off the async threads.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = Arc::clone(&self.0.shared);
        tokio::task::spawn_blocking(move || shared.people.with(read))
            .await
            .unwrap_or_else(|error| Err(StoreError::Io(error.to_string())))
    }

    /// Runs `read`, a step of many, where it gives way to whoever is in a hurry.
    async fn read_gently<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = Arc::clone(&self.0.shared);
        let answer = self.0.gentle.run(move || shared.people.with(read)).await;
        answer.unwrap_or_else(|| Err(StoreError::Io("a long read did not end".to_owned())))
    }

    /// Why the writer gave no answer.
    fn silence(&self) -> StoreError {
        self.0.shared.silence()
    }

    fn shared(&self) -> &shared::Shared {
        &self.0.shared
    }

    fn ambient(&self) -> &Ambient {
        &self.0.ambient
    }

    fn walks(&self) -> &Mutex<retention::Walks> {
        &self.0.prune
    }

    fn retention_nanos(&self) -> i64 {
        i64::try_from(self.0.options.retention.as_nanos()).unwrap_or(i64::MAX)
    }

    fn max_backlog(&self) -> u64 {
        self.0.options.max_backlog
    }

    /// Bytes that are to stay free on a disk.
    pub fn min_free(&self) -> u64 {
        self.0.options.min_free
    }

    fn max_size(&self) -> Option<u64> {
        self.0.options.max_size
    }

    fn path(&self) -> &Path {
        &self.0.options.path
    }

    fn wal_path(&self) -> PathBuf {
        let mut path = self.0.options.path.as_os_str().to_owned();
        path.push("-wal");
        path.into()
    }
}
