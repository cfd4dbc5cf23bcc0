//! The outbox: what an attempt staged to be sent after its commit, until it is sent or dead.
//!
//! ```text
//!   commit ──► ready ──► leased ──► sent
//!                ▲        │  │
//!            due │        │  └────► dead ──► (replay) ready
//!             waiting ◄───┘
//!
//!   After a restart leased items are ready again: an item may be sent twice, with the same Message-ID or
//!   Idempotency-Key. Each kind has a separate queue, so slow items of one kind do not delay the other.
//! ```
//!
//! Within a kind, free slots go to the plugin that has the fewest, and a plugin's items are sent in the order
//! in which they are due. However many items wait, a look takes one step in an index for each plugin that has
//! any.

use std::collections::HashMap;

use posthouse_model::{
    DeliveryId, EventSeq, NewEvent, OutboxHead, OutboxItem, OutboxKind, OutboxState, PluginId, TraceContext,
};
use rusqlite::{OptionalExtension, Result, params};

use super::{reads::Reads, schema::code, session::Session};

use crate::{
    Answer, Origin, OutboxFilter, OutboxId, OutboxJob, OutboxResult, OutboxSlots, OutboxSummary,
    fairness::{Claim, grant},
    op::Outcome,
    page,
    time::nanos,
};

/// The state that a row with this number is in.
fn state_of(number: i64) -> OutboxState {
    match number {
        code::LEASED => OutboxState::Leased,
        code::WAITING => OutboxState::Waiting,
        code::DONE => OutboxState::Sent,
        code::DEAD => OutboxState::Dead,
        _ => OutboxState::Ready,
    }
}

/// The number of a state in a row.
fn state_number(state: OutboxState) -> i64 {
    match state {
        OutboxState::Ready => code::READY,
        OutboxState::Leased => code::LEASED,
        OutboxState::Waiting => code::WAITING,
        OutboxState::Sent => code::DONE,
        OutboxState::Dead => code::DEAD,
    }
}

impl Reads {
    pub(crate) async fn origin(&self, delivery: DeliveryId) -> Answer<Option<Origin>> {
        self.read(move |connection| {
            let of_event = connection
                .prepare_cached(
                    "SELECT p.name, e.seq FROM delivery d JOIN plugin p ON p.id = d.plugin
                     JOIN event e ON e.seq = d.event WHERE d.id = ?1",
                )?
                .query_row([delivery.0], |row| Ok((row.get(0)?, EventSeq(row.get(1)?))))
                .optional()?;
            let Some((plugin, seq)) = of_event else { return super::decisions::origin(connection, delivery) };
            let NewEvent { source, id, .. } = super::due::read_event(connection, seq)?;
            Ok(Some(Origin { source, event: id, plugin }))
        })
        .await
    }

