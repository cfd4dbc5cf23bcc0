//! Restores a backup: its store and databases replace the present ones.
//!
//! ```text
//!   check all of it ─► lock ─► copy it, check the copy ─► write everything beside its place
//!     ─► `<store>.restoring` ─► rename, rename, …
//! ```
//!
//! A backup that is damaged in one bit is refused before anything is written (`sealed.rs`). The restored
//! bytes are checked again while they are copied, in case the file changes meanwhile. Until the first rename
//! nothing has changed. From the first rename to the last, the file `<store>.restoring` exists, and no daemon
//! starts on a store that has one: a mixture of old and new files would let effects happen twice, or never.
//! The replaced files are kept, under names with the time.
//!
//! A restored store is prepared for running. Every unfinished delivery counts as one that may have run, so
//! its marker is looked for before it runs. New deliveries get numbers far beyond those that were given after
//! the backup, so that no number is used twice: markers, Message-IDs and Idempotency-Keys outside the store
//! contain them.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use posthouse_model::{Env, owner};
use rusqlite::Connection;

use super::{
    backup::{BackupError, Contents, DROP, TempFile, take_database},
    copy::{CopyError, Snapshot, beside, folder_of, new_file, settle, sync_folder_of, unwritten, writable},
    schema,
    sealed::BackupFile,
};

use crate::OpenError;

/// Exists beside a store while a restore replaces it.
pub(super) const RESTORING: &str = ".restoring";

/// Numbers of deliveries come in ranges of 2^30, and a restored store continues in a later range.
const RUN: u32 = 30;
/// The highest range.
const FURTHEST: u64 = 1 << 12;

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A daemon runs on the store, or it can't be locked.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The backup cannot be restored.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The target exists.
    #[error("`{0}` exists; --force replaces it, and keeps the old file under another name")]
    Exists(PathBuf),
    /// config.toml has no database of this name.
    #[error(
        "the backup has the database `{0}`, and config.toml has none of that name that is a file; add \
         [databases.{0}] with url = \"sqlite:…\""
    )]
    NoDatabase(String),
    /// Another program has a database open.
    #[error("`{0}` is in use by another program; stop that program first")]
    InUse(PathBuf),
    /// A file can't be written.
    #[error(transparent)]
    Copy(#[from] CopyError),
}

/// The result of a restore.
#[derive(Debug, Clone, PartialEq)]
pub struct Restored {
    /// The contents of the backup.
    pub contents: Contents,
    /// The paths of the old files.
    pub kept: Vec<PathBuf>,
}

/// The permissions that an operator gives a restore.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allowed {
    /// Replace existing files.
    pub force: bool,
    /// Accept a backup without a checksum. An existing checksum is still checked.
    pub without_checksum: bool,
}

/// Replaces `store` and its databases with those of the backup `file`.
///
/// # Errors
/// [`RestoreError`]; then nothing has changed, unless the disk failed between the renames. In that case no
/// daemon starts on the store until the restore is repeated.
pub fn restore(
    file: &Path,
    store: &Path,
    places: &BTreeMap<String, PathBuf>,
    allowed: Allowed,
    env: &Env,
) -> Result<Restored, RestoreError> {
    // Problems of the backup show here, before anything is written.
    let contents = Contents::read(file, allowed.without_checksum)?;
    targets(&contents, places)?;
    let _lock = schema::lock(store)?;
    let may_go_to = |targets: &[(&str, &Path)]| {
        let mut all = targets.iter().map(|(_, place)| *place).chain([store]);
        match all.find(|place| !allowed.force && place.exists()) {
            Some(there) => Err(RestoreError::Exists(there.to_owned())),
            None => Ok(()),
        }
    };
    may_go_to(&targets(&contents, places)?)?;

    let made_store = temporary(store);
    let opened = BackupFile::open(file, allowed.without_checksum)?;
    let snapshot = take_over(&opened, file, &made_store)?;
    // Read from the copy, because another file may have the name by now.
    let contents = Contents::of(file, &snapshot)?;
    let targets = targets(&contents, places)?;
    may_go_to(&targets)?;
    let mut made = Vec::new();
    for (name, place) in &targets {
        let temporary = temporary(place);
        write_database(&snapshot, file, name, &temporary, place)?;
        made.push((temporary, *place));
    }
    drop(snapshot);
    write_store(&made_store, store, env)?;
    let all = targets.iter().map(|(_, place)| *place).chain([store]);
    all.filter(|place| place.exists()).try_for_each(checkpoint)?;

    let restoring = beside(store, RESTORING);
    rename(&made_store.0, &restoring)?;
    let stamp = env.now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let mut kept = Vec::new();
    for (temporary, place) in &made {
        kept.extend(replace(&temporary.0, place, &stamp)?);
    }
    kept.extend(replace(&restoring, store, &stamp)?);
    drop(made);
    Ok(Restored { contents, kept })
}

/// The targets of a backup's databases.
fn targets<'a>(
    contents: &'a Contents,
    places: &'a BTreeMap<String, PathBuf>,
) -> Result<Vec<(&'a str, &'a Path)>, RestoreError> {
    let target = |(name, _): &'a (String, u64)| {
        let place = places.get(name).ok_or_else(|| RestoreError::NoDatabase(name.clone()))?;
        Ok((name.as_str(), place.as_path()))
    };
    contents.databases.iter().map(target).collect()
}

