//! Fuzz targets for statements, and for the messages of a PostgreSQL.

#![allow(clippy::expect_used, reason = "a fuzz target panics where a promise is broken")]

use std::sync::OnceLock;

pub use super::postgres::fuzz::{frames as postgres_frames, values as postgres_values};
use super::{
    guard::{self, Checked, Dialect, Grants},
    postgres, sqlite,
};

/// The URL of a PostgreSQL with [`TABLES`]. If it is set, that server compiles the statements, too; otherwise
/// only SQLite does.
pub static SERVER: OnceLock<String> = OnceLock::new();

/// Tables that a statement may name.
pub const TABLES: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, n BIGINT, s TEXT, j JSON); \
                          CREATE TABLE users (id TEXT PRIMARY KEY, name TEXT, t TEXT); \
                          CREATE VIEW v AS SELECT n, s FROM t;";

/// If a statement passes the guard, the guard accepts its own output and returns it unchanged. The database
/// reads one statement there, with as many parameters.
pub fn guard(input: &[u8]) {
    guard_with(SERVER.get().map(String::as_str), input);
}

/// The same, with this PostgreSQL.
pub(super) fn guard_with(server: Option<&str>, input: &[u8]) {
    let Ok(statement) = std::str::from_utf8(input) else { return };
    if let Some(checked) = stable(Dialect::Sqlite, statement) {
        sqlite::fuzz::agrees(&checked);
    }
    let grants = Grants::default();
    if let Some(checked) = stable(Dialect::Postgres(&grants), statement)
        && let Some(url) = server
    {
        postgres::fuzz::agrees(url, &checked);
    }
}

/// The verdict. It must be the same for the guard's own output.
fn stable(dialect: Dialect<'_>, statement: &str) -> Option<Checked> {
    let checked = guard::check(dialect, statement).ok()?;
    let again = guard::check(dialect, &checked.text).expect("what the guard wrote passes it");
    assert_eq!(again.text, checked.text, "of {statement:?}");
    assert_eq!(
        (again.reads, again.does, again.parameters),
        (checked.reads, checked.does, checked.parameters)
    );
    Some(checked)
}
