//! A connection, and what limits a guest's statement on it: the authorizer, SQLite's own limits, and a check of
//! the deadline every thousand steps.

use std::{
    fs::{DirBuilder, OpenOptions},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use rusqlite::{
    Connection, OpenFlags,
    config::DbConfig,
    hooks::{AuthContext, Authorization},
    limits::Limit,
};

use super::{
    authorizer,
    control::Control,
    functions,
    program::{self, Programs},
    room::{Guest, LONG_LOG, Room},
    session::Session,
    sqlstate,
};
use crate::{TxAborted, Unavailable, guard::Does};

/// The host's own tables.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS posthouse_deliveries (
    delivery_id INTEGER PRIMARY KEY,
    effects BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS posthouse_kv (
    plugin TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (plugin, key)
) STRICT, WITHOUT ROWID;";

/// Steps of SQLite's virtual machine between two checks of the deadline.
const STEPS: i32 = 1000;

/// The longest value that the host itself stores, in bytes.
const LONGEST: i32 = 512 << 20;

/// A connection, in its thread.
pub(crate) struct GuestConnection {
    pub(crate) connection: Connection,
    pub(super) name: String,
    pub(super) statement_timeout: Duration,
    /// Whether a COMMIT is on disk when it returns, because there is no write-ahead log to sync.
    pub(super) syncs_itself: bool,
    /// The weights of its statements' programs.
    pub(super) programs: Programs,
    pub(super) room: Arc<Room>,
    at_first: Session,
    pub(super) control: Arc<Control>,
}

impl GuestConnection {
    pub(super) fn open(
        name: String,
        path: &Path,
        statement_timeout: Duration,
        room: Arc<Room>,
    ) -> Result<Self, Unavailable> {
        let control = Control::new();
        let failed = |reason: &dyn std::fmt::Display| Unavailable {
            name: name.clone(),
            reason: format!("`{}` can't be opened: {reason}", path.display()),
        };
        make(path).map_err(|error| failed(&error))?;
        let opened = connect(path, statement_timeout, &control, &room)
            .and_then(|(connection, syncs_itself)| Ok((Session::of(&connection)?, connection, syncs_itself)));
        let (at_first, connection, syncs_itself) = opened.map_err(|error| failed(&error))?;
        let programs = Programs::default();
        Ok(Self { connection, name, statement_timeout, syncs_itself, programs, room, at_first, control })
    }

    pub(super) fn control(&self) -> Arc<Control> {
        Arc::clone(&self.control)
    }

    /// Runs one of the host's own statements without parameters.
    pub(super) fn host(&self, text: &str) -> Result<(), TxAborted> {
        self.connection
            .prepare_cached(text)
            .and_then(|mut statement| statement.raw_execute())
            .map(drop)
            .map_err(|error| self.over(&error))
    }

    /// Does `work` for a guest's statement, with limits of time and size, and without access to the host's
    /// objects. Also returns why the authorizer refused it, if it did.
    pub(super) fn as_guest<T>(
        &self,
        does: Does,
        longest: usize,
        work: impl FnOnce(&Connection) -> T,
    ) -> (T, Option<String>) {
        self.set_longest(i32::try_from(longest).unwrap_or(LONGEST));
        self.control.begin(does, self.connection.get_interrupt_handle(), self.statement_timeout);
        let _guest = Guest::at_work();
        let answer = work(&self.connection);
        let refused = self.control.end();
        self.set_longest(LONGEST);
        (answer, refused)
    }

    /// Ends a transaction that was not committed. Returns whether another attempt may use the connection: its
    /// state is the same as when it was opened.
    pub(super) fn may_return(&mut self) -> bool {
        self.control.go_on();
        if !self.connection.is_autocommit() && self.host("ROLLBACK").is_err() {
            return false;
        }
        let now = Session::of(&self.connection);
        let as_at_first = now.as_ref().is_ok_and(|now| *now == self.at_first);
        // ALTER TABLE opens the temporary schema to search it, so this is normal.
        if !as_at_first {
            tracing::debug!(database = self.name, session = ?now, "connection closed: its session has changed");
        }
        as_at_first
    }

    /// The meaning of a failure of the host's own statement.
    pub(super) fn over(&self, error: &rusqlite::Error) -> TxAborted {
        if sqlstate::is_conflict(error) {
            return TxAborted::Conflict;
        }
        if sqlstate::is_full(error) {
            return TxAborted::Full(self.room.why_full());
        }
        self.unavailable(error.to_string())
    }

    /// The error that the database cannot be used, with this reason.
    pub(super) fn unavailable(&self, reason: String) -> TxAborted {
        Unavailable { name: self.name.clone(), reason }.into()
    }

    /// Truncates a long log if no connection reads it, to free its space. It does not wait for readers; then a
    /// later call truncates the log.
    pub(super) fn truncate_log(&self) {
        if !self.room.has_long_log() {
            return;
        }
        let truncate = || -> rusqlite::Result<()> {
            self.connection.busy_timeout(Duration::ZERO)?;
            let truncated = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            self.connection.busy_timeout(self.statement_timeout)?;
            truncated
        };
        if let Err(error) = truncate() {
            tracing::debug!(database = self.name, %error, "could not truncate the write-ahead log of a database");
        }
    }

    fn set_longest(&self, bytes: i32) {
        // `set_limit` does not fail.
        let _ = self.connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, bytes);
    }
}

