//! Detects objects that hide others: a name without a schema means the first object of that name on the search
//! path.
//!
//! If a plugin creates an object, the statements of other plugins must keep their meaning. So a statement that
//! creates or renames something is rolled back if more is hidden after it than before it.

use std::fmt;

use tokio_postgres::{Error, Row};

/// Finds names that several schemas of the search path have.
pub(super) const FIND: &str = "
WITH path AS (
    SELECT n.oid, n.nspname, p.at
    FROM unnest(pg_catalog.current_schemas(false)) WITH ORDINALITY AS p (name, at)
    JOIN pg_catalog.pg_namespace n ON n.nspname = p.name
), named AS (
    SELECT path.nspname, path.at, c.relname AS name
    FROM path JOIN pg_catalog.pg_class c ON c.relnamespace = path.oid
    WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p', 'S')
    UNION
    SELECT path.nspname, path.at, t.typname
    FROM path JOIN pg_catalog.pg_type t ON t.typnamespace = path.oid
    WHERE t.typtype IN ('c', 'd', 'e', 'r')
)
SELECT seen.nspname::text, hidden.nspname::text, seen.name::text
FROM named AS seen JOIN named AS hidden ON hidden.name = seen.name AND hidden.at > seen.at
WHERE (SELECT count(*) FROM path) > 1";

/// An object that hides another one.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hides {
    seen: String,
    hidden: String,
    name: String,
}

impl Hides {
    pub(super) fn read(row: &Row) -> Result<Self, Error> {
        Ok(Self { seen: row.try_get(0)?, hidden: row.try_get(1)?, name: row.try_get(2)? })
    }
}

impl fmt::Display for Hides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seen, hidden, name } = self;
        write!(
            f,
            "`{seen}.{name}` would hide `{hidden}.{name}` from statements that name no schema; choose another name, \
             or write the schema"
        )
    }
}
