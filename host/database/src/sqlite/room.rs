//! Limits how much of the disk one SQLite database may take, and checks that its files are still at their
//! paths.
//!
//! | what | limit | refused by |
//! | --- | --- | --- |
//! | the file | `max_size` | SQLite (`max_page_count`) |
//! | the write-ahead log | a quarter of `max_size`, at least [`SMALLEST_PART`] | [`Room::may_grow`] |
//! | temporary files, together | the same | [`Room::may_grow`] |
//! | all of them | `min_free` and a quarter of it stay free on the disk | [`Room::may_grow`] |
//!
//! SQLite reports each of them as `SQLITE_FULL`. The thread remembers which limit it reached
//! ([`Room::why_full`]), since a connection belongs to one thread.
//!
//! The limit on free disk space applies to plugins. The host's own writes, such as a checkpoint or the removal
//! of markers, free space or need next to none.

use std::{
    cell::Cell,
    ffi::CString,
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytesize::ByteSize;
use parking_lot::Mutex;

use super::vfs;

/// The least limit of the log, and of the temporary files, in bytes, however small `max_size` is. SQLite
/// checkpoints a log at 4 MiB.
const SMALLEST_PART: u64 = 16 << 20;

/// Bytes that plugins leave free even if `min_free` is 0. The store needs them to commit and to start.
const SMALLEST_FLOOR: u64 = 16 << 20;

/// A longer log is truncated once it has been checkpointed. In bytes.
pub(super) const LONG_LOG: u64 = 16 << 20;

/// Bytes that may be written between two checks of the disk.
const UNLOOKED: u64 = 1 << 20;

/// How long a check of the disk is valid, unless [`UNLOOKED`] bytes were written.
const LOOK: Duration = Duration::from_millis(100);

/// The kind of an SQLite file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The database.
    Main,
    /// Its write-ahead log.
    Log,
    /// Its rollback journal.
    Journal,
    /// A sorter, a materialized view, a statement journal.
    Temporary,
}

/// Device and inode.
type Identity = (u64, u64);

/// The room of one database. All sizes are bytes.
#[derive(Debug)]
pub(super) struct Room {
    name: String,
    /// The path in config.toml.
    path: PathBuf,
    max_size: u64,
    /// The limit of the log, and of the temporary files.
    part: u64,
    /// How much plugins leave free on the disk.
    floor: u64,
    /// Whether commits write to the file itself, because there is no log.
    journals: AtomicBool,
    /// The size of the log.
    log: AtomicU64,
    /// The end of the last write to the log.
    log_end: AtomicU64,
    /// The size of all temporary files.
    temporary: AtomicU64,
    /// Bytes written since the last check of the disk.
    unlooked: AtomicU64,
    seen: Mutex<Option<(Instant, Option<u64>)>>,
    vfs: OnceLock<Result<String, String>>,
    main: OnceLock<Identity>,
    logs: Mutex<Logs>,
    /// Whether the log has reported that the file is too large.
    told: AtomicBool,
    /// Why the files are no longer the opened ones.
    moved: OnceLock<String>,
}

/// The log that connections have open.
#[derive(Debug, Default)]
struct Logs {
    open: usize,
    file: Option<(PathBuf, Identity)>,
}

/// Why a write was refused.
#[derive(Debug, Clone, Copy)]
enum Refusal {
    Log,
    Temporary,
    /// The disk has this many bytes free.
    Free(u64),
    /// The system reported a full disk.
    Disk,
}

thread_local! {
    /// Whether this thread runs a plugin's statement or commit.
    static GUEST: Cell<bool> = const { Cell::new(false) };
    static REFUSED: Cell<Option<Refusal>> = const { Cell::new(None) };
}

/// While this exists, the writes of this thread are a plugin's.
pub(super) struct Guest(bool);

impl Guest {
    pub(super) fn at_work() -> Self {
        REFUSED.set(None);
        Self(GUEST.replace(true))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        GUEST.set(self.0);
    }
}

