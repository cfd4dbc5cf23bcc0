//! Empties the write-ahead logs that a killed process left, before anything else needs space.
//!
//! SQLite recovers a log, but does not shorten it. If a daemon was killed while a plugin wrote much, the log
//! is full of uncommitted frames, perhaps on a disk without free space. So a start handles each log in turn:
//! it cuts off the uncommitted part, copies the committed part into the file, and empties the log. The file
//! is locked exclusively meanwhile: then SQLite keeps the index of the log in memory, and needs no space for
//! it.

use std::{
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytesize::ByteSize;
use rusqlite::{Connection, Error, ErrorCode};

use super::{
    copy::{beside, writable},
    present::length,
    restore, schema,
};
use crate::OpenError;

/// How long to wait if another process has the file. After that, emptying the log is left to that process.
const BUSY_TIMEOUT: Duration = Duration::from_millis(100);

/// Why a log could not be emptied.
#[derive(Debug, thiserror::Error)]
pub enum LeftoverError {
    /// The log exists, but its file does not.
    #[error(
        "`{file}` is missing or empty, but its write-ahead log `{log}` exists: put the file back, or remove \
         the log to begin with an empty one"
    )]
    Orphan {
        /// The file.
        file: PathBuf,
        /// The log.
        log: PathBuf,
    },
    /// The committed part does not fit into the file.
    #[error(
        "the disk of `{file}` is full: up to {need} of its write-ahead log must be copied into it; free that \
         much space"
    )]
    NoRoom {
        /// The file.
        file: PathBuf,
        /// The maximum that is needed.
        need: ByteSize,
    },
    /// It can't be read or written.
    #[error("the write-ahead log of `{file}` can't be checkpointed: {reason}")]
    Failed {
        /// The file.
        file: PathBuf,
        /// The error of SQLite or the system.
        reason: String,
    },
}

/// Empties the log of the database at `path`. Does nothing if there is no log, or another process uses the
/// database.
///
/// # Errors
/// [`LeftoverError`]; then the committed part is still in the log.
pub fn empty_log(path: &Path) -> Result<(), LeftoverError> {
    let log = beside(path, "-wal");
    let size = match fs::metadata(&log) {
        Ok(log) if log.len() > 0 => log.len(),
        _ => return Ok(()),
    };
    if fs::metadata(path).map_or(0, |file| file.len()) == 0 {
        // SQLite would delete the log.
        return Err(LeftoverError::Orphan { file: path.to_owned(), log });
    }
    let mut need = 0;
    match empty(path, &log, size, &mut need) {
        Ok(()) => Ok(()),
        Err(error) => match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Ok(()),
            Some(ErrorCode::DiskFull) => {
                Err(LeftoverError::NoRoom { file: path.to_owned(), need: ByteSize(need) })
            }
            _ => Err(LeftoverError::Failed { file: path.to_owned(), reason: error.to_string() }),
        },
    }
}

/// As [`empty_log`], for the store at `path`. No other process may have it open.
///
/// # Errors
/// The [`OpenError`] that opening the store would return.
pub fn empty_store_log(path: &Path) -> Result<(), OpenError> {
    if fs::metadata(beside(path, "-wal")).is_err() {
        return Ok(());
    }
    let _lock = schema::lock(path)?;
    of_locked_store(path)
}

/// As [`empty_store_log`], for a caller that has the lock.
pub(super) fn of_locked_store(path: &Path) -> Result<(), OpenError> {
    if restore::is_unfinished(path) {
        return Ok(());
    }
    match empty_log(path) {
        Err(error @ LeftoverError::NoRoom { .. }) => {
            // The store may find enough space for the little that it writes at the start.
            tracing::warn!(%error, "could not truncate the write-ahead log of the store");
            Ok(())
        }
        result => {
            result.map_err(|error| OpenError::Unusable { path: path.to_owned(), reason: error.to_string() })
        }
    }
}

