//! Inspects a store from outside, with or without a running daemon. Writes nothing and takes no lock.
//!
//! SQLite allows other readers beside the writer, so this is safe at any time. It is safe for root too,
//! because SQLite gives the files that it creates beside the store to the store's owner.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rusqlite::OptionalExtension as _;

use super::{
    copy::{Snapshot, beside},
    restore, schema,
};
use crate::time::timestamp;

/// The state of a store.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of its write-ahead log.
    pub wal_bytes: u64,
    /// The version of its schema, and the latest that this program supports.
    pub schema: (i64, i64),
    /// When its newest event was received.
    pub newest: Option<Timestamp>,
    /// Unfinished deliveries: neither done nor dead.
    pub unfinished: u64,
    /// When the oldest of them was created.
    pub oldest: Option<Timestamp>,
    /// Whether the file holds together.
    pub integrity: Integrity,
}

/// Whether the store's file is intact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Integrity {
    /// It is intact.
    Whole,
    /// It is not; SQLite's message.
    Damaged(String),
    /// The time limit did not suffice.
    NotTold,
}

/// Whether a restore of the store began and did not finish.
pub fn restore_is_unfinished(store: &Path) -> bool {
    restore::is_unfinished(store)
}

/// Inspects the store, within `timeout`.
///
/// # Errors
/// The reason why it cannot be read.
pub fn inspect(path: &Path, timeout: Duration) -> Result<Inspection, String> {
    let until = Instant::now() + timeout;
    let told = |error: super::CopyError| error.to_string();
    let snapshot = Snapshot::of(path).map_err(told)?;
    let number = |sql: &str| -> Result<i64, String> {
        snapshot.read(|connection| connection.query_row(sql, [], |row| row.get(0))).map_err(told)
    };
    if number("PRAGMA application_id")? != schema::APPLICATION {
        return Err(format!("`{}` is another program's database; use another file", path.display()));
    }
    let moment = |sql: &str| -> Result<Option<Timestamp>, String> {
        let found: Option<Option<i64>> = snapshot
            .read(|connection| connection.query_row(sql, [], |row| row.get(0)).optional())
            .map_err(told)?;
        Ok(found.flatten().map(timestamp))
    };
    Ok(Inspection {
        bytes: length(path),
        wal_bytes: length(&beside(path, "-wal")),
        schema: (number("PRAGMA user_version")?, schema::latest()),
        newest: moment("SELECT received_at FROM event ORDER BY seq DESC LIMIT 1")?,
        unfinished: number("SELECT ifnull(sum(ready + leased + waiting), 0) FROM tally")?.unsigned_abs(),
        oldest: moment("SELECT made_at FROM delivery WHERE state IN (0, 2) ORDER BY id LIMIT 1")?,
        integrity: integrity(snapshot.until(until).map_err(told)?)?,
    })
}

/// When the newest event of a store was received.
///
/// # Errors
/// The reason why it cannot be read.
pub fn newest_event(path: &Path) -> Result<Option<Timestamp>, String> {
    let newest: Option<i64> = Snapshot::of(path)
        .and_then(|snapshot| {
            snapshot.read(|connection| {
                connection
                    .query_row("SELECT received_at FROM event ORDER BY seq DESC LIMIT 1", [], |row| {
                        row.get(0)
                    })
                    .optional()
            })
        })
        .map_err(|error| error.to_string())?;
    Ok(newest.map(timestamp))
}

fn integrity(snapshot: Snapshot) -> Result<Integrity, String> {
    let checked = snapshot.read(|connection| {
        let said = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
        match said {
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) => {
                Ok(Integrity::NotTold)
            }
            Ok(said) if said == "ok" => Ok(Integrity::Whole),
            Ok(said) => Ok(Integrity::Damaged(said.replace('\n', " "))),
            Err(error) => Err(error),
        }
    });
    checked.or_else(|error| match error {
        super::CopyError::Source { reason, .. } if reason.contains("malformed") => {
            Ok(Integrity::Damaged(reason))
        }
        error => Err(error.to_string()),
    })
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map(|file| file.len()).unwrap_or_default()
}
