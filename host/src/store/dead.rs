//! Dead letters by plugin and reason: what went wrong how often, so that each can be dealt with as one.

use rusqlite::{Connection, OptionalExtension, Result};

use super::{Store, StoreError, query::NOT_REPLAYED, time::timestamp, views::DeadGroup};
use crate::model::DeliveryId;

/// The most dead letters that are looked at, the newest.
const MOST: i64 = 100_000;

/// The most groups.
const GROUPS: i64 = 200;

impl Store {
    /// The newest 100,000 dead letters by plugin and reason, those with the most to replay first; at most
    /// 200 groups.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn dead_groups(&self) -> Result<Vec<DeadGroup>, StoreError> {
        self.read(groups).await
    }
}

fn groups(connection: &Connection) -> Result<Vec<DeadGroup>> {
    let from: Option<i64> = connection
        .prepare_cached(
            "SELECT id FROM delivery INDEXED BY delivery_dead WHERE state = 4 ORDER BY id DESC LIMIT 1 OFFSET ?1",
        )?
        .query_row([MOST - 1], |row| row.get(0))
        .optional()?;
    let sql = format!(
        "SELECT p.name, ifnull(d.error, ''), count(*), sum({NOT_REPLAYED}) AS left_over,
                min(d.finished_at), max(d.finished_at), max(d.id)
         FROM delivery d INDEXED BY delivery_dead JOIN plugin p ON p.id = d.plugin
         WHERE d.state = 4 AND d.id >= ?1
         GROUP BY d.plugin, d.error ORDER BY left_over DESC, max(d.id) DESC LIMIT ?2"
    );
    connection
        .prepare_cached(&sql)?
        .query_map([from.unwrap_or(i64::MIN), GROUPS], |row| {
            Ok(DeadGroup {
                plugin: row.get(0)?,
                reason: row.get(1)?,
                count: row.get::<_, i64>(2)?.unsigned_abs(),
                to_replay: row.get::<_, i64>(3)?.unsigned_abs(),
                first_at: row.get::<_, Option<i64>>(4)?.map(timestamp),
                last_at: row.get::<_, Option<i64>>(5)?.map(timestamp),
                newest: DeliveryId(row.get(6)?),
            })
        })?
        .collect()
}
