//! An in-memory SQLite database, with the host's conversion of values.

use rusqlite::{
    Connection, ErrorCode, Statement, params_from_iter,
    types::{Value as Stored, ValueRef},
};

use crate::bindings::posthouse::plugin::sql::{Error, Rows, StatementError, Value};

/// Statements that only the host may run.
const RESERVED: [&str; 8] =
    ["BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE", "ATTACH", "PRAGMA"];

/// The database, and the transaction of the running attempt.
#[derive(Debug)]
pub(super) struct Database(Connection);

impl Database {
    pub(super) fn open() -> Self {
        let connection = Connection::open_in_memory().expect("SQLite opens a database in memory");
        Self(connection)
    }

    /// Ends the transaction of an attempt, if one was begun.
    pub(super) fn end(&mut self, commits: bool) {
        if !self.0.is_autocommit() {
            let end = if commits { "COMMIT" } else { "ROLLBACK" };
            self.0.execute_batch(end).expect("SQLite ends a transaction in memory");
        }
    }

    pub(super) fn query(&mut self, statement: &str, parameters: &[Value]) -> Result<Rows, Error> {
        self.begin(statement)?;
        self.run(statement, parameters)
    }

    pub(super) fn execute(&mut self, statement: &str, parameters: &[Value]) -> Result<u64, Error> {
        self.begin(statement)?;
        let before = self.0.total_changes();
        self.run(statement, parameters)?;
        Ok(self.0.total_changes() - before)
    }

    /// Returns the result of a query, one text per row.
    pub(super) fn texts(&self, query: &str) -> Vec<String> {
        let rows = self.run(query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}"));
        let text = |value: &Value| match value {
            Value::Null => "NULL".to_owned(),
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Text(text) => text.clone(),
            other => format!("{other:?}"),
        };
        rows.rows.iter().map(|row| row.iter().map(text).collect::<Vec<_>>().join("|")).collect()
    }

    fn begin(&self, statement: &str) -> Result<(), Error> {
        let first = statement.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        if RESERVED.contains(&first.as_str()) {
            return Err(Error::Refused(format!("`{first}` is the host's alone")));
        }
        if self.0.is_autocommit() {
            self.0.execute_batch("BEGIN").map_err(|error| refusal(&error))?;
        }
        Ok(())
    }

    fn run(&self, statement: &str, parameters: &[Value]) -> Result<Rows, Error> {
        let mut prepared = self.0.prepare(statement).map_err(|error| match error {
            rusqlite::Error::MultipleStatement => {
                Error::Refused("there is more than one statement".to_owned())
            }
            error => refusal(&error),
        })?;
        let values = in_order(&prepared, parameters)?;
        let columns: Vec<String> = prepared.column_names().map(str::to_owned).collect();
        let mut found = prepared.query(params_from_iter(values)).map_err(|error| refusal(&error))?;
        let mut rows = Vec::new();
        while let Some(row) = found.next().map_err(|error| refusal(&error))? {
            let value = |index| row.get_ref(index).map(given).map_err(|error| refusal(&error));
            rows.push((0..columns.len()).map(value).collect::<Result<_, _>>()?);
        }
        Ok(Rows { columns, rows })
    }
}

/// The parameters in SQLite's order. SQLite treats `$1` as a name like any other.
fn in_order(statement: &Statement<'_>, parameters: &[Value]) -> Result<Vec<Stored>, Error> {
    let unbound = |name: &str| {
        let message = format!("`{name}` is none of the {} parameters given", parameters.len());
        Error::Statement(StatementError { sqlstate: "08P01".to_owned(), message })
    };
    (1..=statement.parameter_count())
        .map(|index| {
            let name = statement.parameter_name(index).unwrap_or("?");
            let number = name.strip_prefix('$').and_then(|number| number.parse::<usize>().ok());
            let value = number.and_then(|number| parameters.get(number.checked_sub(1)?));
            value.map(stored).ok_or_else(|| unbound(name))
        })
        .collect()
}

fn stored(value: &Value) -> Stored {
    match value {
        Value::Null => Stored::Null,
        Value::Boolean(truth) => Stored::Integer((*truth).into()),
        Value::Integer(number) | Value::Timestamp(number) => Stored::Integer(*number),
        Value::Float(number) => Stored::Real(*number),
        Value::Text(text) | Value::Json(text) | Value::Uuid(text) => Stored::Text(text.clone()),
        Value::Bytes(bytes) => Stored::Blob(bytes.clone()),
    }
}

fn given(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Float(number),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_owned()),
    }
}

/// SQLite's error for a statement, with the SQLSTATE that PostgreSQL would give.
fn refusal(error: &rusqlite::Error) -> Error {
    let message = error.to_string();
    let sqlstate = match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation) => "23000",
        _ if message.contains("no such table") => "42P01",
        _ if message.contains("no such column") => "42703",
        _ if message.contains("syntax error") => "42601",
        _ => "HY000",
    };
    Error::Statement(StatementError { sqlstate: sqlstate.to_owned(), message })
}
