//! What operators did. An entry is on disk before the deed, and gets its outcome after it: one without an
//! outcome was begun by a daemon that did not live to see the end of it.

use rusqlite::{Result, params};

use super::{
    Store, StoreError,
    query::page,
    time::{nanos, timestamp},
    types::{AuditEntry, AuditFilter, AuditId},
};

/// The most entries; the oldest go first.
const MOST: i64 = 100_000;

/// The most bytes of each text of an entry.
const LONGEST: usize = 500;

impl Store {
    /// Writes down that `actor` begins to do `action` to `target`; returns when it is on disk.
    ///
    /// # Errors
    /// When it could not be written: then it must not be done.
    pub async fn audit_begin(&self, actor: &str, action: &str, target: &str) -> Result<AuditId, StoreError> {
        let [actor, action, target] = [actor, action, target].map(short);
        self.write(move |writer| {
            writer
                .connection
                .prepare_cached("INSERT INTO audit (at, actor, action, target) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![writer.now, actor, action, target])?;
            let id = writer.connection.last_insert_rowid();
            writer.connection.prepare_cached("DELETE FROM audit WHERE id <= ?1")?.execute([id - MOST])?;
            Ok(AuditId(id))
        })
        .await
    }

    /// Writes down what came of it.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn audit_end(&self, id: AuditId, outcome: &str) -> Result<(), StoreError> {
        let outcome = short(outcome);
        self.write(move |writer| {
            writer
                .connection
                .prepare_cached("UPDATE audit SET outcome = ?2 WHERE id = ?1")?
                .execute(params![id.0, outcome])
                .map(drop)
        })
        .await
    }

    /// What operators did, newest first.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn audit(&self, filter: AuditFilter) -> Result<Vec<AuditEntry>, StoreError> {
        self.read(move |connection| {
            connection
                .prepare_cached(
                    "SELECT id, at, actor, action, target, outcome FROM audit
                     WHERE id < ?1 AND (?2 IS NULL OR instr(' ' || action, ' ' || ?2) > 0) AND at >= ?4 ORDER BY id DESC LIMIT ?3",
                )?
                .query_map(
                    params![
                        filter.before.map_or(i64::MAX, |id| id.0),
                        filter.action,
                        page(filter.limit),
                        filter.since.map_or(i64::MIN, nanos)
                    ],
                    |row| {
                        Ok(AuditEntry {
                            id: AuditId(row.get(0)?),
                            at: timestamp(row.get(1)?),
                            actor: row.get(2)?,
                            action: row.get(3)?,
                            target: row.get(4)?,
                            outcome: row.get(5)?,
                        })
                    },
                )?
                .collect()
        })
        .await
    }
}

/// The text, cut where it is too long.
fn short(text: &str) -> String {
    text[..text.floor_char_boundary(LONGEST)].to_owned()
}
