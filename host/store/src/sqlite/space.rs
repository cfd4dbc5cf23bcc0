//! The free space on the store's disk. With less than `min_free`, nothing more is accepted, so that stored
//! events can be finished.
//!
//! The thread that checkpoints the log reads it ten times a second, instead of at each event. If the disk
//! fills faster than that, a write meets a full disk, which the store survives. Once there is too little
//! space, an eighth more has to become free before events are accepted again. Otherwise each sweep would let
//! in a few events and stop.

use std::{
    fs::File,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use bytesize::ByteSize;

use crate::StoreError;

/// The known sizes, in bytes.
#[derive(Debug)]
pub(super) struct Space {
    /// The space to keep free; 0: no limit.
    least: u64,
    /// The last value; `u64::MAX` if the system does not report it.
    free: AtomicU64,
    short: AtomicBool,
    unknown: AtomicBool,
}

impl Space {
    pub(super) fn new(least: u64) -> Self {
        Self {
            least,
            free: AtomicU64::new(u64::MAX),
            short: AtomicBool::new(false),
            unknown: AtomicBool::new(false),
        }
    }

    /// The space to keep free; 0: no limit.
    pub(super) fn least(&self) -> u64 {
        self.least
    }

    /// Reads the free space of the disk with this file.
    pub(super) fn look(&self, file: &File) {
        let free = match rustix::fs::fstatvfs(file) {
            // Some network file systems report no size.
            Ok(disk) if disk.f_blocks > 0 => disk.f_bavail.saturating_mul(disk.f_frsize),
            Ok(_) => u64::MAX,
            Err(error) => {
                if !self.unknown.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "could not read the free space of the store's disk; `min_free` has no effect");
                }
                u64::MAX
            }
        };
        self.saw(free);
    }

    fn saw(&self, free: u64) {
        self.free.store(free, Ordering::Relaxed);
        let was_short = self.short.load(Ordering::Relaxed);
        let wanted = if was_short { self.least + self.least / 8 } else { self.least };
        let short = free < wanted;
        self.short.store(short, Ordering::Relaxed);
        match (was_short, short) {
            (false, true) => tracing::error!(
                free = %ByteSize(free),
                min_free = %ByteSize(self.least),
                "the store's disk is nearly full: events get 503 until space is free"
            ),
            (true, false) => {
                tracing::info!(free = %ByteSize(free), "the store's disk has enough free space again")
            }
            _ => {}
        }
    }

    /// The free bytes, as last read.
    pub(super) fn free(&self) -> Option<u64> {
        Some(self.free.load(Ordering::Relaxed)).filter(|free| *free != u64::MAX)
    }

    /// Why nothing more is accepted, if there is too little space.
    pub(super) fn shortage(&self) -> Option<StoreError> {
        self.short
            .load(Ordering::Relaxed)
            .then(|| StoreError::NoSpace { free: self.free.load(Ordering::Relaxed), least: self.least })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_stays_too_little_until_there_is_an_eighth_more() {
        let space = Space::new(800);
        let short = |free| {
            space.saw(free);
            space.shortage().is_some()
        };
        assert_eq!(
            [800, 799, 800, 899, 900, 800, 0, u64::MAX].map(short),
            [false, true, true, true, false, false, true, false]
        );
        assert_eq!(space.free(), None);
        let unbounded = Space::new(0);
        unbounded.saw(0);
        assert_eq!((unbounded.free(), unbounded.shortage()), (Some(0), None));
    }

    #[test]
    fn a_disk_says_what_it_has_left() {
        let space = Space::new(1);
        space.look(&tempfile::tempfile().unwrap());
        assert!(space.free().is_some_and(|free| free > 0), "{space:?}");
    }
}
