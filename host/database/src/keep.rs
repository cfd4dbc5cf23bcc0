//! Keeps markers while a backup is made.
//!
//! A backup of the store and one of a database are taken at different times. The store's backup does not
//! contain the database's commits in between. Only their markers show that they are done, so the database's
//! backup has to contain the markers. A backup program requests that first, for a limited time, and repeats the
//! request before the time is over. A program that dies holds the markers no longer than that.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// The most holders at once; more are refused.
const MOST: usize = 16;

/// The holders of markers, and until when each holds them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Keep(Arc<Mutex<BTreeMap<String, Instant>>>);

impl Keep {
    /// Keeps markers for `time` from now, or releases them at once if it is zero. Returns whether this holder
    /// has held them without a break until now; none if there are too many holders.
    pub(super) fn hold(&self, holder: &str, time: Duration) -> Option<bool> {
        let now = Instant::now();
        let mut holders = self.0.lock();
        holders.retain(|_, until| *until > now);
        let before = holders.remove(holder).is_some();
        if !time.is_zero() {
            if holders.len() >= MOST {
                return None;
            }
            holders.insert(holder.to_owned(), now + time);
        }
        Some(before)
    }

    /// Whether any holder holds the markers.
    pub(super) fn is_held(&self) -> bool {
        let mut holders = self.0.lock();
        if holders.is_empty() {
            return false;
        }
        let now = Instant::now();
        holders.retain(|_, until| *until > now);
        !holders.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_stay_while_anybody_holds_them_and_no_longer_than_was_asked() {
        let keep = Keep::default();
        let minute = Duration::from_secs(60);
        assert!(!keep.is_held());
        assert_eq!(keep.hold("a", minute), Some(false));
        assert_eq!(keep.hold("b", minute), Some(false));
        assert_eq!(keep.hold("a", minute), Some(true), "asked again");
        assert_eq!(keep.hold("a", Duration::ZERO), Some(true));
        assert!(keep.is_held(), "b holds them still");
        assert_eq!(keep.hold("b", Duration::ZERO), Some(true));
        assert!(!keep.is_held());
        assert_eq!(keep.hold("a", Duration::from_nanos(1)), Some(false));
        std::thread::sleep(Duration::from_millis(1));
        assert!(!keep.is_held());
        assert_eq!(keep.hold("a", minute), Some(false), "it was over");
    }

    #[test]
    fn only_so_many_may_hold_them() {
        let keep = Keep::default();
        for holder in 0..MOST {
            assert_eq!(keep.hold(&holder.to_string(), Duration::from_secs(60)), Some(false));
        }
        assert_eq!(keep.hold("one more", Duration::from_secs(60)), None);
        assert_eq!(keep.hold("0", Duration::from_secs(60)), Some(true));
    }
}
