//! The outbox: what an attempt staged to leave after its commit, until it is sent or given up.
//!
//! ```text
//!   commit ──► ready ──► leased ──► sent
//!                ▲        │  │
//!            due │        │  └────► dead ──► (replay) ready
//!             waiting ◄───┘
//!
//!   After a restart what was leased is ready again: an item may leave twice, with one Message-ID or
//!   Idempotency-Key. Each kind has a line of its own: what is slow to send holds back only its like.
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
use crate::model::{DeliveryId, Job, OutboxItem, OutboxKind, PluginId};

/// Between two tries to write down that an item has been sent, while the disk is full.
const PAUSE: Duration = Duration::from_secs(1);

/// The words for the states, by their numbers.
pub(super) const STATES: [&str; 5] = ["ready", "leased", "waiting", "sent", "dead"];

impl Store {
    /// Waits until an item of this kind is due, then leases up to `limit` of them. May be cancelled.
    ///
    /// # Errors
    /// When the store takes no work any more, or could not write the lease.
    pub async fn lease_outbox(&self, kind: OutboxKind, limit: usize) -> Result<Vec<OutboxJob>, StoreError> {
        let (reply, leased) = oneshot::channel();
        self.send(Op::LeaseOutbox(Waiter { kind, limit: limit.max(1), reply })).await?;
        leased.await.unwrap_or_else(|_| Err(self.silence()))
    }

    /// Writes down how an attempt to send an item ended; waits for as long as the disk is full, since
    /// what has been sent must not be forgotten.
    ///
    /// # Errors
    /// When the store takes no work any more.
    pub async fn complete_outbox(&self, job: &OutboxJob, result: OutboxResult) -> Result<(), StoreError> {
        let (item, kind) = (job.id, job.item.kind());
        loop {
            let written = result.clone();
            match self.write(move |writer| writer.complete_outbox(item, kind, &written)).await {
                Err(StoreError::Io(_)) => tokio::time::sleep(PAUSE).await,
                Ok(true) => {
                    self.shared().meters.sent(kind, &result);
                    return Ok(());
                }
                ended => return ended.map(drop),
            }
        }
    }

    /// How many items of each kind have neither been sent nor given up.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn unsent(&self) -> Result<[(OutboxKind, u64); OutboxKind::ALL.len()], StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT (SELECT count(*) FROM outbox INDEXED BY outbox_due WHERE state IN (0, 2) AND kind = ?1)
                      + (SELECT count(*) FROM outbox INDEXED BY outbox_leased WHERE state = 1 AND kind = ?1)",
            )?;
            let mut counts = OutboxKind::ALL.map(|kind| (kind, 0));
            for (kind, count) in &mut counts {
                *count = statement.query_row([number(*kind)], |row| row.get::<_, i64>(0))?.unsigned_abs();
            }
            Ok(counts)
        })
        .await
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
            OutboxKind::ALL.iter().for_each(|kind| writer.outbox.due_by(*kind, now));
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
            let summary = format!("{} → {}: {}", mail.from, to.join(", "), mail.subject);
            (item.kind().as_str().to_owned(), summary)
        }
        Ok(ref item @ OutboxItem::Request(ref request)) => {
            (item.kind().as_str().to_owned(), request.summary())
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
    kind: OutboxKind,
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
    kinds: [Line; OutboxKind::ALL.len()],
    staged: Vec<(Waiter, Vec<OutboxJob>)>,
}

/// Those who wait for items of one kind.
#[derive(Default)]
struct Line {
    waiters: VecDeque<Waiter>,
    /// When the earliest item is due, or earlier; `i64::MAX` where there is none.
    due: i64,
}

impl OutboxQueue {
    pub(super) fn wait(&mut self, waiter: Waiter) {
        self.line(waiter.kind).waiters.push_back(waiter);
    }

    /// When to look again; none while nobody waits, or nothing is there.
    pub(super) fn next_due(&self) -> Option<i64> {
        let waited_for = self.kinds.iter().filter(|line| !line.waiters.is_empty());
        waited_for.map(|line| line.due).min().filter(|due| *due != i64::MAX)
    }

