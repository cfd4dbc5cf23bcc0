//! The outbox: what an attempt staged to leave after its commit, until it is sent or given up.
//!
//! ```text
//!   commit ──► ready ──► leased ──► sent
//!                ▲        │  │
//!            due │        │  └────► dead ──► (replay) ready
//!             waiting ◄───┘
//!
//!   After a restart what was leased is ready again: a mail may leave twice, with one Message-ID.
//! ```

use std::{collections::VecDeque, time::Duration};

use rusqlite::{Result, params};
use tokio::sync::oneshot;

use super::{
    Store, StoreError,
    schema::code,
    time::nanos,
    views::{OutboxFilter, OutboxId, OutboxJob, OutboxResult, OutboxSummary},
    writer::{Op, Work, Writer},
};
use crate::model::{DeliveryId, Job, OutboxItem, PluginId};

/// Between two tries to write down that an item has been sent, while the disk is full.
const PAUSE: Duration = Duration::from_secs(1);

/// The words for the states, by their numbers.
pub(super) const STATES: [&str; 5] = ["ready", "leased", "waiting", "sent", "dead"];

impl Store {
    /// Waits until an item is due, then leases up to `limit` of them. May be cancelled.
    ///
    /// # Errors
    /// When the store takes no work any more, or could not write the lease.
    pub async fn lease_outbox(&self, limit: usize) -> Result<Vec<OutboxJob>, StoreError> {
        let (reply, leased) = oneshot::channel();
        self.send(Op::LeaseOutbox(Waiter { limit: limit.max(1), reply })).await?;
        leased.await.unwrap_or_else(|_| Err(self.silence()))
    }

    /// Writes down how an attempt to send an item ended; waits for as long as the disk is full, since
    /// what has been sent must not be forgotten.
    ///
    /// # Errors
    /// When the store takes no work any more.
    pub async fn complete_outbox(&self, item: OutboxId, result: OutboxResult) -> Result<(), StoreError> {
        loop {
            let result = result.clone();
            match self.write(move |writer| writer.complete_outbox(item, &result)).await {
                Err(StoreError::Io(_)) => tokio::time::sleep(PAUSE).await,
                ended => return ended,
            }
        }
    }

    /// Outbox items, newest first.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn outbox(&self, filter: OutboxFilter) -> Result<Vec<OutboxSummary>, StoreError> {
        self.read(move |connection| {
            let state = match &filter.state {
                Some(word) => match STATES.iter().position(|state| state == word) {
                    Some(state) => Some(state as i64),
                    None => return Ok(Vec::new()),
                },
                None => None,
            };
            let before = filter.before.map_or(i64::MAX, |OutboxId(id)| id);
            let limit = i64::from(super::query::page(filter.limit));
            connection
                .prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM outbox WHERE id < ?1 AND (?2 IS NULL OR state = ?2)
                     ORDER BY id DESC LIMIT ?3"
                ))?
                .query_map(params![before, state, limit], summary)?
                .collect()
        })
        .await
    }

    /// Makes given-up items ready again, as if never tried: those named, or all where none is. Returns
    /// how many.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn replay_outbox(&self, items: Vec<OutboxId>) -> Result<u64, StoreError> {
        self.write(move |writer| {
            let sql =
                "UPDATE outbox SET state = 0, attempts = 0, due_at = ?1, finished_at = NULL WHERE state = 4";
            let now = writer.now;
            let changed = if items.is_empty() {
                writer.connection.execute(sql, [now])?
            } else {
                let mut statement = writer.connection.prepare_cached(&format!("{sql} AND id = ?2"))?;
                items.iter().map(|OutboxId(id)| statement.execute([now, *id])).sum::<Result<usize>>()?
            };
            let counts = &mut writer.memory.sequence().outbox;
            counts[code::DEAD as usize] -= changed as i64;
            counts[code::READY as usize] += changed as i64;
            writer.outbox.due_by(now);
            Ok(changed as u64)
        })
        .await
    }
}

