//! An engine for tests that keeps everything in memory: a second implementation of the contract, as simple as it
//! can be, which keeps the contract honest and the suite free of SQLite.
//!
//! Everything durable is one [`State`]. A batch works on a copy of it and replaces it at its end, so that a batch
//! is all or nothing by construction. A crash keeps the last state and nothing else.
//!
//! Unlike SQLite's, its leases may expire, it moves no event out of an operation (jobs are built from the
//! state), and it leaves gaps between ids.

mod apply;
mod decisions;
mod lease;
mod reads;
mod state;

use std::{sync::Arc, time::Instant};

use parking_lot::Mutex;

pub(super) use self::reads::Reads;
use posthouse_model::{Job, PluginId};

use self::state::State;
use super::{
    StoreOptions,
    committer::Committer,
    conformance::InjectedFailure,
    engine::{Batch, Committed, Engine, Failed, Opened},
    op::Op,
};

/// The part of the state that survives a crash.
#[derive(Default)]
pub(super) struct Disk {
    state: Mutex<Arc<State>>,
    fault: Mutex<Option<InjectedFailure>>,
}

impl Disk {
    /// A disk with the present content of this one.
    pub(super) fn copy(&self) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(self.state()), fault: Mutex::default() })
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.lock())
    }
}

/// The options of this engine.
#[derive(Debug, Clone, Copy)]
struct Settings {
    max_backlog: u64,
    /// How long a lease holds, in nanoseconds; none: until the process ends.
    lease_time: Option<i64>,
}

/// The engine, before its session is open.
pub(super) struct Memory {
    disk: Arc<Disk>,
    settings: Settings,
}

/// Opens what is on the disk: every lease of an earlier process is ready again.
pub(super) fn open(disk: Arc<Disk>, options: &StoreOptions, lease_time: Option<i64>) -> (Memory, Reads) {
    let mut state = State::clone(&disk.state());
    state.recover();
    *disk.state.lock() = Arc::new(state);
    let reads = Reads::new(Arc::clone(&disk), lease_time.is_some());
    (Memory { disk, settings: Settings { max_backlog: options.max_backlog, lease_time } }, reads)
}

impl Engine for Memory {
    fn run(self, committer: Committer) {
        let mut session = Session { disk: self.disk, settings: self.settings };
        drop(committer.serve(&mut session));
    }
}

struct Session {
    disk: Arc<Disk>,
    settings: Settings,
}

/// The batch being applied.
struct Work {
    state: State,
    settings: Settings,
    now: i64,
    jobs: Vec<Job>,
    again: Vec<Job>,
    /// Lanes of leases that ended.
    ended: Vec<u64>,
    /// Plugins whose keys changed.
    resized: Vec<PluginId>,
}

impl super::engine::Session for Session {
    fn opened(&self) -> Opened {
        let state = self.disk.state();
        let kv_bytes = state.plugins.keys().map(|plugin| (*plugin, state.kv_bytes(*plugin))).collect();
        Opened { kv_bytes, unfinished: state.unfinished() }
    }

    async fn commit(&mut self, batch: &mut Batch) -> Result<Committed, Failed> {
        let begun = Instant::now();
        let before = self.disk.state();
        let mut work = Work {
            state: State::clone(&before),
            settings: self.settings,
            now: batch.now,
            jobs: Vec::new(),
            again: Vec::new(),
            ended: Vec::new(),
            resized: Vec::new(),
        };
        work.expire();
        let outcomes = batch.ops.iter().map(|op| work.apply(op, &batch.rooms)).collect();
        work.refill(&batch.rooms);
        let outbox = work.lease_outbox(&batch.waiters);
        let next = work.next(&batch.rooms, batch.waiters.iter().zip(&outbox));
        match self.disk.fault.lock().take() {
            Some(InjectedFailure::DiskFull) => return Err(Failed::RolledBack("the disk is full".to_owned())),
            Some(InjectedFailure::InDoubt) => return Err(Failed::InDoubt("the disk is in doubt".to_owned())),
            None => {}
        }
        let Work { state, jobs, again, ended, resized, .. } = work;
        let only_read = batch.ops.iter().all(|op| matches!(op, Op::Nothing | Op::OldestLeased));
        let leased = !jobs.is_empty() || !ended.is_empty() || outbox.iter().any(|items| !items.is_empty());
        let wrote = leased || !only_read;
        let committed = Committed {
            outcomes,
            jobs,
            again,
            ended,
            outbox,
            next,
            unfinished: state.unfinished(),
            kv_bytes: resized.into_iter().map(|plugin| (plugin, state.kv_bytes(plugin))).collect(),
            wrote,
            commit_time: std::time::Duration::ZERO,
            took: begun.elapsed(),
        };
        *self.disk.state.lock() = Arc::new(state);
        Ok(committed)
    }
}
