//! The settings of a plugins' database. Its URL is parsed here, once.
//!
//! | URL | database |
//! | --- | --- |
//! | `sqlite:data/app.db` | that file, created if it is missing |
//! | `postgres://user:password@host/name` | PostgreSQL over TLS; certificate and name are verified |
//! | `postgres://user:password@host/name?sslmode=disable` | PostgreSQL without TLS |
//!
//! An error contains nothing of a PostgreSQL URL, since the URL may contain a password.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use super::{
    Secret,
    diagnose::{listed, nearest, shown},
    secret::secret,
    table::{Fault, Value},
    value::text,
};

/// `[databases.<name>]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseSettings {
    /// The file or server.
    pub target: DatabaseTarget,
    /// The most transactions at once; further ones wait. 8 by default.
    pub pool: usize,
    /// The longest time of one statement; 5 s by default.
    pub statement_timeout: Duration,
    /// A PEM file of the certificates that PostgreSQL's own is verified against; those of the system by
    /// default.
    pub ca: Option<PathBuf>,
    /// The most bytes of the database. For a file it is 1 GiB by default; the write-ahead log and the temporary
    /// files may each take a quarter more. PostgreSQL has no limit by default. Beyond its limit, plugins may
    /// only read and delete there.
    pub max_size: Option<u64>,
    /// Functions in PostgreSQL that plugins may call besides the built-in ones that only compute. Each is
    /// `name`, found on the search path, or `schema.name`. None by default.
    pub functions: BTreeSet<String>,
}

/// The `url` of `[databases.<name>]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseTarget {
    /// A file.
    Sqlite(PathBuf),
    /// A server, by a URL that [`tokio_postgres::Config`] parses.
    Postgres(Secret),
}

/// Reads `sqlite:` and the path of a file, or the URL of a PostgreSQL, which may be a secret.
pub(super) fn database_url(value: &Value<'_>) -> Result<DatabaseTarget, Fault> {
    let way_out = "write \"sqlite:data/app.db\" or \"postgres://USER:PASSWORD@HOST/NAME\"";
    let sqlite = |file: &str| match file.strip_prefix("//").unwrap_or(file) {
        "" | ":memory:" => Err(value.fault(format_args!("names no file; {way_out}"))),
        file if file.ends_with('/') => Err(value.fault(format_args!("names a folder; {way_out}"))),
        file => Ok(DatabaseTarget::Sqlite(value.document.dir.join(file))),
    };
    // A file is no secret, and must not count as a secret in config.toml.
    if let Some(file) = value.get().as_str().and_then(|text| text.strip_prefix("sqlite:")) {
        return sqlite(file);
    }
    let url = secret(value)?;
    let text = url.expose();
    if let Some(file) = text.strip_prefix("sqlite:") {
        return sqlite(file);
    }
    if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
        return Err(value.fault(format_args!("is no database; {way_out}")));
    }
    let server = read_postgres_url(text).map_err(|_| {
        value.fault(format_args!(
            "is no URL of a PostgreSQL; {way_out}, where `?sslmode=` may be `verify-full`, which is the default, \
             or `disable`"
        ))
    })?;
    if server.get_hosts().is_empty() {
        return Err(value.fault(format_args!("names no host; {way_out}")));
    }
    Ok(DatabaseTarget::Postgres(url))
}

/// The longest name in PostgreSQL, in bytes.
const NAME: usize = 63;

/// Reads the name of a function in PostgreSQL's catalog: `name` or `schema.name`.
pub(super) fn function_name(value: &Value<'_>) -> Result<String, Fault> {
    let name = text(value)?;
    let is_part = |part: &str| {
        let starts = part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii());
        let goes_on = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii();
        starts && part.len() <= NAME && part.chars().all(goes_on)
    };
    if name.split('.').count() <= 2 && name.split('.').all(is_part) {
        return Ok(name.to_owned());
    }
    Err(value.fault(format_args!(
        "holds `{}`, which names no function; write its name, or schema and name, such as \"similarity\" or \
         \"app.next_invoice\"",
        shown(name)
    )))
}

/// Parses the URL of a PostgreSQL. The driver has no word for `sslmode=verify-full`; here every mode but
/// `disable` means that.
///
/// # Errors
/// The text is no URL of a PostgreSQL.
pub fn read_postgres_url(url: &str) -> Result<tokio_postgres::Config, tokio_postgres::Error> {
    let Some((before, query)) = url.split_once('?') else { return url.parse() };
    let query: Vec<_> = query
        .split('&')
        .map(|part| if part == "sslmode=verify-full" { "sslmode=require" } else { part })
        .collect();
    format!("{before}?{}", query.join("&")).parse()
}

/// Reads the name of a database that config.toml describes.
pub(super) fn named_database(value: &Value<'_>, databases: &[&str]) -> Result<String, Fault> {
    let name = text(value)?;
    if databases.contains(&name) {
        return Ok(name.to_owned());
    }
    let way_out = match nearest(name, databases.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if databases.is_empty() => {
            format!("add [databases.{}] with a `url`", shown(name))
        }
        None => format!("the databases are {}", listed(databases)),
    };
    Err(value.fault(format_args!("is `{}`, which no [databases.<name>] describes; {way_out}", shown(name))))
}
