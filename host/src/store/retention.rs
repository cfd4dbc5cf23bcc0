//! Retention: events that finished long ago leave, in small slices, and their room is used again.
//!
//! An event goes with its deliveries, attempts and outbox items once all of these are finished; one
//! that is not, stays however old. With it goes the memory of its id: the same id is a new event then.

use rusqlite::Result;

use super::{Store, StoreError, query::OF_EVENT, time::nanos, writer::Writer};
use crate::model::EventSeq;

/// Events that one transaction removes.
const SLICE: i64 = 500;

/// Events that one step of the walk looks at.
const STEP: i64 = 4_000;

/// Pages given back to the system in one transaction.
const VACUUM: i64 = 512;

/// A walk starts at the oldest event again after this many; in between it goes on where it stopped.
const REWIND: u32 = 60;

/// Where the walk over the events stands.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    after: i64,
    walks: u32,
}

impl Store {
    /// Removes events finished before `retention` ago, in small slices; returns how many. Old events
    /// that are not finished are passed over, and looked at again some calls later.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn prune(&self) -> Result<u64, StoreError> {
        let cutoff = nanos(self.ambient().now()).saturating_sub(self.retention_nanos());
        let mut after = {
            let mut cursor = self.prune_cursor().lock();
            cursor.walks += 1;
            if cursor.walks > REWIND {
                *cursor = Cursor::default();
            }
            cursor.after
        };
        let mut count = 0;
        loop {
            let step = self.walk(move |connection| step(connection, after, cutoff)).await?;
            for slice in step.finished.chunks(SLICE as usize) {
                let events = slice.to_vec();
                count += self.write(move |writer| writer.remove(&events)).await?;
            }
            after = step.last;
            self.prune_cursor().lock().after = after;
            if step.ended {
                break;
            }
        }
        while self.write(|writer| writer.vacuum()).await? {}
        Ok(count)
    }
}

/// What one step of the walk found.
struct Step {
    finished: Vec<EventSeq>,
    last: i64,
    ended: bool,
}

/// True of an event, ?1 being its seq, of which something is unfinished.
fn unfinished() -> String {
    format!(
        "EXISTS (SELECT 1 FROM ({OF_EVENT}) one JOIN delivery d ON d.id = one.id
                 WHERE d.state < 3 OR EXISTS (SELECT 1 FROM outbox o WHERE o.delivery = d.id AND o.state < 3))"
    )
}

fn step(connection: &rusqlite::Connection, after: i64, cutoff: i64) -> Result<Step> {
    let old: Vec<(i64, i64)> = connection
        .prepare_cached("SELECT seq, received_at FROM event WHERE seq > ?1 ORDER BY seq LIMIT ?2")?
        .query_map([after, STEP], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_>>()?;
    // Events are in the order of their arrival: behind the first that is young all are.
    let old: Vec<i64> =
        old.into_iter().take_while(|(_, received_at)| *received_at < cutoff).map(|(seq, _)| seq).collect();
    let ended = (old.len() as i64) < STEP;
    let last = old.last().copied().unwrap_or(after);
    let mut unfinished = connection.prepare_cached(&format!("SELECT {}", unfinished()))?;
    let mut finished = Vec::with_capacity(old.len());
    for seq in old {
        if !unfinished.query_row([seq], |row| row.get::<_, bool>(0))? {
            finished.push(EventSeq(seq));
        }
    }
    Ok(Step { finished, last, ended })
}

impl Writer<'_> {
    fn remove(&mut self, events: &[EventSeq]) -> Result<u64> {
        let mut count = 0;
        for &EventSeq(seq) in events {
            // Checked again: it was found by a reader, and a replay may have come between.
            let unfinished: bool = self
                .connection
                .prepare_cached(&format!("SELECT {}", unfinished()))?
                .query_row([seq], |row| row.get(0))?;
            if unfinished {
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
            count +=
                self.connection.prepare_cached("DELETE FROM event WHERE seq = ?1")?.execute([seq])? as u64;
        }
        Ok(count)
    }

    /// Gives some pages back to the system when more than a quarter of the file is free; whether there
    /// are more.
    fn vacuum(&mut self) -> Result<bool> {
        let number = |sql: &str| self.connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        if number("PRAGMA freelist_count")? <= (number("PRAGMA page_count")? / 4).max(VACUUM) {
            return Ok(false);
        }
        let mut statement = self.connection.prepare(&format!("PRAGMA incremental_vacuum({VACUUM})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(true)
    }
}