    pub(crate) async fn unsent(&self) -> Answer<[(OutboxKind, u64); OutboxKind::ALL.len()]> {
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

    pub(crate) async fn outbox(&self, filter: OutboxFilter) -> Answer<Vec<OutboxSummary>> {
        self.read(move |connection| {
            let state = filter.state.map(state_number);
            let before = filter.before.map_or(i64::MAX, |OutboxId(id)| id);
            let limit = i64::from(page(filter.limit));
            // One condition with an index, so that one item is found without reading the others.
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
}

/// The query whose rows [`summary`] reads, without conditions.
pub(super) const SUMMARY: &str = "
SELECT o.id, o.delivery, o.state, o.attempts, o.due_at, o.finished_at, o.error, o.item,
       ifnull(e.id, c.request), ifnull(s.name, 'interceptor:' || c.interceptor), p.name,
       ifnull(d.finished_at, c.finished_at)
FROM outbox o LEFT JOIN delivery d ON d.id = o.delivery LEFT JOIN event e ON e.seq = d.event
LEFT JOIN source s ON s.id = e.source LEFT JOIN plugin p ON p.id = o.plugin
LEFT JOIN decision c ON c.id = o.delivery";

pub(super) fn summary(row: &rusqlite::Row<'_>) -> Result<OutboxSummary> {
    let state: i64 = row.get(2)?;
    let item = serde_json::from_str::<OutboxItem>(row.get_ref(7)?.as_str()?);
    let (key, head) = match &item {
        Ok(item) => (Some(item.key().to_owned()), item.head()),
        Err(error) => (None, OutboxHead::Unreadable(error.to_string())),
    };
    let time = |column: usize| -> Result<Option<jiff::Timestamp>> {
        Ok(row.get::<_, Option<i64>>(column)?.map(crate::time::timestamp))
    };
    Ok(OutboxSummary {
        id: OutboxId(row.get(0)?),
        delivery: DeliveryId(row.get(1)?),
        event: row.get(8)?,
        source: row.get(9)?,
        plugin: row.get(10)?,
        head,
        key,
        state: state_of(state),
        attempts: row.get(3)?,
        staged_at: time(11)?,
        due_at: if state < code::DONE { time(4)? } else { None },
        finished_at: time(5)?,
        error: row.get(6)?,
    })
}

/// When there is something to lease, by kind.
#[derive(Default)]
pub(super) struct Due([Line; OutboxKind::ALL.len()]);

/// The items of one kind.
#[derive(Default)]
struct Line {
    /// When the earliest item is due that waits only for its time, or an earlier time; `i64::MAX` if there is
    /// none.
    due: i64,
    /// Whether due items wait for a slot.
    crowded: bool,
}

impl Due {
    /// When to look again for these kinds; none if there are no items.
    pub(super) fn next(&self, kinds: impl Iterator<Item = OutboxKind>) -> Option<i64> {
        kinds.map(|kind| self.0[number(kind) as usize].due).min().filter(|due| *due != i64::MAX)
    }

    fn line(&mut self, kind: OutboxKind) -> &mut Line {
        &mut self.0[number(kind) as usize]
    }

    /// After a rollback.
    pub(super) fn undo(&mut self) {
        self.0.iter_mut().for_each(|line| line.due = 0);
    }

    fn due_by(&mut self, kind: OutboxKind, due: i64) {
        let line = self.line(kind);
        line.due = line.due.min(due);
    }

    /// A slot is free again.
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

impl Session<'_> {
    /// Writes an item that is sent once this batch has committed.
    pub(super) fn insert_outbox(
        &mut self,
        delivery: DeliveryId,
        plugin: PluginId,
        trace: Option<TraceContext>,
        (kind, item): (OutboxKind, &str),
    ) -> Result<()> {
        let sequence = self.counters.sequence();
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
                delivery.0,
                plugin.0,
                self.now,
                item,
                number(kind),
                trace.map(|trace| trace.to_bytes())
            ])?;
        self.outbox.due_by(kind, self.now);
        Ok(())
    }

    /// Leases due items to the callers that wait, in the order of their waiting.
    pub(super) fn lease_outbox(
        &mut self,
        waiters: &[(OutboxKind, OutboxSlots)],
    ) -> Result<Vec<Vec<OutboxJob>>> {
        let mut leased = Vec::with_capacity(waiters.len());
        for (kind, slots) in waiters {
            let mut jobs = Vec::new();
            while jobs.is_empty() && self.outbox.line(*kind).due <= self.now {
                jobs = self.due_outbox(*kind, *slots)?;
            }
            leased.push(jobs);
        }
        Ok(leased)
    }

    /// Leases due items while there are slots, and finds out when to look again.
    fn due_outbox(&mut self, kind: OutboxKind, slots: OutboxSlots) -> Result<Vec<OutboxJob>> {
        let under_way = self.outbox_under_way(kind)?;
        let free = slots.at_once.saturating_sub(under_way.values().sum());
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
        grant(&mut claims, free, slots.kept);
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

    /// How many items of each plugin are being sent.
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

    /// The items for the slots that a plugin was granted, each with its due time and state.
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

    /// Records the result of sending an item. Returns whether it was leased.
    pub(super) fn complete_outbox(
        &mut self,
        item: OutboxId,
        kind: OutboxKind,
        result: &OutboxResult,
    ) -> Result<Outcome> {
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
        Ok(Outcome::Flag(changed == 1))
    }

    /// Makes leased items ready again.
    pub(super) fn release_outbox(&mut self, items: &[(OutboxId, OutboxKind)]) -> Result<Outcome> {
        for (item, kind) in items {
            let changed = self
                .connection
                .prepare_cached("UPDATE outbox SET state = 0 WHERE id = ?1 AND state = 1")?
                .execute([item.0])?;
            if changed == 1 {
                self.moved_outbox(code::LEASED, code::READY);
                self.outbox.due_by(*kind, self.now);
            }
        }
        Ok(Outcome::Done)
    }

    /// Makes dead items ready, with no attempts counted.
    pub(super) fn replay_outbox(&mut self, items: &[OutboxId]) -> Result<Outcome> {
        let sql =
            "UPDATE outbox SET state = 0, attempts = 0, due_at = ?1, finished_at = NULL WHERE state = 4";
        let now = self.now;
        let changed = if items.is_empty() {
            self.connection.execute(sql, [now])?
        } else {
            let mut statement = self.connection.prepare_cached(&format!("{sql} AND id = ?2"))?;
            items.iter().map(|OutboxId(id)| statement.execute([now, *id])).sum::<Result<usize>>()?
        };
        let counts = &mut self.counters.sequence().outbox;
        counts[code::DEAD as usize] -= changed as i64;
        counts[code::READY as usize] += changed as i64;
        OutboxKind::ALL.iter().for_each(|kind| self.outbox.due_by(*kind, now));
        Ok(Outcome::Count(changed as u64))
    }

    fn moved_outbox(&mut self, from: i64, to: i64) {
        let counts = &mut self.counters.sequence().outbox;
        counts[from as usize] -= 1;
        counts[to as usize] += 1;
    }
}
