//! The ledger for operators, read in one snapshot.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, Result};

use super::{
    counters::{HOUR, Tally, tallies},
    reads::Reads,
    retention::live_bytes,
    schema::state_of,
};

use crate::{Answer, PluginStats, StoreStats, TypeStats, histogram::DurationHistogram, time::timestamp};
use jiff::Timestamp;
use posthouse_model::{DeliveryState, OutboxState, PluginId};

impl Reads {
    /// The ledger at `now`, nanoseconds since 1970.
    pub(crate) async fn stats(&self, now: i64) -> Answer<StoreStats> {
        let [store_bytes, wal_bytes] = self.file.present.sizes();
        let (disk_free_bytes, min_free_bytes) = (self.file.space.free(), self.file.space.least());
        self.read(move |connection| {
            let snapshot = connection.unchecked_transaction()?;
            let ledger = ledger(&snapshot)?;
            Ok(StoreStats {
                by_type: by_type(&snapshot, now)?,
                store_bytes: Some(store_bytes),
                wal_bytes: Some(wal_bytes),
                live_bytes: live_bytes(&snapshot)?,
                disk_free_bytes,
                min_free_bytes,
                ..ledger
            })
        })
        .await
    }

    pub(crate) async fn states(&self) -> Answer<BTreeMap<DeliveryState, u64>> {
        self.read(|connection| ledger(connection).map(|stats| stats.states)).await
    }
}

fn ledger(connection: &Connection) -> Result<StoreStats> {
    let (tallies, deferred) = (tallies(connection)?, replays_waiting(connection)?);
    let mut states = DeliveryState::ALL.map(|state| (state, 0)).into_iter().collect::<BTreeMap<_, _>>();
    let (mut made, mut plugins) = (0, Vec::new());
    for (id, name, held, forgotten) in plugin_rows(connection)? {
        let tally = tallies.get(&id).copied().unwrap_or_default();
        let own = by_state(&tally, held);
        made += tally.made.unsigned_abs();
        for (state, count) in &own {
            *states.entry(*state).or_default() += count;
        }
        if !forgotten || tally.made > 0 {
            let oldest_open = oldest_open(connection, id)?;
            plugins.push(PluginStats {
                plugin: name,
                made: tally.made.unsigned_abs(),
                states: own,
                oldest_open,
                replays_waiting: deferred.get(&id).copied().unwrap_or(0),
            });
        }
    }
    let (conflicts, lost_leases, outbox) = connection.query_row(
        "SELECT conflicts, lost_leases, outbox_ready, outbox_leased, outbox_waiting, outbox_sent, outbox_dead
         FROM sequence",
        [],
        |row| {
            let mut outbox = BTreeMap::new();
            for (column, state) in (2..).zip(OutboxState::ALL) {
                outbox.insert(state, row.get::<_, i64>(column)?.unsigned_abs());
            }
            Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(1)?.unsigned_abs(), outbox))
        },
    )?;
    Ok(StoreStats {
        made,
        states,
        outbox,
        plugins,
        conflicts,
        lost_leases,
        replays_waiting: deferred.values().sum(),
        ..StoreStats::default()
    })
}

/// Id, name, whether held, whether forgotten.
fn plugin_rows(connection: &Connection) -> Result<Vec<(PluginId, String, bool, bool)>> {
    connection
        .prepare_cached("SELECT id, name, held IS NOT NULL, forgotten FROM plugin ORDER BY name")?
        .query_map([], |row| Ok((PluginId(row.get(0)?), row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect()
}

fn by_state(tally: &Tally, held: bool) -> BTreeMap<DeliveryState, u64> {
    let mut states = DeliveryState::ALL.map(|state| (state, 0)).into_iter().collect::<BTreeMap<_, _>>();
    for (code, count) in (0..).zip(tally.states) {
        *states.entry(state_of(code, held)).or_default() += count.unsigned_abs();
    }
    states
}

/// How many deliveries of each plugin are deferred.
fn replays_waiting(connection: &Connection) -> Result<HashMap<PluginId, u64>> {
    connection
        .prepare_cached(
            "SELECT plugin, count(*) FROM delivery INDEXED BY delivery_later WHERE state = -2 GROUP BY plugin",
        )?
        .query_map([], |row| Ok((PluginId(row.get(0)?), row.get::<_, i64>(1)?.unsigned_abs())))?
        .collect()
}

/// When the oldest of the few hundred deliveries was created that are due first. While none is retried, these
/// are the oldest. If more wait than that, retried ones are due after them.
fn oldest_open(connection: &Connection, plugin: PluginId) -> Result<Option<Timestamp>> {
    let made_at: Option<i64> = connection
        .prepare_cached(
            "SELECT min(made_at) FROM (
                 SELECT made_at FROM delivery INDEXED BY delivery_due
                 WHERE plugin = ?1 AND state IN (0, 2) ORDER BY due_at, id LIMIT 256)",
        )?
        .query_row([plugin.0], |row| row.get(0))?;
    Ok(made_at.map(timestamp))
}

fn by_type(connection: &Connection, now: i64) -> Result<Vec<TypeStats>> {
    struct Sum {
        total: u64,
        completed: u64,
        failed: u64,
        micros: f64,
        histogram: DurationHistogram,
    }
    let mut sums: HashMap<String, Sum> = HashMap::new();
    let mut statement = connection.prepare_cached(
        "SELECT t.name, h.total, h.completed, h.failed, h.sum_us, h.histogram
         FROM hour h JOIN event_type t ON t.id = h.type WHERE h.hour > ?1",
    )?;
    let mut rows = statement.query([now.div_euclid(HOUR) - 24])?;
    while let Some(row) = rows.next()? {
        let count = |column: usize| row.get::<_, i64>(column).map(i64::unsigned_abs);
        let histogram = DurationHistogram::from_bytes(row.get_ref(5)?.as_blob()?);
        let more = Sum {
            total: count(1)?,
            completed: count(2)?,
            failed: count(3)?,
            micros: count(4)? as f64,
            histogram,
        };
        sums.entry(row.get(0)?)
            .and_modify(|sum| {
                sum.total += more.total;
                sum.completed += more.completed;
                sum.failed += more.failed;
                sum.micros += more.micros;
                sum.histogram.merge(&more.histogram);
            })
            .or_insert(more);
    }
    let mut by_type: Vec<TypeStats> = sums
        .into_iter()
        .map(|(event_type, sum)| TypeStats {
            event_type,
            total: sum.total,
            completed: sum.completed,
            failed: sum.failed,
            average_ms: sum.histogram.average(sum.micros),
            p50_ms: sum.histogram.percentile(0.5),
            p95_ms: sum.histogram.percentile(0.95),
            p99_ms: sum.histogram.percentile(0.99),
        })
        .collect();
    by_type.sort_by(|a, b| a.event_type.cmp(&b.event_type));
    Ok(by_type)
}
