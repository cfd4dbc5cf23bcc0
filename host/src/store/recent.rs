//! What a plugin did of late: its newest attempts, how long they took, which revisions ran.

use std::collections::BTreeMap;

use rusqlite::{Connection, Result, params};

use super::{Store, StoreError, complete::outcome_of, histogram::Histogram, views::Recent};
use crate::model::{Outcome, PluginId};

/// Deliveries, of whatever plugin, that are looked at.
const STEP: i64 = 20_000;

/// Attempts that are looked at.
const MOST: usize = 500;

impl Store {
    /// The plugin's newest attempts: up to 500, among the newest 20,000 deliveries of all plugins.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn recent(&self, plugin: PluginId) -> Result<Recent, StoreError> {
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
    let (mut histogram, mut revisions) = (Histogram::default(), BTreeMap::<String, u64>::new());
    let (mut attempts, mut failed) = (0, 0);
    while let Some(row) = rows.next()? {
        attempts += 1;
        histogram.add(row.get::<_, i64>(0)?.unsigned_abs());
        if outcome_of(row.get(1)?) != Outcome::Done {
            failed += 1;
        }
        if let Some(revision) = row.get::<_, Option<String>>(2)? {
            *revisions.entry(revision).or_default() += 1;
        }
    }
    Ok(Recent {
        attempts,
        failed,
        p50_ms: histogram.percentile(0.5) / 1000.0,
        p95_ms: histogram.percentile(0.95) / 1000.0,
        p99_ms: histogram.percentile(0.99) / 1000.0,
        revisions: revisions.into_iter().collect(),
    })
}
