//! The session's copy of the small tables in memory, so that it need not read them at every event: names, the
//! next numbers, and the counters of the ledger.
//!
//! A transition is counted here when a batch makes it. Changed counters are written once per batch, in the
//! batch's own transaction, so the ledger and the rows never disagree on disk. After a rollback everything is
//! read again: memory is never ahead of the disk.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
};

use posthouse_model::{EventType, PluginId, SourceName};
use rusqlite::{Connection, OptionalExtension, Result, params};

use super::{minutes::Minutes, schema::code};

use crate::histogram::DurationHistogram;

/// The number of names in memory before they are dropped and read again.
const MOST_NAMES: usize = 10_000;

/// Hours of statistics that are kept: a day, the current hour, and one more for inaccurate clocks.
const HOURS_KEPT: i64 = 26;

pub(super) const HOUR: i64 = 3_600_000_000_000;

/// The copy.
pub(super) struct Counters {
    sources: HashMap<SourceName, i64>,
    types: HashMap<EventType, i64>,
    tallies: HashMap<PluginId, Tally>,
    changed: HashSet<PluginId>,
    hours: HashMap<(i64, i64), Hour>,
    latest_hour: i64,
    minutes: Minutes,
    /// The newest event of each source in this batch, and when it was received.
    newest: HashMap<i64, (i64, i64)>,
    unfinished: i64,
    sequence: Sequence,
    written: Sequence,
}

/// The row of `sequence`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sequence {
    pub(super) next_event: i64,
    pub(super) next_delivery: i64,
    pub(super) next_outbox: i64,
    pub(super) next_version: i64,
    pub(super) lease_floor: i64,
    pub(super) conflicts: i64,
    pub(super) lost_leases: i64,
    /// Outbox items ever in each state.
    pub(super) outbox: [i64; 5],
}

/// The row of `tally` of one plugin.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    /// Deliveries in each state, by its number.
    pub(super) states: [i64; 5],
    pub(super) made: i64,
    pub(super) kv_bytes: i64,
    /// How many deliveries became ready since the store was opened, or since a rollback. Not stored.
    pub(super) arrived: u64,
}

/// A row of `hour`.
#[derive(Default)]
struct Hour {
    total: i64,
    completed: i64,
    failed: i64,
    sum_us: i64,
    histogram: DurationHistogram,
    changed: bool,
}

impl Counters {
    pub(super) fn load(connection: &Connection) -> Result<Self> {
        let sequence = connection.query_row("SELECT * FROM sequence", [], |row| {
            Ok(Sequence {
                next_event: row.get(0)?,
                next_delivery: row.get(1)?,
                next_outbox: row.get(2)?,
                next_version: row.get(3)?,
                lease_floor: row.get(4)?,
                conflicts: row.get(5)?,
                lost_leases: row.get(6)?,
                outbox: [row.get(7)?, row.get(8)?, row.get(9)?, row.get(10)?, row.get(11)?],
            })
        })?;
        let tallies = tallies(connection)?;
        let unfinished =
            tallies.values().map(|tally| tally.states[..code::DONE as usize].iter().sum::<i64>()).sum();
        Ok(Self {
            sources: HashMap::new(),
            types: HashMap::new(),
            tallies,
            changed: HashSet::new(),
            hours: HashMap::new(),
            latest_hour: 0,
            minutes: Minutes::default(),
            newest: HashMap::new(),
            unfinished,
            written: sequence.clone(),
            sequence,
        })
    }

    /// The next numbers, and the total counters.
    pub(super) fn sequence(&mut self) -> &mut Sequence {
        &mut self.sequence
    }

    /// Unfinished deliveries: neither done nor dead.
    pub(super) fn unfinished(&self) -> i64 {
        self.unfinished
    }

    pub(super) fn tally(&self, plugin: PluginId) -> Tally {
        self.tallies.get(&plugin).copied().unwrap_or_default()
    }

    /// Every plugin that ever had a delivery or a key.
    pub(super) fn all_kv_bytes(&self) -> impl Iterator<Item = (PluginId, u64)> {
        self.tallies.keys().map(|plugin| (*plugin, self.kv_bytes(*plugin)))
    }

