//! The operations within a transaction: a guest's statement, the keys of `kv`, and the commit.

use posthouse_model::{
    DeliveryId, KvChange,
    fault::{self, FaultPoint},
};
use rusqlite::{CachedStatement, Connection, Error, ErrorCode, OptionalExtension as _, ffi, params};

use super::{
    connection::GuestConnection,
    control, dropping, nesting, program,
    room::Guest,
    sqlstate,
    syncer::{Syncer, Writing},
    values::{self, Declared},
};

use crate::{
    Bounds, CommitError, Rows, SqlError, TxAborted, Value, error::FULL, guard::Checked, kv::Written,
    value::Gather,
};

const KV_GET: &str = "SELECT value FROM posthouse_kv WHERE plugin = ?1 AND key = ?2";
const KV_LIST: &str =
    "SELECT key, value FROM posthouse_kv WHERE plugin = ?1 AND key >= ?2 AND key > ?3 ORDER BY key";
const KV_BYTES: &str = "
SELECT ifnull(sum(length(CAST(key AS BLOB)) + length(value)), 0) FROM posthouse_kv WHERE plugin = ?1";
const KV_PUT: &str = "
INSERT INTO posthouse_kv (plugin, key, value) VALUES (?1, ?2, ?3)
ON CONFLICT DO UPDATE SET value = excluded.value";
const KV_DELETE: &str = "DELETE FROM posthouse_kv WHERE plugin = ?1 AND key = ?2";
const MARK: &str = "INSERT INTO posthouse_deliveries (delivery_id, effects) VALUES (?1, ?2)";
const FIND_MARK: &str = "SELECT effects FROM posthouse_deliveries WHERE delivery_id = ?1";
const MARKS: &str =
    "SELECT delivery_id FROM posthouse_deliveries WHERE delivery_id > ?1 ORDER BY delivery_id LIMIT ?2";
const UNMARK: &str = "DELETE FROM posthouse_deliveries WHERE delivery_id = ?1";

/// Why a statement stopped.
enum Ended {
    Engine(Error),
    Answer(SqlError),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

/// Runs a guest's statement. If it fails, none of its changes remain.
pub(super) fn run(
    guest: &mut GuestConnection,
    checked: &Checked,
    parameters: &[Value],
    bounds: Bounds,
) -> Result<(Rows, u64), SqlError> {
    if !guest.programs.knows(&checked.text) {
        nesting::check(&guest.connection, &checked.text).map_err(SqlError::Refused)?;
    }
    if !checked.reads {
        guest.host("SAVEPOINT posthouse_statement")?;
    }
    let (answer, refused) = guest.as_guest(checked.does, bounds.bytes, |connection| {
        let run = || step(guest, connection, checked, parameters, bounds);
        let mut answer = run();
        if answer.is_err() && guest.control.asked_too_often() {
            // The schema has changed since, so the facts about the program are outdated.
            guest.programs.forget(connection);
            answer = run();
        }
        match answer {
            // The authorizer denied the statement because its time is over.
            Err(Ended::Engine(error)) if guest.control.is_over() && is_denied(&error) => {
                Err(control::failure(ffi::SQLITE_INTERRUPT).into())
            }
            answer => answer,
        }
    });
    let error = match answer {
        Ok(answer) => {
            if !checked.reads {
                guest.host("RELEASE posthouse_statement")?;
            }
            return Ok(answer);
        }
        Err(Ended::Engine(error)) => failed(guest, &error, refused),
        Err(Ended::Answer(error)) => error,
    };
    if !checked.reads && !matches!(error, SqlError::TxAborted(_)) {
        guest.host("ROLLBACK TO posthouse_statement")?;
        guest.host("RELEASE posthouse_statement")?;
    }
    Err(error)
}

fn is_denied(error: &Error) -> bool {
    sqlstate::of(error).0 == "42501"
}

/// Compiles a guest's statement and runs it within its limits.
fn step(
    guest: &GuestConnection,
    connection: &Connection,
    checked: &Checked,
    parameters: &[Value],
    bounds: Bounds,
) -> Result<(Rows, u64), Ended> {
    guest.control.allow_questions(u32::MAX);
    let mut statement = connection.prepare_cached(&checked.text)?;
    dropping::check(connection, &guest.control)?.map_err(|why| Ended::Answer(SqlError::Refused(why)))?;
    let longest = guest.programs.longest(connection, &guest.control, &checked.text, bounds.bytes)?;
    let answer = rows(connection, &mut statement, checked, parameters, bounds);
    match answer {
        Err(Ended::Engine(error))
            if longest < bounds.bytes && error.sqlite_error_code() == Some(ErrorCode::TooBig) =>
        {
            Err(Ended::Answer(SqlError::Statement {
                sqlstate: sqlstate::of(&error).0.to_owned(),
                message: format!(
                    "a value is longer than {longest} bytes, which is the most for a statement with so many calls \
                     and comparisons (`sql_bytes` is {}); use fewer of them in one statement",
                    bounds.bytes
                ),
            }))
        }
        answer => answer,
    }
}

fn rows(
    connection: &Connection,
    statement: &mut CachedStatement<'_>,
    checked: &Checked,
    parameters: &[Value],
    bounds: Bounds,
) -> Result<(Rows, u64), Ended> {
    bind(statement, checked, parameters)?;
    let declared: Vec<_> = statement.columns().map(|column| Declared::of(column.decl_type())).collect();
    let columns = statement.column_names().map(str::to_owned).collect();
    let before = connection.total_changes();
    let mut gather = Gather::new(bounds, columns);
    fault::get_stuck(&checked.text);
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        let values = declared
            .iter()
            .enumerate()
            .map(|(at, declared)| row.get_ref(at).map(|value| values::read(value, *declared)));
        let row = values.collect::<Result<_, _>>()?;
        gather.push(row).map_err(|limit| Ended::Answer(SqlError::Limit(limit)))?;
    }
    drop(rows);
    // Changes by triggers do not count as the statement's.
    let changed = if connection.total_changes() == before { 0 } else { connection.changes() };
    Ok((gather.finish(), changed))
}

