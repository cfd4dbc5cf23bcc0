//! Counts per minute, for the charts. The writer updates them together with the hours, and writes the
//! minute's row once per batch, in the batch's own transaction.

use rusqlite::{Connection, OptionalExtension, Result, params};

use crate::histogram::DurationHistogram;

/// One minute in nanoseconds.
pub(super) const MINUTE: i64 = 60_000_000_000;

/// Minutes that are kept: a day, and two more hours for inaccurate clocks.
const KEPT: i64 = 26 * 60;

/// The current minute.
#[derive(Default)]
pub(super) struct Minutes {
    open: Option<(i64, Minute)>,
    latest: i64,
}

/// A row of `minute`, without the number of unfinished deliveries at its end.
#[derive(Default)]
pub(super) struct Minute {
    pub(super) events: i64,
    pub(super) made: i64,
    completed: i64,
    failed: i64,
    histogram: DurationHistogram,
    /// Whether it has changed since it was written.
    changed: bool,
}

impl Minute {
    /// Counts a delivery as finished by an attempt of this duration.
    pub(super) fn finished(&mut self, done: bool, micros: u64) {
        if done {
            self.completed += 1;
        } else {
            self.failed += 1;
        }
        self.histogram.add(micros);
    }

    fn load(connection: &Connection, minute: i64) -> Result<Self> {
        let row = connection
            .prepare_cached(
                "SELECT events, made, completed, failed, histogram FROM minute WHERE minute = ?1",
            )?
            .query_row([minute], |row| {
                Ok(Self {
                    events: row.get(0)?,
                    made: row.get(1)?,
                    completed: row.get(2)?,
                    failed: row.get(3)?,
                    histogram: DurationHistogram::from_bytes(row.get_ref(4)?.as_blob()?),
                    changed: false,
                })
            })
            .optional()?;
        Ok(row.unwrap_or_default())
    }
}

impl Minutes {
    /// The minute of `now`.
    pub(super) fn at(&mut self, connection: &Connection, now: i64) -> Result<&mut Minute> {
        let minute = now.div_euclid(MINUTE);
        if self.open.as_ref().is_none_or(|(open, _)| *open != minute) {
            // A batch has one time, so earlier counts are already written.
            self.open = Some((minute, Minute::load(connection, minute)?));
            if minute > self.latest {
                self.latest = minute;
                connection.execute("DELETE FROM minute WHERE minute < ?1", [minute - KEPT])?;
            }
        }
        let (_, row) = self.open.get_or_insert_with(|| (minute, Minute::default()));
        row.changed = true;
        Ok(row)
    }

    /// Writes the minute if something was counted.
    pub(super) fn write(&mut self, connection: &Connection, unfinished: i64) -> Result<()> {
        let Some((minute, row)) = self.open.as_mut().filter(|(_, row)| row.changed) else { return Ok(()) };
        let minute = *minute;
        let Minute { events, made, completed, failed, histogram, .. } = &*row;
        connection
            .prepare_cached("INSERT OR REPLACE INTO minute VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
            .execute(params![minute, events, made, completed, failed, unfinished, histogram.to_bytes()])?;
        row.changed = false;
        Ok(())
    }
}
