//! A plugin's tables, which it brings along and makes itself.
//!
//! They are files `migrations/<name>.sql` of its crate, applied in their order, each once for the database
//! and within the transaction of the attempt that finds it missing: if that attempt fails, its tables
//! were never made, and of two that make them at once one is tried again. The table `plugin_migrations`
//! remembers which ran. When all have, [`Migrations::apply`] costs one query; that is not remembered in
//! the instance, for an attempt can be rolled back after it applied one.
//!
//! Statements end with a `;` at the end of a line. Lines that begin with `--` are comments. A file that
//! has run is never changed: a new one changes what it made.

use super::{Error, execute, query_row};

/// The migrations of a plugin, in most cases made by [`migrations!`](crate::migrations).
#[derive(Debug, Clone, Copy)]
pub struct Migrations {
    plugin: &'static str,
    files: &'static [&'static str],
}

/// The files `migrations/<name>.sql` of this crate, in the order in which they were written. It stands in a
/// file of the folder `src`, beside which `migrations` is.
///
/// ```ignore
/// const TABLES: Migrations = posthouse_sdk::migrations!["001_users", "002_settings"];
/// ```
#[macro_export]
macro_rules! migrations {
    ($($name:literal),+ $(,)?) => {
        $crate::sql::Migrations::new(
            ::std::env!("CARGO_PKG_NAME"),
            &[$(::std::include_str!(::std::concat!("../migrations/", $name, ".sql"))),+],
        )
    };
}

const MAKE: &str = "CREATE TABLE IF NOT EXISTS plugin_migrations \
    (plugin TEXT NOT NULL, version BIGINT NOT NULL, PRIMARY KEY (plugin, version))";

impl Migrations {
    /// The migrations of the plugin of this name, each a file as a text.
    pub const fn new(plugin: &'static str, files: &'static [&'static str]) -> Self {
        Self { plugin, files }
    }

    /// Applies those that this database has not seen. Called at the head of `handle`, before any other
    /// statement.
    ///
    /// # Errors
    /// [`Error::Migration`] says what the database has against it, for example that the role may not make
    /// tables. Then a person applies the files, and notes each in `plugin_migrations`.
    pub fn apply(&self) -> Result<(), Error> {
        let seen = self.seen()?;
        for (version, file) in (1_i64..).zip(self.files).filter(|(version, _)| *version > seen) {
            let what = || format!("migration {version} of `{}` was not applied", self.plugin);
            self.apply_one(version, file).map_err(|error| unmade(error, what))?;
        }
        Ok(())
    }

    fn apply_one(&self, version: i64, file: &str) -> Result<(), Error> {
        for statement in statements(file) {
            execute(&statement, &[])?;
        }
        execute(
            "INSERT INTO plugin_migrations (plugin, version) VALUES ($1, $2)",
            &[&self.plugin, &version],
        )?;
        Ok(())
    }

    /// The last one that this database has seen.
    fn seen(&self) -> Result<i64, Error> {
        let last = || {
            let query = "SELECT max(version) AS version FROM plugin_migrations WHERE plugin = $1";
            let row = query_row(query, &[&self.plugin])?;
            Ok(row.map(|row| row.get("version")).transpose()?.flatten().unwrap_or(0))
        };
        match last() {
            // No such table, in all likelihood. If it is something else, the next fails as well, and says so.
            // Another attempt may have made it in between, and more.
            Err(Error::Statement { .. }) => {
                let what = || "the table `plugin_migrations` was not made".to_owned();
                execute(MAKE, &[]).map_err(|error| unmade(error, what))?;
                last()
            }
            seen => seen,
        }
    }
}

/// A table that was not made may be there now: another attempt was faster. `IF NOT EXISTS` is no help against
/// that, since PostgreSQL looks and makes in two steps. So this may pass.
fn unmade(error: Error, what: impl Fn() -> String) -> Error {
    match error {
        Error::Statement { .. } => Error::Migration(format!("{}: {error}", what())),
        error => error,
    }
}

/// The statements of a file, without comments.
fn statements(file: &str) -> Vec<String> {
    let lines = file.lines().filter(|line| !line.trim_start().starts_with("--"));
    let text: String = lines.flat_map(|line| [line.trim_end(), "\n"]).collect();
    let parts = text.split(";\n").map(|part| part.trim().to_owned());
    parts.filter(|statement| !statement.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_its_statements() {
        for (file, wanted) in [
            ("", vec![]),
            ("-- nothing;\n\n", vec![]),
            ("CREATE TABLE a (b TEXT);", vec!["CREATE TABLE a (b TEXT)"]),
            (
                "-- one;\nCREATE TABLE a (\n  -- why;\n  b TEXT DEFAULT ';'\n);  \n\nCREATE INDEX c ON a (b);\n",
                vec!["CREATE TABLE a (\n  b TEXT DEFAULT ';'\n)", "CREATE INDEX c ON a (b)"],
            ),
        ] {
            assert_eq!(statements(file), wanted, "{file}");
        }
    }
}
