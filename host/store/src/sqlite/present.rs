//! Whether the store's files are still where they were opened. A commit to a file that somebody has renamed,
//! deleted or replaced succeeds, and a restart does not find it.
//!
//! So the writer looks after each commit, before anybody is answered: device and inode of the file, its log
//! and its index of the log must be what they were when they were opened. Three calls of `stat` take some two
//! microseconds, and the sync of a commit a hundred and more. Before a commit it looks whether the log has become
//! shorter than it was left, which a shell's `>` does to it. What remains is the moment between the look and the
//! answer.
//!
//! When something has moved, the store stops until a restart. What is in the log that is still open is copied
//! into the file that is still open first: then the file is whole wherever it is, and the restart needs no log.

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

/// Bytes before the first frame of a log, and before the page of each.
const LOG_HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;

/// Device and inode.
type Identity = (u64, u64);

/// The file, its log and its index, as they were opened.
#[derive(Debug)]
pub(super) struct Present {
    paths: [PathBuf; 3],
    /// None of what is not there: some file systems can't have a log beside the file.
    opened: OnceLock<[Option<Identity>; 3]>,
    page_size: OnceLock<u64>,
    /// The size of the log after the last commit.
    log: AtomicU64,
}

/// What of the three was meant.
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
    /// With what has moved, and what to do.
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

    /// A commit has ended: the log is as long as it is now.
    pub(super) fn committed(&self) {
        let size = fs::metadata(&self.paths[1]).map_or(0, |log| log.len());
        self.log.store(size, Ordering::Relaxed);
    }

    /// Whether the log still has all that was written to it; `connection` is in no transaction.
    ///
    /// # Errors
    /// When somebody has cut it.
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
        Err(moved(&format!("{} `{}` was cut to {size} bytes", NAMES[1], path.display())))
    }

    /// Copies what the open log has into the open file, so that neither needs the other. What lies in the
    /// place of the log and is another one is set aside: a restart would take it for the file's own.
    pub(super) fn save(&self, connection: &Connection) {
        let saved = connection
            .query_row("PRAGMA wal_checkpoint(FULL)", [], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
            })
            .is_ok_and(|(busy, frames, copied)| busy == 0 && frames == copied);
        if !saved {
            return tracing::error!("the store's log could not be copied into its file");
        }
        let (Some([_, Some(opened), _]), [_, log, _]) = (self.opened.get(), &self.paths) else { return };
        if fs::metadata(log).is_ok_and(|there| (there.dev(), there.ino()) != *opened) {
            let aside = beside(log, ".replaced");
            match fs::rename(log, &aside) {
                Ok(()) => tracing::error!("the log that is not the store's is now `{}`", aside.display()),
                Err(error) => {
                    tracing::error!(%error, "the log that is not the store's could not be set aside")
                }
            }
        }
    }
}

/// The bytes of a log of so many frames.
pub(super) fn length(frames: u64, page_size: u64) -> u64 {
    LOG_HEADER.saturating_add(frames.saturating_mul(page_size.saturating_add(FRAME_HEADER)))
}

/// Whether an error is one of [`Present::check`].
pub(super) fn is_moved(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_READONLY_DBMOVED)
}

fn moved(what: &str) -> rusqlite::Error {
    let reason = format!(
        "{what} while the daemon runs, and a restart would not find what is written; put it back, and restart"
    );
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_READONLY_DBMOVED), Some(reason))
}
