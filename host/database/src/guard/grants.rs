//! The functions of PostgreSQL that the operator granted to the plugins of a database.

use std::collections::BTreeSet;

/// `functions` of `[databases.<name>]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Grants {
    /// The table in config.toml, for messages.
    table: String,
    functions: BTreeSet<String>,
}

impl Grants {
    /// The functions granted in `[databases.<database>]`.
    pub(crate) fn new(database: &str, functions: &BTreeSet<String>) -> Self {
        Self { table: format!("[databases.{database}]"), functions: functions.clone() }
    }

    /// Whether a call of this name is granted. A name with its schema differs from the name alone.
    pub(super) fn function(&self, name: &str) -> bool {
        self.functions.contains(name)
    }

    /// Why a call is refused, and what would allow it.
    pub(crate) fn refusal(&self, name: &str) -> String {
        format!(
            "plugins may not call the function `{name}`, only PostgreSQL's functions without side effects; the \
             operator can grant it by `functions = [\"{name}\"]` in {}",
            self.table
        )
    }
}
