//! A backup: one file with the store and the SQLite databases of plugins, made while all of them are in use.
//!
//! The file is a copy of the store with three more tables: `backup` contains when and by which version it was
//! made, `backup_database` the names of the databases, `backup_part` their bytes. So nothing large needs
//! space twice, and any SQLite tool can read the file. A checksum over all of it follows at its end
//! (`sealed.rs`).
//!
//! ```text
//!   markers stay ─► snapshot of the store ─► snapshot of each database ─► copy, seal, check ─► rename
//! ```
//!
//! The order makes a restore safe. If an attempt has committed in a database and the store did not know yet,
//! the attempt's marker says so. So the copies of databases may be newer than the store's but never older,
//! and no marker may be removed in between. The command that makes a backup asks the daemon to keep them
//! (`database/keep.rs`). `docs/operations.md` explains the order in full.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};
use sha2::{Digest as _, Sha256};

use super::{
    copy::{CopyError, Snapshot, beside, settle, sync_folder_of, unread, unwritten},
    schema,
    sealed::{self, BackupFile},
};
use crate::time::{nanos, timestamp};

/// The bytes of a database in one row.
const PART: usize = 4 << 20;

const TABLES: &str = "
CREATE TABLE backup (
    made_at INTEGER NOT NULL,
    program TEXT NOT NULL
) STRICT;
-- `bytes` is NULL of one that has to be copied by its own tools.
CREATE TABLE backup_database (
    name TEXT PRIMARY KEY,
    bytes INTEGER,
    sha256 BLOB
) STRICT;
CREATE TABLE backup_part (
    database TEXT NOT NULL,
    number INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (database, number)
) STRICT;";

/// Why a backup failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is no store to copy.
    #[error("there is no store `{0}` yet; the daemon creates it at its first start")]
    NoStore(PathBuf),
    /// The file exists.
    #[error("`{0}` exists already; name another file, or use --force")]
    Exists(PathBuf),
    /// The target is one of the files to be backed up.
    #[error("the backup `{backup}` would overwrite `{original}`; name another file")]
    Itself {
        /// The target.
        backup: PathBuf,
        /// The file that it would overwrite.
        original: PathBuf,
    },
    /// A file can't be read or written, or is damaged.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// A backup has no checksum.
    #[error(
        "`{0}` has no checksum at its end: it was cut short or altered, or an older posthouse or another tool \
         made it; use another backup, or, if you know that this one is whole, say --without-checksum"
    )]
    Unsealed(PathBuf),
    /// Reading the backup back gave something else than was written.
    #[error(
        "`{path}` was written, but reading it back gives something else ({reason}); the disk may be failing"
    )]
    Differs {
        /// The file.
        path: PathBuf,
        /// The difference.
        reason: String,
    },
    /// The file is not a backup.
    #[error("`{path}` is not a backup of a store: {reason}")]
    NoBackup {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The backup was made by a later version.
    #[error(
        "`{path}` was made by a newer posthouse (schema {found}, this one supports up to {known}); upgrade \
         posthouse first"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version of its schema.
        found: i64,
        /// The latest version that this program supports.
        known: i64,
    },
}

/// The databases of plugins in config.toml.
#[derive(Debug, Clone, Default)]
pub struct PluginDatabases {
    /// SQLite files.
    pub files: Vec<(String, PathBuf)>,
    /// Databases that are copied with their own tools.
    pub elsewhere: Vec<String>,
}

/// The contents of a backup.
#[derive(Debug, Clone, PartialEq)]
pub struct Contents {
    /// When it was made; none if another tool made it.
    pub made_at: Option<Timestamp>,
    /// The version of posthouse that made it.
    pub program: Option<String>,
    /// The version of the store's schema.
    pub schema: i64,
    /// The number of events.
    pub events: u64,
    /// When the newest event was received.
    pub newest: Option<Timestamp>,
    /// The number of unfinished deliveries: neither done nor dead. They run after a restore.
    pub unfinished: u64,
    /// The databases of plugins in the backup, with their size in bytes.
    pub databases: Vec<(String, u64)>,
    /// The databases of plugins that are not in it, because they are copied with their own tools.
    pub elsewhere: Vec<String>,
}

/// Snapshots of the store and the databases; nothing is copied yet.
pub struct Backup {
    store: Snapshot,
    databases: Vec<(String, Snapshot)>,
    /// The files to back up.
    originals: Vec<PathBuf>,
    elsewhere: Vec<String>,
    made_at: Timestamp,
}

impl Backup {
    /// Takes a snapshot of the store, and then of each database. A database that was never used has no file,
    /// and is skipped. Blocks no one meanwhile.
    ///
    /// # Errors
    /// [`BackupError`] names the file.
    pub fn begin(store: &Path, beside: PluginDatabases, now: Timestamp) -> Result<Self, BackupError> {
        if !store.exists() {
            return Err(BackupError::NoStore(store.to_owned()));
        }
        let PluginDatabases { files, elsewhere } = beside;
        let snapshot = Snapshot::of(store)?;
        describe(store, &snapshot)?;
        let originals = files.iter().map(|(_, path)| path.clone()).chain([store.to_owned()]).collect();
        let databases = files
            .into_iter()
            .filter(|(_, path)| path.exists())
            .map(|(name, path)| Ok((name, Snapshot::of(&path)?)))
            .collect::<Result<_, CopyError>>()?;
        Ok(Self { store: snapshot, databases, originals, elsewhere, made_at: now })
    }

