//! The meaning of SQLite's errors for the store.

use rusqlite::ErrorCode;

use crate::StoreError;

impl StoreError {
    /// The meaning of a failed read for the caller. A reader's failure never stops the writer.
    pub(super) fn reading(error: &rusqlite::Error) -> Self {
        Self::Io(error.to_string())
    }
}

/// SQLite's message, with the fix if the disk is full.
pub(super) fn said(error: &rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => format!("{error}: free at least 1 MiB on its disk"),
        _ => error.to_string(),
    }
}

/// Whether the writer may continue after a rollback: the disk was full, or another tool had locked the file.
/// After any other error the state of the disk is unknown.
pub(super) fn passes(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}
