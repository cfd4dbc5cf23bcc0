//! Retention: events that finished long ago leave, in small slices, and their room is used again. Where the
//! store is larger than it may be, the oldest leave before their time.
//!
//! An event goes with its deliveries, attempts and outbox items once all of these are finished; one
//! that is not, stays however old. With it goes the memory of its id: the same id is a new event then. So
//! what came within the last minutes stays, too, however large the store: within those a request that
//! somebody recorded may still be fresh enough to be taken.
//!
//! What leaves for the size alone is what nobody has to look at: dead letters that were not replayed, and
//! those of the outbox, stay until they are as old as anything may get. Where the bound can't be kept for
//! their sake, that is told.

use std::time::{Duration, Instant};

use bytesize::ByteSize;
use rusqlite::{Connection, Result};

use super::{
    Store, StoreError,
    query::{NOT_REPLAYED, OF_EVENT},
    time::nanos,
    writer::Writer,
};
use crate::model::EventSeq;

/// Events that one transaction removes.
const SLICE: i64 = 500;

/// Events that one step of the walk looks at.
const STEP: i64 = 4_000;

/// Pages given back to the system in one transaction.
const VACUUM: i64 = 512;

/// A walk starts at the oldest event again after this many; in between it goes on where it stopped.
const REWIND: u32 = 60;

/// What came within this time does not leave for the size of the store. In nanoseconds: twice the usual
/// tolerance of a signature's time.
const YOUNG: i64 = 600 * 1_000_000_000;

/// Where the store is too large it is brought to this share below its bound, so that it need not be done
/// again at the next event: a thirty-second.
const SLACK: u64 = 32;

/// Between two lines about a bound that can't be kept.
const COMPLAIN: Duration = Duration::from_secs(3600);

/// Where the walks over the events stand.
#[derive(Debug, Default)]
pub(super) struct Walks {
    by_age: Cursor,
    by_size: Cursor,
    complained: Option<Instant>,
}

#[derive(Debug, Default)]
struct Cursor {
    after: i64,
    walks: u32,
}

impl Cursor {
    /// Where the next walk begins.
    fn begin(&mut self) -> i64 {
        self.walks += 1;
        if self.walks > REWIND {
            *self = Self::default();
        }
        self.after
    }
}

/// Why events leave.
#[derive(Debug, Clone, Copy)]
enum Cause {
    Age,
    /// Until no more than so many bytes are in use.
    Size(u64),
}

impl Store {
    /// Removes events finished before `retention` ago, and older ones than those where the store is larger
    /// than `max_size`, in small slices; returns how many. Old events that are not finished are passed over,
    /// and looked at again some calls later. Then gives room back to the system.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn prune(&self) -> Result<u64, StoreError> {
        let cutoff = nanos(self.ambient().now()).saturating_sub(self.retention_nanos());
        let mut count = self.walk(Cause::Age, cutoff).await?;
        if let Some(most) = self.max_size() {
            count += self.fit(most).await?;
        }
        let most = self.max_size();
        while self.write(move |writer| writer.vacuum(most)).await? {}
        Ok(count)
    }

    /// Brings the store down to its size, as far as that goes.
    async fn fit(&self, most: u64) -> Result<u64, StoreError> {
        let young = nanos(self.ambient().now()).saturating_sub(YOUNG);
        let mut count = 0;
        if self.read(live_bytes).await? > most {
            count = self.walk(Cause::Size(most - most / SLACK), young).await?;
        }
        let live = self.read(live_bytes).await?;
        self.shared().publish_oversize(live > most);
        let mut walks = self.walks().lock();
        if live <= most {
            walks.complained = None;
        } else if walks.complained.is_none_or(|last| last.elapsed() >= COMPLAIN) {
            walks.complained = Some(Instant::now());
            tracing::warn!(
                in_use = %ByteSize(live),
                max_size = %ByteSize(most),
                "the store is larger than `max_size`, and nothing is left that may leave: replay the dead \
                 letters, or let it be larger"
            );
        }
        Ok(count)
    }

    /// Removes what may leave of the events received before `cutoff`, oldest first.
    async fn walk(&self, cause: Cause, cutoff: i64) -> Result<u64, StoreError> {
        let mut after = cause.cursor(&mut self.walks().lock()).begin();
        let mut count = 0;
        loop {
            let step = self.read(move |connection| step(connection, after, cutoff, cause)).await?;
            for slice in step.finished.chunks(SLICE as usize) {
                let events = slice.to_vec();
                let (removed, enough) = self.write(move |writer| writer.remove(&events, cause)).await?;
                count += removed;
                if enough {
                    return Ok(count);
                }
            }
            after = step.last;
            cause.cursor(&mut self.walks().lock()).after = after;
            if step.ended {
                return Ok(count);
            }
        }
    }
}

