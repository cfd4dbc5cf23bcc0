//! Bounds the work of a statement between two checks of its deadline, before it runs.
//!
//! SQLite checks the deadline only at backward jumps. Between two of them each step may read or produce a value
//! of `sql_bytes`. Two thousand columns of `lower($1)` over four megabytes take a minute and sixteen gigabytes
//! of memory. So each step of the compiled program (`EXPLAIN`) has a weight: the most nanoseconds that it takes
//! for each byte of the longest value. The sum of the weights and [`BUDGET`] give the longest value that the
//! statement may touch. For nearly all statements that is `sql_bytes`.
//!
//! The program includes the steps of views, generated columns, constraints, indexes and triggers. Neither the
//! text of the statement nor the authorizer shows those.

use std::{cell::RefCell, collections::HashMap};

use rusqlite::{Connection, limits::Limit};

use super::{control::Control, functions};

/// Nanoseconds that may pass without a check of the deadline. Also bounds the bytes of values held at once.
const BUDGET: u64 = 400_000_000;

/// The most steps of a program; SQLite takes the greatest power of two, times 42, below it. A statement with a
/// thousand parameters has some 3,000.
pub(super) const STEPS: i32 = 50_000;

/// How many programs' weights a connection remembers: more than it keeps prepared.
const REMEMBERED: usize = 1024;

/// The factor by which the authorizer may be called more often while a statement runs than while it was compiled.
/// SQLite compiles a statement again if the schema or a parameter has changed, and it may become a larger one.
const AGAIN: u32 = 4;

/// The results of compiling a statement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    weight: u64,
    /// Calls of the authorizer.
    asked: u32,
}

/// The weights of a connection's programs, by the text of the statement.
#[derive(Default)]
pub(super) struct Programs(RefCell<HashMap<String, Found>>);

impl Programs {
    /// Whether the statement was weighed.
    pub(super) fn knows(&self, text: &str) -> bool {
        self.0.borrow().contains_key(text)
    }

    /// Forgets all weights, and drops the prepared statements.
    pub(super) fn forget(&self, connection: &Connection) {
        self.0.borrow_mut().clear();
        connection.flush_prepared_statement_cache();
    }

    /// Weighs a prepared statement, and returns the longest value that it may touch: at most `most` bytes. Also
    /// sets how often the authorizer may be called from now on.
    pub(super) fn longest(
        &self,
        connection: &Connection,
        control: &Control,
        text: &str,
        most: usize,
    ) -> rusqlite::Result<usize> {
        let known = self.0.borrow().get(text).copied();
        let found = match known {
            Some(found) => found,
            None => {
                let asked = control.take_asked();
                let found = Found { weight: weigh(connection, text)?, asked };
                if self.0.borrow().len() >= REMEMBERED {
                    self.forget(connection);
                }
                self.0.borrow_mut().insert(text.to_owned(), found);
                found
            }
        };
        control.allow_questions(found.asked.saturating_mul(AGAIN).saturating_add(AGAIN));
        let longest = BUDGET / found.weight.max(1);
        let longest = usize::try_from(longest).unwrap_or(usize::MAX).min(most);
        control.set_longest(longest);
        // `set_limit` does not fail.
        let _ = connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, i32::try_from(longest).unwrap_or(i32::MAX));
        Ok(longest)
    }
}

/// The weight of a statement's program.
fn weigh(connection: &Connection, text: &str) -> rusqlite::Result<u64> {
    let mut explain = connection.prepare(&format!("EXPLAIN {text}"))?;
    let mut steps = explain.raw_query();
    let (mut weight, mut paths, mut takes_paths) = (0, 0, false);
    while let Some(step) = steps.next()? {
        let (code, p4) = (step.get_ref(1)?.as_str()?, step.get_ref(5)?.as_str().unwrap_or_default());
        weight += u64::from(of_step(code, p4));
        paths += u64::from(matches!(code, "String8" | "Variable"));
        takes_paths |= p4.starts_with("json") && p4.ends_with("(-1)");
    }
    // Each path is looked up in the whole document.
    Ok(if takes_paths { weight + paths * 3 } else { weight })
}

