//! The tables, their versions, and the way from a path to an open, locked, up-to-date file.
//!
//! A version of the schema is one file of `migrations/`; files are never edited once released, only added. Refused: a store that another process has, one of a later version, and a file that is some
//! other program's.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    time::Duration,
};

use posthouse_model::{DeliveryState, Env, owner};
use rusqlite::{Connection, OpenFlags};

use super::{leftover, restore};

use crate::OpenError;

/// Says in the file's header whose it is: "post".
pub(super) const APPLICATION: i64 = 0x706f_7374;

/// The writer's page cache, as SQLite takes it: negative means KiB. A commit that split a page walks
/// all of it, which with 64 MiB cost more than the reads that it saves; the system caches the file too.
const WRITER_CACHE: i64 = -16 * 1024;

/// The schema, one version an entry.
///
/// Times are nanoseconds since 1970. `state` is the number of [`code`]. A delivery's `replay_of` is
/// NULL where it came with its event, 0 where it was made later but repeats none. The deliveries that
/// came with an event have ids that follow one another, `first_delivery` being the first, so that
/// finding them takes no index. `event.body` stands last: a scan does not read it.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/01_first.sql"),
    include_str!("migrations/02_attempt_revision.sql"),
    include_str!("migrations/03_delivery_ran.sql"),
    include_str!("migrations/04_event_depth.sql"),
    include_str!("migrations/05_audit_minute.sql"),
    include_str!("migrations/06_outbox_kind.sql"),
    include_str!("migrations/07_delivery_order.sql"),
    include_str!("migrations/08_outbox_by_plugin.sql"),
    include_str!("migrations/09_delivery_deferred.sql"),
    include_str!("migrations/10_trace.sql"),
    include_str!("migrations/11_revision.sql"),
];

/// The number of a state in a row. `held` is derived and never stored. What is unfinished is less than
/// `DONE`.
pub(super) mod code {
    /// Replayed with many others, it waits for its turn; counted and shown as waiting.
    pub(in crate::sqlite) const DEFERRED: i64 = -2;
    /// Waits for another of its order key; counted and shown as waiting.
    pub(in crate::sqlite) const BLOCKED: i64 = -1;
    pub(in crate::sqlite) const READY: i64 = 0;
    pub(in crate::sqlite) const LEASED: i64 = 1;
    pub(in crate::sqlite) const WAITING: i64 = 2;
    /// Of an outbox item: sent.
    pub(in crate::sqlite) const DONE: i64 = 3;
    pub(in crate::sqlite) const DEAD: i64 = 4;
}

/// The state that a row with this number is in, its plugin being held or not.
pub(super) fn state_of(code: i64, held: bool) -> DeliveryState {
    match code {
        code::LEASED => DeliveryState::Leased,
        code::DONE => DeliveryState::Done,
        code::DEAD => DeliveryState::Dead,
        _ if held => DeliveryState::Held,
        code::WAITING | code::BLOCKED | code::DEFERRED => DeliveryState::Waiting,
        _ => DeliveryState::Ready,
    }
}

/// A store's file that is this process's alone, with its schema up to date.
pub(super) struct Locked {
    pub(super) connection: Connection,
    pub(super) lock: File,
}

/// The version that this program's stores have.
pub(super) fn latest() -> i64 {
    MIGRATIONS.len() as i64
}

/// Opens or makes the store at `path`.
pub(super) fn open(path: &Path, env: &Env) -> Result<Locked, OpenError> {
    let lock = lock(path)?;
    if restore::is_unfinished(path) {
        let reason = "a restore of it was begun and not ended; run `posthouse restore FILE --force` again";
        return Err(OpenError::Unusable { path: path.to_owned(), reason: reason.to_owned() });
    }
    leftover::of_locked_store(path)?;
    // Made here rather than by SQLite, for its mode; the write-ahead log takes the mode over.
    private(path).map_err(|error| unusable(path, &error))?;
    let mut writer =
        connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(|error| broken(path, &error))?;
    prepare(&mut writer, path, env)?;
    Ok(Locked { connection: writer, lock })
}

