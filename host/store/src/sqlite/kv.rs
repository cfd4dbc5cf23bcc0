//! Keys and values of plugins. Guests read committed values. When an attempt commits, the session checks that
//! nothing has changed that the attempt read.
//!
//! The session caches the keys that it has used. A batch changes them in the cache and writes each changed
//! key once, at its end. So a counter that a thousand attempts increment costs one row.

use std::collections::HashMap;

use posthouse_model::{Effects, KvChange, KvRead, KvVersion, PluginId};
use rusqlite::{Connection, OptionalExtension, Result, params};

use super::{
    counters::Counters,
    reads::Reads,
    session::{Session, Statements},
};

use crate::{Answer, Entries, Value};

/// The maximum size of the cache between two batches, in bytes of keys and values.
const KEPT: usize = 16 << 20;

/// The memory of a cached key besides its text and value, in bytes.
const OVERHEAD: usize = 96;

pub(super) const GET: &str = "SELECT version, value FROM kv WHERE plugin = ?1 AND key = ?2";

pub(super) const PUT: &str = "
INSERT INTO kv (plugin, key, version, value) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT DO UPDATE SET version = excluded.version, value = excluded.value";

const LIST: &str = "SELECT key, version, value FROM kv WHERE plugin = ?1 AND key >= ?2 ORDER BY key";

/// The first keys with a prefix that follow a given key, with their versions.
type Found<T> = Vec<(String, T, KvVersion)>;

impl Reads {
    /// Takes microseconds: it runs on the calling thread.
    pub(crate) fn kv_get(&self, plugin: PluginId, key: &str) -> Answer<Value> {
        self.file.guests.with(|connection| {
            connection
                .prepare_cached(GET)?
                .query_row(params![plugin.0, key], |row| Ok((row.get(1)?, KvVersion(row.get(0)?))))
                .optional()
        })
    }

    /// Takes microseconds: it runs on the calling thread.
    pub(crate) fn kv_list(
        &self,
        plugin: PluginId,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Answer<Entries> {
        self.file
            .guests
            .with(|connection| list(connection, plugin, prefix, after, limit, |row| row.get::<_, Vec<u8>>(2)))
    }
}

/// The cache of keys.
#[derive(Default)]
pub(super) struct KvCache {
    plugins: HashMap<PluginId, HashMap<String, Slot>>,
    changed: Vec<(PluginId, String)>,
    resized: Vec<PluginId>,
    weight: usize,
}

/// The value of a key, or that it has none.
struct Slot {
    value: Option<Vec<u8>>,
    version: KvVersion,
    changed: bool,
}

impl Session<'_> {
    /// Checks the effects' reads and writes of keys against the committed values and the changes of this
    /// batch. None: something that the attempt read has changed, or a change is not possible.
    pub(super) fn stage_kv(&mut self, plugin: PluginId, effects: &Effects) -> Result<Option<Vec<KvChange>>> {
        for read in &effects.reads {
            if !self.still_so(plugin, read)? {
                return Ok(None);
            }
        }
        let mut changes = Vec::with_capacity(effects.writes.len());
        for (key, write) in &effects.writes {
            let before = self.kv.slot(&mut self.sql, plugin, key)?.value.as_deref();
            let Ok(change) = KvChange::of(key, write, before) else { return Ok(None) };
            changes.push(change);
        }
        let delta: i64 = changes.iter().map(|change| change.delta).sum();
        let bytes = self.counters.tally(plugin).kv_bytes + delta;
        let full = effects.kv_limit.is_some_and(|limit| delta > 0 && bytes.unsigned_abs() > limit);
        Ok((!full).then_some(changes))
    }

    /// Applies the changes to the cache; the end of the batch writes them.
    pub(super) fn apply_kv(&mut self, plugin: PluginId, changes: Vec<KvChange>) {
        for KvChange { key, value, delta } in changes {
            let sequence = self.counters.sequence();
            let version = KvVersion(sequence.next_version);
            sequence.next_version += 1;
            self.counters.add_kv_bytes(plugin, delta);
            self.kv.set(plugin, key, value, version, delta != 0);
        }
    }

