//! Due deliveries: reads them into the lanes that have room.
//!
//! A lease is a row in state `leased` and a token in the session's memory. A new process knows no tokens, so
//! opening the store makes the deliveries ready that an earlier process had leased. `lease_floor` is the
//! lowest id of such rows.
//!
//! Deferred deliveries become ready a few at a time, once their plugin has little to do.

use std::sync::Arc;

use bytes::Bytes;
use posthouse_model::{
    DeliveryId, Event, EventId, EventSeq, EventType, Job, NewEvent, OrderKey, PluginId, RequestParts,
    SourceName, TraceContext, Trial,
};
use rusqlite::{Connection, OptionalExtension, Result, Row, params, types::Type};

use super::{schema::code, session::Session};

use crate::{op::Outcome, time::timestamp};

/// The maximum number of jobs read into one lane in one batch.
const REFILL: usize = 512;

/// The number of deferred deliveries that become ready at once.
const SLICE: usize = 64;

/// A plugin with fewer unfinished deliveries than this gets more of them.
const LITTLE: usize = 32;

/// The maximum number of slices in one batch, if deliveries of the same order keys block those in a slice.
const SLICES: usize = 8;

/// The next deferred deliveries of a plugin.
const DEFERRED: &str = "
SELECT id, order_key FROM delivery INDEXED BY delivery_later
WHERE plugin = ?1 AND state = -2 ORDER BY id LIMIT ?2";

/// The columns from which jobs are built.
macro_rules! jobs {
    ($index:literal, $which:literal) => {
        concat!(
            "
SELECT d.id, d.state, d.attempts, e.seq, s.name, t.name, e.organization, e.occurred_at, e.received_at,
       e.data_start, e.data_end, e.id, e.body, d.ran, e.depth, d.order_key, d.due_at, e.trace, d.replay_of,
       e.content_type, e.headers, e.original
FROM delivery d ",
            $index,
            "
JOIN event e ON e.seq = d.event JOIN source s ON s.id = e.source JOIN event_type t ON t.id = e.type
WHERE ",
            $which
        )
    };
}

/// Deliveries of a plugin that are due by ?2, longest due first; with ?4 only those that have never waited.
const DUE: &str = jobs!(
    "INDEXED BY delivery_due",
    "d.plugin = ?1 AND d.state IN (0, 2) AND d.due_at <= ?2 AND (d.state = 0 OR NOT ?4)
ORDER BY d.due_at, d.id LIMIT ?3"
);

/// The delivery ?1.
const CHOSEN: &str = jobs!("", "d.id = ?1 AND d.state IN (0, 2)");

const NEXT_DUE: &str = "
SELECT due_at FROM delivery INDEXED BY delivery_due
WHERE plugin = ?1 AND state IN (0, 2) ORDER BY due_at LIMIT 1";

