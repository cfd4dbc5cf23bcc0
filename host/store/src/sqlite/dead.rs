//! Dead letters by plugin and cause, so that all those with one cause can be handled together.
//!
//! The cause is computed on request (`model/cause.rs`), so each delivery keeps its complete reason.

use std::collections::{HashMap, HashSet};

use posthouse_model::{DeliveryId, cause};
use rusqlite::{Connection, OptionalExtension, Result};

use super::reads::Reads;

use crate::{Answer, DeadGroup, time::timestamp};

/// The maximum number of dead letters read, newest first.
const MOST: i64 = 100_000;

/// The maximum number of groups returned.
const GROUPS: usize = 200;

/// The maximum number of groups collected, from the newest dead letters.
const GATHERED: usize = 10_000;

impl Reads {
    pub(crate) async fn dead_groups(&self) -> Answer<Vec<DeadGroup>> {
        self.read(groups).await
    }
}

/// Groups here instead of in SQL. SQL would sort all rows by their texts, and look up for each whether it was
/// replayed.
fn groups(connection: &Connection) -> Result<Vec<DeadGroup>> {
    // In one snapshot, because a replay in between would be counted twice.
    let snapshot = connection.unchecked_transaction()?;
    let from: i64 = snapshot
        .prepare_cached(
            "SELECT id FROM delivery INDEXED BY delivery_dead WHERE state = 4 ORDER BY id DESC LIMIT 1 OFFSET ?1",
        )?
        .query_row([MOST - 1], |row| row.get(0))
        .optional()?
        .unwrap_or(i64::MIN);
    let replayed: HashSet<i64> = snapshot
        .prepare_cached(
            "SELECT replay_of FROM delivery INDEXED BY delivery_replay
             WHERE replay_of IS NOT NULL AND replay_of >= ?1",
        )?
        .query_map([from], |row| row.get(0))?
        .collect::<Result<_>>()?;
    let names: HashMap<i64, String> = snapshot
        .prepare_cached("SELECT id, name FROM plugin")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_>>()?;

    let mut groups: HashMap<(i64, String), DeadGroup> = HashMap::new();
    let mut statement = snapshot.prepare_cached(
        "SELECT id, plugin, error, finished_at FROM delivery INDEXED BY delivery_dead
         WHERE state = 4 AND id >= ?1 ORDER BY id DESC",
    )?;
    let mut rows = statement.query([from])?;
    while let Some(row) = rows.next()? {
        let (id, plugin): (i64, i64) = (row.get(0)?, row.get(1)?);
        let reason = row.get_ref(2)?.as_str_or_null()?.unwrap_or_default();
        let at = row.get::<_, Option<i64>>(3)?.map(timestamp);
        let key = (plugin, cause(reason));
        if groups.len() >= GATHERED && !groups.contains_key(&key) {
            continue;
        }
        let cause = key.1.clone();
        let group = groups.entry(key).or_insert_with(|| DeadGroup {
            plugin: names.get(&plugin).cloned().unwrap_or_default(),
            reason: cause,
            example: reason.to_owned(),
            count: 0,
            to_replay: 0,
            first_at: at,
            last_at: at,
            newest: DeliveryId(id),
        });
        group.count += 1;
        group.to_replay += u64::from(!replayed.contains(&id));
        group.first_at = group.first_at.min(at).or(at);
        group.last_at = group.last_at.max(at);
    }
    drop(rows);
    drop(statement);
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by(|a, b| b.to_replay.cmp(&a.to_replay).then(b.newest.cmp(&a.newest)));
    groups.truncate(GROUPS);
    Ok(groups)
}
