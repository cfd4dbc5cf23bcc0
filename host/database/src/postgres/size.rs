//! Limits the size that plugins' writes may give a server's database.
//!
//! PostgreSQL has no such limit. So posthouse asks for the size before a statement that may write, at most once
//! in [`LOOK`]. Beyond `max_size` plugins may read, delete and drop. Writes between two checks go beyond the
//! limit, and so do writes of others. `temp_file_limit` of the server limits the files in which a query sorts.

use std::time::{Duration, Instant};

use bytesize::ByteSize;
use parking_lot::Mutex;

use super::Pool;
use crate::Unavailable;

/// How long a size is used before the server is asked again.
const LOOK: Duration = Duration::from_secs(5);

const SIZE: &str = "SELECT pg_catalog.pg_database_size(pg_catalog.current_database())";

/// The limit, and the last known size, in bytes.
#[derive(Debug)]
pub(super) struct Size {
    most: Option<u64>,
    seen: Mutex<Option<(Instant, u64)>>,
}

impl Size {
    pub(super) fn new(most: Option<u64>) -> Self {
        Self { most, seen: Mutex::new(None) }
    }
}

impl Pool {
    /// Why plugins may not write any more; none while they may.
    pub(super) async fn full(&self) -> Result<Option<String>, Unavailable> {
        let Some(most) = self.size.most else { return Ok(None) };
        let seen = *self.size.seen.lock();
        let size = match seen {
            Some((at, size)) if at.elapsed() < LOOK => size,
            _ => {
                let asked = self.apart(async |session| session.client.query_one(SIZE, &[]).await?.try_get(0));
                let size: i64 = asked.await?;
                let size = u64::try_from(size).unwrap_or(0);
                *self.size.seen.lock() = Some((Instant::now(), size));
                size
            }
        };
        Ok((size > most).then(|| {
            format!(
                "limit `max_size` ({}) of [databases.{}] reached: it has {}; delete rows and have the server \
                 vacuum them away, or raise `max_size`",
                ByteSize(most),
                self.name,
                ByteSize(size)
            )
        }))
    }
}

/// Whether a statement, as the guard writes it, makes nothing permanently larger.
pub(super) fn only_frees(statement: &str) -> bool {
    let first = statement.split_whitespace().next().unwrap_or_default();
    ["delete", "drop"].iter().any(|word| first.eq_ignore_ascii_case(word))
}
