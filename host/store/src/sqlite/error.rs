//! What an error of SQLite means to the store.

use rusqlite::ErrorCode;

use crate::StoreError;

impl StoreError {
    /// What a failed read means to the caller. A reader's failure never stops the writer.
    pub(super) fn reading(error: &rusqlite::Error) -> Self {
        Self::Io(error.to_string())
    }
}

/// What SQLite says, with what to do about a disk that is full.
pub(super) fn said(error: &rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => format!("{error}: make 1 MiB of room on its disk, or more"),
        _ => error.to_string(),
    }
}

/// Whether the writer may go on once the transaction is rolled back: the disk was full, or somebody
/// else's tool held the file. After anything else nobody can say what is on the disk.
pub(super) fn passes(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}
