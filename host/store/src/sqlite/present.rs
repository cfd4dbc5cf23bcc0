//! Checks whether the store's files are still where they were opened. A commit to a file that was renamed,
//! deleted or replaced succeeds, but a restart does not find it.
//!
//! So the writer checks after each commit, before any caller is answered: device and inode of the file, its
//! log and the index of its log must be those that were opened. Three calls of `stat` take about two
//! microseconds; the sync of a commit takes over a hundred. Before a commit it checks whether the log is
//! shorter than after the last one, as a shell's `>` makes it. Only the moment between the check and the
//! answer remains uncovered.
//!
//! If something has moved, the store stops until a restart. Before that, it copies the open log into the open
//! file: then the file is complete wherever it is, and the restart needs no log.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use rusqlite::{Connection, ffi};

use super::copy::beside;

/// The bytes before the first frame of a log, and before the page of each frame.
const LOG_HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;

/// Device and inode.
type Identity = (u64, u64);

/// The file, its log and its index, as they were opened.
#[derive(Debug)]
pub(super) struct Present {
    paths: [PathBuf; 3],
    /// None if it does not exist: some file systems cannot have a log beside the file.
    opened: OnceLock<[Option<Identity>; 3]>,
    page_size: OnceLock<u64>,
    /// The size of the log after the last commit.
    log: AtomicU64,
}

/// The names of the three files in messages.
const NAMES: [&str; 3] = ["the store's file", "the store's write-ahead log", "the index of the store's log"];

impl Present {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            paths: [path.to_owned(), beside(path, "-wal"), beside(path, "-shm")],
            opened: OnceLock::new(),
            page_size: OnceLock::new(),
            log: AtomicU64::new(0),
        }
    }

    /// Remembers the files that are open now: `file` is the store's, and `connection` has read it.
    pub(super) fn remember(&self, file: &File, connection: &Connection) -> io::Result<()> {
        let identity = |file: fs::Metadata| (file.dev(), file.ino());
        let [_, log, index] = &self.paths;
        let beside = |path: &Path| fs::metadata(path).ok().map(identity);
        let _ = self.opened.set([Some(identity(file.metadata()?)), beside(log), beside(index)]);
        if let Ok(bytes) = connection.query_row("PRAGMA page_size", [], |row| row.get::<_, u32>(0)) {
            let _ = self.page_size.set(bytes.into());
        }
        Ok(())
    }

    /// Bytes of the file and of its log.
    pub(super) fn sizes(&self) -> [u64; 2] {
        let [file, log, _] = &self.paths;
        [file, log].map(|path| fs::metadata(path).map_or(0, |file| file.len()))
    }

    /// Whether all three are where they were opened.
    ///
    /// # Errors
    /// The file that has moved, and the fix.
    pub(super) fn check(&self) -> Result<(), rusqlite::Error> {
        let Some(opened) = self.opened.get() else { return Ok(()) };
        for ((path, name), opened) in self.paths.iter().zip(NAMES).zip(opened) {
            let Some(opened) = opened else { continue };
            let there = fs::metadata(path);
            let what = match &there {
                Ok(there) if (there.dev(), there.ino()) == *opened => continue,
                Ok(_) => "replaced by another file",
                Err(_) => "renamed or deleted",
            };
            return Err(moved(&format!("{name} `{}` was {what}", path.display())));
        }
        Ok(())
    }

    /// Whether the log is shorter than the last commit left it. SQLite may have truncated it.
    pub(super) fn is_shorter(&self) -> bool {
        fs::metadata(&self.paths[1]).map_or(0, |log| log.len()) < self.log.load(Ordering::Relaxed)
    }

    /// Records the length of the log after a commit.
    pub(super) fn committed(&self) {
        let size = fs::metadata(&self.paths[1]).map_or(0, |log| log.len());
        self.log.store(size, Ordering::Relaxed);
    }

    /// Whether the log still contains everything that was written to it. `connection` is in no transaction.
    ///
    /// # Errors
    /// If it was truncated.
    pub(super) fn check_log(&self, connection: &Connection) -> Result<(), rusqlite::Error> {
        if !self.is_shorter() {
            return Ok(());
        }
        let path = &self.paths[1];
        let size = fs::metadata(path).map_or(0, |log| log.len());
        let Some(page_size) = self.page_size.get() else { return Ok(()) };
        let frames: i64 =
            connection.prepare_cached("PRAGMA wal_checkpoint(NOOP)")?.query_row([], |row| row.get(1))?;
        let frames = u64::try_from(frames).unwrap_or(0);
        if frames == 0 || size >= length(frames, *page_size) {
            self.log.store(size, Ordering::Relaxed);
            return Ok(());
        }
        Err(moved(&format!("{} `{}` was truncated to {size} bytes", NAMES[1], path.display())))
    }

    /// Copies the open log into the open file, so that the file is complete. If another file is now in the
    /// place of the log, renames it: a restart would use it as the store's own log.
    pub(super) fn save(&self, connection: &Connection) {
        let saved = connection
            .query_row("PRAGMA wal_checkpoint(FULL)", [], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
            })
            .is_ok_and(|(busy, frames, copied)| busy == 0 && frames == copied);
        if !saved {
            return tracing::error!("could not copy the store's write-ahead log into its file");
        }
        let (Some([_, Some(opened), _]), [_, log, _]) = (self.opened.get(), &self.paths) else { return };
        if fs::metadata(log).is_ok_and(|there| (there.dev(), there.ino()) != *opened) {
            let aside = beside(log, ".replaced");
            match fs::rename(log, &aside) {
                Ok(()) => tracing::error!("renamed a log that is not the store's to `{}`", aside.display()),
                Err(error) => {
                    tracing::error!(%error, "could not rename a log that is not the store's")
                }
            }
        }
    }
}

/// The length in bytes of a log with so many frames.
pub(super) fn length(frames: u64, page_size: u64) -> u64 {
    LOG_HEADER.saturating_add(frames.saturating_mul(page_size.saturating_add(FRAME_HEADER)))
}

/// Whether an error is one of [`Present::check`].
pub(super) fn is_moved(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_READONLY_DBMOVED)
}

fn moved(what: &str) -> rusqlite::Error {
    let reason = format!(
        "{what} while the daemon runs, so a restart would not find what was written; put it back, then restart"
    );
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_READONLY_DBMOVED), Some(reason))
}