/// Makes the folder where it is missing, and has the store to itself until the lock is dropped.
pub(super) fn lock(path: &Path) -> Result<File, OpenError> {
    let folder = owner::folder_of(path);
    owner::create_folders(folder, 0o700).map_err(|error| unusable(folder, &error))?;
    let lock = private(&lock_path(path)).map_err(|error| unusable(&lock_path(path), &error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(unusable(&lock_path(path), &error)),
    }
}

/// Keeps a daemon from starting on the store until what this returns is dropped; none where one runs.
/// Nothing is made: a store that has never been opened has no lock, and needs none.
pub(super) fn keep_out(path: &Path) -> std::io::Result<Option<KeptOut>> {
    let lock = match File::open(lock_path(path)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Some(KeptOut(None))),
        Err(error) => return Err(error),
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(Some(KeptOut(Some(lock)))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// No daemon starts while it lives; others may hold one too.
#[derive(Debug)]
pub struct KeptOut(#[allow(dead_code, reason = "held for its lock")] Option<File>);

/// A connection for reads only.
pub(super) fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let reader = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    reader.pragma_update(None, "query_only", true)?;
    Ok(reader)
}

/// A connection that checkpoints the write-ahead log.
pub(super) fn checkpointer(path: &Path) -> rusqlite::Result<Connection> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

fn connect(path: &Path, mode: OpenFlags) -> rusqlite::Result<Connection> {
    // Each connection has one user at a time, so SQLite need not lock it.
    let connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn prepare(writer: &mut Connection, path: &Path, env: &Env) -> Result<(), OpenError> {
    let number = |writer: &Connection, sql: &str| writer.query_row(sql, [], |row| row.get::<_, i64>(0));
    let sql = |error: rusqlite::Error| broken(path, &error);
    let tables = number(writer, "SELECT count(*) FROM sqlite_schema").map_err(sql)?;
    let application = number(writer, "PRAGMA application_id").map_err(sql)?;
    let found = number(writer, "PRAGMA user_version").map_err(sql)?;
    let known = latest();
    if tables > 0 && application != APPLICATION {
        let reason = "it is another program's database; name another file".to_owned();
        return Err(OpenError::Unusable { path: path.to_owned(), reason });
    }
    if found > known {
        return Err(OpenError::Newer { path: path.to_owned(), found, known });
    }
    if tables == 0 {
        // Must come before the first table and before the write-ahead log.
        writer.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(sql)?;
        writer.pragma_update(None, "application_id", APPLICATION).map_err(sql)?;
    }
    writer
        .execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF;
             PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = 134217728;
             PRAGMA cache_size = {WRITER_CACHE}; PRAGMA temp_store = MEMORY;"
        ))
        .map_err(sql)?;
    for (version, migration) in MIGRATIONS.iter().enumerate().skip(usize::try_from(found).unwrap_or(0)) {
        let transaction = writer.transaction().map_err(sql)?;
        transaction.execute_batch(migration).map_err(sql)?;
        if version == 0 {
            number_from(&transaction, env).map_err(sql)?;
        }
        transaction.pragma_update(None, "user_version", version as i64 + 1).map_err(sql)?;
        transaction.commit().map_err(sql)?;
    }
    Ok(())
}

/// Where a new store begins to count: its deliveries at a random multiple of 2^30 below 2^52, so that
/// ids of two stores do not meet, even where one is made anew.
fn number_from(connection: &Connection, env: &Env) -> rusqlite::Result<()> {
    let base = (1 + env.random_u64() % ((1 << 22) - 1)) << 30;
    connection
        .execute("INSERT INTO sequence VALUES (1, ?1, 1, 1, ?1, 0, 0, 0, 0, 0, 0, 0)", [base as i64])
        .map(drop)
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// Opens or makes a file that only its owner may read.
fn private(path: &Path) -> std::io::Result<File> {
    owner::open_or_create(path, 0o600)
}

fn unusable(path: &Path, error: &std::io::Error) -> OpenError {
    let reason =
        format!("{error}; its folder must belong to, and be writable by, the user posthouse runs as");
    OpenError::Unusable { path: path.to_owned(), reason }
}

fn broken(path: &Path, error: &rusqlite::Error) -> OpenError {
    OpenError::Unusable { path: path.to_owned(), reason: super::error::said(error) }
}
