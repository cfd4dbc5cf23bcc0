//! A plugin's tables, which the plugin creates itself.
//!
//! Migrations are files `migrations/<name>.sql` of the plugin's crate. They are applied in order, each once
//! per database, in the transaction of the attempt that finds it missing. If that attempt fails, its tables
//! are rolled back. If two attempts apply a migration at once, one of them is retried. The table
//! `plugin_migrations` records which migrations ran. When all have run, [`Migrations::apply`] costs one
//! query. The instance does not cache this, because an attempt can be rolled back after it applied a
//! migration.
//!
//! Statements end with a `;` at the end of a line. Lines that begin with `--` are comments. Never change a
//! file that has run: write a new one that changes its tables.

use super::{Error, execute, query_row};

/// The migrations of a plugin, usually created by [`migrations!`](crate::migrations).
#[derive(Debug, Clone, Copy)]
pub struct Migrations {
    plugin: &'static str,
    files: &'static [&'static str],
}

/// Includes the files `migrations/<name>.sql` of this crate, in this order. Use the macro in a file in the
/// folder `src`; the folder `migrations` is next to `src`.
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
    /// Creates the migrations of the plugin of this name, each the text of a file.
    pub const fn new(plugin: &'static str, files: &'static [&'static str]) -> Self {
        Self { plugin, files }
    }

    /// Applies the migrations that this database has not seen. Call it at the beginning of `handle`, before
    /// any other statement.
    ///
    /// # Errors
    /// [`Error::Migration`] contains the database's error, for example that the role may not create tables.
    /// Then a person applies the files, and records each in `plugin_migrations`.
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

    /// The last migration that this database has seen.
    fn seen(&self) -> Result<i64, Error> {
        let last = || {
            let query = "SELECT max(version) AS version FROM plugin_migrations WHERE plugin = $1";
            let row = query_row(query, &[&self.plugin])?;
            Ok(row.map(|row| row.get("version")).transpose()?.flatten().unwrap_or(0))
        };
        match last() {
            // The table most likely does not exist. With any other error, the next statement fails as well,
            // and reports it.
            // Another attempt may have created it meanwhile, and applied migrations.
            Err(Error::Statement { .. }) => {
                let what = || "the table `plugin_migrations` was not created".to_owned();
                execute(MAKE, &[]).map_err(|error| unmade(error, what))?;
                last()
            }
            seen => seen,
        }
    }
}

/// Another attempt may have created the table first. `IF NOT EXISTS` does not prevent this error, because
/// PostgreSQL checks and creates in two steps. So a retry may succeed.
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