    /// Writes the backup beside `file`, readable by its owner only, and reads it back to check it.
    ///
    /// # Errors
    /// [`BackupError`]; then nothing is left beside `file`, and an existing file is unchanged.
    pub fn write(self, file: &Path, force: bool) -> Result<Written, BackupError> {
        if !force && file.exists() {
            return Err(BackupError::Exists(file.to_owned()));
        }
        if let Some(original) = self.originals.iter().find(|original| is_same_file(original, file)) {
            return Err(BackupError::Itself { backup: file.to_owned(), original: original.clone() });
        }
        let partial = TempFile(beside(file, ".partial"));
        partial.remove();
        let wanted = describe(&partial.0, &self.store)?;
        let copy = self.store.copy_to(&partial.0)?;
        let failed = |error: rusqlite::Error| unwritten(&partial.0, &error);
        copy.execute_batch("PRAGMA synchronous = OFF; BEGIN")
            .and_then(|()| {
                // A store may have these tables if it was copied from a backup by other means than a restore.
                copy.execute_batch(DROP)?;
                copy.execute_batch(TABLES)
            })
            .map_err(failed)?;
        let program = env!("CARGO_PKG_VERSION");
        copy.execute("INSERT INTO backup VALUES (?1, ?2)", params![nanos(self.made_at), program])
            .map_err(failed)?;
        for (name, snapshot) in &self.databases {
            let temporary = TempFile(beside(file, &format!(".partial-{name}")));
            temporary.remove();
            settle(&temporary.0, snapshot.copy_to(&temporary.0)?)?;
            Snapshot::of(&temporary.0)?.check()?;
            put_database(&copy, &partial.0, name, &temporary.0)?;
        }
        for name in &self.elsewhere {
            copy.execute("INSERT INTO backup_database VALUES (?1, NULL, NULL)", [name]).map_err(failed)?;
        }
        copy.execute_batch("COMMIT").map_err(failed)?;
        settle(&partial.0, copy)?;
        sealed::seal(&partial.0)?;

        let contents = Contents::read(&partial.0, false)?;
        let counts = |contents: &Contents| (contents.schema, contents.events, contents.unfinished);
        if counts(&contents) != counts(&wanted) || contents.databases.len() != self.databases.len() {
            let reason = format!("{:?} in place of {:?}", counts(&contents), counts(&wanted));
            return Err(BackupError::Differs { path: file.to_owned(), reason });
        }
        Ok(Written { partial, file: file.to_owned(), contents })
    }
}

/// A complete backup under a temporary name. If it is dropped, the file is removed.
pub struct Written {
    partial: TempFile,
    file: PathBuf,
    contents: Contents,
}

impl Written {
    /// Renames it to its final name, in one step.
    ///
    /// # Errors
    /// If the rename fails.
    pub fn put_in_place(self) -> Result<Contents, BackupError> {
        let Self { partial, file, contents } = self;
        std::fs::rename(&partial.0, &file)
            .and_then(|()| sync_folder_of(&file))
            .map_err(|error| unwritten(&file, &error))?;
        Ok(contents)
    }
}

/// Removes the tables that a backup has in addition to a store's.
pub(super) const DROP: &str = "
DROP TABLE IF EXISTS backup;
DROP TABLE IF EXISTS backup_database;
DROP TABLE IF EXISTS backup_part;";

impl Contents {
    /// Reads a backup completely, and returns its contents. A backup without a checksum is accepted only if
    /// `unsealed` is set: an older posthouse made it, or it is a store's file copied by other means.
    ///
    /// # Errors
    /// [`BackupError`] says why it is not a backup, or cannot be restored.
    pub fn read(file: &Path, unsealed: bool) -> Result<Self, BackupError> {
        let opened = BackupFile::open(file, unsealed)?;
        opened.check()?;
        let snapshot = match opened.is_sealed() {
            true => Snapshot::of_finished(file, file),
            false => Snapshot::of(file),
        };
        let snapshot = snapshot
            .map_err(|error| BackupError::NoBackup { path: file.to_owned(), reason: error.to_string() })?;
        let contents = Self::of(file, &snapshot)?;
        snapshot.check()?;
        for (name, _) in &contents.databases {
            take_database(&snapshot, file, name, |_| Ok(()))?;
        }
        Ok(contents)
    }

    /// The contents, as the backup itself lists them.
    pub(super) fn of(file: &Path, snapshot: &Snapshot) -> Result<Self, BackupError> {
        let mut contents = describe(file, snapshot)?;
        if let Some((made_at, program)) = snapshot.read(origin)? {
            contents.made_at = Some(timestamp(made_at));
            contents.program = Some(program);
            for Database { name, bytes, .. } in snapshot.read(databases)? {
                match bytes {
                    Some(bytes) => contents.databases.push((name, bytes)),
                    None => contents.elsewhere.push(name),
                }
            }
        }
        Ok(contents)
    }
}