/// The temporary file that will be renamed to this path.
fn temporary(place: &Path) -> TempFile {
    let temporary = TempFile(beside(place, ".restore-partial"));
    temporary.remove();
    temporary
}

/// Copies a backup to a temporary file beside the store, and checks the bytes that it copies.
fn take_over(opened: &BackupFile, file: &Path, temporary: &TempFile) -> Result<Snapshot, BackupError> {
    if opened.is_sealed() {
        let failed = |error: io::Error| unwritten(&temporary.0, &error);
        let mut written = new_file(&temporary.0).map_err(failed)?;
        opened.read(|part| written.write_all(part).map_err(failed))?;
    } else {
        settle(&temporary.0, Snapshot::of(file)?.copy_to(&temporary.0)?)?;
    }
    Ok(Snapshot::of_finished(&temporary.0, file)?)
}

/// Turns the copy of a backup into a store that a daemon can use.
fn write_store(temporary: &TempFile, place: &Path, env: &Env) -> Result<(), CopyError> {
    let failed = |error: rusqlite::Error| unwritten(&temporary.0, &error);
    let copy = writable(&temporary.0).map_err(failed)?;
    make_fit(&copy, env).map_err(failed)?;
    settle(&temporary.0, copy)?;
    own(&temporary.0, place)
}

fn make_fit(copy: &Connection, env: &Env) -> rusqlite::Result<()> {
    // If this fails the copy is deleted, and a complete one is synced once.
    copy.execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF; BEGIN")?;
    copy.execute_batch(DROP)?;
    let next: i64 = copy.query_row("SELECT next_delivery FROM sequence", [], |row| row.get(0))?;
    let further = 1 + env.random_u64() % FURTHEST;
    let next = ((next >> RUN) + further as i64) << RUN;
    copy.execute("UPDATE sequence SET next_delivery = ?1", [next])?;
    // A backup by an older version gets the column, with this default, when a daemon opens it.
    if copy.column_exists(None, "delivery", "ran")? {
        copy.execute("UPDATE delivery SET ran = 1 WHERE state < 3", [])?;
    }
    copy.execute_batch("COMMIT; PRAGMA incremental_vacuum")
}

fn write_database(
    snapshot: &Snapshot,
    file: &Path,
    name: &str,
    temporary: &TempFile,
    place: &Path,
) -> Result<(), CopyError> {
    let failed = |error: io::Error| unwritten(&temporary.0, &error);
    owner::create_folders(folder_of(place), 0o700).map_err(failed)?;
    let mut written = new_file(&temporary.0).map_err(failed)?;
    take_database(snapshot, file, name, |part| written.write_all(part).map_err(failed))?;
    written.sync_all().map_err(failed)?;
    own(&temporary.0, place)
}

/// Gives a file the mode of the one that it replaces; if root restores, also its owner, because the daemon
/// does not run as root.
fn own(file: &Path, place: &Path) -> Result<(), CopyError> {
    let owned = || {
        // Opened without following links, in case a link has replaced it.
        let no_link = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let made = OpenOptions::new().read(true).custom_flags(no_link).open(file)?;
        if let Ok(replaced) = fs::metadata(place) {
            made.set_permissions(Permissions::from_mode(replaced.permissions().mode() & 0o777))?;
        }
        owner::give(&made, &owner::of_place(place))
    };
    owned().map_err(|error: io::Error| unwritten(file, &error))
}

/// Checkpoints the write-ahead log of a file that will be replaced, so that it is one file. If it is too
/// damaged for that, it is kept with its log.
fn checkpoint(place: &Path) -> Result<(), RestoreError> {
    let checkpointed = || {
        let connection = writable(place)?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
    };
    match checkpointed() {
        Ok(0) => Ok(()),
        Ok(_) => Err(RestoreError::InUse(place.to_owned())),
        Err(_) => Ok(()),
    }
}

/// Renames `made` to its final path, in one step. Returns where the old file is kept.
fn replace(made: &Path, place: &Path, stamp: &str) -> Result<Option<PathBuf>, CopyError> {
    let failed = |error: io::Error| unwritten(place, &error);
    let kept = place.exists().then(|| unused(&beside(place, &format!(".before-restore-{stamp}"))));
    if let Some(kept) = &kept {
        fs::hard_link(place, kept).or_else(|_| fs::rename(place, kept)).map_err(failed)?;
        // For a file that could not be checkpointed.
        let log = beside(place, "-wal");
        if log.exists() {
            rename(&log, &beside(kept, "-wal"))?;
        }
    }
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(beside(place, suffix));
    }
    rename(made, place)?;
    Ok(kept)
}

fn rename(from: &Path, to: &Path) -> Result<(), CopyError> {
    fs::rename(from, to).and_then(|()| sync_folder_of(to)).map_err(|error| unwritten(to, &error))
}

/// The path, or the first with a number that does not exist.
fn unused(path: &Path) -> PathBuf {
    let numbered = (2..).map(|number| beside(path, &format!("-{number}")));
    std::iter::once(path.to_owned()).chain(numbered).find(|path| !path.exists()).unwrap_or_default()
}

/// Whether a restore of the store began and did not finish.
pub(super) fn is_unfinished(store: &Path) -> bool {
    beside(store, RESTORING).exists()
}
