//! Completion: the effects of an attempt and "done" in one transaction, or nothing.
//!
//! First the checks, which write nothing: does the lease hold, is all that the attempt read still so,
//! do its changes fit? Where the lease is lost the completion is dropped; where a read has changed the
//! job goes through its lane again, which is a conflict and no failed attempt. Only then the writes.
//!
//! Who need not know hands in by [`Store::complete`] and goes on; the commit follows. Who has committed
//! elsewhere before (the database of a plugin) and may clear up only after the store has it on disk,
//! waits by [`Store::complete_durably`]. Many wait for one commit: nobody stands in another's way.

use rusqlite::{OptionalExtension, Result, params};
use tokio::sync::oneshot;

use super::{
    FirstAttempt, Store, StoreError,
    kv::Change,
    meters::Ended,
    schema::code,
    time::{nanos, timestamp},
    writer::{Op, Writer},
};
use crate::model::{Attempt, DeliveryId, Effects, Job, OutboxItem, OutboxKind, Outcome, PluginId};
use jiff::Timestamp;

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

/// What became of a completion, once that is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completed {
    /// Written as it was handed in.
    Written,
    /// Something that the attempt read has changed: nothing was written, and the job comes through its
    /// lane again.
    Conflict,
    /// The token no longer holds: nothing was written.
    LostLease,
}

pub(super) const FINISH_DELIVERY: &str = "
UPDATE delivery SET state = ?2, attempts = ?3, due_at = ifnull(?4, due_at), finished_at = ?5, error = ?6
WHERE id = ?1";

pub(super) const INSERT_ATTEMPT: &str = "
INSERT OR REPLACE INTO attempt (delivery, number, started_at, duration_us, outcome, error, trace, logs,
                                revision, did)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

impl Store {
    /// Hands in a finished attempt. Returns when it is queued; the commit follows. On a conflict the
    /// job comes through its lane again at once, `conflicts` one higher, and nothing was written.
    /// A token that no longer holds: nothing is written (counted and logged).
    ///
    /// # Errors
    /// When the store takes no work any more; the delivery then runs again after a restart.
    pub async fn complete(&self, job: Job, attempt: Attempt, verdict: Verdict) -> Result<(), StoreError> {
        self.send(Op::Complete(Box::new(Completion::new(job, attempt, verdict)))).await
    }

    /// As [`Self::complete`], and returns when the batch has committed. Where no sender and no later delivery of
    /// the same order key waits for it, the batch may wait up to 2 ms for others. While the disk is full that
    /// takes as long as the disk is full. Cancelled, the completion goes on.
    ///
    /// # Errors
    /// When the store takes no work any more: the delivery then runs again after a restart, unless the
    /// commit that failed reached the disk all the same.
    pub async fn complete_durably(
        &self,
        job: Job,
        attempt: Attempt,
        verdict: Verdict,
    ) -> Result<Completed, StoreError> {
        self.hand_in(job, attempt, verdict).await?.committed().await
    }

    /// The first half of [`Self::complete_durably`]: returns when it is queued, with what tells of the rest.
    ///
    /// # Errors
    /// As [`Self::complete`].
    pub async fn hand_in(
        &self,
        job: Job,
        attempt: Attempt,
        verdict: Verdict,
    ) -> Result<HandedIn, StoreError> {
        let (told, came_to) = oneshot::channel();
        let mut completion = Completion::new(job, attempt, verdict);
        completion.told = Some(told);
        self.send(Op::Complete(Box::new(completion))).await?;
        Ok(HandedIn { store: self.clone(), came_to })
    }

    /// Sends a job through its lane again at once, `conflicts` one higher and counted: what it did
    /// elsewhere could not be committed, because another was in the way. Returns when that is queued.
    ///
    /// # Errors
    /// When the store takes no work any more; the delivery then runs again after a restart.
    pub async fn run_again(&self, job: Job) -> Result<(), StoreError> {
        self.send(Op::Complete(Box::new(Completion::of(job, Ending::Conflict)))).await
    }

