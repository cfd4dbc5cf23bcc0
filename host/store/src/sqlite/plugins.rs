//! Records of plugins, including those whose files are gone.

use posthouse_model::{DeliveryId, PluginId};
use rusqlite::{Result, Row, ToSql, types::Type};
use serde::{Serialize, de::DeserializeOwned};

use super::{reads::Reads, schema::code, session::Session};

use crate::{
    Answer, PluginChange, PluginRecord, PluginUpdate,
    op::Outcome,
    time::{nanos, timestamp},
};

/// Rows that one transaction of forgetting changes, so that the writer can accept events in between.
const SLICE: usize = 500;

impl Reads {
    pub(crate) async fn plugins(&self) -> Answer<Vec<PluginRecord>> {
        self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT id, name, revision, description, events, requires, held, last_error, paused, loaded_at
                     FROM plugin WHERE NOT forgotten ORDER BY name",
                )?
                .query_map([], record)?
                .collect()
        })
        .await
    }
}

impl Session<'_> {
    /// The id of a name; assigned at its first use.
    pub(super) fn register_plugin(&mut self, name: &str) -> Result<Outcome> {
        self.connection.query_row(
            "INSERT INTO plugin (name) VALUES (?1) ON CONFLICT DO UPDATE SET forgotten = 0 RETURNING id",
            [name],
            |row| row.get(0).map(|id| Outcome::Plugin(PluginId(id))),
        )
    }

    /// One slice of forgetting a plugin: first its unfinished deliveries, then its keys, then its record.
    pub(super) fn forget_some(&mut self, plugin: PluginId) -> Result<Outcome> {
        if self.give_up_some(plugin)? || self.drop_some_keys(plugin)? {
            return Ok(Outcome::Flag(true));
        }
        self.connection.execute("DELETE FROM revision WHERE plugin = ?1", [plugin.0])?;
        self.connection.execute(
            "UPDATE plugin SET forgotten = 1, revision = NULL, description = '', events = '[]',
             requires = '[]', held = NULL, last_error = NULL, paused = 0, loaded_at = NULL
             WHERE id = ?1",
            [plugin.0],
        )?;
        Ok(Outcome::Flag(false))
    }

    /// Writes the fields that the update names.
    pub(super) fn update_plugin(&mut self, plugin: PluginId, update: &PluginUpdate) -> Result<Outcome> {
        let held = update.held.as_ref().map(json).transpose()?;
        let set = |fields: &str, values: &[&dyn ToSql]| {
            let sql = format!("UPDATE plugin SET forgotten = 0, held = ?2{fields} WHERE id = ?1");
            let values = [&[&plugin.0 as &dyn ToSql, &held], values].concat();
            self.connection.prepare_cached(&sql)?.execute(&*values).map(|_| Outcome::Done)
        };
        match &update.change {
            PluginChange::Loaded { revision, description, events, requires, loaded_at } => set(
                ", revision = ifnull(?3, revision), description = ?4, events = ?5, requires = ?6,
                 loaded_at = ?7, last_error = NULL",
                &[revision, description, &json(events)?, &json(requires)?, &loaded_at.map(nanos)],
            ),
            PluginChange::Subscribed(events) => set(", events = ?3", &[&json(events)?]),
            PluginChange::Failed(error) => set(", last_error = ?3", &[error]),
            PluginChange::Recovered => set(", last_error = NULL", &[]),
            PluginChange::Paused(paused) => set(", paused = ?3", &[paused]),
            PluginChange::Held => set("", &[]),
        }
    }

    /// Makes some unfinished deliveries dead letters. Returns whether there are more.
    fn give_up_some(&mut self, plugin: PluginId) -> Result<bool> {
        let mut open = Vec::new();
        // Blocked ones are first: none may be left without one that makes it ready.
        for sql in [
            "SELECT id, state FROM delivery INDEXED BY delivery_order
             WHERE plugin = ?1 AND order_key IS NOT NULL AND state < 3 AND state = -1 LIMIT ?2",
            "SELECT id, state FROM delivery INDEXED BY delivery_later
             WHERE plugin = ?1 AND state = -2 LIMIT ?2",
            "SELECT id, state FROM delivery INDEXED BY delivery_due
             WHERE plugin = ?1 AND state IN (0, 2) LIMIT ?2",
        ] {
            if open.is_empty() {
                open = self
                    .connection
                    .prepare_cached(sql)?
                    .query_map([plugin.0, SLICE as i64], |row| Ok((row.get(0)?, row.get(1)?)))?
                    .collect::<Result<Vec<(i64, i64)>>>()?;
            }
        }
        if open.is_empty() {
            // Leased ones keep running, but their completions find that the leases are gone.
            open = self.leased_of(plugin)?.into_iter().map(|id| (id, code::LEASED)).collect();
        }
        for &(id, state) in &open {
            self.connection
                .prepare_cached(
                    "UPDATE delivery SET state = 4, finished_at = ?2, error = 'plugin forgotten' WHERE id = ?1",
                )?
                .execute([id, self.now])?;
            self.counters.moved(plugin, state, code::DEAD);
            self.end_lease(plugin, DeliveryId(id));
        }
        Ok(!open.is_empty())
    }

    fn leased_of(&self, plugin: PluginId) -> Result<Vec<i64>> {
        if self.counters.tally(plugin).states[code::LEASED as usize] == 0 {
            return Ok(Vec::new());
        }
        self.connection
            .prepare_cached("SELECT id FROM delivery WHERE id >= ?1 AND state = 1 AND plugin = ?2 LIMIT ?3")?
            .query_map(
                [self.leases.lowest().map_or(i64::MAX, |delivery| delivery.0), plugin.0, SLICE as i64],
                |row| row.get(0),
            )?
            .collect()
    }

    /// Deletes some keys. Returns whether there are more.
    fn drop_some_keys(&mut self, plugin: PluginId) -> Result<bool> {
        self.kv.write(&mut self.sql, self.connection)?;
        let bytes: Vec<i64> = self
            .connection
            .prepare_cached(
                "DELETE FROM kv WHERE plugin = ?1 AND key IN (SELECT key FROM kv WHERE plugin = ?1 LIMIT ?2)
                 RETURNING octet_length(key) + octet_length(value)",
            )?
            .query_map([plugin.0, SLICE as i64], |row| row.get(0))?
            .collect::<Result<_>>()?;
        self.counters.add_kv_bytes(plugin, -bytes.iter().sum::<i64>());
        self.kv.forget(plugin);
        Ok(!bytes.is_empty())
    }
}

fn record(row: &Row<'_>) -> Result<PluginRecord> {
    Ok(PluginRecord {
        id: PluginId(row.get(0)?),
        name: row.get(1)?,
        revision: row.get(2)?,
        description: row.get(3)?,
        events: parsed(row, 4)?.unwrap_or_default(),
        requires: parsed(row, 5)?.unwrap_or_default(),
        held: parsed(row, 6)?,
        last_error: row.get(7)?,
        paused: row.get(8)?,
        loaded_at: row.get::<_, Option<i64>>(9)?.map(timestamp),
    })
}

fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// A column with JSON, or NULL.
pub(super) fn parsed<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<Option<T>> {
    let Some(text) = row.get_ref(column)?.as_str_or_null()? else { return Ok(None) };
    serde_json::from_str(text)
        .map(Some)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into()))
}