fn bind(statement: &mut CachedStatement<'_>, checked: &Checked, parameters: &[Value]) -> Result<(), Ended> {
    let answer = |sqlstate: &str, message: String| {
        Ended::Answer(SqlError::Statement { sqlstate: sqlstate.to_owned(), message })
    };
    if checked.parameters != parameters.len() {
        let message = format!(
            "the statement has {} parameters, and {} are given",
            checked.parameters,
            parameters.len()
        );
        return Err(answer("08P01", message));
    }
    for at in 1..=statement.parameter_count() {
        let number = statement
            .parameter_name(at)
            .and_then(|name| name.strip_prefix('$')?.parse::<usize>().ok())
            .and_then(|number| number.checked_sub(1));
        let Some(value) = number.and_then(|number| parameters.get(number)) else {
            return Err(answer("42P02", "a parameter is not of the form `$1`, `$2` and so on".to_owned()));
        };
        let value = values::write(value).map_err(|message| answer("22023", message))?;
        statement.raw_bind_parameter(at, value)?;
    }
    Ok(())
}

/// Returns the result for a statement that failed.
fn failed(guest: &GuestConnection, error: &Error, refused: Option<String>) -> SqlError {
    if sqlstate::is_conflict(error) {
        return TxAborted::Conflict.into();
    }
    let (state, message) = sqlstate::of(error);
    // If the transaction has begun to write, an interrupt rolls all of it back. A disk error and `OR ROLLBACK`
    // do so too.
    let gone = guest.connection.is_autocommit();
    if sqlstate::is_full(error) {
        let why = guest.room.why_full();
        return if gone {
            TxAborted::Full(why).into()
        } else {
            SqlError::Statement { sqlstate: FULL.to_owned(), message: why }
        };
    }
    if error.sqlite_error_code() == Some(ErrorCode::OutOfMemory) {
        // SQLite returns this error if a program would have more steps than allowed.
        let message = format!(
            "the statement is too complex: with its views, generated columns and triggers it comes to more than {} \
             steps of SQLite's, or takes more memory than there is",
            program::STEPS / 2
        );
        return if gone {
            TxAborted::RolledBack(message).into()
        } else {
            SqlError::Statement { sqlstate: "54001".to_owned(), message }
        };
    }
    if sqlstate::is_unavailable(error) {
        return guest.unavailable(message).into();
    }
    match (gone, state) {
        (true, "57014") => TxAborted::TimedOut(guest.statement_timeout).into(),
        (true, _) => TxAborted::RolledBack(message).into(),
        (false, "57014") => SqlError::Statement {
            sqlstate: state.to_owned(),
            message: format!("limit `statement_timeout` ({:?}) reached", guest.statement_timeout),
        },
        (false, "42501") => SqlError::Refused(refused.unwrap_or(message)),
        (false, state) => SqlError::Statement { sqlstate: state.to_owned(), message },
    }
}

/// The value of a key.
pub(super) fn kv_get(
    guest: &mut GuestConnection,
    plugin: &str,
    key: &str,
) -> Result<Option<Vec<u8>>, TxAborted> {
    get(&guest.connection, plugin, key).map_err(|error| guest.over(&error))
}

fn get(connection: &Connection, plugin: &str, key: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    connection.prepare_cached(KV_GET)?.query_row(params![plugin, key], |row| row.get(0)).optional()
}

