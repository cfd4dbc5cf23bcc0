//! Catching up: how far a sender's list was compared with the store, and which events are missing.

use std::collections::HashMap;

use jiff::Timestamp;
use posthouse_model::{EventId, EventOrigin, EventSeq, EventType, SecondKey, SourceName};
use rusqlite::{Connection, OptionalExtension as _, Result, params};

use super::{query::CLOCK_STEP, reads::Reads, session::Session};

use crate::{
    Answer, CatchUpState, CatchUpStep, EventNames, MAX_MISSING, MissingEvent, StoredHead, StoredHeads,
    catching_up::{MISSING_KEPT, own_id},
    op::Outcome,
    time::{nanos, timestamp},
};

/// The value of `event.origin` of an event that its sender was asked for.
pub(super) const CAUGHT_UP: i64 = 1;

/// Events that one step of a walk looks at.
const STEP: i64 = 20_000;

const KNOWN: &str = "
SELECT 1 FROM event WHERE source = ?1 AND id = ?2
UNION ALL SELECT 1 FROM event WHERE source = ?1 AND second = ?3 AND second IS NOT NULL";

/// How an event with this `depth` and this `origin` arrived.
pub(super) fn origin(depth: i64, origin: Option<i64>) -> EventOrigin {
    match origin {
        Some(CAUGHT_UP) => EventOrigin::CatchUp,
        _ if depth > 0 => EventOrigin::Derived,
        _ => EventOrigin::Webhook,
    }
}

impl Session<'_> {
    /// Records the result of comparing a part of a sender's list.
    pub(super) fn catch_up(&mut self, source: &SourceName, step: &CatchUpStep) -> Result<Outcome> {
        let source = self.counters.source(self.connection, source)?;
        if let Some(compared_to) = step.compared_to {
            self.connection
                .prepare_cached("UPDATE source SET compared_to = ?2 WHERE id = ?1")?
                .execute([source, nanos(compared_to)])?;
        }
        let mut remove =
            self.connection.prepare_cached("DELETE FROM missing WHERE source = ?1 AND id = ?2")?;
        for id in &step.arrived {
            remove.execute(params![source, id.as_str()])?;
        }
        self.connection
            .prepare_cached("DELETE FROM missing WHERE source = ?1 AND occurred_at < ?2")?
            .execute([source, self.now - MISSING_KEPT])?;
        let kept: i64 = self
            .connection
            .prepare_cached("SELECT count(*) FROM missing WHERE source = ?1")?
            .query_row([source], |row| row.get(0))?;
        let room = MAX_MISSING.saturating_sub(usize::try_from(kept).unwrap_or(MAX_MISSING));
        let mut insert = self
            .connection
            .prepare_cached("INSERT INTO missing VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING")?;
        let mut inserted = 0;
        for event in &step.missing {
            if inserted >= room {
                break;
            }
            inserted += insert.execute(params![
                source,
                event.id.as_str(),
                event.event_type.as_str(),
                nanos(event.occurred_at)
            ])?;
        }
        Ok(Outcome::Done)
    }

    /// Records, for each source, the time until which events were removed.
    pub(super) fn removed_to(&mut self, newest: HashMap<i64, i64>) -> Result<()> {
        for (source, received_at) in newest {
            self.connection
                .prepare_cached(
                    "UPDATE source SET removed_to = max(coalesce(removed_to, ?2), ?2) WHERE id = ?1",
                )?
                .execute([source, received_at])?;
        }
        Ok(())
    }
}

impl Reads {
    pub(crate) async fn catch_up_state(&self, source: SourceName) -> Answer<CatchUpState> {
        self.read(move |connection| {
            let found: Option<(i64, [Option<i64>; 3])> = connection
                .prepare_cached("SELECT id, compared_to, removed_to, last_at FROM source WHERE name = ?1")?
                .query_row([source.as_str()], |row| {
                    Ok((row.get(0)?, [row.get(1)?, row.get(2)?, row.get(3)?]))
                })
                .optional()?;
            let Some((id, times)) = found else { return Ok(CatchUpState::default()) };
            let [compared_to, removed_to, newest] = times.map(|time| time.map(timestamp));
            Ok(CatchUpState { compared_to, removed_to, newest, missing: missing(connection, id)? })
        })
        .await
    }

