//! Errors of the store.

use std::path::PathBuf;

use bytesize::ByteSize;

/// Why a store could not be opened. Each message names the file and the fix.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has locked it.
    #[error("the store `{0}` is locked by another posthouse; stop that one, or use another file")]
    Locked(PathBuf),
    /// Its schema has a later version.
    #[error(
        "the store `{path}` was written by a newer posthouse (schema {found}, this one supports up to {known}); \
         upgrade posthouse, or use another file"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version of its schema.
        found: i64,
        /// The latest version that this program supports.
        known: i64,
    },
    /// It can't be read or written.
    #[error("the store `{path}` can't be opened: {reason}")]
    Unusable {
        /// The file or folder.
        path: PathBuf,
        /// The system's error, and the fix.
        reason: String,
    },
}

/// Why the store did not do what it was asked to. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The backlog is full.
    #[error("the backlog of {0} unfinished deliveries is full")]
    Backlog(u64),
    /// The disk has so little free space that it is reserved for what is already stored.
    #[error(
        "the disk of the store has {} left, less than `min_free` ({})",
        ByteSize(*free), ByteSize(*least)
    )]
    NoSpace {
        /// The free bytes.
        free: u64,
        /// The bytes to keep free.
        least: u64,
    },
    /// A failed write left the state of the disk unknown: nothing is written until a restart.
    #[error("the store has stopped after a failed write: {0}")]
    Poisoned(String),
    /// The write was rolled back completely; the next one may succeed.
    #[error("the store could not write: {0}")]
    Io(String),
    /// The store is closing.
    #[error("the store is closing")]
    Closed,
}