/// Returns the first keys with the prefix after `after`, in byte order, with their values.
pub(super) fn kv_list(
    guest: &mut GuestConnection,
    plugin: &str,
    prefix: &str,
    after: &str,
    limit: usize,
) -> Result<Vec<(String, Vec<u8>)>, TxAborted> {
    let list = || -> rusqlite::Result<Vec<_>> {
        let mut statement = guest.connection.prepare_cached(KV_LIST)?;
        let rows =
            statement.query_map(params![plugin, prefix, after], |row| Ok((row.get(0)?, row.get(1)?)))?;
        // Keys with the same prefix are adjacent.
        let within = |row: &rusqlite::Result<(String, Vec<u8>)>| match row {
            Ok((key, _)) => key.starts_with(prefix),
            Err(_) => true,
        };
        rows.take_while(within).take(limit).collect()
    };
    list().map_err(|error: Error| guest.over(&error))
}

/// Bytes of all keys and values of the plugin.
pub(super) fn kv_bytes(guest: &mut GuestConnection, plugin: &str) -> Result<i64, TxAborted> {
    guest
        .connection
        .prepare_cached(KV_BYTES)
        .and_then(|mut statement| statement.query_row([plugin], |row| row.get(0)))
        .map_err(|error| guest.over(&error))
}

/// Writes the keys and the marker, and commits. Returns the write that still needs a sync, or none if the
/// connection syncs its commits itself.
pub(super) fn commit(
    guest: &mut GuestConnection,
    delivery: DeliveryId,
    carried: &[u8],
    written: &Written,
    syncer: &Syncer,
) -> Result<Option<Writing>, CommitError> {
    let _guest = Guest::at_work();
    // If anything fails, dropping the transaction rolls it back.
    let (changes, delta) = written
        .changes(|key| kv_get(guest, &written.plugin, key).map_err(CommitError::from))?
        .ok_or(CommitError::Conflict)?;
    let write = || {
        for KvChange { key, value, .. } in &changes {
            match value {
                Some(value) => {
                    guest.connection.prepare_cached(KV_PUT)?.execute(params![written.plugin, key, value])?
                }
                None => guest.connection.prepare_cached(KV_DELETE)?.execute(params![written.plugin, key])?,
            };
        }
        Ok(())
    };
    write().map_err(|error: Error| guest.over(&error))?;
    let marked = guest
        .connection
        .prepare_cached(MARK)
        .and_then(|mut statement| statement.execute(params![delivery.0, carried]));
    match marked {
        Ok(_) => {}
        Err(error) if sqlstate::of(&error).0 == "23505" => return Err(CommitError::AlreadyCommitted),
        Err(error) => return Err(guest.over(&error).into()),
    }
    fault::reached(FaultPoint::MarkerWritten);
    let writing = (!guest.syncs_itself).then(|| syncer.writing());
    let committed = guest.connection.prepare_cached("COMMIT").and_then(|mut commit| commit.raw_execute());
    written.sizes.changed(&written.plugin, if committed.is_ok() { delta } else { 0 });
    match committed {
        Ok(_) => {
            fault::reached(FaultPoint::DatabaseCommitted);
            Ok(writing)
        }
        Err(error) => Err(match sqlstate::of(&error) {
            // A deferred constraint failed.
            (state, message) if state.starts_with("23") => {
                CommitError::Failed { sqlstate: state.to_owned(), message }
            }
            _ => guest.over(&error).into(),
        }),
    }
}

/// The content of a delivery's marker.
pub(super) fn find_marker(
    guest: &mut GuestConnection,
    delivery: DeliveryId,
) -> Result<Option<Vec<u8>>, TxAborted> {
    guest
        .connection
        .prepare_cached(FIND_MARK)
        .and_then(|mut statement| statement.query_row([delivery.0], |row| row.get(0)).optional())
        .map_err(|error| guest.over(&error))
}

/// Returns the deliveries after `after` that have a marker, in the order of their numbers.
pub(super) fn markers(
    guest: &mut GuestConnection,
    after: i64,
    limit: usize,
) -> Result<Vec<DeliveryId>, TxAborted> {
    let list = || -> rusqlite::Result<Vec<_>> {
        let mut statement = guest.connection.prepare_cached(MARKS)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement.query_map([after, limit], |row| row.get(0).map(DeliveryId))?;
        rows.collect()
    };
    list().map_err(|error: Error| guest.over(&error))
}

/// Removes markers in one transaction.
pub(super) fn remove_markers(
    guest: &mut GuestConnection,
    deliveries: &[DeliveryId],
) -> Result<(), TxAborted> {
    guest.host("BEGIN IMMEDIATE")?;
    let remove = || {
        let mut statement = guest.connection.prepare_cached(UNMARK)?;
        deliveries.iter().try_for_each(|delivery| statement.execute([delivery.0]).map(drop))?;
        fault::reached(FaultPoint::MarkerDeleted);
        Ok(())
    };
    let removed = remove().map_err(|error: Error| guest.over(&error)).and_then(|()| guest.host("COMMIT"));
    if removed.is_err() {
        guest.may_return();
    }
    removed
}
