//! What can go wrong with a store.

use std::path::PathBuf;

use bytesize::ByteSize;

/// Why a store could not be opened. Each message names the file and the way out.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the store `{0}` is locked: another posthouse runs on it; stop that one, or name another file")]
    Locked(PathBuf),
    /// Its schema is of a later version.
    #[error(
        "the store `{path}` was written by a newer posthouse (schema {found}, this one knows up to {known}); \
         upgrade posthouse, or name another file"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version of its schema.
        found: i64,
        /// The latest version this program knows.
        known: i64,
    },
    /// It can't be read or written.
    #[error("the store `{path}` can't be opened: {reason}")]
    Unusable {
        /// The file or folder at fault.
        path: PathBuf,
        /// What the system says, and what to do.
        reason: String,
    },
}

/// Why the store did not do what it was asked; nothing of it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Too much is unfinished to take more in.
    #[error("the backlog of {0} unfinished deliveries is at its bound")]
    Backlog(u64),
    /// So little room is left on the disk that it is kept for what was taken in already.
    #[error(
        "the disk of the store has {} left, less than `min_free` ({})",
        ByteSize(*free), ByteSize(*least)
    )]
    NoSpace {
        /// Bytes that are free.
        free: u64,
        /// Bytes that are to stay so.
        least: u64,
    },
    /// A write failed in a way that leaves the disk in doubt: nothing is written until a restart.
    #[error("the store has stopped after a failed write: {0}")]
    Poisoned(String),
    /// The write was rolled back whole; the next one may succeed.
    #[error("the store could not write: {0}")]
    Io(String),
    /// The store is closing.
    #[error("the store is closing")]
    Closed,
}
