//! Counts the different deliveries of a plugin that failed since its last success, and says when its breaker
//! should open or close. The state machine of an open breaker is in `model/breaker.rs`; `health.rs` puts a
//! verdict into force.
//!
//! A successful attempt only reads one number. Each revision has its own count, so attempts that end on an old
//! revision say nothing about the new one.
//!
//! An open breaker is recorded with the plugin. After a restart, a trial begins at once: the daemon remembers
//! that the plugin failed and does not wait for the pause to end. The failed deliveries are not recorded. Those
//! that fail again after a restart count again.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use parking_lot::Mutex;
use posthouse_model::{DeliveryId, Pauses, Trip};

/// The most deliveries that are remembered as bad. Beyond that, all are forgotten.
const KNOWN: usize = 16_384;

/// The most failed deliveries that are counted: the largest threshold.
const COUNTED: usize = 1_000_000;

/// The largest factor by which false alarms raise the threshold.
const LEEWAY: u32 = 16;

/// The report of an attempt on its plugin's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// The attempt ended normally: done, or rejected by the guest.
    Well,
    /// A trap, a limit, a timeout, or the guest's own `retry` or `retry-after`.
    Failed,
    /// Unknown: something beside the plugin was missing.
    Unknown,
}

/// The change of the breaker after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Unchanged,
    /// It should open, because this many different deliveries have failed since the last success.
    Open(u32),
    /// It is open and should close, because an attempt succeeded.
    Close,
}

/// The different deliveries that failed since the last success.
#[derive(Debug, Default)]
pub(super) struct Streak {
    deliveries: Mutex<Deliveries>,
    /// The number of deliveries remembered, failed and bad together.
    remembered: AtomicUsize,
    /// Whether the breaker is open, or about to open.
    tripped: AtomicBool,
}

/// The breaker opened, and a success closed it within one `pause`, so events were bad and not the plugin. For
/// one more `pause` the threshold is higher, so that a burst of bad events opens the breaker only a few times.
#[derive(Debug, Clone, Copy)]
struct FalseAlarm {
    /// The factor by which the threshold has grown.
    times: u32,
    /// When that ends.
    until: Timestamp,
}

#[derive(Debug, Default)]
struct Deliveries {
    /// Deliveries that failed, with no success since.
    failed: HashSet<DeliveryId>,
    /// Deliveries that failed while another succeeded: these deliveries are bad, and not the plugin.
    bad: HashSet<DeliveryId>,
    /// The last false alarm.
    alarm: Option<FalseAlarm>,
}

impl Deliveries {
    fn leeway(&self, now: Timestamp, pauses: Pauses) -> u32 {
        let lasts = |alarm: &FalseAlarm| {
            let left = alarm.until.duration_since(now);
            // If more than a pause is left, the clock was set back.
            left.is_positive() && Duration::try_from(left).is_ok_and(|left| left <= pauses.first)
        };
        self.alarm.filter(lasts).map_or(1, |alarm| alarm.times)
    }
}

impl Streak {
    /// A new streak for a breaker in this state.
    pub(super) fn of(trip: Option<&Trip>) -> Arc<Self> {
        Arc::new(Self { tripped: AtomicBool::new(trip.is_some()), ..Self::default() })
    }

    /// Counts how an attempt of this delivery went. `threshold` is the number of failures that opens the
    /// breaker; 0 means that it never opens.
    pub(super) fn judge(
        &self,
        delivery: DeliveryId,
        health: Health,
        threshold: u32,
        now: Timestamp,
        pauses: Pauses,
    ) -> Verdict {
        match health {
            Health::Well => {
                self.end(delivery);
                if self.is_tripped() { Verdict::Close } else { Verdict::Unchanged }
            }
            Health::Failed if threshold > 0 => {
                let failures = self.add(delivery);
                let reached =
                    failures >= threshold && failures >= threshold.saturating_mul(self.leeway(now, pauses));
                if reached { Verdict::Open(failures) } else { Verdict::Unchanged }
            }
            Health::Failed | Health::Unknown => Verdict::Unchanged,
        }
    }

    /// Whether the breaker is open, or about to open.
    pub(super) fn is_tripped(&self) -> bool {
        self.tripped.load(Ordering::Acquire)
    }

    /// Marks the breaker as about to open. Returns false if it was marked already.
    pub(super) fn trip(&self) -> bool {
        !self.tripped.swap(true, Ordering::AcqRel)
    }

    /// Takes the mark back, because the breaker did not open.
    pub(super) fn untrip(&self) {
        self.tripped.store(false, Ordering::Release);
    }

    /// How many deliveries failed since the last success.
    pub(super) fn length(&self) -> u32 {
        match self.remembered.load(Ordering::Relaxed) {
            0 => 0,
            _ => u32::try_from(self.deliveries.lock().failed.len()).unwrap_or(u32::MAX),
        }
    }

