//! The room on the store's disk: with less than is to stay free nothing more is taken in, so that what was
//! taken in can be finished.
//!
//! It is looked at ten times a second, by the thread that checkpoints the log, and not at each event; who fills
//! the disk faster than that meets a full disk, which the store outlives. Once too little is left, an eighth
//! more has to come free before events are taken in again: else each sweep would let in a few and stop.

use std::{
    fs::File,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use bytesize::ByteSize;

use crate::StoreError;

/// What is known of the room. Bytes.
#[derive(Debug)]
pub(super) struct Space {
    /// What is to stay free; 0: all may be used.
    least: u64,
    /// As it was seen last; `u64::MAX` where the system does not say.
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

    /// What is to stay free; 0: all may be used.
    pub(super) fn least(&self) -> u64 {
        self.least
    }

    /// Looks at the disk that this file is on.
    pub(super) fn look(&self, file: &File) {
        let free = match rustix::fs::fstatvfs(file) {
            // Some file systems of a network have no size.
            Ok(disk) if disk.f_blocks > 0 => disk.f_bavail.saturating_mul(disk.f_frsize),
            Ok(_) => u64::MAX,
            Err(error) => {
                if !self.unknown.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "the room on the store's disk is not known; `min_free` has no effect");
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
                "the store's disk is nearly full: events are answered 503 until there is room"
            ),
            (true, false) => {
                tracing::info!(free = %ByteSize(free), "there is room on the store's disk again")
            }
            _ => {}
        }
    }

    /// Bytes that are free, as far as is known.
    pub(super) fn free(&self) -> Option<u64> {
        Some(self.free.load(Ordering::Relaxed)).filter(|free| *free != u64::MAX)
    }

    /// Why nothing more is taken in, where too little is free.
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
