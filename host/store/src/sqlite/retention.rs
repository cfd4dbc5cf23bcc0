//! Removes finished events, and returns their space to the system.
//!
//! An event is removed with its deliveries, attempts and outbox items. Whether it may be removed is checked
//! twice: by a reader that walks the events, and again by the transaction that removes them, because a replay
//! may have been created in between.

use std::collections::HashMap;

use posthouse_model::EventSeq;
use rusqlite::{Connection, Result};

use super::{
    query::{NOT_REPLAYED, OF_EVENT},
    reads::Reads,
    session::Session,
};

use crate::{
    Answer,
    op::{Cause, Outcome},
    retention::Finished,
};

/// The events that one step of the walk reads.
const STEP: i64 = 4_000;

/// The pages returned to the system in one transaction.
const VACUUM: i64 = 512;

impl Reads {
    /// One step of a walk over the events received before `cutoff` (nanoseconds since 1970), oldest first,
    /// starting after `after`.
    pub(crate) async fn finished(&self, after: EventSeq, cutoff: i64, cause: Cause) -> Answer<Finished> {
        self.read(move |connection| step(connection, after, cutoff, cause)).await
    }

    /// The bytes of the file that are in use.
    pub(crate) async fn live_bytes(&self) -> Answer<u64> {
        self.read(live_bytes).await
    }
}

impl Cause {
    /// True for an event (?1 is its seq) that must stay.
    fn stays(self) -> String {
        let (delivery, item) = match self {
            Self::Age => ("d.state < 3".to_owned(), "o.state < 3"),
            Self::Size(_) => (format!("(d.state < 3 OR d.state = 4 AND {NOT_REPLAYED})"), "o.state <> 3"),
        };
        format!(
            "EXISTS (SELECT 1 FROM ({OF_EVENT}) one JOIN delivery d ON d.id = one.id
                     WHERE {delivery} OR EXISTS (SELECT 1 FROM outbox o WHERE o.delivery = d.id AND {item}))"
        )
    }

    /// Whether enough events have been removed.
    fn is_satisfied(self, connection: &Connection) -> Result<bool> {
        match self {
            Self::Age => Ok(false),
            Self::Size(goal) => Ok(live_bytes(connection)? <= goal),
        }
    }
}

/// The bytes of the file that are in use.
pub(super) fn live_bytes(connection: &Connection) -> Result<u64> {
    let (pages, free) = (pragma(connection, "page_count")?, pragma(connection, "freelist_count")?);
    Ok(((pages - free) * pragma(connection, "page_size")?).unsigned_abs())
}

fn pragma(connection: &Connection, name: &str) -> Result<i64> {
    connection.prepare_cached(&format!("PRAGMA {name}"))?.query_row([], |row| row.get(0))
}

fn step(connection: &Connection, after: EventSeq, cutoff: i64, cause: Cause) -> Result<Finished> {
    let old: Vec<(i64, i64)> = connection
        .prepare_cached("SELECT seq, received_at FROM event WHERE seq > ?1 ORDER BY seq LIMIT ?2")?
        .query_map([after.0, STEP], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_>>()?;
    // Events are in the order of their arrival: all events after the first recent one are recent too.
    let old: Vec<i64> =
        old.into_iter().take_while(|(_, received_at)| *received_at < cutoff).map(|(seq, _)| seq).collect();
    let ended = (old.len() as i64) < STEP;
    let last = old.last().copied().map_or(after, EventSeq);
    let mut stays = connection.prepare_cached(&format!("SELECT {}", cause.stays()))?;
    let mut finished = Vec::with_capacity(old.len());
    for seq in old {
        if !stays.query_row([seq], |row| row.get::<_, bool>(0))? {
            finished.push(EventSeq(seq));
        }
    }
    Ok(Finished { events: finished, last, ended })
}

impl Session<'_> {
    /// Removes those of the events that may be removed. Returns how many, and whether that is enough.
    pub(super) fn remove(&mut self, events: &[EventSeq], cause: Cause) -> Result<Outcome> {
        let stays = format!("SELECT {}", cause.stays());
        let mut count = 0;
        let mut newest = HashMap::new();
        for &EventSeq(seq) in events {
            if cause.is_satisfied(self.connection)? {
                break;
            }
            // Checked again: a reader found it, and a replay may have been created since.
            let stays: bool = self.connection.prepare_cached(&stays)?.query_row([seq], |row| row.get(0))?;
            if stays {
                continue;
            }
            let deliveries: Vec<i64> = self
                .connection
                .prepare_cached(OF_EVENT)?
                .query_map([seq], |row| row.get(0))?
                .collect::<Result<_>>()?;
            for id in deliveries {
                for sql in [
                    "DELETE FROM attempt WHERE delivery = ?1",
                    "DELETE FROM outbox WHERE delivery = ?1",
                    "DELETE FROM delivery WHERE id = ?1",
                ] {
                    self.connection.prepare_cached(sql)?.execute([id])?;
                }
            }
            let (source, received_at): (i64, i64) = self
                .connection
                .prepare_cached("DELETE FROM event WHERE seq = ?1 RETURNING source, received_at")?
                .query_row([seq], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let newest = newest.entry(source).or_insert(received_at);
            *newest = received_at.max(*newest);
            count += 1;
        }
        self.removed_to(newest)?;
        Ok(Outcome::Removed(count, cause.is_satisfied(self.connection)?))
    }

    /// Returns some pages to the system if more than a quarter of the file is free, or the file is larger
    /// than its limit. Returns whether there are more.
    pub(super) fn vacuum(&mut self, most: Option<u64>) -> Result<Outcome> {
        let (pages, free) =
            (pragma(self.connection, "page_count")?, pragma(self.connection, "freelist_count")?);
        let bytes = (pages * pragma(self.connection, "page_size")?).unsigned_abs();
        let too_large = free > 0 && most.is_some_and(|most| bytes > most);
        if !too_large && free <= (pages / 4).max(VACUUM) {
            return Ok(Outcome::Flag(false));
        }
        let mut statement = self.connection.prepare(&format!("PRAGMA incremental_vacuum({VACUUM})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(Outcome::Flag(true))
    }
}