impl Cause {
    fn cursor(self, walks: &mut Walks) -> &mut Cursor {
        match self {
            Self::Age => &mut walks.by_age,
            Self::Size(_) => &mut walks.by_size,
        }
    }

    /// True of an event, ?1 being its seq, that has to stay.
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

    /// Whether enough has left.
    fn is_satisfied(self, connection: &Connection) -> Result<bool> {
        match self {
            Self::Age => Ok(false),
            Self::Size(goal) => Ok(live_bytes(connection)? <= goal),
        }
    }
}

/// Bytes of the file that are in use.
pub(super) fn live_bytes(connection: &Connection) -> Result<u64> {
    let (pages, free) = (pragma(connection, "page_count")?, pragma(connection, "freelist_count")?);
    Ok(((pages - free) * pragma(connection, "page_size")?).unsigned_abs())
}

fn pragma(connection: &Connection, name: &str) -> Result<i64> {
    connection.prepare_cached(&format!("PRAGMA {name}"))?.query_row([], |row| row.get(0))
}

/// What one step of the walk found.
struct Step {
    finished: Vec<EventSeq>,
    last: i64,
    ended: bool,
}

fn step(connection: &Connection, after: i64, cutoff: i64, cause: Cause) -> Result<Step> {
    let old: Vec<(i64, i64)> = connection
        .prepare_cached("SELECT seq, received_at FROM event WHERE seq > ?1 ORDER BY seq LIMIT ?2")?
        .query_map([after, STEP], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_>>()?;
    // Events are in the order of their arrival: behind the first that is young all are.
    let old: Vec<i64> =
        old.into_iter().take_while(|(_, received_at)| *received_at < cutoff).map(|(seq, _)| seq).collect();
    let ended = (old.len() as i64) < STEP;
    let last = old.last().copied().unwrap_or(after);
    let mut stays = connection.prepare_cached(&format!("SELECT {}", cause.stays()))?;
    let mut finished = Vec::with_capacity(old.len());
    for seq in old {
        if !stays.query_row([seq], |row| row.get::<_, bool>(0))? {
            finished.push(EventSeq(seq));
        }
    }
    Ok(Step { finished, last, ended })
}

impl Writer<'_> {
    /// Removes these, as far as they may leave; how many did, and whether that is enough.
    fn remove(&mut self, events: &[EventSeq], cause: Cause) -> Result<(u64, bool)> {
        let stays = format!("SELECT {}", cause.stays());
        let mut count = 0;
        for &EventSeq(seq) in events {
            if cause.is_satisfied(self.connection)? {
                return Ok((count, true));
            }
            // Checked again: it was found by a reader, and a replay may have come between.
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
            count +=
                self.connection.prepare_cached("DELETE FROM event WHERE seq = ?1")?.execute([seq])? as u64;
        }
        Ok((count, cause.is_satisfied(self.connection)?))
    }

    /// Gives some pages back to the system when more than a quarter of the file is free, or the file is
    /// larger than the store may be; whether there are more.
    fn vacuum(&mut self, most: Option<u64>) -> Result<bool> {
        let (pages, free) =
            (pragma(self.connection, "page_count")?, pragma(self.connection, "freelist_count")?);
        let bytes = (pages * pragma(self.connection, "page_size")?).unsigned_abs();
        let too_large = free > 0 && most.is_some_and(|most| bytes > most);
        if !too_large && free <= (pages / 4).max(VACUUM) {
            return Ok(false);
        }
        let mut statement = self.connection.prepare(&format!("PRAGMA incremental_vacuum({VACUUM})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(true)
    }
}