    fn line(&mut self, kind: OutboxKind) -> &mut Line {
        &mut self.kinds[number(kind) as usize]
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
                unheard.iter().try_for_each(|job| writer.release_outbox(job))
            }) as Work
        })
    }

    /// After a rollback.
    pub(super) fn undo(&mut self, error: &StoreError) {
        self.kinds.iter_mut().for_each(|line| line.due = 0);
        for (waiter, _) in self.staged.drain(..) {
            waiter.refuse(error.clone());
        }
        if matches!(error, StoreError::Poisoned(_)) {
            let waiters = self.kinds.iter_mut().flat_map(|line| line.waiters.drain(..));
            waiters.for_each(|waiter| waiter.refuse(error.clone()));
        }
    }

    fn due_by(&mut self, kind: OutboxKind, due: i64) {
        let line = self.line(kind);
        line.due = line.due.min(due);
    }
}

/// The number of a kind in a row.
fn number(kind: OutboxKind) -> i64 {
    match kind {
        OutboxKind::Mail => 0,
        OutboxKind::Request => 1,
    }
}

impl Writer<'_> {
    /// Writes an item that leaves once this batch has committed.
    pub(super) fn insert_outbox(&mut self, job: &Job, kind: OutboxKind, item: &str) -> Result<()> {
        let sequence = self.memory.sequence();
        let id = sequence.next_outbox;
        sequence.next_outbox += 1;
        sequence.outbox[code::READY as usize] += 1;
        self.connection
            .prepare_cached(
                "INSERT INTO outbox (id, delivery, plugin, state, attempts, due_at, item, kind)
                 VALUES (?1, ?2, ?3, 0, 0, ?4, ?5, ?6)",
            )?
            .execute(params![id, job.delivery.0, job.plugin.0, self.now, item, number(kind)])?;
        self.outbox.due_by(kind, self.now);
        Ok(())
    }

    /// Leases due items to those who wait.
    pub(super) fn lease_outbox(&mut self) -> Result<()> {
        for kind in OutboxKind::ALL {
            self.outbox.line(kind).waiters.retain(|waiter| !waiter.reply.is_closed());
            while self.outbox.line(kind).due <= self.now
                && let Some(limit) = self.outbox.line(kind).waiters.front().map(|waiter| waiter.limit)
            {
                let jobs = self.due_outbox(kind, limit)?;
                if jobs.len() < limit {
                    self.outbox.line(kind).due = self.connection.query_row(
                        "SELECT ifnull(min(due_at), ?2) FROM outbox INDEXED BY outbox_due
                         WHERE state IN (0, 2) AND kind = ?3 AND due_at > ?1",
                        [self.now, i64::MAX, number(kind)],
                        |row| row.get(0),
                    )?;
                }
                if !jobs.is_empty()
                    && let Some(waiter) = self.outbox.line(kind).waiters.pop_front()
                {
                    self.outbox.staged.push((waiter, jobs));
                }
            }
        }
        Ok(())
    }

    fn due_outbox(&mut self, kind: OutboxKind, limit: usize) -> Result<Vec<OutboxJob>> {
        let rows: Vec<(OutboxJob, i64)> = self
            .connection
            .prepare_cached(
                "SELECT id, delivery, plugin, attempts, item, state FROM outbox INDEXED BY outbox_due
                 WHERE state IN (0, 2) AND kind = ?3 AND due_at <= ?1 ORDER BY due_at, id LIMIT ?2",
            )?
            .query_map(params![self.now, limit as i64, number(kind)], |row| {
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

    /// Returns whether it was on its way.
    fn complete_outbox(&mut self, item: OutboxId, kind: OutboxKind, result: &OutboxResult) -> Result<bool> {
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
            self.outbox.due_by(kind, due.unwrap_or(i64::MAX));
        }
        Ok(changed == 1)
    }

    fn release_outbox(&mut self, job: &OutboxJob) -> Result<()> {
        let changed = self
            .connection
            .prepare_cached("UPDATE outbox SET state = 0 WHERE id = ?1 AND state = 1")?
            .execute([job.id.0])?;
        if changed == 1 {
            self.moved_outbox(code::LEASED, code::READY);
            self.outbox.due_by(job.item.kind(), self.now);
        }
        Ok(())
    }

    fn moved_outbox(&mut self, from: i64, to: i64) {
        let counts = &mut self.memory.sequence().outbox;
        counts[from as usize] -= 1;
        counts[to as usize] += 1;
    }
}
