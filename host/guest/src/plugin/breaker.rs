//! Counts the different deliveries of a plugin that failed since its last success, and opens its breaker. The
//! state machine is in `model/breaker.rs`.
//!
//! Each attempt reports its plugin's health ([`Health`]). A successful attempt only reads one number. Only the
//! failure that reaches the threshold takes the registry's lock. Each revision has its own count, so attempts
//! that end on an old revision say nothing about the new one.
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
use posthouse_model::{DeliveryId, Pauses, Trip, Vain};
use posthouse_store::PluginChange;

use super::{registry::Registry, standing::Plugin};

/// The most deliveries that are remembered as bad. Beyond that, all are forgotten.
const KNOWN: usize = 16_384;

/// The most failed deliveries that are counted: the largest threshold.
const COUNTED: usize = 1_000_000;

/// The largest factor by which false alarms raise the threshold.
const LEEWAY: u32 = 16;

/// What an attempt says about its plugin's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// The attempt ended normally: done, or rejected by the guest.
    Well,
    /// A trap, a limit, a timeout, or the guest's own `retry` or `retry-after`.
    Failed,
    /// Unknown: something beside the plugin was missing.
    Unknown,
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

    /// How many deliveries failed since the last success.
    fn length(&self) -> u32 {
        match self.remembered.load(Ordering::Relaxed) {
            0 => 0,
            _ => u32::try_from(self.deliveries.lock().failed.len()).unwrap_or(u32::MAX),
        }
    }

    /// Records a success: the failed deliveries are now known to be bad. Without failures it writes nothing, so
    /// that successful attempts do not contend.
    fn end(&self, succeeded: DeliveryId) {
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
    fn close(&self, trip: Trip, now: Timestamp, pauses: Pauses) {
        self.tripped.store(false, Ordering::Release);
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

impl Plugin {
    /// How many different deliveries failed since the last success.
    pub fn failures_in_a_row(&self) -> u32 {
        self.streak.length()
    }

    /// Whether the breaker is open, even if that is not recorded yet. A runner that was started while it was
    /// closed must begin no more attempts then.
    pub fn is_tripped(&self) -> bool {
        self.streak.tripped.load(Ordering::Acquire)
    }

    /// Records that an attempt of this delivery has committed. Callers report this at once and not when
    /// everything is on disk. Otherwise failures in between would count as failures in a row.
    pub fn went_well(&self, delivery: DeliveryId) {
        self.streak.end(delivery);
    }
}

impl Registry {
    /// Records how an attempt of this delivery went. Opens or closes the plugin's breaker if needed.
    pub async fn record_health(&self, plugin: &Plugin, delivery: DeliveryId, health: Health) {
        let most = plugin.settings.breaker.failures;
        match health {
            Health::Unknown => {}
            Health::Well => {
                plugin.streak.end(delivery);
                if plugin.is_tripped() {
                    self.close(plugin).await;
                }
            }
            Health::Failed if most == 0 => {}
            Health::Failed => {
                let failures = plugin.streak.add(delivery);
                if failures >= most && failures >= most.saturating_mul(self.leeway(plugin)) {
                    self.open(plugin, failures).await;
                }
            }
        }
    }

    fn leeway(&self, plugin: &Plugin) -> u32 {
        plugin.streak.leeway(self.inner().env.now(), plugin.pauses())
    }

    async fn open(&self, plugin: &Plugin, failures: u32) {
        // Set at once, so that no attempt begins while this is being recorded.
        if plugin.streak.tripped.swap(true, Ordering::AcqRel) {
            return;
        }
        let now = self.inner().env.now();
        let opened = self
            .turn(plugin, |current| {
                current.trip.is_none().then(|| Some(Trip::first(failures, now, current.pauses())))
            })
            .await;
        if opened {
            tracing::warn!(
                plugin = plugin.record.name,
                failures,
                "different deliveries failed in a row; only some that have never run are tried"
            );
        } else {
            plugin.streak.tripped.store(false, Ordering::Release);
        }
    }

    async fn close(&self, plugin: &Plugin) {
        let (mut was, now) = (None, self.inner().env.now());
        let closed = self
            .turn(plugin, |current| {
                was = current.trip;
                was.map(|_| None)
            })
            .await;
        if let Some(trip) = was.filter(|_| closed) {
            plugin.streak.close(trip, now, plugin.pauses());
            tracing::info!(plugin = plugin.record.name, "an attempt succeeded; all deliveries run again");
        }
    }

    /// Records that everything that a trial of this plugin tried has failed. Returns false if the breaker has
    /// changed since the trial began, or if the store did not record this. The trial goes on then.
    pub async fn trial_failed(&self, plugin: &Plugin, vain: Vain) -> bool {
        let now = self.inner().env.now();
        let mut next = None;
        let turned = self
            .turn(plugin, |current| {
                // After a resume, another revision or the end of a pause, this trial's result is outdated.
                next = current
                    .trip
                    .filter(|_| current.trip == plugin.trip)
                    .map(|trip| trip.again(now, vain, current.pauses()));
                next.map(Some)
            })
            .await;
        if let Some(Trip { failures, pauses, until, untried_from, .. }) = next.filter(|_| turned) {
            let (name, untried) = (&plugin.record.name, untried_from.map(tracing::field::display));
            if pauses == 2 {
                tracing::error!(
                    plugin = name, failures, untried, %until,
                    "the plugin fails whatever it is given and is paused on its own; its deliveries are held"
                );
            } else {
                tracing::warn!(
                    plugin = name, failures, pauses, untried, %until,
                    "what was tried failed; the plugin stays paused"
                );
            }
        }
        turned
    }

    /// Sets the plugin's breaker to the result of `turn`, in the store first. Returns false if it is not set.
    async fn turn(&self, plugin: &Plugin, turn: impl FnOnce(&Plugin) -> Option<Option<Trip>>) -> bool {
        let (inner, name) = (self.inner(), &plugin.record.name);
        let _edit = inner.edit.lock().await;
        let Some(current) = inner.by_name(name).filter(|current| current.counts_with(plugin)) else {
            return false;
        };
        let Some(trip) = turn(&current) else { return false };
        let next = current.with_trip(trip);
        if let Err(error) = inner.save(&next, PluginChange::Held).await {
            tracing::warn!(plugin = name, %error, "the store did not take in that the plugin's breaker turned");
            return false;
        }
        inner.swap(|list| list.insert(next));
        true
    }

    /// How long until the next trial of a plugin whose breaker is open.
    pub fn next_trial(&self) -> Option<Duration> {
        let now = self.inner().env.now();
        self.list().iter().filter_map(|plugin| plugin.trip?.next(now, plugin.pauses())).min()
    }

    /// Begins the trials that are due.
    pub async fn begin_trials(&self) {
        let inner = self.inner();
        let _edit = inner.edit.lock().await;
        let now = inner.env.now();
        for plugin in self.list() {
            let Some(trip) = plugin.trip else { continue };
            let next = trip.at(now, plugin.pauses());
            if next != trip {
                // Not recorded, because a restart begins a trial at once.
                inner.swap(|list| list.insert(plugin.with_trip(Some(next))));
                tracing::debug!(
                    plugin = plugin.record.name,
                    any = next.trying,
                    "a pause is over; a trial begins"
                );
            }
        }
    }
}

impl Plugin {
    /// Whether both share a count. A new revision, a resume and a closed breaker start a new count.
    fn counts_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.streak, &other.streak)
    }

    pub(super) fn pauses(&self) -> Pauses {
        let breaker = self.settings.breaker;
        Pauses { first: breaker.pause, most: breaker.max_pause }
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
