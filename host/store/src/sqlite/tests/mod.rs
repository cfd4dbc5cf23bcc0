//! Promises of the SQLite engine only: its file, its backups, and its behaviour on a full disk.

mod backing_up;
mod full;
mod measure;
mod old_stores;
mod opening;
mod room;
mod size;

use rusqlite::{Connection, Error, ffi};

use crate::conformance::InjectedFailure;

/// The fate of the next batch.
pub(crate) enum Injected {
    /// Its commit fails with this code of SQLite.
    Code(i32),
    /// The file may have this many pages from now on.
    MaxPages(i64),
}

impl From<InjectedFailure> for Injected {
    fn from(fault: InjectedFailure) -> Self {
        Self::Code(match fault {
            InjectedFailure::DiskFull => ffi::SQLITE_FULL,
            InjectedFailure::InDoubt => ffi::SQLITE_IOERR_FSYNC,
        })
    }
}

impl Injected {
    pub(super) fn apply(self, connection: &Connection) -> rusqlite::Result<()> {
        match self {
            Self::Code(code) => Err(Error::SqliteFailure(ffi::Error::new(code), None)),
            Self::MaxPages(pages) => {
                connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
            }
        }
    }
}
