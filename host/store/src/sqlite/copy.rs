//! A consistent copy of an SQLite file that others read and write meanwhile.
//!
//! A snapshot is one read transaction: what is committed after it has begun is not in it, however long the
//! copying takes. Nobody waits for it; the write-ahead log can't be folded in beyond it, and so grows by what
//! is written meanwhile.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::{
    Connection, OpenFlags,
    backup::{Backup, StepResult},
};

pub(super) use posthouse_model::owner::folder_of;

/// Pages copied in one go: 4 MiB of the usual size.
const PAGES: i32 = 1024;

/// Steps of SQLite's machine between two looks at the clock.
const STEPS: i32 = 10_000;

/// Goes between two syncs of the copy: what waits to be written must not pile up before the store's own syncs.
const SYNC: u32 = 16;

/// How long one waits for who holds the file.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a file could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// What is to be copied can't be read.
    #[error("`{path}` can't be read: {reason}")]
    Source {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The copy can't be written.
    #[error("`{path}` can't be written: {reason}")]
    Target {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file is damaged.
    #[error("`{path}` is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite finds.
        reason: String,
    },
}

/// A file as it was at one moment.
pub(super) struct Snapshot {
    path: PathBuf,
    connection: Connection,
}

impl Snapshot {
    /// The file as it is now.
    pub(super) fn of(path: &Path) -> Result<Self, CopyError> {
        Self::begun(path, path, read_only)
    }

    /// A file that nobody changes and that is whole by itself: a log or journal that lies beside it is none of
    /// its own, and is not looked at. Errors name the file `shown`.
    pub(super) fn of_finished(path: &Path, shown: &Path) -> Result<Self, CopyError> {
        Self::begun(path, shown, immutable)
    }

    fn begun(
        path: &Path,
        shown: &Path,
        opened: fn(&Path) -> rusqlite::Result<Connection>,
    ) -> Result<Self, CopyError> {
        let open = || {
            let connection = opened(path)?;
            connection.execute_batch("BEGIN")?;
            // The transaction begins with its first read.
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
            Ok(connection)
        };
        let connection = open().map_err(|error: rusqlite::Error| unread(shown, &error))?;
        Ok(Self { path: shown.to_owned(), connection })
    }

    /// Reads from it.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, CopyError> {
        read(&self.connection).map_err(|error| unread(&self.path, &error))
    }

    /// It, of which no statement runs any longer at this moment.
    pub(super) fn until(mut self, moment: Instant) -> Result<Self, CopyError> {
        self.connection
            .progress_handler(STEPS, Some(move || Instant::now() >= moment))
            .map_err(|error| unread(&self.path, &error))?;
        Ok(self)
    }

    /// Looks whether the file holds together.
    pub(super) fn check(&self) -> Result<(), CopyError> {
        let said: String =
            self.read(|connection| connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)))?;
        if said == "ok" {
            return Ok(());
        }
        Err(CopyError::Damaged { path: self.path.clone(), reason: said.replace('\n', " ") })
    }

    /// Writes it to a new file that only its owner may read, and returns a connection to that. It is one
    /// file, without a log beside it; it is not on disk before [`settle`] says so.
    pub(super) fn copy_to(&self, path: &Path) -> Result<Connection, CopyError> {
        let file = new_file(path).map_err(|error| unwritten(path, &error))?;
        let failed = |error: rusqlite::Error| unwritten(path, &error);
        let mut copy = writable(path).map_err(failed)?;
        copy.execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF").map_err(failed)?;
        let backup = Backup::new(&self.connection, &mut copy).map_err(failed)?;
        for step in 1.. {
            match backup.step(PAGES).map_err(failed)? {
                StepResult::Done => break,
                StepResult::More if step % SYNC == 0 => {
                    file.sync_data().map_err(|error| unwritten(path, &error))?;
                }
                StepResult::More => {}
                // The source is a snapshot and the target is ours alone.
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        drop(backup);
        copy.execute_batch("PRAGMA journal_mode = DELETE").map_err(failed)?;
        Ok(copy)
    }
}

/// Closes what was written, and returns once it is on disk.
pub(super) fn settle(path: &Path, copy: Connection) -> Result<(), CopyError> {
    copy.close().map_err(|(_, error)| unwritten(path, &error))?;
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| unwritten(path, &error))
}

/// Puts on disk what a folder says of its files.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// The path with this after its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A file that was not there, and that only its owner may read.
pub(super) fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

pub(super) fn read_only(path: &Path) -> rusqlite::Result<Connection> {
    open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

fn immutable(path: &Path) -> rusqlite::Result<Connection> {
    let path = percent_encode(path.as_os_str().as_bytes(), NON_ALPHANUMERIC);
    let uri = format!("file:{path}?immutable=1");
    let mode = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    open(Path::new(&uri), mode)
}

pub(super) fn writable(path: &Path) -> rusqlite::Result<Connection> {
    open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
}

fn open(path: &Path, mode: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(PATIENCE)?;
    Ok(connection)
}

pub(super) fn unread(path: &Path, error: &dyn std::fmt::Display) -> CopyError {
    CopyError::Source { path: path.to_owned(), reason: error.to_string() }
}

pub(super) fn unwritten(path: &Path, error: &dyn std::fmt::Display) -> CopyError {
    CopyError::Target { path: path.to_owned(), reason: error.to_string() }
}