impl Room {
    /// The room of the database `name` in the file `path`. `min_free` bytes stay free on its disk.
    pub(super) fn new(name: &str, path: &Path, max_size: u64, min_free: u64) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            path: path.to_owned(),
            max_size,
            part: (max_size / 4).max(SMALLEST_PART),
            // The rest is for the store's own log, so that it still accepts events when plugins may not write.
            floor: min_free.saturating_add(min_free / 4).max(SMALLEST_FLOOR),
            journals: AtomicBool::new(false),
            log: AtomicU64::new(0),
            log_end: AtomicU64::new(0),
            temporary: AtomicU64::new(0),
            unlooked: AtomicU64::new(0),
            seen: Mutex::new(None),
            vfs: OnceLock::new(),
            main: OnceLock::new(),
            logs: Mutex::default(),
            told: AtomicBool::new(false),
            moved: OnceLock::new(),
        })
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The name of the VFS for the files of this database.
    ///
    /// # Errors
    /// SQLite does not accept the VFS.
    pub(super) fn vfs(self: &Arc<Self>) -> Result<&str, &str> {
        let registered = self.vfs.get_or_init(|| {
            remove_temporary(&self.path);
            vfs::register(Arc::clone(self))
        });
        registered.as_deref().map_err(String::as_str)
    }

    /// The most pages of this size that the file may have.
    pub(super) fn pages(&self, page_size: u64) -> u64 {
        // SQLite's own limit.
        (self.max_size / page_size.max(512)).clamp(1, 0xffff_fffe)
    }

    /// Records the size of the file. If it is above the limit already, the file is used, and may not grow.
    pub(super) fn has(&self, bytes: u64) {
        if bytes > self.max_size && !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                database = self.name,
                size = %ByteSize(bytes),
                max_size = %ByteSize(self.max_size),
                "a database is larger than `max_size` and can't grow"
            );
        }
    }

    /// Records whether commits write to the file itself.
    pub(super) fn journals(&self, journals: bool) {
        self.journals.store(journals, Ordering::Relaxed);
    }

    /// Whether the log should be truncated once it has been checkpointed.
    pub(super) fn has_long_log(&self) -> bool {
        self.log.load(Ordering::Relaxed) > LONG_LOG || self.has_held_back_log()
    }

    /// Whether readers have kept the log from starting over for so long that it nears its limit.
    pub(super) fn has_held_back_log(&self) -> bool {
        self.log_end.load(Ordering::Relaxed) > self.part / 2
    }

    /// Checks that a plugin may begin to write.
    ///
    /// # Errors
    /// The limit that is reached.
    pub(super) fn may_write(&self) -> Result<(), String> {
        match self.short(0) {
            Some(free) => Err(self.words(Some(Refusal::Free(free)))),
            None => Ok(()),
        }
    }

    /// Whether a file of `size` bytes may be written up to `end`. A refusal is remembered.
    pub(super) fn may_grow(&self, kind: Kind, size: u64, end: u64) -> bool {
        let growth = end.saturating_sub(size);
        let guest = GUEST.get();
        let refusal = match kind {
            Kind::Log if guest && end > self.part => Some(Refusal::Log),
            Kind::Temporary if self.temporary.load(Ordering::Relaxed) + growth > self.part => {
                Some(Refusal::Temporary)
            }
            // A checkpoint writes to it, to truncate the log.
            Kind::Main if !self.journals.load(Ordering::Relaxed) => None,
            _ if !guest || growth == 0 => None,
            // The log's content will be in the file before it leaves the log.
            Kind::Log => self.grows(growth, end),
            _ => self.grows(growth, 0),
        };
        REFUSED.set(refusal.or(REFUSED.get()));
        refusal.is_none()
    }

    fn grows(&self, growth: u64, more: u64) -> Option<Refusal> {
        self.unlooked.fetch_add(growth, Ordering::Relaxed);
        self.short(growth.saturating_add(more)).map(Refusal::Free)
    }

    /// Records that a file was written up to `end`, and had `size` bytes before.
    pub(super) fn grown(&self, kind: Kind, size: u64, end: u64) {
        match kind {
            Kind::Log => {
                self.log.fetch_max(end, Ordering::Relaxed);
                self.log_end.store(end, Ordering::Relaxed);
            }
            Kind::Temporary => {
                self.temporary.fetch_add(end.saturating_sub(size), Ordering::Relaxed);
            }
            Kind::Main | Kind::Journal => {}
        }
    }

    /// Records that a file of `size` bytes has `left` bytes now.
    pub(super) fn shrunk(&self, kind: Kind, size: u64, left: u64) {
        match kind {
            Kind::Log => {
                self.log.store(left, Ordering::Relaxed);
                self.log_end.fetch_min(left, Ordering::Relaxed);
            }
            Kind::Temporary => {
                self.temporary.fetch_sub(size.saturating_sub(left), Ordering::Relaxed);
            }
            Kind::Main | Kind::Journal => {}
        }
    }

    /// The size of the log, which several connections write.
    pub(super) fn log(&self) -> u64 {
        self.log.load(Ordering::Relaxed)
    }

    /// Records that the system had no space for a write.
    pub(super) fn disk_is_full(&self) {
        REFUSED.set(Some(Refusal::Disk));
    }

    /// Why SQLite last reported `SQLITE_FULL` on this thread.
    pub(super) fn why_full(&self) -> String {
        self.words(REFUSED.take())
    }

    fn words(&self, refusal: Option<Refusal>) -> String {
        let (name, path) = (&self.name, self.path.display());
        let limit = format!("limit `max_size` ({}) of [databases.{name}] reached", ByteSize(self.max_size));
        let part = ByteSize(self.part);
        match refusal {
            None => format!("{limit}: `{path}` is full; delete rows, or raise `max_size`"),
            Some(Refusal::Log) => format!(
                "{limit}: the log of `{path}` may take {part}; write less in one transaction, or raise `max_size`"
            ),
            Some(Refusal::Temporary) => format!(
                "{limit}: the temporary files of `{path}` may take {part}; sort, group or join less in one \
                 statement, or raise `max_size`"
            ),
            Some(Refusal::Free(free)) => format!(
                "limit `min_free` of [store] reached: the disk of `{path}` has {} left, and plugins leave {} \
                 of it free; make room there",
                ByteSize(free),
                ByteSize(self.floor)
            ),
            Some(Refusal::Disk) => format!("the disk of `{path}` is full; make room there"),
        }
    }

    /// The free bytes of the disk, if writing `more` bytes would leave less than the floor.
    fn short(&self, more: u64) -> Option<u64> {
        let mut seen = self.seen.lock();
        let free = match *seen {
            Some((at, free)) if at.elapsed() < LOOK && self.unlooked.load(Ordering::Relaxed) < UNLOOKED => {
                free
            }
            _ => {
                let free = free_beside(&self.path);
                self.unlooked.store(0, Ordering::Relaxed);
                *seen = Some((Instant::now(), free));
                free
            }
        }?;
        (free < self.floor.saturating_add(more)).then_some(free)
    }

    /// A name for a new temporary file, beside the database, so that it counts against this room.
    pub(super) fn temporary_name(&self) -> Option<CString> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut name = self.path.as_os_str().as_bytes().to_vec();
        name.extend(format!("{TEMPORARY}{}-{number}", std::process::id()).bytes());
        CString::new(name).ok()
    }

    /// Records that the database was opened.
    pub(super) fn opened_main(&self) {
        let Ok(there) = identity(&self.path) else { return };
        if *self.main.get_or_init(|| there) != there {
            self.is_moved("it was replaced by another file");
        }
    }

    /// Records that the log at this path was opened, and has `size` bytes.
    pub(super) fn opened_log(&self, path: &Path, size: u64) {
        self.log.store(size, Ordering::Relaxed);
        let mut logs = self.logs.lock();
        let there = identity(path).ok();
        match (&logs.file, there) {
            (Some((_, before)), there) if logs.open > 0 && Some(*before) != there => {
                self.is_moved("its log was replaced by another file");
            }
            (_, there) => logs.file = there.map(|there| (path.to_owned(), there)),
        }
        logs.open += 1;
    }

    /// Records that a connection has closed the log.
    pub(super) fn closed_log(&self) {
        let mut logs = self.logs.lock();
        logs.open = logs.open.saturating_sub(1);
    }

    /// Checks that the files at their paths are the open ones. A commit to any other file is lost.
    ///
    /// # Errors
    /// A file was moved, deleted or replaced. The error is permanent.
    pub(super) fn check(&self) -> io::Result<()> {
        let is_there = |path: &Path, opened: Identity| match identity(path) {
            Ok(there) if there == opened => None,
            Ok(_) => Some("replaced by another file"),
            Err(_) => Some("renamed or deleted"),
        };
        if let Some(&main) = self.main.get()
            && let Some(what) = is_there(&self.path, main)
        {
            self.is_moved(&format!("it was {what}"));
        }
        let logs = self.logs.lock();
        if let Some((path, log)) = logs.file.as_ref().filter(|_| logs.open > 0)
            && let Some(what) = is_there(path, *log)
        {
            self.is_moved(&format!("its log was {what}"));
        }
        match self.moved.get() {
            Some(why) => Err(io::Error::other(why.clone())),
            None => Ok(()),
        }
    }

    fn is_moved(&self, what: &str) {
        let why = format!("`{}` is no longer the file that the daemon has open: {what}", self.path.display());
        let _ = self.moved.set(why);
    }
}

/// Separates the name of a database from the rest of a temporary file's name.
const TEMPORARY: &str = "-temporary-";

/// Removes temporary files of a daemon that was killed between creating and unlinking one.
fn remove_temporary(database: &Path) {
    let Some(name) = database.file_name() else { return };
    let folder = database.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let prefix = [name.as_bytes(), TEMPORARY.as_bytes()].concat();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().as_bytes().starts_with(&prefix) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn identity(path: &Path) -> io::Result<Identity> {
    fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

/// The free bytes on the disk of this file. The file and its folders may not exist yet. None if the system does
/// not say.
fn free_beside(path: &Path) -> Option<u64> {
    let disk = path.ancestors().find_map(|path| {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        rustix::fs::statvfs(path).ok()
    })?;
    (disk.f_blocks > 0).then(|| disk.f_bavail.saturating_mul(disk.f_frsize))
}