    pub(crate) async fn knows(&self, source: SourceName, events: Vec<EventNames>) -> Answer<Vec<bool>> {
        self.read(move |connection| {
            let Some(source) = id_of(connection, &source)? else { return Ok(vec![false; events.len()]) };
            let mut statement = connection.prepare_cached(KNOWN)?;
            events
                .iter()
                .map(|(id, second)| {
                    let second = second.as_ref().map(SecondKey::as_bytes);
                    statement.exists(params![source, id.as_str(), second])
                })
                .collect()
        })
        .await
    }

    pub(crate) async fn heads_since(
        &self,
        source: SourceName,
        since: i64,
        before: Option<EventSeq>,
        own_ids: bool,
    ) -> Answer<StoredHeads> {
        self.read_at_low_priority(move |connection| match id_of(connection, &source)? {
            Some(source) => {
                let before = before.map_or(i64::MAX, |seq| seq.0);
                heads(connection, source, since, before, own_ids)
            }
            None => Ok(StoredHeads::default()),
        })
        .await
    }
}

fn id_of(connection: &Connection, source: &SourceName) -> Result<Option<i64>> {
    connection
        .prepare_cached("SELECT id FROM source WHERE name = ?1")?
        .query_row([source.as_str()], |row| row.get(0))
        .optional()
}

/// The missing events of a source, oldest first. A row that is no event is left out.
fn missing(connection: &Connection, source: i64) -> Result<Vec<MissingEvent>> {
    let rows: Vec<(String, String, Timestamp)> = connection
        .prepare_cached(
            "SELECT id, type, occurred_at FROM missing WHERE source = ?1 ORDER BY occurred_at, id",
        )?
        .query_map([source], |row| Ok((row.get(0)?, row.get(1)?, timestamp(row.get(2)?))))?
        .collect::<Result<_>>()?;
    let read = |(id, event_type, occurred_at): (String, String, Timestamp)| {
        Some(MissingEvent {
            id: EventId::new(&id).ok()?,
            event_type: EventType::new(&event_type).ok()?,
            occurred_at,
        })
    };
    Ok(rows.into_iter().filter_map(read).collect())
}

fn heads(
    connection: &Connection,
    source: i64,
    since: i64,
    before: i64,
    own_ids: bool,
) -> Result<StoredHeads> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, source, received_at, occurred_at, id, CASE source WHEN ?3 THEN second END,
                CASE WHEN ?4 AND source = ?3 AND second IS NULL THEN body END
         FROM event WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2",
    )?;
    let mut rows = statement.query(params![before, STEP, source, own_ids])?;
    let mut found = StoredHeads::default();
    let mut looked_at = 0;
    let step = i64::try_from(CLOCK_STEP.as_nanos()).unwrap_or(0);
    while let Some(row) = rows.next()? {
        looked_at += 1;
        let (seq, received_at) = (EventSeq(row.get(0)?), row.get::<_, i64>(2)?);
        if received_at.saturating_add(step) < since {
            found.next = None;
            return Ok(found);
        }
        found.next = Some(seq);
        if row.get::<_, i64>(1)? == source && received_at >= since {
            found.heads.push(StoredHead {
                seq,
                id: row.get(4)?,
                second: row.get_ref(5)?.as_blob_or_null()?.and_then(SecondKey::from_bytes),
                own_id: row.get_ref(6)?.as_blob_or_null()?.and_then(own_id),
                occurred_at: row.get::<_, Option<i64>>(3)?.map(timestamp),
                received_at: timestamp(received_at),
            });
        }
    }
    if looked_at < STEP {
        found.next = None;
    }
    Ok(found)
}
