//! How large the database of a server may become by what plugins write.
//!
//! The server has no such limit, so its size is asked for before a statement that may write, no more than once in
//! [`LOOK`]. Beyond `max_size` plugins may read, delete and drop. What is written between two looks goes beyond
//! it, and so does what others write. Files that a query sorts in are the server's to bound, by `temp_file_limit`.

use std::time::{Duration, Instant};

use bytesize::ByteSize;
use parking_lot::Mutex;

use super::Pool;
use crate::database::Unavailable;

/// How long the size is taken for what it was.
const LOOK: Duration = Duration::from_secs(5);

const SIZE: &str = "SELECT pg_catalog.pg_database_size(pg_catalog.current_database())";

/// The limit, and the size as it was seen last. Bytes.
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
    /// Why plugins may write no more; none while they may.
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

/// Whether a statement, as the guard writes it out, makes nothing larger for long.
pub(super) fn only_frees(statement: &str) -> bool {
    let first = statement.split_whitespace().next().unwrap_or_default();
    ["delete", "drop"].iter().any(|word| first.eq_ignore_ascii_case(word))
}
