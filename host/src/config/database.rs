//! A database for plugins: its URL, read once, here, and what stands beside it.
//!
//! | URL | database |
//! | --- | --- |
//! | `sqlite:data/app.db` | that file, made where it is missing |
//! | `postgres://user:password@host/name` | a PostgreSQL, over TLS that checks its certificate and name |
//! | `postgres://user:password@host/name?sslmode=disable` | the same in clear |
//!
//! Nothing of a PostgreSQL URL stands in an error, since it may hold a password.

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
    /// Where it is.
    pub target: DatabaseTarget,
    /// The most transactions at once; a further one waits. 8 by default.
    pub pool: usize,
    /// The longest that one statement may take; 5 s by default.
    pub statement_timeout: Duration,
    /// The certificates, in PEM, that a PostgreSQL's own is checked against; those of the system by default.
    pub ca: Option<PathBuf>,
    /// The most bytes of the database. Of a file 1 GiB by default, and its log and its temporary files may each
    /// take a quarter more. On a PostgreSQL none by default: beyond it plugins may only read and delete.
    pub max_size: Option<u64>,
    /// Functions of a PostgreSQL that plugins may call beside the built-in ones that only compute: `name` as
    /// found on the search path, or `schema.name`. None by default.
    pub functions: BTreeSet<String>,
}

/// The `url` of `[databases.<name>]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseTarget {
    /// A file.
    Sqlite(PathBuf),
    /// A server, by a URL that [`tokio_postgres::Config`] reads.
    Postgres(Secret),
}

/// `sqlite:` and the path of a file, or the URL of a PostgreSQL, which may be a secret.
pub(super) fn database_url(value: &Value<'_>) -> Result<DatabaseTarget, Fault> {
    let way_out = "write \"sqlite:data/app.db\" or \"postgres://USER:PASSWORD@HOST/NAME\"";
    let sqlite = |file: &str| match file.strip_prefix("//").unwrap_or(file) {
        "" | ":memory:" => Err(value.fault(format_args!("names no file; {way_out}"))),
        file if file.ends_with('/') => Err(value.fault(format_args!("names a folder; {way_out}"))),
        file => Ok(DatabaseTarget::Sqlite(value.document.dir.join(file))),
    };
    // A file is no secret, and must not count as one that stands in config.toml.
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

/// The most bytes of a name in PostgreSQL.
const NAME: usize = 63;

/// The name of a function in PostgreSQL's catalog: `name` or `schema.name`.
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

/// Reads the URL of a PostgreSQL. `sslmode=verify-full`, which the driver has no word for, is what every mode
/// but `disable` means here.
///
/// # Errors
/// Where it is none.
pub fn read_postgres_url(url: &str) -> Result<tokio_postgres::Config, tokio_postgres::Error> {
    let Some((before, query)) = url.split_once('?') else { return url.parse() };
    let query: Vec<_> = query
        .split('&')
        .map(|part| if part == "sslmode=verify-full" { "sslmode=require" } else { part })
        .collect();
    format!("{before}?{}", query.join("&")).parse()
}

/// The name of one of the databases that config.toml describes.
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
