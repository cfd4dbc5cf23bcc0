//! Going back to a backup: its store and its databases take the places of those that are there.
//!
//! ```text
//!   read all of it ─► lock ─► write everything beside its place ─► `<store>.restoring` ─► rename, rename, …
//! ```
//!
//! Until the first rename nothing has changed. From there to the last one the file `<store>.restoring` stands,
//! and no daemon starts on a store that has one: half of what was and half of what is would let effects happen
//! twice, or never. What was there stays beside, under a name with the time.
//!
//! What is restored is made fit to go on: every unfinished delivery counts as one that may have run, so that
//! its marker is looked for before it runs; and the numbers of deliveries go on far beyond those that were
//! given after the backup, so that none is given twice. Markers, Message-IDs and Idempotency-Keys that are
//! out in the world bear them.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, chown},
    path::{Path, PathBuf},
};

use rusqlite::Connection;

use super::{
    OpenError,
    backup::{BackupError, Contents, DROP, Scrap, take_database},
    copy::{CopyError, Snapshot, beside, folder_of, new_file, settle, sync_folder_of, unwritten, writable},
    schema,
};
use crate::model::Ambient;

/// Stands beside a store while a restore replaces it.
pub(super) const RESTORING: &str = ".restoring";

/// Numbers of deliveries come in runs of 2^30, and a restored store goes on in a later one.
const RUN: u32 = 30;
/// The furthest of them.
const FURTHEST: u64 = 1 << 12;

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A daemon runs on the store, or it can't be locked.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What should be a backup can't be gone back to.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// There is something where it would go.
    #[error("`{0}` is there; --force puts the backup in its place, and keeps it beside under another name")]
    Exists(PathBuf),
    /// There is no place for a database.
    #[error(
        "the backup has the database `{0}`, and config.toml has none of that name that is a file; add \
         [databases.{0}] with url = \"sqlite:…\""
    )]
    NoPlace(String),
    /// Somebody else has a database open.
    #[error("`{0}` is in use by another program; end that first")]
    InUse(PathBuf),
    /// A file can't be written.
    #[error(transparent)]
    Copy(#[from] CopyError),
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Restored {
    /// What the backup holds.
    #[serde(flatten)]
    pub contents: Contents,
    /// Where what was there is kept.
    pub kept: Vec<PathBuf>,
}

/// Puts what is in the backup `file` in the places of `store` and of its databases.
///
/// # Errors
/// [`RestoreError`]; all is as it was then, unless the disk failed between the renames: then no daemon
/// starts on the store before this has been done again.
pub fn restore(
    file: &Path,
    store: &Path,
    places: &BTreeMap<String, PathBuf>,
    force: bool,
    ambient: &Ambient,
) -> Result<Restored, RestoreError> {
    let contents = Contents::read(file)?;
    let mut targets = Vec::new();
    for (name, _) in &contents.databases {
        let place = places.get(name).ok_or_else(|| RestoreError::NoPlace(name.clone()))?;
        targets.push((name.as_str(), place.as_path()));
    }
    let _lock = schema::lock(store)?;
    let all = || targets.iter().map(|(_, place)| *place).chain([store]);
    if !force && let Some(there) = all().find(|place| place.exists()) {
        return Err(RestoreError::Exists(there.to_owned()));
    }

    let snapshot = Snapshot::of(file)?;
    let partial = |place: &Path| Scrap(beside(place, ".restore-partial"));
    let made_store = partial(store);
    write_store(&snapshot, &made_store, store, ambient)?;
    let mut made = Vec::new();
    for (name, place) in &targets {
        let scrap = partial(place);
        write_database(&snapshot, file, name, &scrap, place)?;
        made.push((scrap, *place));
    }
    all().filter(|place| place.exists()).try_for_each(fold)?;

    let restoring = beside(store, RESTORING);
    rename(&made_store.0, &restoring)?;
    let stamp = ambient.now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let mut kept = Vec::new();
    for (scrap, place) in &made {
        kept.extend(replace(&scrap.0, place, &stamp)?);
    }
    kept.extend(replace(&restoring, store, &stamp)?);
    Ok(Restored { contents, kept })
}

/// The backup's store as a daemon can go on with it.
fn write_store(snapshot: &Snapshot, scrap: &Scrap, place: &Path, ambient: &Ambient) -> Result<(), CopyError> {
    scrap.remove();
    let copy = snapshot.copy_to(&scrap.0)?;
    make_fit(&copy, ambient).map_err(|error| unwritten(&scrap.0, &error))?;
    settle(&scrap.0, copy)?;
    own(&scrap.0, place)
}

fn make_fit(copy: &Connection, ambient: &Ambient) -> rusqlite::Result<()> {
    copy.execute_batch("BEGIN")?;
    copy.execute_batch(DROP)?;
    let next: i64 = copy.query_row("SELECT next_delivery FROM sequence", [], |row| row.get(0))?;
    let further = 1 + ambient.random_u64() % FURTHEST;
    let next = ((next >> RUN) + further as i64) << RUN;
    copy.execute("UPDATE sequence SET next_delivery = ?1", [next])?;
    // What an older version made gets the column, and this with it, when a daemon opens it.
    if copy.column_exists(None, "delivery", "ran")? {
        copy.execute("UPDATE delivery SET ran = 1 WHERE state < 3", [])?;
    }
    copy.execute_batch("COMMIT; PRAGMA incremental_vacuum")
}

fn write_database(
    snapshot: &Snapshot,
    file: &Path,
    name: &str,
    scrap: &Scrap,
    place: &Path,
) -> Result<(), CopyError> {
    scrap.remove();
    let failed = |error: io::Error| unwritten(&scrap.0, &error);
    fs::create_dir_all(folder_of(place)).map_err(failed)?;
    let mut written = new_file(&scrap.0).map_err(failed)?;
    take_database(snapshot, file, name, |part| written.write_all(part).map_err(failed))?;
    written.sync_all().map_err(failed)?;
    own(&scrap.0, place)
}

/// What root restores belongs to whom the place belongs to: the daemon does not run as root.
fn own(file: &Path, place: &Path) -> Result<(), CopyError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    fs::metadata(place)
        .or_else(|_| fs::metadata(folder_of(place)))
        .and_then(|owner| chown(file, Some(owner.uid()), Some(owner.gid())))
        .map_err(|error| unwritten(file, &error))
}

