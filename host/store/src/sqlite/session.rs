//! The writing half: turns a batch into one SQLite transaction, and remembers what the next one needs to know.
//!
//! The operations are methods of the session, each in the file of its subject.

use std::{sync::Arc, time::Instant};

use posthouse_model::{
    Env, Job,
    fault::{self, FaultPoint},
};
use rusqlite::{Connection, Result, Statement};

use super::{
    checkpoint, counters::Counters, error::passes, file::OpenFile, kv::KvCache, lines::Lines, outbox::Due,
    present::is_moved,
};

use crate::{
    engine::{Batch, Committed, Failed, Opened},
    leases::Leases,
    op::{Op, Outcome},
};

/// The session's state.
pub(super) struct Session<'c> {
    pub(super) connection: &'c Connection,
    pub(super) sql: Statements<'c>,
    /// The time of the current batch.
    pub(super) now: i64,
    pub(super) max_backlog: u64,
    pub(super) counters: Counters,
    pub(super) kv: KvCache,
    pub(super) lines: Lines,
    pub(super) leases: Leases,
    pub(super) outbox: Due,
    pub(super) file: Arc<OpenFile>,
    pub(super) env: Env,
    /// Jobs that this batch has leased.
    pub(super) jobs: Vec<Job>,
    /// Jobs of this batch that run again after a conflict.
    pub(super) again: Vec<Job>,
}

/// The statements that every event needs, prepared once.
pub(super) struct Statements<'c> {
    begin: Statement<'c>,
    commit: Statement<'c>,
    pub(super) insert_event: Statement<'c>,
    pub(super) insert_delivery: Statement<'c>,
    pub(super) is_busy: Statement<'c>,
    pub(super) finish_delivery: Statement<'c>,
    pub(super) insert_attempt: Statement<'c>,
    pub(super) get_kv: Statement<'c>,
    pub(super) put_kv: Statement<'c>,
}

impl<'c> Statements<'c> {
    fn prepare(connection: &'c Connection) -> Result<Self> {
        Ok(Self {
            begin: connection.prepare("BEGIN")?,
            commit: connection.prepare("COMMIT")?,
            insert_event: connection.prepare(super::accept::INSERT_EVENT)?,
            insert_delivery: connection.prepare(super::accept::INSERT_DELIVERY)?,
            is_busy: connection.prepare(super::order::IS_BUSY)?,
            finish_delivery: connection.prepare(super::complete::FINISH_DELIVERY)?,
            insert_attempt: connection.prepare(super::complete::INSERT_ATTEMPT)?,
            get_kv: connection.prepare(super::kv::GET)?,
            put_kv: connection.prepare(super::kv::PUT)?,
        })
    }
}

impl<'c> Session<'c> {
    pub(super) fn new(
        connection: &'c Connection,
        max_backlog: u64,
        env: Env,
        file: Arc<OpenFile>,
    ) -> Result<Self> {
        Ok(Self {
            connection,
            sql: Statements::prepare(connection)?,
            now: 0,
            max_backlog,
            counters: Counters::load(connection)?,
            kv: KvCache::default(),
            lines: Lines::default(),
            leases: Leases::default(),
            outbox: Due::default(),
            file,
            env,
            jobs: Vec::new(),
            again: Vec::new(),
        })
    }

    /// Applies a batch in one transaction. `committed` receives what is known once it is durable.
    fn transact(&mut self, batch: &mut Batch, committed: &mut Committed) -> Result<()> {
        let begun = Instant::now();
        self.file.present.check_log(self.connection)?;
        self.sql.begin.execute([])?;
        let changes = self.connection.total_changes();
        for op in &mut batch.ops {
            committed.outcomes.push(self.apply(op)?);
        }
        self.refill()?;
        committed.outbox = self.lease_outbox(&batch.waiters)?;
        self.kv.write(&mut self.sql, self.connection)?;
        self.counters.sequence().lease_floor = self.leases.lowest().map_or(i64::MAX, |delivery| delivery.0);
        self.counters.write(self.connection)?;
        #[cfg(test)]
        if let Some(injected) = self.file.injected.lock().take() {
            injected.apply(self.connection)?;
        }
        let effects = fault::COMPILED_IN
            && batch.ops.iter().any(|op| match op {
                Op::Complete(completion) => completion.has_effects(),
                Op::EndDecision(end) => end.effects.is_some(),
                _ => false,
            });
        if effects {
            fault::reached(FaultPoint::StoreWritten);
        }
        let committing = Instant::now();
        self.sql.commit.execute([])?;
        committed.commit_time = committing.elapsed();
        committed.took = begun.elapsed();
        committed.wrote = self.connection.total_changes() > changes;
        self.file.present.check()?;
        self.file.present.committed();
        if effects {
            fault::reached(FaultPoint::StoreCommitted);
        }
        Ok(())
    }