    /// Bytes of all keys and values of a plugin.
    pub(super) fn kv_bytes(&self, plugin: PluginId) -> u64 {
        u64::try_from(self.tally(plugin).kv_bytes).unwrap_or(0)
    }

    /// Counts a new delivery.
    pub(super) fn made(&mut self, plugin: PluginId, state: i64) {
        let tally = self.change(plugin);
        tally.made += 1;
        tally.states[counter(state)] += 1;
        tally.arrived += u64::from(state == code::READY);
        self.unfinished += 1;
    }

    /// Counts a delivery's change from one state to another.
    pub(super) fn moved(&mut self, plugin: PluginId, from: i64, to: i64) {
        let tally = self.change(plugin);
        tally.states[counter(from)] -= 1;
        tally.states[counter(to)] += 1;
        tally.arrived += u64::from(to == code::READY);
        self.unfinished += i64::from(to < code::DONE) - i64::from(from < code::DONE);
    }

    pub(super) fn add_kv_bytes(&mut self, plugin: PluginId, delta: i64) {
        if delta != 0 {
            self.change(plugin).kv_bytes += delta;
        }
    }

    /// Counts an event of this source, now.
    pub(super) fn event_taken(
        &mut self,
        connection: &Connection,
        now: i64,
        source: i64,
        seq: i64,
    ) -> Result<()> {
        self.newest.insert(source, (seq, now));
        self.minutes.at(connection, now)?.events += 1;
        Ok(())
    }

    /// Counts a new delivery of this type, now.
    pub(super) fn hour_made(&mut self, connection: &Connection, now: i64, event_type: i64) -> Result<()> {
        let hour = self.hour(connection, now, event_type)?;
        hour.total += 1;
        self.minutes.at(connection, now)?.made += 1;
        Ok(())
    }

    /// Counts a delivery of this type as finished now, by an attempt of this duration.
    pub(super) fn hour_finished(
        &mut self,
        connection: &Connection,
        now: i64,
        event_type: i64,
        done: bool,
        micros: i64,
    ) -> Result<()> {
        let hour = self.hour(connection, now, event_type)?;
        if done {
            hour.completed += 1;
        } else {
            hour.failed += 1;
        }
        hour.sum_us += micros;
        hour.histogram.add(micros.unsigned_abs());
        self.minutes.at(connection, now)?.finished(done, micros.unsigned_abs());
        Ok(())
    }

    pub(super) fn source(&mut self, connection: &Connection, name: &SourceName) -> Result<i64> {
        remembered(&mut self.sources, name, || interned(connection, "source", name.as_str()))
    }

    pub(super) fn event_type(&mut self, connection: &Connection, name: &EventType) -> Result<i64> {
        remembered(&mut self.types, name, || interned(connection, "event_type", name.as_str()))
    }

