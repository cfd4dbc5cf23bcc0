//! The SQLite engine: one file, one process. Everything of the store that knows `rusqlite` is below this folder.
//!
//! ```text
//!   accept ──► due ──► (an attempt runs) ──► complete ──► kv, order, outbox      the way of an event
//!   trial                                        what runs while a breaker is open
//!   decisions                                    requests of interceptors, from begin to end
//!   replay, retention, plugins, revisions, audit     other writes
//!   catching_up     how far a sender's list was compared, and what is missing
//!   query, search, dead, stats, series, sources, names, recent     what people see
//!   backup, restore, copy, sealed, inspect, leftover     a second file, and back
//!   session, counters, minutes, lines     what the writer holds in memory
//!   file, schema, readers, low_priority, checkpoint, space, present     the file and its connections
//! ```
//!
//! The session writes, on the committer's thread. Readers have a few separate connections. A third
//! connection copies the write-ahead log into the file.
//!
//! # How the engine meets the contract
//!
//! A batch is one SQLite transaction with `synchronous = FULL`. Within an operation all checks run before
//! the first write, so that a refused operation leaves nothing in the others' transaction. After a rollback,
//! the session reads everything again that it remembers of the tables. Leases are rows in state `leased`
//! whose tokens the session knows. They never expire, and opening the store makes the deliveries ready that
//! an earlier process had leased.

mod accept;
mod audit;
mod backup;
mod catching_up;
mod checkpoint;
mod complete;
mod copy;
mod counters;
mod dead;
mod decisions;
mod due;
mod error;
mod file;
mod inspect;
mod kv;
mod leftover;
mod lines;
mod low_priority;
mod minutes;
mod names;
mod order;
mod outbox;
mod plugins;
mod present;
mod query;
mod readers;
mod reads;
mod recent;
mod replay;
mod restore;
mod retention;
mod revisions;
mod schema;
mod sealed;
mod search;
mod series;
mod session;
mod sources;
mod space;
mod stats;
#[cfg(test)]
mod tests;
mod trial;

use std::{path::Path, sync::Arc};

use rusqlite::{Connection, config::DbConfig};

pub use backup::{Backup, BackupError, Contents, PluginDatabases, Written};
pub use copy::CopyError;
pub use inspect::{Inspection, Integrity, inspect, newest_event, restore_is_unfinished};
pub use leftover::{LeftoverError, empty_log, empty_store_log};
pub(super) use reads::Reads;
pub use restore::{Allowed, RestoreError, Restored, restore};
pub use schema::KeptOut;

use posthouse_model::Env;

use self::{checkpoint::Checkpointer, file::OpenFile, schema::Locked, session::Session};
use super::{OpenError, StoreOptions, committer::Committer, engine::Engine};

/// Prevents a daemon from starting on the store at `path` until the result is dropped; none if a daemon runs
/// on it.
///
/// # Errors
/// If its lock cannot be opened.
pub fn keep_out(path: &Path) -> std::io::Result<Option<KeptOut>> {
    schema::keep_out(path)
}

/// The engine, before its session is open.
pub(super) struct Sqlite {
    locked: Locked,
    file: Arc<OpenFile>,
    max_backlog: u64,
    env: Env,
}

/// Opens or creates the file, locks it, migrates its schema, and makes the deliveries ready that an earlier
/// process had leased.
///
/// # Errors
/// Each [`OpenError`] names the file and the fix.
pub(super) fn open(options: &StoreOptions, env: &Env) -> Result<(Sqlite, Reads), OpenError> {
    let path = &options.path;
    let unusable = |reason: String| OpenError::Unusable { path: path.clone(), reason };
    let mut locked = schema::open(path, env)?;
    due::recover(&mut locked.connection).map_err(|error| unusable(error::said(&error)))?;
    let file = OpenFile::new(path.clone(), options.min_free).map_err(|error| unusable(error.to_string()))?;
    file.remember(&locked.connection).map_err(|error| unusable(error.to_string()))?;
    let file = Arc::new(file);
    let reads = Reads::new(Arc::clone(&file)).map_err(|error| unusable(error.to_string()))?;
    let engine = Sqlite { locked, file, max_backlog: options.max_backlog, env: env.clone() };
    Ok((engine, reads))
}

impl Engine for Sqlite {
    fn run(self, committer: Committer) {
        let Self { locked: Locked { connection, lock }, file, max_backlog, env } = self;
        let checkpointer = Checkpointer::start(Arc::clone(&file), committer.nudge());
        let ended = match Session::new(&connection, max_backlog, env, file) {
            Ok(mut session) => committer.serve(&mut session),
            Err(error) => committer.fail(error.to_string()),
        };
        match checkpointer {
            Ok(checkpointer) => checkpointer.stop(),
            Err(error) => tracing::error!(%error, "could not start the thread that checkpoints the store"),
        }
        if let Err(error) = close(&connection, ended.well) {
            tracing::warn!(%error, "could not checkpoint the store's write-ahead log; the next start reads it");
        }
        drop(connection);
        drop(lock);
        drop(ended);
    }
}

/// Checkpoints the whole log into the file; if the state of the disk is unknown, prevents SQLite from
/// touching either.
fn close(connection: &Connection, well: bool) -> rusqlite::Result<()> {
    if well {
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
    } else {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(drop)
    }
}
