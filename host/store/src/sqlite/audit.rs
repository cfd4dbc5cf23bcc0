//! Operators' actions. An entry is on disk before the action, and gets its outcome after it. If an entry has
//! no outcome, the daemon stopped before the action ended.

use rusqlite::{Result, params};

use super::{reads::Reads, session::Session};
use crate::{
    Answer, AuditEntry, AuditFilter, AuditId,
    op::Outcome,
    page,
    time::{nanos, timestamp},
};

/// The maximum number of entries; the oldest are removed.
const MOST: i64 = 100_000;

impl Session<'_> {
    /// Records that an operator's action begins.
    pub(super) fn begin_audit(&mut self, actor: &str, action: &str, target: &str) -> Result<Outcome> {
        self.connection
            .prepare_cached("INSERT INTO audit (at, actor, action, target) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![self.now, actor, action, target])?;
        let id = self.connection.last_insert_rowid();
        self.connection.prepare_cached("DELETE FROM audit WHERE id <= ?1")?.execute([id - MOST])?;
        Ok(Outcome::Audit(AuditId(id)))
    }

    /// Records the outcome.
    pub(super) fn end_audit(&mut self, entry: AuditId, outcome: &str) -> Result<Outcome> {
        self.connection
            .prepare_cached("UPDATE audit SET outcome = ?2 WHERE id = ?1")?
            .execute(params![entry.0, outcome])?;
        Ok(Outcome::Done)
    }
}

impl Reads {
    pub(crate) async fn audit(&self, filter: AuditFilter) -> Answer<Vec<AuditEntry>> {
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
