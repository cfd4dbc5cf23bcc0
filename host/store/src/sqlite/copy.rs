//! A consistent copy of a SQLite file while others read and write it.
//!
//! A snapshot is one read transaction: it does not contain what is committed after its beginning, however
//! long the copying takes. It blocks nobody. But the write-ahead log cannot be checkpointed beyond it, and
//! grows by what is written meanwhile.

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

/// Pages copied in one step: 4 MiB at the usual page size.
const PAGES: i32 = 1024;

/// Steps of SQLite's virtual machine between two looks at the clock.
const STEPS: i32 = 10_000;

/// Steps between two syncs of the copy, so that unwritten data does not pile up in front of the store's own
/// syncs.
const SYNC: u32 = 16;

/// How long to wait for a lock on the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a file could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source cannot be read.
    #[error("`{path}` can't be read: {reason}")]
    Source {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The copy can't be written.
    #[error("`{path}` can't be written: {reason}")]
    Target {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A file is damaged.
    #[error("`{path}` is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite reports.
        reason: String,
    },
}

/// A snapshot of a file.
pub(super) struct Snapshot {
    path: PathBuf,
    connection: Connection,
}

impl Snapshot {
    /// A snapshot of the file as it is now.
    pub(super) fn of(path: &Path) -> Result<Self, CopyError> {
        Self::begun(path, path, read_only)
    }

    /// A file that nobody changes and that is complete without its log: a log or journal beside it belongs to
    /// something else and is ignored. Errors name the file `shown`.
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

    /// The connection. No statement runs on it at this moment.
    pub(super) fn until(mut self, moment: Instant) -> Result<Self, CopyError> {
        self.connection
            .progress_handler(STEPS, Some(move || Instant::now() >= moment))
            .map_err(|error| unread(&self.path, &error))?;
        Ok(self)
    }

    /// Checks whether the file is intact.
    pub(super) fn check(&self) -> Result<(), CopyError> {
        let said: String =
            self.read(|connection| connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)))?;
        if said == "ok" {
            return Ok(());
        }
        Err(CopyError::Damaged { path: self.path.clone(), reason: said.replace('\n', " ") })
    }

    /// Copies it to a new file that only its owner may read, and returns a connection to the copy. The copy
    /// is one file, without a log. It is durable only after [`settle`].
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
                // The source is a snapshot, and only this process has the target.
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        drop(backup);
        copy.execute_batch("PRAGMA journal_mode = DELETE").map_err(failed)?;
        Ok(copy)
    }
}

/// Closes what was written, and returns once it is durable.
pub(super) fn settle(path: &Path, copy: Connection) -> Result<(), CopyError> {
    copy.close().map_err(|(_, error)| unwritten(path, &error))?;
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| unwritten(path, &error))
}

/// Syncs a folder, so that the names of its files are durable.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// The path with this suffix appended to its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Creates a new file that only its owner may read.
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
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

pub(super) fn unread(path: &Path, error: &dyn std::fmt::Display) -> CopyError {
    CopyError::Source { path: path.to_owned(), reason: error.to_string() }
}

pub(super) fn unwritten(path: &Path, error: &dyn std::fmt::Display) -> CopyError {
    CopyError::Target { path: path.to_owned(), reason: error.to_string() }
}
