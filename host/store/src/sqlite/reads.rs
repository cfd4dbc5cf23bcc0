//! The reading half: answers queries on its own connections, beside the session.

use std::{io, sync::Arc};

use posthouse_model::Usage;
use rusqlite::Connection;

use super::{file::OpenFile, low_priority::LowPriorityReads};

use crate::{Answer, StoreError, engine::Features};

/// The readers, and where slow queries run.
pub(crate) struct Reads {
    pub(super) file: Arc<OpenFile>,
    low_priority: LowPriorityReads,
}

impl Reads {
    pub(super) fn new(file: Arc<OpenFile>) -> io::Result<Self> {
        Ok(Self { file, low_priority: LowPriorityReads::start()? })
    }

    pub(crate) fn features(&self) -> Features {
        Features { backup: true, size_bound: true, leases_expire: false, charts: true }
    }

    /// Ends all reads.
    pub(crate) fn close(&self) {
        self.file.guests.close();
        self.file.people.close();
    }

    /// Why nothing is accepted while the disk is nearly full.
    pub(crate) fn shortage(&self) -> Option<StoreError> {
        self.file.space.shortage()
    }

    /// Connections that read the store, for guests and for operators.
    pub(crate) fn readers(&self) -> [(&'static str, Usage); 2] {
        [("guests", self.file.guests.usage()), ("people", self.file.people.usage())]
    }

    /// Free bytes and total bytes of the disk; none if the system does not report them.
    pub(crate) fn disk(&self) -> Option<(u64, u64)> {
        let disk = rustix::fs::statvfs(self.file.path()).ok()?;
        Some((disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize)))
    }

    /// Lets the next writing batch fail like this.
    #[cfg(test)]
    pub(crate) fn inject(&self, injected: super::tests::Injected) {
        *self.file.injected.lock() = Some(injected);
    }

    /// Runs `read` on a reader's connection, off the async threads.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Answer<T> {
        let file = Arc::clone(&self.file);
        tokio::task::spawn_blocking(move || file.people.with(read))
            .await
            .unwrap_or_else(|error| Err(StoreError::Io(error.to_string())))
    }

    /// Runs `read`, one step of a query, on the low-priority thread.
    pub(super) async fn read_at_low_priority<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Answer<T> {
        let file = Arc::clone(&self.file);
        let answer = self.low_priority.run(move || file.people.with(read)).await;
        answer.unwrap_or_else(|| Err(StoreError::Io("a slow query did not finish".to_owned())))
    }
}