/// The columns that [`summary`] reads.
pub(super) const COLUMNS: &str = "id, delivery, state, attempts, due_at, finished_at, error, item";

pub(super) fn summary(row: &rusqlite::Row<'_>) -> Result<OutboxSummary> {
    let state: i64 = row.get(2)?;
    let (kind, summary) = match serde_json::from_str::<OutboxItem>(row.get_ref(7)?.as_str()?) {
        Ok(ref item @ OutboxItem::Mail(ref mail)) => {
            let to: Vec<&str> = mail.to.iter().chain(&mail.cc).chain(&mail.bcc).map(String::as_str).collect();
            (item.kind().to_owned(), format!("{} → {}: {}", mail.from, to.join(", "), mail.subject))
        }
        Err(error) => ("unknown".to_owned(), error.to_string()),
    };
    Ok(OutboxSummary {
        id: OutboxId(row.get(0)?),
        delivery: DeliveryId(row.get(1)?),
        kind,
        summary,
        state: STATES.get(state as usize).copied().unwrap_or("unknown").to_owned(),
        attempts: row.get(3)?,
        due_at: (state < code::DONE).then_some(super::time::timestamp(row.get(4)?)),
        finished_at: row.get::<_, Option<i64>>(5)?.map(super::time::timestamp),
        error: row.get(6)?,
    })
}

/// Somebody who waits for due items.
pub(super) struct Waiter {
    limit: usize,
    reply: oneshot::Sender<Result<Vec<OutboxJob>, StoreError>>,
}

impl Waiter {
    pub(super) fn refuse(self, error: StoreError) {
        let _ = self.reply.send(Err(error));
    }
}

/// Those who wait, and when there is something for them.
#[derive(Default)]
pub(super) struct OutboxQueue {
    waiters: VecDeque<Waiter>,
    /// When the earliest item is due, or earlier; `i64::MAX` where there is none.
    due: i64,
    staged: Vec<(Waiter, Vec<OutboxJob>)>,
}

impl OutboxQueue {
    pub(super) fn wait(&mut self, waiter: Waiter) {
        self.waiters.push_back(waiter);
    }

    /// When to look again; none while nobody waits, or nothing is there.
    pub(super) fn next_due(&self) -> Option<i64> {
        (!self.waiters.is_empty() && self.due != i64::MAX).then_some(self.due)
    }

    /// After the commit. Returns the work of giving back what nobody took.
    pub(super) fn settle(&mut self) -> Option<Work> {
        let mut unheard = Vec::new();
        for (waiter, jobs) in self.staged.drain(..) {
            if let Err(Ok(jobs)) = waiter.reply.send(Ok(jobs)) {
                unheard.extend(jobs);
            }
        }
        (!unheard.is_empty()).then(|| {
            Box::new(move |writer: &mut Writer<'_>| {
                unheard.iter().try_for_each(|job| writer.release_outbox(job.id))
            }) as Work
        })
    }

    /// After a rollback.
    pub(super) fn undo(&mut self, error: &StoreError) {
        self.due = 0;
        for (waiter, _) in self.staged.drain(..) {
            waiter.refuse(error.clone());
        }
        if matches!(error, StoreError::Poisoned(_)) {
            self.waiters.drain(..).for_each(|waiter| waiter.refuse(error.clone()));
        }
    }

    fn due_by(&mut self, due: i64) {
        self.due = self.due.min(due);
    }
}