    fn apply(&mut self, op: &mut Op) -> Result<Outcome> {
        if matches!(op, Op::Accept { .. })
            && let Op::Accept { offers, watched } = std::mem::replace(op, Op::Nothing)
        {
            return self.accept(offers, watched);
        }
        match op {
            Op::CatchUp { source, step } => self.catch_up(source, step),
            Op::Complete(completion) => self.complete(completion).map(Outcome::Completed),
            Op::Revive(deliveries) => self.revive(deliveries),
            Op::Replay { deliveries, orders } => self.replay(deliveries, orders),
            Op::ReplayEvent { event, plugins, orders } => self.replay_event(*event, plugins, orders),
            Op::CompleteOutbox { item, kind, result } => self.complete_outbox(*item, *kind, result),
            Op::ReleaseOutbox(items) => self.release_outbox(items),
            Op::ReplayOutbox(items) => self.replay_outbox(items),
            Op::RegisterPlugin(name) => self.register_plugin(name),
            Op::UpdatePlugin { plugin, update } => self.update_plugin(*plugin, update),
            Op::ForgetPlugin(plugin) => self.forget_some(*plugin),
            Op::LoadRevision { plugin, sha256, description } => {
                self.load_revision(*plugin, sha256, description)
            }
            Op::RemoveRevision(plugin) => self.end_revision(*plugin, "removed"),
            Op::RefuseRevision { plugin, sha256, ending } => self.refuse_revision(*plugin, sha256, ending),
            Op::BeginAudit { actor, action, target } => self.begin_audit(actor, action, target),
            Op::EndAudit { entry, outcome } => self.end_audit(*entry, outcome),
            Op::Remove { events, cause } => self.remove(events, *cause),
            Op::ReleaseSpace { most } => self.vacuum(*most),
            Op::BeginDecision(new) => self.begin_decision(new),
            Op::EndDecision(end) => self.end_decision(end),
            Op::MarkLate { decision, event, subscribers } => self.mark_late(*decision, event, subscribers),
            Op::RemoveDecisions { cutoff, goal, most } => self.remove_decisions(*cutoff, *goal, *most),
            Op::OldestLeased => self.oldest_leased(),
            Op::Accept { .. } | Op::Nothing => Ok(Outcome::Done),
        }
    }

    /// After the commit.
    fn settle(&mut self, batch: &Batch, committed: &mut Committed) {
        committed.jobs = std::mem::take(&mut self.jobs);
        committed.again = std::mem::take(&mut self.again);
        committed.ended = self.leases.settle(&mut committed.jobs);
        let waits = batch.waiters.iter().zip(&committed.outbox).filter(|(_, jobs)| jobs.is_empty());
        committed.next = [
            self.lines.next_due(|plugin| self.counters.tally(plugin)),
            self.outbox.next(waits.map(|((kind, _), _)| *kind)),
        ]
        .into_iter()
        .flatten()
        .min();
        committed.unfinished = self.counters.unfinished().unsigned_abs();
        committed.kv_bytes = self.kv.sizes(&self.counters);
    }

    /// After a failure: rolls the transaction back, and everything that was remembered about it.
    fn undo(&mut self, error: &rusqlite::Error) -> Failed {
        if is_moved(error) {
            self.file.present.save(self.connection);
        }
        let rolled_back =
            if self.connection.is_autocommit() { Ok(()) } else { self.connection.execute_batch("ROLLBACK") };
        let failed = match rolled_back.and_then(|()| Counters::load(self.connection)) {
            Ok(counters) if passes(error) => {
                self.counters = counters;
                Failed::RolledBack(error.to_string())
            }
            Ok(_) => Failed::InDoubt(error.to_string()),
            Err(second) => Failed::InDoubt(second.to_string()),
        };
        self.kv.clear();
        self.lines.undo();
        self.leases.undo();
        self.outbox.undo();
        self.jobs.clear();
        self.again.clear();
        failed
    }
}

impl crate::engine::Session for Session<'_> {
    fn opened(&self) -> Opened {
        Opened {
            kv_bytes: self.counters.all_kv_bytes().collect(),
            unfinished: self.counters.unfinished().unsigned_abs(),
        }
    }

    async fn commit(&mut self, batch: &mut Batch) -> std::result::Result<Committed, Failed> {
        self.now = batch.now;
        self.lines.begin(&batch.rooms);
        let outcomes = Vec::with_capacity(batch.ops.len());
        let mut committed = Committed { outcomes, ..Committed::default() };
        match self.transact(batch, &mut committed) {
            Ok(()) => {
                self.settle(batch, &mut committed);
                Ok(committed)
            }
            Err(error) => Err(self.undo(&error)),
        }
    }

    fn maintain(&mut self) {
        checkpoint::copy_rest(self.connection);
    }
}