fn empty(path: &Path, log: &Path, size: u64, need: &mut u64) -> rusqlite::Result<()> {
    let connection = writable(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.query_row("PRAGMA locking_mode = EXCLUSIVE", [], |_| Ok(()))?;
    // The first read recovers the log.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    if mode != "wal" {
        return Ok(());
    }
    let page_size: u32 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    let page_size = u64::from(page_size);
    let frames = u64::try_from(checkpoint(&connection, "NOOP")?.1).unwrap_or(0);
    *need = frames.saturating_mul(page_size);
    let committed = length(frames, page_size);
    if committed < size {
        cut(log, committed).map_err(|error| system(&error))?;
        tracing::info!(
            cut = %ByteSize(size - committed),
            "removed uncommitted frames from the write-ahead log of `{}`", path.display()
        );
    }
    let (busy, ..) = checkpoint(&connection, "TRUNCATE")?;
    if busy != 0 {
        tracing::debug!("`{}` has another reader; its write-ahead log was not truncated", path.display());
    }
    connection.close().map_err(|(_, error)| error)
}

/// Whether another connection prevented it from finishing, the frames in the log, and how many of them are in
/// the file.
fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<(i64, i64)> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| Ok((row.get(0)?, row.get(1)?)))
}

fn cut(log: &Path, length: u64) -> io::Result<()> {
    OpenOptions::new().write(true).open(log)?.set_len(length)
}

fn system(error: &io::Error) -> Error {
    Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR), Some(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database whose writer was killed: the folder is copied while it writes.
    fn killed(write: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let live = folder.path().join("live.db");
        let connection = Connection::open(&live).unwrap();
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (n, b);
                 INSERT INTO t VALUES (1, 'committed'); PRAGMA cache_size = 10; BEGIN;",
            )
            .unwrap();
        connection.execute_batch(write).unwrap();
        let dead = folder.path().join("dead.db");
        fs::copy(&live, &dead).unwrap();
        fs::copy(beside(&live, "-wal"), beside(&dead, "-wal")).unwrap();
        (folder, dead)
    }

    const MUCH: &str = "WITH RECURSIVE c(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM c WHERE n < 2000)
                        INSERT INTO t SELECT n, zeroblob(2000) FROM c;";

    #[test]
    fn what_was_never_committed_goes_and_what_was_is_in_the_file() {
        let (_folder, path) = killed(MUCH);
        let log = beside(&path, "-wal");
        assert!(fs::metadata(&log).unwrap().len() > 1 << 20);
        empty_log(&path).unwrap();
        assert_eq!(fs::metadata(&log).map_or(0, |log| log.len()), 0);
        assert!(!beside(&path, "-shm").exists(), "the index was made on the disk");
        let kept = Connection::open(&path).unwrap();
        let rows: Vec<(i64, String)> = kept
            .prepare("SELECT n, b FROM t")
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(rows, [(1, "committed".to_owned())]);
    }

    #[test]
    fn a_log_that_was_committed_whole_is_copied_whole() {
        let (_folder, path) = killed(&format!("{MUCH} COMMIT;"));
        empty_log(&path).unwrap();
        let kept = Connection::open(&path).unwrap();
        assert_eq!(kept.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)), Ok(2000));
    }

    #[test]
    fn a_log_without_its_file_is_never_thrown_away() {
        let (_folder, path) = killed(MUCH);
        let log = beside(&path, "-wal");
        let size = fs::metadata(&log).unwrap().len();
        for missing in [true, false] {
            if missing {
                fs::remove_file(&path).unwrap();
            } else {
                fs::write(&path, "").unwrap();
            }
            let error = empty_log(&path).unwrap_err().to_string();
            assert!(error.contains("dead.db-wal") && error.contains("put the file back"), "{error}");
            assert_eq!(fs::metadata(&log).unwrap().len(), size);
        }
    }

    #[test]
    fn a_database_that_somebody_uses_is_left_to_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("live.db");
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (n); BEGIN; SELECT * FROM t;")
            .unwrap();
        empty_log(&path).unwrap();
        assert!(fs::metadata(beside(&path, "-wal")).unwrap().len() > 0);
        connection.execute_batch("COMMIT; INSERT INTO t VALUES (1)").unwrap();
    }
}