    /// Records a success: the failed deliveries are now known to be bad. Without failures it writes nothing, so
    /// that successful attempts do not contend.
    pub(super) fn end(&self, succeeded: DeliveryId) {
        if self.remembered.load(Ordering::Relaxed) == 0 {
            return;
        }
        self.change(|Deliveries { failed, bad, .. }| {
            if bad.len() + failed.len() > KNOWN {
                bad.clear();
            }
            bad.extend(failed.drain().take(KNOWN));
            bad.remove(&succeeded);
        });
    }

    /// Records a failure. Returns how many different deliveries have failed by now.
    fn add(&self, delivery: DeliveryId) -> u32 {
        self.change(|Deliveries { failed, bad, .. }| {
            if !bad.contains(&delivery) && failed.len() < COUNTED {
                failed.insert(delivery);
            }
            u32::try_from(failed.len()).unwrap_or(u32::MAX)
        })
    }

    /// The factor by which the threshold has grown at this time.
    fn leeway(&self, now: Timestamp, pauses: Pauses) -> u32 {
        self.deliveries.lock().leeway(now, pauses)
    }

    /// Closes the breaker, which was open as `trip` says, after a success.
    pub(super) fn close(&self, trip: Trip, now: Timestamp, pauses: Pauses) {
        self.untrip();
        self.change(|deliveries| {
            let open = Duration::try_from(now.duration_since(trip.since)).unwrap_or(Duration::MAX);
            deliveries.alarm = (open < pauses.first).then(|| FalseAlarm {
                times: deliveries.leeway(now, pauses).saturating_mul(2).min(LEEWAY),
                until: now.saturating_add(pauses.first).unwrap_or(Timestamp::MAX),
            });
        });
    }

    fn change<T>(&self, change: impl FnOnce(&mut Deliveries) -> T) -> T {
        let mut deliveries = self.deliveries.lock();
        let answer = change(&mut deliveries);
        self.remembered.store(deliveries.failed.len() + deliveries.bad.len(), Ordering::Relaxed);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSES: Pauses = Pauses { first: Duration::from_secs(30), most: Duration::from_secs(600) };

    #[test]
    fn each_false_alarm_doubles_the_threshold_for_a_pause_and_an_outage_does_not() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let tripped = |second| Trip::first(10, at(second), PAUSES);
        let streak = Streak::default();
        let seen = [0, 1, 2, 3, 4, 5].map(|second| {
            streak.close(tripped(second), at(second), PAUSES);
            streak.leeway(at(second), PAUSES)
        });
        assert_eq!(seen, [2, 4, 8, 16, 16, 16]);
        assert_eq!([34, 35, 36].map(|second| streak.leeway(at(second), PAUSES)), [16, 1, 1]);
        assert_eq!(streak.leeway(at(-3600), PAUSES), 1, "the clock was set back");
        streak.close(tripped(5), at(35), PAUSES);
        assert_eq!(streak.leeway(at(35), PAUSES), 1, "it was open for a whole pause");
    }

    #[test]
    fn the_threshold_opens_the_breaker_and_a_success_closes_it() {
        let streak = Streak::default();
        let judge = |delivery, health, threshold| {
            streak.judge(DeliveryId(delivery), health, threshold, Timestamp::UNIX_EPOCH, PAUSES)
        };
        assert_eq!(judge(1, Health::Failed, 2), Verdict::Unchanged);
        assert_eq!(judge(2, Health::Unknown, 2), Verdict::Unchanged);
        assert_eq!(judge(3, Health::Failed, 2), Verdict::Open(2));
        assert_eq!(judge(4, Health::Failed, 0), Verdict::Unchanged, "it never opens");
        assert!(streak.trip() && !streak.trip() && streak.is_tripped());
        assert_eq!(judge(5, Health::Well, 2), Verdict::Close);
        streak.close(Trip::first(2, Timestamp::UNIX_EPOCH, PAUSES), Timestamp::UNIX_EPOCH, PAUSES);
        assert_eq!(judge(6, Health::Well, 2), Verdict::Unchanged);
        let verdicts = [7, 8, 9, 10].map(|delivery| judge(delivery, Health::Failed, 2));
        assert_eq!(
            verdicts[2..],
            [Verdict::Unchanged, Verdict::Open(4)],
            "after a false alarm it takes more"
        );
        streak.trip();
        streak.untrip();
        assert!(!streak.is_tripped());
    }

    #[test]
    fn a_delivery_counts_once_and_one_that_failed_before_a_success_counts_no_more() {
        let streak = Streak::default();
        let [a, b, c] = [1, 2, 3].map(DeliveryId);
        assert_eq!([streak.add(a), streak.add(a), streak.add(b)], [1, 1, 2]);
        streak.end(c);
        assert_eq!((streak.length(), streak.add(a), streak.add(c)), (0, 0, 1));
        streak.end(b);
        assert_eq!([streak.add(a), streak.add(c)], [0, 0]);
        assert_eq!(streak.add(b), 1, "b succeeded: it is not bad");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let streak = Streak::default();
        for n in 0..3 * KNOWN as i64 {
            streak.add(DeliveryId(n));
            if n % 100 == 0 {
                streak.end(DeliveryId(-1));
            }
        }
        streak.end(DeliveryId(-1));
        assert!(streak.remembered.load(Ordering::Relaxed) <= KNOWN);
    }
}
