//! Checks the file of a database from outside, while the daemon may be using it. Nothing is written, and no lock
//! is kept.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags};

/// Steps of SQLite's virtual machine between two checks of the deadline.
const STEPS: i32 = 10_000;

/// How long the check waits for another connection's lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether the file of a database is intact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Integrity {
    /// The file is intact.
    Whole,
    /// The file is damaged; SQLite's description.
    Damaged(String),
    /// The timeout ended the check.
    NotTold,
}

/// Checks the file for at most `timeout`.
///
/// # Errors
/// Names the file and the reason it can't be read.
pub fn inspect(path: &Path, timeout: Duration) -> Result<Integrity, String> {
    let until = Instant::now() + timeout;
    match check(path, until) {
        Ok(said) if said == "ok" => Ok(Integrity::Whole),
        Ok(said) => Ok(Integrity::Damaged(said.replace('\n', " "))),
        Err(error) => match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => Ok(Integrity::NotTold),
            Some(ErrorCode::DatabaseCorrupt) => Ok(Integrity::Damaged(error.to_string())),
            _ => Err(format!("`{}` can't be read: {error}", path.display())),
        },
    }
}

/// What SQLite's own check says.
fn check(path: &Path, until: Instant) -> rusqlite::Result<String> {
    let mode = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, mode)?;
    connection.busy_timeout(LOCK_TIMEOUT)?;
    connection.progress_handler(STEPS, Some(move || Instant::now() >= until))?;
    connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
}