/// The weight of one step.
fn of_step(code: &str, p4: &str) -> u32 {
    match code {
        "Function" | "PureFunc" | "AggStep" | "AggStep1" | "AggInverse" | "AggValue" | "AggFinal" => {
            let name = p4.rsplit_once('(').map_or(p4, |(name, _)| name);
            // The operator's schema may use a function that guests may not call.
            functions::weight(name).unwrap_or(60)
        }
        "VFilter" | "VUpdate" => 15,
        "VColumn" => 4,
        // Each page on the way down compares keys.
        "SeekGE" | "SeekGT" | "SeekLE" | "SeekLT" | "Found" | "NotFound" | "NoConflict" | "IdxInsert"
        | "IdxDelete" => 3,
        "Add" | "Subtract" | "Multiply" | "Divide" | "Remainder" | "BitAnd" | "BitOr" | "ShiftLeft"
        | "ShiftRight" | "Cast" | "MustBeInt" => 3,
        "Concat" | "Eq" | "Ne" | "Lt" | "Le" | "Gt" | "Ge" | "Compare" | "IdxGE" | "IdxGT" | "IdxLE"
        | "IdxLT" | "IsTrue" | "Affinity" => 2,
        "If" | "IfNot" | "And" | "Or" | "Not" | "Column" | "MakeRecord" | "Insert" | "SorterInsert"
        | "SorterData" | "RowData" => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(statement: &str) -> u64 {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE t (id TEXT PRIMARY KEY, name TEXT, data TEXT, at INTEGER);
                 CREATE INDEX n ON t (name);
                 CREATE VIEW v AS SELECT lower(upper(name)) || name AS twice FROM t;
                 CREATE TABLE g (a TEXT, b AS (json_set(a, '$.x', 1)))",
            )
            .unwrap();
        weigh(&connection, statement).unwrap()
    }

    /// The greatest weight that allows values of four megabytes, the default of `sql_bytes`.
    const LIGHT: u64 = BUDGET / (4 << 20);

    #[test]
    fn usual_statements_may_touch_values_of_four_megabytes() {
        for statement in [
            "SELECT * FROM t WHERE id = $1",
            "SELECT id, name FROM t WHERE lower(name) LIKE $1 ORDER BY at DESC LIMIT 10",
            "INSERT INTO t VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO UPDATE SET name = excluded.name,
             data = excluded.data, at = excluded.at WHERE excluded.at > t.at",
            "SELECT json_extract(data, '$.a'), json_extract(data, '$.b') FROM t WHERE id = $1",
            "UPDATE t SET data = json_set(data, '$.a', $1), name = upper($2) WHERE id = $3",
            "DELETE FROM t WHERE at < $1",
            "SELECT count(*), max(at) FROM t GROUP BY name",
        ] {
            assert!(weight(statement) <= LIGHT, "{statement}: {}", weight(statement));
        }
        let rows = vec!["($1, $2, $3, $4)"; 250].join(", ");
        assert!(weight(&format!("INSERT INTO t VALUES {rows}")) <= LIGHT);
    }

    #[test]
    fn what_views_and_generated_columns_call_weighs_as_if_the_statement_called_it() {
        assert!(weight("SELECT twice FROM v") >= weight("SELECT lower(upper(name)) || name FROM t"));
        assert!(weight("SELECT b FROM g") > weight("SELECT a FROM g") + 10);
    }

    #[test]
    fn many_calls_weigh_more_than_few() {
        let calls = vec!["lower($1)"; 2000].join(", ");
        assert!(weight(&format!("SELECT {calls}")) > 50 * LIGHT);
        let copies = vec!["$1 || $1"; 2000].join(", ");
        assert!(weight(&format!("SELECT {copies}")) > 20 * LIGHT);
        assert!(BUDGET / weight("SELECT json_patch($1, $2)") < 20_000);
    }
}