/// Creates the file if it is missing. Its mode is 0600, because it may contain private data.
fn make(path: &Path) -> std::io::Result<()> {
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    if length(path) == 0 && length(log.as_ref()) > 0 {
        // SQLite would delete the log.
        let reason =
            "it is missing or empty, but its write-ahead log is there; put the file back, or remove the log";
        return Err(std::io::Error::other(reason));
    }
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map(drop)
}

/// Opens a connection. Also returns whether it syncs its commits itself.
fn connect(
    path: &Path,
    statement_timeout: Duration,
    control: &Arc<Control>,
    room: &Arc<Room>,
) -> rusqlite::Result<(Connection, bool)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let vfs = room.vfs().map_err(|reason| rusqlite::Error::InvalidPath(reason.into()))?;
    let mut connection = Connection::open_with_flags_and_vfs(path, flags, vfs)?;
    connection.busy_timeout(statement_timeout)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    // A function in a schema that another program created may only compute.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    // Some file systems do not support a write-ahead log.
    let syncs_itself = mode != "wal";
    let synchronous = if syncs_itself { "FULL" } else { "NORMAL" };
    connection.execute_batch(&format!("PRAGMA synchronous = {synchronous}; PRAGMA foreign_keys = ON;"))?;
    if !connection.table_exists(None, "posthouse_kv")? {
        connection.execute_batch(&format!("BEGIN IMMEDIATE; {TABLES} COMMIT;"))?;
    }
    bound(&connection, room, syncs_itself)?;
    for (limit, most) in [
        (Limit::SQLITE_LIMIT_LENGTH, LONGEST),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_FUNCTION_ARG, functions::ARGUMENTS),
        (Limit::SQLITE_LIMIT_VDBE_OP, program::STEPS),
        (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 32),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ] {
        connection.set_limit(limit, most)?;
    }
    functions::register(&connection, control)?;
    let clock = Arc::clone(control);
    connection.progress_handler(STEPS, Some(move || clock.is_over()))?;
    let control = Arc::clone(control);
    connection.authorizer(Some(move |context: AuthContext<'_>| {
        if control.is_guest() { authorize(context, &control) } else { Authorization::Allow }
    }))?;
    Ok((connection, syncs_itself))
}

/// Limits the files to their room, by SQLite's own settings. Temporary data are files, since nothing limits the
/// memory of a single connection.
fn bound(connection: &Connection, room: &Room, syncs_itself: bool) -> rusqlite::Result<()> {
    room.journals(syncs_itself);
    let page_size = connection.query_row("PRAGMA page_size", [], |row| row.get::<_, u32>(0))?;
    let pages = room.pages(page_size.into());
    let used = connection.query_row("PRAGMA page_count", [], |row| row.get::<_, u32>(0))?;
    room.has(u64::from(used) * u64::from(page_size));
    connection.execute_batch(&format!(
        "PRAGMA max_page_count = {pages}; PRAGMA journal_size_limit = {LONG_LOG}; PRAGMA temp_store = FILE;"
    ))
}

/// Answers SQLite's question about a guest's statement. The guard has checked the words before.
fn authorize(context: AuthContext<'_>, control: &Control) -> Authorization {
    use rusqlite::hooks::AuthAction as A;
    if control.is_over() || !control.ask() {
        return Authorization::Deny;
    }
    match context.action {
        A::DropTable { table_name: name } | A::DropIndex { index_name: name, .. } => control.drops(name),
        _ => {}
    }
    match authorizer::check(control.does(), context) {
        Err(why) => {
            control.refuse(why);
            Authorization::Deny
        }
        // Forces a delete row by row: SQLite would free a whole table in one step, without a check of the
        // deadline.
        Ok(()) if matches!(context.action, A::Delete { .. }) && control.does() == Does::Rows => {
            Authorization::Ignore
        }
        Ok(()) => Authorization::Allow,
    }
}
