//! Bounds `DROP`: SQLite frees all pages of a table or an index in one step, without a check of the deadline.
//!
//! A guest may drop a table that has few pages. It can empty a larger one first, with several `DELETE`s. Each of
//! them checks the deadline; for a `DELETE` of all rows the authorizer turns off SQLite's shortcut that frees the
//! pages in one step.

use rusqlite::{Connection, limits::Limit, params};

use super::control::Control;

/// The most pages of a table with its indexes that may be dropped: 256 MiB if a page has 4 KiB.
const PAGES: i64 = 65_536;

const COUNT: &str = "
SELECT count(*) FROM (
    SELECT 1 FROM dbstat WHERE name IN (
        SELECT name FROM sqlite_schema WHERE name = ?1 COLLATE NOCASE OR tbl_name = ?1 COLLATE NOCASE
    ) LIMIT ?2
)";

/// Refuses to drop a table or an index that is too large. The authorizer has recorded their names.
pub(super) fn check(connection: &Connection, control: &Control) -> rusqlite::Result<Result<(), String>> {
    let drops = control.take_drops();
    if drops.is_empty() {
        return Ok(Ok(()));
    }
    // `Programs::longest` sets this limit again before the statement runs.
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, i32::MAX)?;
    control.set_guest(false);
    let count = |name: &String| -> rusqlite::Result<i64> {
        connection.prepare_cached(COUNT)?.query_row(params![name, PAGES + 1], |row| row.get(0))
    };
    let counts = drops.iter().map(count).collect::<rusqlite::Result<Vec<_>>>();
    control.set_guest(true);
    let pages: i64 = counts?.iter().sum();
    if pages <= PAGES {
        return Ok(Ok(()));
    }
    Ok(Err(format!(
        "`{}` has more than {PAGES} pages with its indexes, which can't be dropped within any limit of time; delete \
         its rows first, some at a time",
        drops.join("`, `")
    )))
}