/// The contents of a store's file, if this program supports its version.
fn describe(file: &Path, snapshot: &Snapshot) -> Result<Contents, BackupError> {
    let number = |sql: &str| -> Result<i64, CopyError> {
        snapshot.read(|connection| connection.query_row(sql, [], |row| row.get(0)))
    };
    if number("PRAGMA application_id")? != schema::APPLICATION {
        let reason = "it is another program's database".to_owned();
        return Err(BackupError::NoBackup { path: file.to_owned(), reason });
    }
    let (found, known) = (number("PRAGMA user_version")?, schema::latest());
    if found > known {
        return Err(BackupError::Newer { path: file.to_owned(), found, known });
    }
    let newest = snapshot.read(|connection| {
        connection
            .query_row("SELECT received_at FROM event ORDER BY seq DESC LIMIT 1", [], |row| row.get(0))
            .optional()
    })?;
    Ok(Contents {
        made_at: None,
        program: None,
        schema: found,
        events: number("SELECT count(*) FROM event")?.unsigned_abs(),
        newest: newest.map(timestamp),
        unfinished: number("SELECT ifnull(sum(ready + leased + waiting), 0) FROM tally")?.unsigned_abs(),
        databases: Vec::new(),
        elsewhere: Vec::new(),
    })
}

fn origin(connection: &Connection) -> rusqlite::Result<Option<(i64, String)>> {
    if !connection.table_exists(None, "backup")? {
        return Ok(None);
    }
    connection
        .query_row("SELECT made_at, program FROM backup", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

struct Database {
    name: String,
    bytes: Option<u64>,
    sha256: Option<Vec<u8>>,
}

fn databases(connection: &Connection) -> rusqlite::Result<Vec<Database>> {
    connection
        .prepare("SELECT name, bytes, sha256 FROM backup_database ORDER BY name")?
        .query_map([], |row| {
            let bytes: Option<i64> = row.get(1)?;
            Ok(Database { name: row.get(0)?, bytes: bytes.map(i64::unsigned_abs), sha256: row.get(2)? })
        })?
        .collect()
}

/// Copies the file of a database into the backup, part by part.
fn put_database(copy: &Connection, to: &Path, name: &str, from: &Path) -> Result<(), CopyError> {
    use std::io::Read as _;
    let failed = |error: rusqlite::Error| unwritten(to, &error);
    let mut file = std::fs::File::open(from).map_err(|error| unread(from, &error))?;
    let (mut sha256, mut bytes) = (Sha256::new(), 0);
    for number in 0_i64.. {
        let mut part = Vec::with_capacity(PART);
        file.by_ref().take(PART as u64).read_to_end(&mut part).map_err(|error| unread(from, &error))?;
        if part.is_empty() {
            break;
        }
        sha256.update(&part);
        bytes += part.len() as i64;
        copy.execute("INSERT INTO backup_part VALUES (?1, ?2, ?3)", params![name, number, part])
            .map_err(failed)?;
    }
    let sha256 = sha256.finalize().to_vec();
    copy.execute("INSERT INTO backup_database VALUES (?1, ?2, ?3)", params![name, bytes, sha256])
        .map(drop)
        .map_err(failed)
}

/// Passes the parts of a database on in order, and compares them with their checksums.
pub(super) fn take_database(
    snapshot: &Snapshot,
    file: &Path,
    name: &str,
    mut take: impl FnMut(&[u8]) -> Result<(), CopyError>,
) -> Result<(), CopyError> {
    let damaged = |reason: &str| CopyError::Damaged {
        path: file.to_owned(),
        reason: format!("of database `{name}` {reason}"),
    };
    let wanted = snapshot
        .read(databases)?
        .into_iter()
        .find(|database| database.name == name)
        .ok_or_else(|| damaged("there is nothing"))?;
    let (mut sha256, mut bytes, mut number) = (Sha256::new(), 0, 0_i64);
    loop {
        let part: Option<Vec<u8>> = snapshot.read(|connection| {
            connection
                .prepare_cached("SELECT bytes FROM backup_part WHERE database = ?1 AND number = ?2")?
                .query_row(params![name, number], |row| row.get(0))
                .optional()
        })?;
        let Some(part) = part else { break };
        sha256.update(&part);
        bytes += part.len() as u64;
        take(&part)?;
        number += 1;
    }
    let as_it_was =
        wanted.bytes == Some(bytes) && wanted.sha256.as_deref() == Some(sha256.finalize().as_slice());
    if as_it_was { Ok(()) } else { Err(damaged("its content differs from what was written")) }
}

/// Whether two paths name the same file.
fn is_same_file(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let file = |path: &Path| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    file(one).is_some_and(|one| file(other) == Some(one))
}

/// A temporary file; it is removed on drop, with the files that SQLite creates beside it.
pub(super) struct TempFile(pub(super) PathBuf);

impl TempFile {
    pub(super) fn remove(&self) {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let _ = std::fs::remove_file(beside(&self.0, suffix));
        }
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        self.remove();
    }
}
