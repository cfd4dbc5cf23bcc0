//! Maps SQLite's errors to PostgreSQL's SQLSTATEs, so that a guest handles one set of codes.

use rusqlite::{Error, ErrorCode, ffi};

use crate::error::FULL;

/// Whether another transaction has written rows that this one had read.
pub(super) fn is_conflict(error: &Error) -> bool {
    extended(error) == Some(ffi::SQLITE_BUSY_SNAPSHOT)
}

/// Whether the file, the disk or another program is at fault, and not the statement.
pub(super) fn is_unavailable(error: &Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::OutOfMemory
                | ErrorCode::SystemIoFailure
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::CannotOpen
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::NotADatabase
                | ErrorCode::ReadOnly
        )
    )
}

/// Whether the file may not grow, or the disk is full.
pub(super) fn is_full(error: &Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

/// Returns the SQLSTATE and the message.
pub(super) fn of(error: &Error) -> (&'static str, String) {
    let message = match error {
        Error::SqliteFailure(_, Some(message)) | Error::SqlInputError { msg: message, .. } => message.clone(),
        other => other.to_string(),
    };
    (state(error, &message), message)
}

fn state(error: &Error, message: &str) -> &'static str {
    match extended(error).unwrap_or_default() {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => {
            "23505"
        }
        ffi::SQLITE_CONSTRAINT_NOTNULL => "23502",
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => "23503",
        ffi::SQLITE_CONSTRAINT_CHECK => "23514",
        ffi::SQLITE_CONSTRAINT_DATATYPE => "42804",
        _ => match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation) => "23000",
            Some(ErrorCode::TypeMismatch) => "42804",
            Some(ErrorCode::TooBig) => "54000",
            Some(ErrorCode::OperationInterrupted) => "57014",
            Some(ErrorCode::AuthorizationForStatementDenied) => "42501",
            Some(ErrorCode::ReadOnly) => "25006",
            Some(ErrorCode::DiskFull) => FULL,
            _ => by_words(message),
        },
    }
}

/// Returns the SQLSTATE by the message, because SQLite has one code for all errors in a statement's text.
fn by_words(message: &str) -> &'static str {
    let says = |words: &str| message.contains(words);
    if says("syntax error") || says("incomplete input") || says("unrecognized token") {
        "42601"
    } else if message.starts_with("not authorized") {
        "42501"
    } else if says("no such table") {
        "42P01"
    } else if says("no such column") || says("has no column named") {
        "42703"
    } else if says("no such function") {
        "42883"
    } else if says("already exists") {
        "42P07"
    } else if says("too many columns") {
        "54011"
    } else if says("too many arguments") {
        "54023"
    } else if says("too many ")
        || says("tables in a join")
        || says("tree is too large")
        || says("Recursion limit")
    {
        "54001"
    } else if says("integer overflow") {
        "22003"
    } else {
        "HY000"
    }
}

fn extended(error: &Error) -> Option<i32> {
    match error {
        Error::SqliteFailure(failure, _) => Some(failure.extended_code),
        Error::SqlInputError { error, .. } => Some(error.extended_code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    #[test]
    fn a_statement_beyond_a_limit_of_sqlites_has_the_state_that_postgres_has_for_it() {
        let connection = Connection::open_in_memory().unwrap();
        let tables = (0..65).map(|n| format!("t AS t{n}")).collect::<Vec<_>>().join(", ");
        let windows = (0..900).map(|n| format!("sum(n) OVER (ORDER BY n ROWS {n} PRECEDING)"));
        let windows = windows.collect::<Vec<_>>().join(", ");
        connection.execute_batch("CREATE TABLE t (n)").unwrap();
        for (expected, statement) in [
            ("54001", format!("SELECT {}1", "1 + ".repeat(1_100))),
            ("54001", format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000))),
            ("54001", format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(600))),
            ("54001", format!("SELECT 1 FROM {tables}")),
            ("54001", format!("SELECT {windows} FROM t")),
            ("54011", format!("SELECT 1{}", ", 1".repeat(2_000))),
            ("54023", format!("SELECT max(1{})", ", 1".repeat(1_000))),
        ] {
            let error = connection.prepare(&statement).unwrap_err();
            let (state, message) = of(&error);
            assert_eq!(state, expected, "{message}: {}", &statement[..40]);
        }
    }
}
