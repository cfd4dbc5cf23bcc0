//! A few read-only connections. A read sees everything that was committed before it began. It uses its
//! connection for one short statement only, because a long read prevents checkpoints of the write-ahead log.

use std::path::PathBuf;

use parking_lot::{Condvar, Mutex};
use posthouse_model::Usage;
use rusqlite::Connection;

use super::schema;

use crate::StoreError;

/// Lends connections, a limited number at once; further callers wait.
pub(super) struct Readers {
    path: PathBuf,
    most: usize,
    pool: Mutex<Pool>,
    returned: Condvar,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Connection>,
    lent: usize,
    closed: bool,
}

impl Readers {
    pub(super) fn new(path: PathBuf, most: usize) -> Self {
        Self { path, most, pool: Mutex::default(), returned: Condvar::new() }
    }

    /// Runs `read` on a connection.
    pub(super) fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let connection = self.borrow()?;
        let answer = read(&connection);
        let mut pool = self.pool.lock();
        pool.lent -= 1;
        if !pool.closed {
            pool.idle.push(connection);
        }
        drop(pool);
        // All of them, because `close` may wait together with callers that want a connection.
        self.returned.notify_all();
        answer.map_err(|error| StoreError::reading(&error))
    }

    /// The number of connections in use.
    pub(super) fn usage(&self) -> Usage {
        Usage { used: self.pool.lock().lent as u64, limit: self.most as u64 }
    }

    /// Waits for the active reads and closes every connection.
    pub(super) fn close(&self) {
        let mut pool = self.pool.lock();
        pool.closed = true;
        pool.idle.clear();
        self.returned.notify_all();
        self.returned.wait_while(&mut pool, |pool| pool.lent > 0);
    }

    fn borrow(&self) -> Result<Connection, StoreError> {
        let mut pool = self.pool.lock();
        self.returned
            .wait_while(&mut pool, |pool| !pool.closed && pool.idle.is_empty() && pool.lent >= self.most);
        if pool.closed {
            return Err(StoreError::Closed);
        }
        pool.lent += 1;
        if let Some(connection) = pool.idle.pop() {
            return Ok(connection);
        }
        drop(pool);
        schema::reader(&self.path).map_err(|error| {
            self.pool.lock().lent -= 1;
            self.returned.notify_all();
            StoreError::reading(&error)
        })
    }
}