impl Writer<'_> {
    /// Writes an item that leaves once this batch has committed.
    pub(super) fn insert_outbox(&mut self, job: &Job, item: &str) -> Result<()> {
        let sequence = self.memory.sequence();
        let id = sequence.next_outbox;
        sequence.next_outbox += 1;
        sequence.outbox[code::READY as usize] += 1;
        self.connection
            .prepare_cached(
                "INSERT INTO outbox (id, delivery, plugin, state, attempts, due_at, item)
                 VALUES (?1, ?2, ?3, 0, 0, ?4, ?5)",
            )?
            .execute(params![id, job.delivery.0, job.plugin.0, self.now, item])?;
        self.outbox.due_by(self.now);
        Ok(())
    }

    /// Leases due items to those who wait.
    pub(super) fn lease_outbox(&mut self) -> Result<()> {
        self.outbox.waiters.retain(|waiter| !waiter.reply.is_closed());
        while self.outbox.due <= self.now
            && let Some(limit) = self.outbox.waiters.front().map(|waiter| waiter.limit)
        {
            let jobs = self.due_outbox(limit)?;
            if jobs.len() < limit {
                self.outbox.due = self.connection.query_row(
                    "SELECT ifnull(min(due_at), ?2) FROM outbox INDEXED BY outbox_due
                     WHERE state IN (0, 2) AND due_at > ?1",
                    [self.now, i64::MAX],
                    |row| row.get(0),
                )?;
            }
            if !jobs.is_empty()
                && let Some(waiter) = self.outbox.waiters.pop_front()
            {
                self.outbox.staged.push((waiter, jobs));
            }
        }
        Ok(())
    }

    fn due_outbox(&mut self, limit: usize) -> Result<Vec<OutboxJob>> {
        let rows: Vec<(OutboxJob, i64)> = self
            .connection
            .prepare_cached(
                "SELECT id, delivery, plugin, attempts, item, state FROM outbox INDEXED BY outbox_due
                 WHERE state IN (0, 2) AND due_at <= ?1 ORDER BY due_at, id LIMIT ?2",
            )?
            .query_map(params![self.now, limit as i64], |row| {
                let item = serde_json::from_str(row.get_ref(4)?.as_str()?).map_err(|error| {
                    rusqlite::Error::FromSqlConversionFailure(4, rusqlite::types::Type::Text, error.into())
                })?;
                let job = OutboxJob {
                    id: OutboxId(row.get(0)?),
                    delivery: DeliveryId(row.get(1)?),
                    plugin: PluginId(row.get(2)?),
                    attempt: row.get::<_, u32>(3)? + 1,
                    item,
                };
                Ok((job, row.get(5)?))
            })?
            .collect::<Result<_>>()?;
        for (job, state) in &rows {
            self.connection
                .prepare_cached("UPDATE outbox SET state = 1 WHERE id = ?1")?
                .execute([job.id.0])?;
            self.moved_outbox(*state, code::LEASED);
        }
        Ok(rows.into_iter().map(|(job, _)| job).collect())
    }

    fn complete_outbox(&mut self, item: OutboxId, result: &OutboxResult) -> Result<()> {
        let (state, due, error) = match result {
            OutboxResult::Sent => (code::DONE, None, None),
            OutboxResult::Retry { due, error } => (code::WAITING, Some(nanos(*due)), Some(error)),
            OutboxResult::Dead { error } => (code::DEAD, None, Some(error)),
        };
        let finished_at = due.is_none().then_some(self.now);
        let changed = self
            .connection
            .prepare_cached(
                "UPDATE outbox SET state = ?2, attempts = attempts + 1, due_at = ifnull(?3, due_at),
                 finished_at = ?4, error = ?5 WHERE id = ?1 AND state = 1",
            )?
            .execute(params![item.0, state, due, finished_at, error])?;
        if changed == 1 {
            self.moved_outbox(code::LEASED, state);
            self.outbox.due_by(due.unwrap_or(i64::MAX));
        }
        Ok(())
    }

    fn release_outbox(&mut self, item: OutboxId) -> Result<()> {
        let changed = self
            .connection
            .prepare_cached("UPDATE outbox SET state = 0 WHERE id = ?1 AND state = 1")?
            .execute([item.0])?;
        if changed == 1 {
            self.moved_outbox(code::LEASED, code::READY);
            self.outbox.due_by(self.now);
        }
        Ok(())
    }

    fn moved_outbox(&mut self, from: i64, to: i64) {
        let counts = &mut self.memory.sequence().outbox;
        counts[from as usize] -= 1;
        counts[to as usize] += 1;
    }
}
