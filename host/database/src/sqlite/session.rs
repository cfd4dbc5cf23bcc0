//! The proof that a connection is in the state in which it was opened. Otherwise one attempt could change the
//! meaning of the next one's statements.
//!
//! The proof runs no statement, and takes well under a microsecond. A statement would take ten times as long,
//! and SQLite fixes the results of some PRAGMAs when it compiles them.

use rusqlite::{Connection, Result, config::DbConfig};

/// Flags of a connection.
const FLAGS: [DbConfig; 6] = [
    DbConfig::SQLITE_DBCONFIG_DEFENSIVE,
    DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY,
    DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER,
    DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW,
    DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA,
    DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA,
];

/// SQLite numbers the schemas of a connection: `main`, `temp`, then files that were attached.
const ATTACHED: usize = 2;

/// The state that outlives a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Session {
    /// Whether the temporary schema was opened. If not, it is empty.
    temporary: bool,
    /// Whether a file is attached.
    attached: bool,
    flags: [bool; FLAGS.len()],
}

impl Session {
    pub(super) fn of(connection: &Connection) -> Result<Self> {
        let mut flags = [false; FLAGS.len()];
        for (flag, config) in flags.iter_mut().zip(FLAGS) {
            *flag = connection.db_config(config)?;
        }
        Ok(Self {
            // SQLite knows whether a schema is read-only once the schema was opened.
            temporary: connection.is_readonly(c"temp").is_ok(),
            attached: connection.db_name(ATTACHED).is_ok(),
            flags,
        })
    }
}
