//! The newest attempts of a plugin: their durations, and the revisions that ran.

use std::collections::BTreeMap;

use posthouse_model::{Outcome, PluginId};
use rusqlite::{Connection, Result, params};

use super::{complete::outcome_of, reads::Reads};

use crate::{Answer, Recent};

/// The deliveries, of all plugins, that are searched.
const STEP: i64 = 20_000;

/// The maximum number of attempts.
const MOST: usize = 500;

impl Reads {
    pub(crate) async fn recent(&self, plugin: PluginId) -> Answer<Recent> {
        self.read(move |connection| recent(connection, plugin)).await
    }
}

fn recent(connection: &Connection, plugin: PluginId) -> Result<Recent> {
    let mut statement = connection.prepare_cached(
        "SELECT a.duration_us, a.outcome, a.revision
         FROM delivery d NOT INDEXED JOIN attempt a ON a.delivery = d.id
         WHERE d.id > (SELECT max(id) FROM delivery) - ?2 AND d.plugin = ?1
         ORDER BY d.id DESC LIMIT ?3",
    )?;
    let mut rows = statement.query(params![plugin.0, STEP, MOST as i64])?;
    let (mut durations, mut revisions) = (Vec::new(), BTreeMap::<String, u64>::new());
    let (mut attempts, mut failed) = (0, 0);
    while let Some(row) = rows.next()? {
        attempts += 1;
        durations.push(row.get::<_, i64>(0)?.unsigned_abs());
        if outcome_of(row.get(1)?) != Outcome::Done {
            failed += 1;
        }
        if let Some(revision) = row.get::<_, Option<String>>(2)? {
            *revisions.entry(revision).or_default() += 1;
        }
    }
    durations.sort_unstable();
    Ok(Recent {
        attempts,
        failed,
        p50_ms: percentile(&durations, 0.5),
        p95_ms: percentile(&durations, 0.95),
        p99_ms: percentile(&durations, 0.99),
        revisions: revisions.into_iter().collect(),
    })
}

/// The duration in milliseconds that the share `of` (0 to 1) does not exceed; none if there are none.
fn percentile(ascending: &[u64], of: f64) -> Option<f64> {
    let rank = ((ascending.len() as f64 * of).ceil() as usize).max(1);
    ascending.get(rank - 1).map(|micros| *micros as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_durations() {
        let durations: Vec<u64> = (1..=100).map(|n| n * 1000).collect();
        assert_eq!(
            [0.5, 0.95, 0.99].map(|of| percentile(&durations, of)),
            [Some(50.0), Some(95.0), Some(99.0)]
        );
        assert_eq!((percentile(&[7000], 0.99), percentile(&[], 0.5)), (Some(7.0), None));
    }
}
