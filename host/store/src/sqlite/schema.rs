//! The tables and their versions; opens, locks and migrates a file.
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

/// The application id in the file's header: "post".
pub(super) const APPLICATION: i64 = 0x706f_7374;

/// The writer's page cache in SQLite's notation: negative means KiB. A commit that splits a page walks the
/// whole cache; with 64 MiB that cost more than the saved reads, and the system caches the file too.
const WRITER_CACHE: i64 = -16 * 1024;

/// The schema, one version an entry.
///
/// Times are nanoseconds since 1970. `state` is the number of [`code`]. A delivery's `replay_of` is NULL if
/// it was created with its event, and 0 if it was created later but replays none. The deliveries created with
/// an event have consecutive ids, beginning with `first_delivery`, so finding them needs no index.
/// `event.body` is the last column, so a scan does not read it.
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
    include_str!("migrations/12_second_key.sql"),
    include_str!("migrations/13_catch_up.sql"),
    include_str!("migrations/14_event_request.sql"),
    include_str!("migrations/15_decision.sql"),
];

/// The number of a state in a row. `held` is derived and never stored. Unfinished states are less than
/// `DONE`.
pub(super) mod code {
    /// Replayed with many others, and waiting for its turn; counted and shown as waiting.
    pub(in crate::sqlite) const DEFERRED: i64 = -2;
    /// Waiting for another one of its order key; counted and shown as waiting.
    pub(in crate::sqlite) const BLOCKED: i64 = -1;
    pub(in crate::sqlite) const READY: i64 = 0;
    pub(in crate::sqlite) const LEASED: i64 = 1;
    pub(in crate::sqlite) const WAITING: i64 = 2;
    /// Of an outbox item: sent.
    pub(in crate::sqlite) const DONE: i64 = 3;
    pub(in crate::sqlite) const DEAD: i64 = 4;
}

/// The state for this number, depending on whether its plugin is held.
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

/// A store's file, locked by this process, with an up-to-date schema.
pub(super) struct Locked {
    pub(super) connection: Connection,
    pub(super) lock: File,
}

/// The schema version of this program.
pub(super) fn latest() -> i64 {
    MIGRATIONS.len() as i64
}

/// Opens or creates the store at `path`.
pub(super) fn open(path: &Path, env: &Env) -> Result<Locked, OpenError> {
    let lock = lock(path)?;
    if restore::is_unfinished(path) {
        let reason = "a restore of it began and did not finish; run `posthouse restore FILE --force` again";
        return Err(OpenError::Unusable { path: path.to_owned(), reason: reason.to_owned() });
    }
    leftover::of_locked_store(path)?;
    // Created here instead of by SQLite, to set its mode; the write-ahead log gets the same mode.
    private(path).map_err(|error| unusable(path, &error))?;
    let mut writer =
        connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(|error| broken(path, &error))?;
    prepare(&mut writer, path, env)?;
    Ok(Locked { connection: writer, lock })
}

/// Creates a missing folder, and locks the store until the lock is dropped.
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

/// Prevents a daemon from starting on the store until the result is dropped; none if a daemon runs. Creates
/// nothing: a store that was never opened has no lock file and needs none.
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

/// While this exists no daemon starts; other processes may hold one too.
#[derive(Debug)]
pub struct KeptOut(#[allow(dead_code, reason = "held for its lock")] Option<File>);

/// A read-only connection.
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
        let reason = "it is another program's database; use another file".to_owned();
        return Err(OpenError::Unusable { path: path.to_owned(), reason });
    }
    if found > known {
        return Err(OpenError::Newer { path: path.to_owned(), found, known });
    }
    if tables == 0 {
        // Must be set before the first table is created and before the write-ahead log is used.
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

/// The first number of deliveries in a new store: a random multiple of 2^30 below 2^52, so that ids of two
/// stores do not collide, even if a store is created again.
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

/// Opens or creates a file that only its owner may read.
fn private(path: &Path) -> std::io::Result<File> {
    owner::open_or_create(path, 0o600)
}

fn unusable(path: &Path, error: &std::io::Error) -> OpenError {
    let reason =
        format!("{error}; the user that runs posthouse must own its folder and be able to write to it");
    OpenError::Unusable { path: path.to_owned(), reason }
}

fn broken(path: &Path, error: &rusqlite::Error) -> OpenError {
    OpenError::Unusable { path: path.to_owned(), reason: super::error::said(error) }
}