    /// Writes what has changed since the last call.
    pub(super) fn write(&mut self, connection: &Connection) -> Result<()> {
        for plugin in self.changed.drain() {
            let Tally { states: [ready, leased, waiting, done, dead], made, kv_bytes, .. } =
                self.tallies.get(&plugin).copied().unwrap_or_default();
            connection
                .prepare_cached("INSERT OR REPLACE INTO tally VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
                .execute(params![plugin.0, ready, leased, waiting, done, dead, made, kv_bytes])?;
        }
        for ((hour, event_type), row) in self.hours.iter_mut().filter(|(_, row)| row.changed) {
            let Hour { total, completed, failed, sum_us, histogram, .. } = &*row;
            connection
                .prepare_cached("INSERT OR REPLACE INTO hour VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
                .execute(params![hour, event_type, total, completed, failed, sum_us, histogram.to_bytes()])?;
            row.changed = false;
        }
        self.minutes.write(connection, self.unfinished)?;
        for (source, (seq, at)) in self.newest.drain() {
            connection
                .prepare_cached("UPDATE source SET last_event = ?2, last_at = ?3 WHERE id = ?1")?
                .execute([source, seq, at])?;
        }
        if self.hours.len() > MOST_NAMES {
            self.hours.clear();
        }
        if self.sequence != self.written {
            let s = &self.sequence;
            let [ready, leased, waiting, sent, dead] = s.outbox;
            connection
                .prepare_cached(
                    "UPDATE sequence SET next_event = ?1, next_delivery = ?2, next_outbox = ?3, next_version = ?4,
                     lease_floor = ?5, conflicts = ?6, lost_leases = ?7, outbox_ready = ?8, outbox_leased = ?9,
                     outbox_waiting = ?10, outbox_sent = ?11, outbox_dead = ?12",
                )?
                .execute(params![
                    s.next_event, s.next_delivery, s.next_outbox, s.next_version, s.lease_floor, s.conflicts,
                    s.lost_leases, ready, leased, waiting, sent, dead
                ])?;
            self.written = s.clone();
        }
        Ok(())
    }

    fn change(&mut self, plugin: PluginId) -> &mut Tally {
        self.changed.insert(plugin);
        self.tallies.entry(plugin).or_default()
    }

    fn hour(&mut self, connection: &Connection, now: i64, event_type: i64) -> Result<&mut Hour> {
        let hour = now.div_euclid(HOUR);
        if hour > self.latest_hour {
            self.latest_hour = hour;
            self.hours.retain(|(kept, _), row| row.changed || *kept >= hour - 1);
            connection.execute("DELETE FROM hour WHERE hour < ?1", [hour - HOURS_KEPT])?;
        }
        let row = match self.hours.entry((hour, event_type)) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(Hour::load(connection, hour, event_type)?)
            }
        };
        row.changed = true;
        Ok(row)
    }
}

impl Hour {
    fn load(connection: &Connection, hour: i64, event_type: i64) -> Result<Self> {
        let sql =
            "SELECT total, completed, failed, sum_us, histogram FROM hour WHERE hour = ?1 AND type = ?2";
        let row = connection
            .prepare_cached(sql)?
            .query_row([hour, event_type], |row| {
                Ok(Self {
                    total: row.get(0)?,
                    completed: row.get(1)?,
                    failed: row.get(2)?,
                    sum_us: row.get(3)?,
                    histogram: DurationHistogram::from_bytes(row.get_ref(4)?.as_blob()?),
                    changed: false,
                })
            })
            .optional()?;
        Ok(row.unwrap_or_default())
    }
}

/// The index at which a state is counted.
fn counter(state: i64) -> usize {
    if matches!(state, code::BLOCKED | code::DEFERRED) { code::WAITING as usize } else { state as usize }
}

/// The whole table `tally`.
pub(super) fn tallies(connection: &Connection) -> Result<HashMap<PluginId, Tally>> {
    connection
        .prepare_cached("SELECT plugin, ready, leased, waiting, done, dead, made, kv_bytes FROM tally")?
        .query_map([], |row| {
            let states = [row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?];
            Ok((
                PluginId(row.get(0)?),
                Tally { states, made: row.get(6)?, kv_bytes: row.get(7)?, arrived: 0 },
            ))
        })?
        .collect()
}

fn remembered<Name: Hash + Eq + Clone>(
    known: &mut HashMap<Name, i64>,
    name: &Name,
    find: impl FnOnce() -> Result<i64>,
) -> Result<i64> {
    if let Some(id) = known.get(name) {
        return Ok(*id);
    }
    let id = find()?;
    if known.len() >= MOST_NAMES {
        known.clear();
    }
    known.insert(name.clone(), id);
    Ok(id)
}

/// The number of a name in `table`; inserts a new name.
fn interned(connection: &Connection, table: &str, name: &str) -> Result<i64> {
    connection
        .prepare_cached(&format!("INSERT INTO {table} (name) VALUES (?1) ON CONFLICT DO NOTHING"))?
        .execute([name])?;
    connection.query_row(&format!("SELECT id FROM {table} WHERE name = ?1"), [name], |row| row.get(0))
}
