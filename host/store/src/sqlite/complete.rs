//! Completion: the effects of an attempt and "done" in one transaction, or nothing.
//!
//! The checks run first and write nothing: whether the lease is valid, whether anything has changed that the
//! attempt read, and whether its changes fit. If the lease is lost, the completion is dropped. If a read has
//! changed, the job goes through its lane again: a conflict, and not a failed attempt. The writes follow only
//! after all checks.

use posthouse_model::{
    DeliveryId, DeliveryState, Effects, EventOrigin, Job, KvChange, OrderKey, OutboxKind, Outcome as Ending,
    PluginId,
};
use rusqlite::{OptionalExtension, Result, params};

use super::{reads::Reads, schema::code, session::Session};

use crate::{
    Completed, Offer, StoreError,
    op::{Completion, Conclusion, Outcome, Record},
    time::timestamp,
};

pub(super) const FINISH_DELIVERY: &str = "
UPDATE delivery SET state = ?2, attempts = ?3, due_at = ifnull(?4, due_at), finished_at = ?5, error = ?6
WHERE id = ?1";

pub(super) const INSERT_ATTEMPT: &str = "
INSERT OR REPLACE INTO attempt (delivery, number, started_at, duration_us, outcome, error, trace, logs,
                                revision, did)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

fn outcome_code(outcome: Ending) -> i64 {
    match outcome {
        Ending::Done => 0,
        Ending::Retry => 1,
        Ending::Rejected => 2,
    }
}

/// The outcome with this number in a row.
pub(super) fn outcome_of(code: i64) -> Ending {
    match code {
        0 => Ending::Done,
        1 => Ending::Retry,
        _ => Ending::Rejected,
    }
}

impl Session<'_> {
    /// Writes the result of a job.
    pub(super) fn complete(&mut self, completion: &Completion) -> Result<Completed> {
        let Completion { job, verdict } = completion;
        if self.leases.of(job).is_none() {
            tracing::warn!(delivery = %job.delivery, "dropped a completion without a valid lease");
            self.counters.sequence().lost_leases += 1;
            return Ok(Completed::LostLease);
        }
        match verdict {
            Conclusion::Done(record, effects, items) => match self.stage_kv(job.plugin, effects)? {
                Some(changes) => self.done(job, record, changes, effects, items)?,
                None => return self.conflict(job),
            },
            Conclusion::Retry(record, due) => {
                self.lines.waits(job.plugin, *due);
                self.finish(job, record, code::WAITING, Some(*due))?;
            }
            Conclusion::Dead(record) => self.finish(job, record, code::DEAD, None)?,
            Conclusion::Conflict => return self.conflict(job),
            Conclusion::Released => self.make_ready(job)?,
        }
        Ok(Completed::Written)
    }

    fn done(
        &mut self,
        job: &Job,
        record: &Record,
        changes: Vec<KvChange>,
        effects: &Effects,
        items: &[(OutboxKind, String)],
    ) -> Result<()> {
        self.apply_kv(job.plugin, changes);
        for (kind, item) in items {
            self.insert_outbox(job.delivery, job.plugin, job.trace, (*kind, item))?;
        }
        for derived in &effects.emitted {
            // The event's id belongs to this delivery alone, and a delivery is done once: it cannot be a
            // duplicate.
            let event = derived.event(timestamp(self.now));
            let subscribers = derived.subscribers.clone();
            self.take_in(Offer { event, second: None, subscribers, origin: EventOrigin::Derived }, None)?;
        }
        self.finish(job, record, code::DONE, None)
    }

    fn conflict(&mut self, job: &Job) -> Result<Completed> {
        self.counters.sequence().conflicts += 1;
        let lane = self.leases.of(job).map(|lease| lease.lane);
        let open = self.lines.0.get(&job.plugin).map(|line| line.room.lane);
        if lane.is_some() && lane == open {
            self.again.push(Job { conflicts: job.conflicts.saturating_add(1), ..job.clone() });
        } else {
            self.make_ready(job)?;
        }
        Ok(Completed::Conflict)
    }

    fn finish(&mut self, job: &Job, record: &Record, state: i64, due: Option<i64>) -> Result<()> {
        let Record {
            number, revision, started_at, duration_us, outcome, error, trace, logs, actions, ..
        } = record;
        let finished_at = (state >= code::DONE).then_some(self.now);
        self.sql.finish_delivery.execute(params![job.delivery.0, state, number, due, finished_at, error])?;
        self.sql.insert_attempt.execute(params![
            job.delivery.0,
            number,
            started_at,
            duration_us,
            outcome_code(*outcome),
            error,
            trace,
            logs,
            revision,
            actions
        ])?;
        if state >= code::DONE {
            let event_type = self.counters.event_type(self.connection, &job.event.content.event_type)?;
            let done = state == code::DONE;
            self.counters.hour_finished(self.connection, self.now, event_type, done, *duration_us)?;
        }
        self.counters.moved(job.plugin, code::LEASED, state);
        if let Some(key) = self.end_lease(job.plugin, job.delivery)
            && state >= code::DONE
        {
            self.unblock_next(job.plugin, &key)?;
        }
        Ok(())
    }

    /// Makes the delivery ready again. Whether its attempt changed another database is not known here.
    fn make_ready(&mut self, job: &Job) -> Result<()> {
        self.connection
            .prepare_cached("UPDATE delivery SET state = 0, ran = 1 WHERE id = ?1")?
            .execute([job.delivery.0])?;
        self.counters.moved(job.plugin, code::LEASED, code::READY);
        self.end_lease(job.plugin, job.delivery);
        Ok(())
    }

    /// Ends a lease. Returns the delivery's order key.
    pub(super) fn end_lease(&mut self, plugin: PluginId, delivery: DeliveryId) -> Option<OrderKey> {
        let (lane, order_key) = self.leases.end(delivery)?;
        self.lines.ended(plugin, lane);
        order_key
    }

    /// Makes those of the deliveries ready that are dead.
    pub(super) fn revive(&mut self, deliveries: &[DeliveryId]) -> Result<Outcome> {
        let mut count = 0;
        for delivery in deliveries {
            let revived: Option<i64> = self
                .connection
                .prepare_cached(
                    "UPDATE delivery SET state = 0, ran = 1, due_at = ?2, finished_at = NULL
                     WHERE id = ?1 AND state = 4 RETURNING plugin",
                )?
                .query_row([delivery.0, self.now], |row| row.get(0))
                .optional()?;
            if let Some(plugin) = revived {
                self.counters.moved(PluginId(plugin), code::DEAD, code::READY);
                count += 1;
            }
        }
        Ok(Outcome::Count(count))
    }
}

impl Reads {
    /// Those of the deliveries that are in this state.
    pub(crate) async fn in_state(
        &self,
        state: DeliveryState,
        mut deliveries: Vec<DeliveryId>,
    ) -> std::result::Result<Vec<DeliveryId>, StoreError> {
        let state = match state {
            DeliveryState::Dead => code::DEAD,
            _ => code::DONE,
        };
        self.read(move |connection| {
            // A decision is done once it has ended, and never dead.
            let mut statement = connection.prepare_cached(
                "SELECT 1 FROM delivery WHERE id = ?1 AND state = ?2
                 UNION ALL SELECT 1 FROM decision WHERE id = ?1 AND state > 0 AND ?2 = 3",
            )?;
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