/// Folds in the write-ahead log of what is to be replaced, so that it is one file. What is too damaged for
/// that is kept with its log.
fn fold(place: &Path) -> Result<(), RestoreError> {
    let folded = || {
        let connection = writable(place)?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
    };
    match folded() {
        Ok(0) => Ok(()),
        Ok(_) => Err(RestoreError::InUse(place.to_owned())),
        Err(_) => Ok(()),
    }
}

/// Puts `made` in its place, in one step; returns where what was there is kept.
fn replace(made: &Path, place: &Path, stamp: &str) -> Result<Option<PathBuf>, CopyError> {
    let failed = |error: io::Error| unwritten(place, &error);
    let kept = place.exists().then(|| unused(&beside(place, &format!(".before-restore-{stamp}"))));
    if let Some(kept) = &kept {
        fs::hard_link(place, kept).or_else(|_| fs::rename(place, kept)).map_err(failed)?;
        // Of a file that could not be folded in.
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

/// The path, or the first with a number that nothing has.
fn unused(path: &Path) -> PathBuf {
    let numbered = (2..).map(|number| beside(path, &format!("-{number}")));
    std::iter::once(path.to_owned()).chain(numbered).find(|path| !path.exists()).unwrap_or_default()
}

/// Whether a restore of the store was begun and not ended.
pub(super) fn is_unfinished(store: &Path) -> bool {
    beside(store, RESTORING).exists()
}
