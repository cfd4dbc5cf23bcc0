//! Counts over time, for charts: groups the rows of `minute` into points.

use std::time::Duration;

use rusqlite::{Connection, Result};

use super::{minutes::MINUTE, reads::Reads};
use crate::{Answer, Point, histogram::DurationHistogram, time::timestamp};

/// The longest window, in minutes: what the session keeps.
const LONGEST: i64 = 24 * 60;

/// The maximum number of points.
const MOST: i64 = 240;

impl Reads {
    pub(crate) async fn series(&self, now: i64, window: Duration, points: u32) -> Answer<Vec<Point>> {
        let now = now.div_euclid(MINUTE);
        let minutes = i64::try_from(window.as_secs() / 60).unwrap_or(LONGEST).clamp(1, LONGEST);
        let step = up(minutes, i64::from(points).clamp(1, MOST));
        self.read(move |connection| series(connection, now, up(minutes, step), step)).await
    }
}

/// The quotient of two positive numbers, rounded up.
fn up(all: i64, part: i64) -> i64 {
    (all + part - 1) / part
}

/// The counts of a point.
#[derive(Default, Clone)]
struct Sum {
    events: u64,
    made: u64,
    completed: u64,
    failed: u64,
    unfinished: Option<u64>,
    histogram: DurationHistogram,
}

fn series(connection: &Connection, now: i64, points: i64, step: i64) -> Result<Vec<Point>> {
    let first = now + 1 - points * step;
    let mut sums = vec![Sum::default(); usize::try_from(points).unwrap_or(0)];
    let mut unfinished: u64 = connection
        .prepare_cached("SELECT unfinished FROM minute WHERE minute < ?1 ORDER BY minute DESC LIMIT 1")?
        .query_map([first], |row| row.get::<_, i64>(0))?
        .next()
        .transpose()?
        .map_or(0, i64::unsigned_abs);
    let mut statement = connection.prepare_cached(
        "SELECT minute, events, made, completed, failed, unfinished, histogram FROM minute
         WHERE minute BETWEEN ?1 AND ?2 ORDER BY minute",
    )?;
    let mut rows = statement.query([first, now])?;
    while let Some(row) = rows.next()? {
        let at = usize::try_from((row.get::<_, i64>(0)? - first) / step).unwrap_or(usize::MAX);
        let Some(sum) = sums.get_mut(at) else { continue };
        let count = |column: usize| row.get::<_, i64>(column).map(i64::unsigned_abs);
        sum.events += count(1)?;
        sum.made += count(2)?;
        sum.completed += count(3)?;
        sum.failed += count(4)?;
        sum.unfinished = Some(count(5)?);
        sum.histogram.merge(&DurationHistogram::from_bytes(row.get_ref(6)?.as_blob()?));
    }
    let point = |(sum, at): (Sum, i64)| {
        // A missing row means that nothing changed.
        unfinished = sum.unfinished.unwrap_or(unfinished);
        Point {
            at: timestamp(at * MINUTE),
            minutes: step.unsigned_abs(),
            events: sum.events,
            made: sum.made,
            completed: sum.completed,
            failed: sum.failed,
            unfinished,
            p50_ms: sum.histogram.percentile(0.5),
            p95_ms: sum.histogram.percentile(0.95),
            p99_ms: sum.histogram.percentile(0.99),
        }
    };
    Ok(sums.into_iter().zip((0..points).map(|n| first + n * step)).map(point).collect())
}