    /// Makes those of the deliveries ready again that are dead: an attempt of each took effect after all, in
    /// the database of its plugin, and the next one finishes it from there. Returns how many.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn revive(&self, deliveries: Vec<DeliveryId>) -> Result<u64, StoreError> {
        if deliveries.is_empty() {
            return Ok(0);
        }
        self.write(move |writer| {
            let mut count = 0;
            for delivery in &deliveries {
                let revived: Option<i64> = writer
                    .connection
                    .prepare_cached(
                        "UPDATE delivery SET state = 0, ran = 1, due_at = ?2, finished_at = NULL
                         WHERE id = ?1 AND state = 4 RETURNING plugin",
                    )?
                    .query_row([delivery.0, writer.now], |row| row.get(0))
                    .optional()?;
                if let Some(plugin) = revived {
                    writer.memory.moved(PluginId(plugin), code::DEAD, code::READY);
                    count += 1;
                }
            }
            Ok(count)
        })
        .await
    }

    /// Those of the deliveries that are done, on disk. One that this store does not know is not.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn done_among(&self, deliveries: Vec<DeliveryId>) -> Result<Vec<DeliveryId>, StoreError> {
        self.in_state(code::DONE, deliveries).await
    }

    /// Those of the deliveries that are dead, on disk.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn dead_among(&self, deliveries: Vec<DeliveryId>) -> Result<Vec<DeliveryId>, StoreError> {
        self.in_state(code::DEAD, deliveries).await
    }

    async fn in_state(
        &self,
        state: i64,
        mut deliveries: Vec<DeliveryId>,
    ) -> Result<Vec<DeliveryId>, StoreError> {
        if deliveries.is_empty() {
            return Ok(deliveries);
        }
        self.read(move |connection| {
            let mut statement =
                connection.prepare_cached("SELECT 1 FROM delivery WHERE id = ?1 AND state = ?2")?;
            let mut found = Vec::new();
            for delivery in deliveries.drain(..) {
                if statement.exists([delivery.0, state])? {
                    found.push(delivery);
                }
            }
            Ok(found)
        })
        .await
    }
}

/// A completion that is queued. Dropped, it goes on.
pub struct HandedIn {
    store: Store,
    came_to: oneshot::Receiver<Completed>,
}

impl HandedIn {
    /// Returns when its batch has committed.
    ///
    /// # Errors
    /// As [`Store::complete_durably`].
    pub async fn committed(self) -> Result<Completed, StoreError> {
        self.came_to.await.map_err(|_| self.store.silence())
    }
}

/// A job that comes back, with its texts made ready by the thread that hands it in.
pub(super) struct Completion {
    job: Job,
    ending: Ending,
    /// Holds once the batch has committed.
    pub(super) came_to: Completed,
    told: Option<oneshot::Sender<Completed>>,
}

enum Ending {
    /// Its effects, and its outbox items as JSON.
    Done(Record, Effects, Vec<(OutboxKind, String)>),
    Retry(Record, i64),
    Dead(Record),
    Conflict,
    Released,
}

/// An attempt as a row.
struct Record {
    number: u32,
    revision: Option<String>,
    started_at: i64,
    duration_us: i64,
    /// The same in nanoseconds, for the metrics.
    took: u64,
    outcome: i64,
    error: Option<String>,
    trace: Option<String>,
    logs: Option<String>,
    did: Option<String>,
}

impl Completion {
    fn new(job: Job, attempt: Attempt, verdict: Verdict) -> Self {
        let record = Record::new(attempt);
        let ending = match verdict {
            Verdict::Done(effects) => {
                let item = |item: &OutboxItem| Some((item.kind(), serde_json::to_string(item).ok()?));
                let items = effects.outbox.iter().filter_map(item).collect();
                Ending::Done(record, effects, items)
            }
            Verdict::Retry(due) => Ending::Retry(record, nanos(due)),
            Verdict::Dead => Ending::Dead(record),
        };
        Self::of(job, ending)
    }

    pub(super) fn release(job: Job) -> Self {
        Self::of(job, Ending::Released)
    }

    fn of(job: Job, ending: Ending) -> Self {
        Self { job, ending, came_to: Completed::Written, told: None }
    }

    pub(super) fn delivery(&self) -> DeliveryId {
        self.job.delivery
    }

    /// Whether it has committed elsewhere, and is to be told when this is on disk.
    pub(super) fn is_durable(&self) -> bool {
        self.told.is_some()
    }

    /// Whether effects are in it.
    pub(super) fn has_effects(&self) -> bool {
        matches!(self.ending, Ending::Done(..))
    }

    /// The attempt that the batch has written, once it has committed; none where it wrote none.
    pub(super) fn ended(&self) -> Option<Ended<'_>> {
        let (record, done) = match &self.ending {
            Ending::Done(record, ..) => (record, Some(true)),
            Ending::Retry(record, _) => (record, None),
            Ending::Dead(record) => (record, Some(false)),
            Ending::Conflict | Ending::Released => return None,
        };
        (self.came_to == Completed::Written).then(|| Ended {
            plugin: self.job.plugin,
            event_type: &self.job.event.content.event_type,
            outcome: outcome_of(record.outcome),
            done,
            // The clock may have been set back meanwhile.
            waited: record.started_at.saturating_sub(nanos(self.job.due_at)).max(0).unsigned_abs(),
            took: record.took,
        })
    }

    /// After the commit.
    pub(super) fn tell(self) {
        if let Some(told) = self.told {
            // Who has gone away meanwhile finds it on disk.
            let _ = told.send(self.came_to);
        }
    }
}

