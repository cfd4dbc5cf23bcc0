//! The reading half: answers questions on connections of its own, beside the session.

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

    /// Ends all reading.
    pub(crate) fn close(&self) {
        self.file.guests.close();
        self.file.people.close();
    }

    /// Why nothing is taken in while the disk is nearly full.
    pub(crate) fn shortage(&self) -> Option<StoreError> {
        self.file.space.shortage()
    }

    /// Connections that read the store: those of guests, and those of people.
    pub(crate) fn readers(&self) -> [(&'static str, Usage); 2] {
        [("guests", self.file.guests.usage()), ("people", self.file.people.usage())]
    }

    /// Bytes that are free on the disk, and bytes that it has; none where the system does not say.
    pub(crate) fn disk(&self) -> Option<(u64, u64)> {
        let disk = rustix::fs::statvfs(self.file.path()).ok()?;
        Some((disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize)))
    }

    /// Has the next batch that writes fail like this.
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

    /// Runs `read`, a step of many, on the thread that gives way to all others.
    pub(super) async fn read_at_low_priority<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Answer<T> {
        let file = Arc::clone(&self.file);
        let answer = self.low_priority.run(move || file.people.with(read)).await;
        answer.unwrap_or_else(|| Err(StoreError::Io("a long read did not end".to_owned())))
    }
}
