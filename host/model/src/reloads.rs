//! The ledger of reloads: how often config.toml was read again, and the results.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counts since the daemon started.
#[derive(Debug, Default)]
pub struct ReloadLedger {
    taken: AtomicU64,
    refused: AtomicU64,
    refused_last: AtomicBool,
}

/// The counts of reloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReloadCounts {
    /// Reloads that put a configuration into force.
    pub taken: u64,
    /// Reloads that changed nothing, because of an error.
    pub refused: u64,
    /// Whether the newest configuration is in force. True if there was no reload.
    pub last_taken: bool,
}

impl ReloadLedger {
    /// Counts a reload.
    pub fn count(&self, taken: bool) {
        if taken { &self.taken } else { &self.refused }.fetch_add(1, Ordering::Relaxed);
        self.refused_last.store(!taken, Ordering::Relaxed);
    }

    /// The counts so far.
    pub fn snapshot(&self) -> ReloadCounts {
        ReloadCounts {
            taken: self.taken.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            last_taken: !self.refused_last.load(Ordering::Relaxed),
        }
    }
}