impl Session<'_> {
    /// Reads due deliveries into the lanes that have room for them.
    pub(super) fn refill(&mut self) -> Result<()> {
        let idle: Vec<PluginId> =
            self.lines.0.keys().copied().filter(|plugin| self.has_little_to_do(*plugin)).collect();
        for plugin in idle {
            for _ in 0..SLICES {
                if self.has_little_to_do(plugin) {
                    self.make_some_ready(plugin)?;
                }
            }
        }
        let due: Vec<(PluginId, usize, Option<Trial>, bool)> = self
            .lines
            .0
            .iter()
            .filter(|(_, line)| line.wants() && line.free() > 0)
            .filter(|(plugin, line)| line.due(&self.counters.tally(**plugin)) <= self.now)
            .map(|(plugin, line)| (*plugin, line.free().min(REFILL), line.room.trial, line.held() == 0))
            .collect();
        due.into_iter().try_for_each(|(plugin, room, trial, idle)| match trial {
            None => self.refill_lane(plugin, room),
            Some(trial) => self.refill_trial(plugin, room, trial.any && idle),
        })
    }

    /// Whether the plugin should get some deferred deliveries, if there are any.
    fn has_little_to_do(&self, plugin: PluginId) -> bool {
        let ready = self.counters.tally(plugin).states[code::READY as usize].unsigned_abs() as usize;
        self.lines.0.get(&plugin).is_some_and(|line| line.deferred && line.held() + ready < LITTLE)
    }

    /// Makes the next deferred deliveries ready.
    fn make_some_ready(&mut self, plugin: PluginId) -> Result<()> {
        let next: Vec<(i64, Option<String>)> = self
            .connection
            .prepare_cached(DEFERRED)?
            .query_map([plugin.0, SLICE as i64], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_>>()?;
        for (delivery, key) in &next {
            let blocked = match key {
                Some(key) => self.has_one_ahead(plugin, key, *delivery)?,
                None => false,
            };
            let state = if blocked { code::BLOCKED } else { code::READY };
            self.connection
                .prepare_cached("UPDATE delivery SET state = ?2, due_at = ?3 WHERE id = ?1")?
                .execute([*delivery, state, self.now])?;
            self.counters.moved(plugin, code::DEFERRED, state);
        }
        if let Some(line) = self.lines.0.get_mut(&plugin) {
            line.deferred = next.len() == SLICE;
        }
        Ok(())
    }

    fn refill_lane(&mut self, plugin: PluginId, room: usize) -> Result<()> {
        let mut due = self.due(plugin, room, false)?;
        if due.is_empty() && self.counters.tally(plugin).states[code::READY as usize] > 0 {
            // Ready since a time in the future: the clock was set back.
            due = self.due(plugin, room, true)?;
        }
        let exhausted = due.len() < room;
        self.lease_due(plugin, due)?;
        let next_due = if exhausted { self.earliest(plugin)? } else { self.now };
        if let Some(line) = self.lines.0.get_mut(&plugin) {
            line.next_due = next_due;
        }
        Ok(())
    }

    /// Chooses the deliveries of a trial: untried ones; or, if there are none and `any` is set, one that
    /// failed.
    fn refill_trial(&mut self, plugin: PluginId, room: usize, any: bool) -> Result<()> {
        let arrived = self.counters.tally(plugin).arrived;
        let mut chosen = self.untried(plugin, room)?;
        if chosen.is_empty() && any {
            chosen.extend(self.least_tried(plugin)?);
        }
        let mut due = Vec::with_capacity(chosen.len());
        for delivery in chosen {
            let mut chosen = self.connection.prepare_cached(CHOSEN)?;
            due.extend(chosen.query_row([delivery], Due::from_row).optional()?);
        }
        self.lease_due(plugin, due)?;
        let next_due = self.earliest(plugin)?;
        if let Some(line) = self.lines.0.get_mut(&plugin) {
            line.next_due = next_due;
            line.looked = Some(arrived);
        }
        Ok(())
    }

    fn lease_due(&mut self, plugin: PluginId, due: Vec<Due>) -> Result<()> {
        let Some(lane) = self.lines.0.get(&plugin).map(|line| line.room.lane) else { return Ok(()) };
        for Due { delivery, state, attempts, may_have_run, order_key, due_at, replay, event } in due {
            self.connection
                .prepare_cached("UPDATE delivery SET state = 1 WHERE id = ?1")?
                .execute([delivery])?;
            self.counters.moved(plugin, state, code::LEASED);
            self.lines.leased(plugin);
            let delivery = DeliveryId(delivery);
            let ordered = order_key.is_some();
            self.jobs.push(Job {
                delivery,
                token: self.leases.give(delivery, lane, order_key),
                expires: None,
                ordered,
                plugin,
                attempt: attempts + 1,
                conflicts: 0,
                may_have_run,
                due_at: timestamp(due_at),
                replay,
                trace: None,
                event: Arc::new(event),
            });
        }
        Ok(())
    }

    /// When the oldest leased delivery of each open lane was created.
    pub(super) fn oldest_leased(&self) -> Result<Outcome> {
        let mut statement = self.connection.prepare_cached("SELECT made_at FROM delivery WHERE id = ?1")?;
        let mut oldest = Vec::new();
        let rooms: Vec<_> = self.lines.0.values().map(|line| line.room).collect();
        for (plugin, delivery) in self.leases.oldest(&rooms) {
            let made_at = statement.query_row([delivery.0], |row| row.get(0)).optional()?;
            oldest.extend(made_at.map(|made_at| (plugin, timestamp(made_at))));
        }
        Ok(Outcome::OldestLeased(oldest))
    }

    fn due(&self, plugin: PluginId, room: usize, early: bool) -> Result<Vec<Due>> {
        let until = if early { i64::MAX } else { self.now };
        self.connection
            .prepare_cached(DUE)?
            .query_map(params![plugin.0, until, room as i64, early], Due::from_row)?
            .collect()
    }

    fn earliest(&self, plugin: PluginId) -> Result<i64> {
        let mut statement = self.connection.prepare_cached(NEXT_DUE)?;
        let mut rows = statement.query([plugin.0])?;
        rows.next()?.map_or(Ok(i64::MAX), |row| row.get(0))
    }
}