impl Record {
    fn new(attempt: Attempt) -> Self {
        let Attempt { number, revision, started_at, duration, outcome, error, trace, logs, did } = attempt;
        Self {
            number,
            revision,
            started_at: nanos(started_at),
            duration_us: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX),
            took: u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX),
            outcome: outcome_code(outcome),
            error,
            trace,
            logs: (!logs.is_empty()).then(|| serde_json::to_string(&logs).unwrap_or_default()),
            did,
        }
    }
}

fn outcome_code(outcome: Outcome) -> i64 {
    match outcome {
        Outcome::Done => 0,
        Outcome::Retry => 1,
        Outcome::Rejected => 2,
    }
}

/// The outcome that a row with this number had.
pub(super) fn outcome_of(code: i64) -> Outcome {
    match code {
        0 => Outcome::Done,
        1 => Outcome::Retry,
        _ => Outcome::Rejected,
    }
}

impl Writer<'_> {
    /// Writes what became of a job.
    pub(super) fn complete(&mut self, completion: &Completion) -> Result<Completed> {
        let Completion { job, ending, .. } = completion;
        if !self.lanes.holds(job) {
            tracing::warn!(delivery = %job.delivery, "a completion came without a valid lease and was dropped");
            self.memory.sequence().lost_leases += 1;
            return Ok(Completed::LostLease);
        }
        match ending {
            Ending::Done(record, effects, items) => match self.stage_kv(job.plugin, effects)? {
                Some(changes) => self.done(job, record, changes, effects, items)?,
                None => return self.conflict(job),
            },
            Ending::Retry(record, due) => {
                self.lanes.waits(job.plugin, *due);
                self.finish(job, record, code::WAITING, Some(*due))?;
            }
            Ending::Dead(record) => self.finish(job, record, code::DEAD, None)?,
            Ending::Conflict => return self.conflict(job),
            Ending::Released => self.make_ready(job)?,
        }
        Ok(Completed::Written)
    }

    fn done(
        &mut self,
        job: &Job,
        record: &Record,
        changes: Vec<Change>,
        effects: &Effects,
        items: &[(OutboxKind, String)],
    ) -> Result<()> {
        self.apply_kv(job.plugin, changes);
        items.iter().try_for_each(|(kind, item)| self.insert_outbox(job, *kind, item))?;
        for derived in &effects.emitted {
            // Its id is this delivery's alone, which is done once: it can't have been seen before.
            self.take_in(derived.event(timestamp(self.now)), &derived.subscribers, None)?;
        }
        self.finish(job, record, code::DONE, None)
    }

    fn conflict(&mut self, job: &Job) -> Result<Completed> {
        self.memory.sequence().conflicts += 1;
        if !self.lanes.stage_again(job) {
            self.make_ready(job)?;
        }
        Ok(Completed::Conflict)
    }

    fn finish(&mut self, job: &Job, record: &Record, state: i64, due: Option<i64>) -> Result<()> {
        let Record { number, revision, started_at, duration_us, outcome, error, trace, logs, did, .. } =
            record;
        let finished_at = (state >= code::DONE).then_some(self.now);
        self.sql.finish_delivery.execute(params![job.delivery.0, state, number, due, finished_at, error])?;
        self.sql.insert_attempt.execute(params![
            job.delivery.0,
            number,
            started_at,
            duration_us,
            outcome,
            error,
            trace,
            logs,
            revision,
            did
        ])?;
        self.watches.ended(job.delivery.0, || match outcome_of(*outcome) {
            Outcome::Done => FirstAttempt::Done,
            Outcome::Rejected => FirstAttempt::Refused(error.clone().unwrap_or_default()),
            Outcome::Retry => FirstAttempt::Failed,
        });
        if state >= code::DONE {
            let event_type = self.memory.event_type(self.connection, &job.event.content.event_type)?;
            let done = state == code::DONE;
            self.memory.hour_finished(self.connection, self.now, event_type, done, *duration_us)?;
        }
        self.memory.moved(job.plugin, code::LEASED, state);
        if let Some(key) = self.lanes.end(job.plugin, job.delivery)
            && state >= code::DONE
        {
            self.let_next_go(job.plugin, &key)?;
        }
        Ok(())
    }

    /// Back among those that may run. Whether its attempt did anything elsewhere is not known here.
    fn make_ready(&mut self, job: &Job) -> Result<()> {
        self.connection
            .prepare_cached("UPDATE delivery SET state = 0, ran = 1 WHERE id = ?1")?
            .execute([job.delivery.0])?;
        self.memory.moved(job.plugin, code::LEASED, code::READY);
        self.lanes.end(job.plugin, job.delivery);
        Ok(())
    }
}
