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
//!
//! Within a kind the places go to the plugin that has the fewest of them, and a plugin's items leave in
//! the order in which they are due. However many wait, what is looked at is one step in an index for each
//! plugin that has any.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use rusqlite::{OptionalExtension, Result, params};
use tokio::sync::oneshot;

use super::{
    Store, StoreError,
    schema::code,
    time::nanos,
    types::{Origin, OutboxFilter, OutboxId, OutboxJob, OutboxResult, OutboxSummary, Places},
    writer::{Op, Work, Writer},
};
use crate::model::{DeliveryId, EventSeq, Job, NewEvent, OutboxItem, OutboxKind, PluginId, TraceContext};

/// Between two tries to write down that an item has been sent, while the disk is full.
const PAUSE: Duration = Duration::from_secs(1);

/// The words for the states, by their numbers.
pub(super) const STATES: [&str; 5] = ["ready", "leased", "waiting", "sent", "dead"];

impl Store {
    /// Waits until an item of this kind is due and has a place, then leases as many as have one. May be
    /// cancelled.
    ///
    /// # Errors
    /// When the store takes no work any more, or could not write the lease.
    pub async fn lease_outbox(&self, kind: OutboxKind, places: Places) -> Result<Vec<OutboxJob>, StoreError> {
        let (reply, leased) = oneshot::channel();
        self.send(Op::LeaseOutbox(Waiter { kind, places, reply })).await?;
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

    /// Whose the items of a delivery are; none where its event has left the store.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn origin(&self, delivery: DeliveryId) -> Result<Option<Origin>, StoreError> {
        self.read(move |connection| {
            connection
                .prepare_cached(
                    "SELECT p.name, e.seq FROM delivery d JOIN plugin p ON p.id = d.plugin
                     JOIN event e ON e.seq = d.event WHERE d.id = ?1",
                )?
                .query_row([delivery.0], |row| Ok((row.get(0)?, EventSeq(row.get(1)?))))
                .optional()?
                .map(|(plugin, seq)| {
                    let NewEvent { source, id, .. } = super::queue::read_event(connection, seq)?;
                    Ok(Origin { source, event: id, plugin })
                })
                .transpose()
        })
        .await
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
            // One condition with an index, so that one item is found without a look at the others.
            let (of, number) = match (filter.id, filter.delivery) {
                (Some(OutboxId(id)), _) => ("o.id = ?4", id),
                (None, Some(DeliveryId(id))) => ("o.delivery = ?4", id),
                (None, None) => ("?4 = 0", 0),
            };
            connection
                .prepare_cached(&format!(
                    "{SUMMARY} WHERE o.id < ?1 AND (?2 IS NULL OR o.state = ?2) AND {of}
                     ORDER BY o.id DESC LIMIT ?3"
                ))?
                .query_map(params![before, state, limit, number], summary)?
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

/// The query whose rows [`summary`] reads, without its conditions.
pub(super) const SUMMARY: &str = "
SELECT o.id, o.delivery, o.state, o.attempts, o.due_at, o.finished_at, o.error, o.item,
       e.id, s.name, p.name, d.finished_at
FROM outbox o LEFT JOIN delivery d ON d.id = o.delivery LEFT JOIN event e ON e.seq = d.event
LEFT JOIN source s ON s.id = e.source LEFT JOIN plugin p ON p.id = o.plugin";

pub(super) fn summary(row: &rusqlite::Row<'_>) -> Result<OutboxSummary> {
    let state: i64 = row.get(2)?;
    let item = serde_json::from_str::<OutboxItem>(row.get_ref(7)?.as_str()?);
    let (kind, summary, outline) = match &item {
        Ok(item) => (item.kind().as_str().to_owned(), item.summary(), item.outline()),
        Err(error) => ("unknown".to_owned(), error.to_string(), "unknown".to_owned()),
    };
    let key = match &item {
        Ok(OutboxItem::Mail(mail)) => Some(mail.message_id.clone()),
        Ok(OutboxItem::Request(request)) => Some(request.key.clone()),
        Err(_) => None,
    };
    let time = |column: usize| -> Result<Option<jiff::Timestamp>> {
        Ok(row.get::<_, Option<i64>>(column)?.map(super::time::timestamp))
    };
    Ok(OutboxSummary {
        id: OutboxId(row.get(0)?),
        delivery: DeliveryId(row.get(1)?),
        event: row.get(8)?,
        source: row.get(9)?,
        plugin: row.get(10)?,
        kind,
        summary,
        outline,
        chosen: item.map(|item| item.chosen()).unwrap_or_default(),
        key,
        state: STATES.get(state as usize).copied().unwrap_or("unknown").to_owned(),
        attempts: row.get(3)?,
        staged_at: time(11)?,
        due_at: if state < code::DONE { time(4)? } else { None },
        finished_at: time(5)?,
        error: row.get(6)?,
    })
}

/// Somebody who waits for due items.
pub(super) struct Waiter {
    kind: OutboxKind,
    places: Places,
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
    /// When the earliest item is due that waits for nothing else, or earlier; `i64::MAX` where there is none.
    due: i64,
    /// Items that are due wait for a place.
    crowded: bool,
}

/// A plugin that has items which are due.
struct Claim {
    plugin: i64,
    under_way: usize,
    /// Not counted beyond what there can be places for.
    due: usize,
    granted: usize,
}

/// Gives out what is `free`, one place at a time to the plugin that has the fewest.
fn grant(claims: &mut [Claim], mut free: usize, kept: bool) {
    while free > 0
        && let Some(claim) = claims
            .iter_mut()
            .filter(|claim| claim.granted < claim.due)
            .min_by_key(|claim| claim.under_way + claim.granted)
        && (!kept || claim.under_way + claim.granted < free)
    {
        claim.granted += 1;
        free -= 1;
    }
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

    /// A place is free again.
    fn left(&mut self, kind: OutboxKind) {
        if std::mem::take(&mut self.line(kind).crowded) {
            self.line(kind).due = 0;
        }
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
                "INSERT INTO outbox (id, delivery, plugin, state, attempts, due_at, item, kind, trace)
                 VALUES (?1, ?2, ?3, 0, 0, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                id,
                job.delivery.0,
                job.plugin.0,
                self.now,
                item,
                number(kind),
                job.trace.map(|trace| trace.to_bytes())
            ])?;
        self.outbox.due_by(kind, self.now);
        Ok(())
    }

    /// Leases due items to those who wait.
    pub(super) fn lease_outbox(&mut self) -> Result<()> {
        for kind in OutboxKind::ALL {
            self.outbox.line(kind).waiters.retain(|waiter| !waiter.reply.is_closed());
            while self.outbox.line(kind).due <= self.now
                && let Some(places) = self.outbox.line(kind).waiters.front().map(|waiter| waiter.places)
            {
                let jobs = self.due_outbox(kind, places)?;
                if !jobs.is_empty()
                    && let Some(waiter) = self.outbox.line(kind).waiters.pop_front()
                {
                    self.outbox.staged.push((waiter, jobs));
                }
            }
        }
        Ok(())
    }

    /// Leases what is due and has a place, and finds out when to look again.
    fn due_outbox(&mut self, kind: OutboxKind, places: Places) -> Result<Vec<OutboxJob>> {
        let under_way = self.outbox_under_way(kind)?;
        let free = places.at_once.saturating_sub(under_way.values().sum());
        let (mut claims, mut later) = (Vec::new(), i64::MAX);
        let mut last = i64::MIN;
        while free > 0
            && let Some((plugin, due_at)) = self.next_with_outbox(kind, last)?
        {
            last = plugin;
            if due_at > self.now {
                later = later.min(due_at);
                continue;
            }
            let under_way = under_way.get(&plugin).copied().unwrap_or(0);
            let due = self.count_due_outbox(kind, plugin, free + 1)?;
            claims.push(Claim { plugin, under_way, due, granted: 0 });
        }
        grant(&mut claims, free, places.kept);
        let mut rows = Vec::new();
        for claim in &claims {
            self.select_outbox(kind, claim, &mut rows)?;
            if claim.granted == claim.due {
                later = later.min(self.later_outbox(kind, claim.plugin)?);
            }
        }
        rows.sort_unstable_by_key(|(due_at, _, job)| (*due_at, job.id.0));
        for (_, state, job) in &rows {
            self.connection
                .prepare_cached("UPDATE outbox SET state = 1 WHERE id = ?1")?
                .execute([job.id.0])?;
            self.moved_outbox(*state, code::LEASED);
        }
        let line = self.outbox.line(kind);
        line.due = later;
        line.crowded = free == 0 || claims.iter().any(|claim| claim.granted < claim.due);
        Ok(rows.into_iter().map(|(_, _, job)| job).collect())
    }

    /// How many items of each plugin are on their way.
    fn outbox_under_way(&self, kind: OutboxKind) -> Result<HashMap<i64, usize>> {
        self.connection
            .prepare_cached(
                "SELECT plugin, count(*) FROM outbox INDEXED BY outbox_leased
                 WHERE state = 1 AND kind = ?1 GROUP BY plugin",
            )?
            .query_map([number(kind)], |row| Ok((row.get(0)?, row.get::<_, u32>(1)? as usize)))?
            .collect()
    }

    /// The next plugin after `last` that has items waiting, and when its first is due.
    fn next_with_outbox(&self, kind: OutboxKind, last: i64) -> Result<Option<(i64, i64)>> {
        self.connection
            .prepare_cached(
                "SELECT plugin, due_at FROM outbox INDEXED BY outbox_due
                 WHERE state IN (0, 2) AND kind = ?1 AND plugin > ?2 ORDER BY plugin, due_at LIMIT 1",
            )?
            .query_row([number(kind), last], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
    }

    fn count_due_outbox(&self, kind: OutboxKind, plugin: i64, most: usize) -> Result<usize> {
        self.connection
            .prepare_cached(
                "SELECT count(*) FROM (SELECT 1 FROM outbox INDEXED BY outbox_due
                 WHERE state IN (0, 2) AND kind = ?1 AND plugin = ?2 AND due_at <= ?3 LIMIT ?4)",
            )?
            .query_row(params![number(kind), plugin, self.now, most as i64], |row| row.get::<_, u32>(0))
            .map(|count| count as usize)
    }

    /// When the plugin's next item is due that is not due yet.
    fn later_outbox(&self, kind: OutboxKind, plugin: i64) -> Result<i64> {
        self.connection
            .prepare_cached(
                "SELECT ifnull(min(due_at), ?4) FROM outbox INDEXED BY outbox_due
                 WHERE state IN (0, 2) AND kind = ?1 AND plugin = ?2 AND due_at > ?3",
            )?
            .query_row([number(kind), plugin, self.now, i64::MAX], |row| row.get(0))
    }

    /// The items for the places that a plugin was granted, each with when it was due and its state.
    fn select_outbox(
        &self,
        kind: OutboxKind,
        claim: &Claim,
        rows: &mut Vec<(i64, i64, OutboxJob)>,
    ) -> Result<()> {
        let mut statement = self.connection.prepare_cached(
            "SELECT id, delivery, plugin, attempts, item, state, due_at, trace FROM outbox INDEXED BY outbox_due
             WHERE state IN (0, 2) AND kind = ?1 AND plugin = ?2 AND due_at <= ?3 ORDER BY due_at, id LIMIT ?4",
        )?;
        let found = statement.query_map(
            params![number(kind), claim.plugin, self.now, claim.granted as i64],
            |row| {
                let item = serde_json::from_str(row.get_ref(4)?.as_str()?).map_err(|error| {
                    rusqlite::Error::FromSqlConversionFailure(4, rusqlite::types::Type::Text, error.into())
                })?;
                let job = OutboxJob {
                    id: OutboxId(row.get(0)?),
                    delivery: DeliveryId(row.get(1)?),
                    plugin: PluginId(row.get(2)?),
                    attempt: row.get::<_, u32>(3)? + 1,
                    trace: row.get_ref(7)?.as_blob_or_null()?.and_then(TraceContext::from_bytes),
                    item,
                };
                Ok((row.get(6)?, row.get(5)?, job))
            },
        )?;
        found.into_iter().try_for_each(|row| row.map(|row| rows.push(row)))
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
            self.outbox.left(kind);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What each gets who has so many on their way and wants so many more.
    fn granted(claims: &[(usize, usize)], free: usize, kept: bool) -> Vec<usize> {
        let mut claims: Vec<_> = claims
            .iter()
            .map(|(under_way, due)| Claim { plugin: 0, under_way: *under_way, due: *due, granted: 0 })
            .collect();
        grant(&mut claims, free, kept);
        claims.iter().map(|claim| claim.granted).collect()
    }

    #[test]
    fn places_go_to_who_has_the_fewest() {
        assert_eq!(granted(&[(0, 100)], 8, false), [8]);
        assert_eq!(granted(&[(0, 100), (0, 100)], 8, false), [4, 4]);
        assert_eq!(granted(&[(6, 100), (0, 100)], 2, false), [0, 2]);
        assert_eq!(granted(&[(0, 100), (0, 1), (3, 9)], 8, false), [5, 1, 2]);
        assert_eq!(granted(&[(0, 1)], 0, false), [0]);
    }

    #[test]
    fn where_places_are_kept_nobody_has_more_than_there_are_free() {
        assert_eq!(granted(&[(0, 100)], 64, true), [32]);
        assert_eq!(granted(&[(32, 100), (0, 100)], 32, true), [0, 16]);
        assert_eq!(granted(&[(32, 9), (16, 9), (8, 9), (4, 9), (2, 9), (0, 9)], 2, true), [0, 0, 0, 0, 0, 1]);
        assert_eq!(granted(&[(0, 2), (0, 2)], 64, true), [2, 2]);
    }
}