    fn still_so(&mut self, plugin: PluginId, read: &KvRead) -> Result<bool> {
        match read {
            KvRead::Key { key, version } => {
                let slot = self.kv.slot(&mut self.sql, plugin, key)?;
                Ok(slot.value.as_ref().map(|_| slot.version) == *version)
            }
            KvRead::List { prefix, after, limit, found } => {
                self.kv.write(&mut self.sql, self.connection)?;
                let now = list(self.connection, plugin, prefix, after.as_deref(), *limit, |_| Ok(()))?;
                Ok(now.iter().map(|(key, (), version)| (key, version)).eq(found.iter().map(|(k, v)| (k, v))))
            }
        }
    }
}

impl KvCache {
    /// Writes each changed key.
    pub(super) fn write(&mut self, sql: &mut Statements<'_>, connection: &Connection) -> Result<()> {
        for (plugin, key) in self.changed.drain(..) {
            let Some(slot) = self.plugins.get_mut(&plugin).and_then(|keys| keys.get_mut(&key)) else {
                continue;
            };
            slot.changed = false;
            match &slot.value {
                Some(value) => sql.put_kv.execute(params![plugin.0, key, slot.version.0, value])?,
                None => connection
                    .prepare_cached("DELETE FROM kv WHERE plugin = ?1 AND key = ?2")?
                    .execute(params![plugin.0, key])?,
            };
        }
        if self.weight > KEPT {
            self.plugins.clear();
            self.weight = 0;
        }
        Ok(())
    }

    /// Empties the cache; the tables are read again.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The plugins whose sizes have changed since the last call, with their sizes.
    pub(super) fn sizes(&mut self, counters: &Counters) -> Vec<(PluginId, u64)> {
        self.resized.drain(..).map(|plugin| (plugin, counters.kv_bytes(plugin))).collect()
    }

    /// Forgets the plugin's keys, which have been deleted from the table.
    pub(super) fn forget(&mut self, plugin: PluginId) {
        self.plugins.remove(&plugin);
        self.resized.push(plugin);
    }

    fn slot(&mut self, sql: &mut Statements<'_>, plugin: PluginId, key: &str) -> Result<&Slot> {
        let keys = self.plugins.entry(plugin).or_default();
        if !keys.contains_key(key) {
            let row = sql
                .get_kv
                .query_row(params![plugin.0, key], |row| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?)))
                .optional()?;
            let (version, value) = row.map_or((0, None), |(version, value)| (version, Some(value)));
            self.weight += OVERHEAD + key.len() + value.as_ref().map_or(0, Vec::len);
            keys.insert(key.to_owned(), Slot { value, version: KvVersion(version), changed: false });
        }
        keys.get(key).ok_or(rusqlite::Error::QueryReturnedNoRows)
    }

    fn set(
        &mut self,
        plugin: PluginId,
        key: String,
        value: Option<Vec<u8>>,
        version: KvVersion,
        resized: bool,
    ) {
        if resized && self.resized.last() != Some(&plugin) {
            self.resized.push(plugin);
        }
        self.weight += value.as_ref().map_or(0, Vec::len);
        let keys = self.plugins.entry(plugin).or_default();
        match keys.get_mut(&key) {
            Some(slot) => {
                slot.value = value;
                slot.version = version;
                if !std::mem::replace(&mut slot.changed, true) {
                    self.changed.push((plugin, key));
                }
            }
            None => {
                self.weight += OVERHEAD + key.len();
                keys.insert(key.clone(), Slot { value, version, changed: true });
                self.changed.push((plugin, key));
            }
        }
    }
}

fn list<T>(
    connection: &Connection,
    plugin: PluginId,
    prefix: &str,
    after: Option<&str>,
    limit: u32,
    value: impl Fn(&rusqlite::Row<'_>) -> Result<T>,
) -> Result<Found<T>> {
    let mut statement = connection.prepare_cached(LIST)?;
    let mut rows = statement.query(params![plugin.0, after.map_or(prefix, |after| after.max(prefix))])?;
    let mut found = Vec::new();
    while found.len() < limit as usize
        && let Some(row) = rows.next()?
    {
        let key = row.get_ref(0)?.as_str()?;
        if !key.starts_with(prefix) {
            break;
        }
        if after != Some(key) {
            found.push((key.to_owned(), value(row)?, KvVersion(row.get(1)?)));
        }
    }
    Ok(found)
}