/// An event that is in the store.
pub(super) fn read_event(connection: &Connection, event: EventSeq) -> Result<NewEvent> {
    connection
        .prepare_cached(
            "SELECT 0, 0, 0, e.seq, s.name, t.name, e.organization, e.occurred_at, e.received_at,
                    e.data_start, e.data_end, e.id, e.body, 0, e.depth, NULL, 0, e.trace,
                    NULL, e.content_type, e.headers, e.original
             FROM event e JOIN source s ON s.id = e.source JOIN event_type t ON t.id = e.type
             WHERE e.seq = ?1",
        )?
        .query_row([event.0], content)
}

/// The event's part of a row of [`DUE`].
fn content(row: &Row<'_>) -> Result<NewEvent> {
    Ok(NewEvent {
        source: named(row, 4, SourceName::new)?,
        event_type: named(row, 5, EventType::new)?,
        organization: row.get_ref(6)?.as_str_or_null()?.map(Arc::from),
        occurred_at: row.get::<_, Option<i64>>(7)?.map(timestamp),
        received_at: timestamp(row.get(8)?),
        depth: row.get(14)?,
        trace: row.get_ref(17)?.as_blob_or_null()?.and_then(TraceContext::from_bytes),
        data: row.get(9)?..row.get(10)?,
        id: named(row, 11, EventId::new)?,
        body: Bytes::copy_from_slice(row.get_ref(12)?.as_blob()?),
        request: RequestParts::from_store(
            row.get_ref(19)?.as_str_or_null()?,
            row.get_ref(20)?.as_str_or_null()?,
            row.get_ref(21)?.as_blob_or_null()?,
        ),
    })
}

/// A row of [`DUE`].
struct Due {
    delivery: i64,
    state: i64,
    attempts: u32,
    may_have_run: bool,
    order_key: Option<OrderKey>,
    due_at: i64,
    replay: bool,
    event: Event,
}

impl Due {
    fn from_row(row: &Row<'_>) -> Result<Self> {
        let event = Event { seq: EventSeq(row.get(3)?), content: content(row)? };
        let attempts = row.get(2)?;
        let may_have_run = attempts > 0 || row.get(13)?;
        let order_key = row.get_ref(15)?.as_str_or_null()?.and_then(OrderKey::new);
        Ok(Self {
            delivery: row.get(0)?,
            state: row.get(1)?,
            attempts,
            may_have_run,
            order_key,
            due_at: row.get(16)?,
            replay: row.get::<_, Option<i64>>(18)?.is_some(),
            event,
        })
    }
}

/// A name that was checked when it was written. If it is no longer valid, the store is damaged.
fn named<Name, E: std::error::Error + Send + Sync + 'static>(
    row: &Row<'_>,
    column: usize,
    check: impl FnOnce(&str) -> Result<Name, E>,
) -> Result<Name> {
    check(row.get_ref(column)?.as_str()?)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

/// Makes the deliveries ready that an earlier process had leased. Runs before the session opens.
pub(super) fn recover(connection: &mut Connection) -> Result<()> {
    let transaction = connection.transaction()?;
    let leased: Vec<(i64, i64)> = transaction
        .prepare(
            "SELECT plugin, count(*) FROM delivery
             WHERE id >= (SELECT lease_floor FROM sequence) AND state = 1 GROUP BY plugin",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_>>()?;
    for (plugin, count) in leased {
        transaction.execute(
            "UPDATE tally SET leased = leased - ?2, ready = ready + ?2 WHERE plugin = ?1",
            [plugin, count],
        )?;
    }
    transaction.execute(
        "UPDATE delivery SET state = 0, ran = 1
         WHERE id >= (SELECT lease_floor FROM sequence) AND state = 1",
        [],
    )?;
    let items = transaction.execute("UPDATE outbox SET state = 0 WHERE state = 1", [])? as i64;
    transaction.execute(
        "UPDATE sequence SET outbox_leased = outbox_leased - ?1, outbox_ready = outbox_ready + ?1",
        [items],
    )?;
    transaction.execute("UPDATE sequence SET lease_floor = next_delivery", [])?;
    transaction.commit()
}
