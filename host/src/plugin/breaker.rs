//! The breaker of each plugin: counts the different deliveries that failed since the last success, and pauses the
//! plugin on its own. The state machine is that of `model/breaker.rs`.
//!
//! What counts is what an attempt says of its plugin's health ([`Health`]). An attempt that succeeds costs a look at
//! one number; only the failure that reaches the threshold takes the registry's lock. The count is the revision's:
//! attempts that end on an old one say nothing of the new one.
//!
//! That a plugin is tripped is written down with it, so that a start has a trial at once: it neither forgets that
//! the plugin failed nor waits the pause out. Which deliveries failed is not written down: those that fail again
//! after a start count again.

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

use super::{registry::Registry, standing::Plugin};
use crate::{
    model::{DeliveryId, Pauses, Trip, Vain},
    store::PluginChange,
};

/// Deliveries that are remembered as bad, at most; beyond them the memory starts over.
const KNOWN: usize = 16_384;

/// Failed deliveries that are counted, at most: the largest threshold.
const COUNTED: usize = 1_000_000;

/// By how much the threshold grows at most after false alarms.
const LEEWAY: u32 = 16;

/// What an attempt says of its plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It came to its end: done, or refused by the guest for good.
    Well,
    /// A trap, a limit, a timeout, or the guest's own `retry` or `retry-after`.
    Failed,
    /// Nothing: what it needed beside the plugin was not there.
    Unknown,
}

/// The different deliveries that failed since the last success.
#[derive(Debug, Default)]
pub(super) struct Streak {
    deliveries: Mutex<Deliveries>,
    /// How many of them there are, of both kinds.
    remembered: AtomicUsize,
    /// Whether the breaker is open, or about to be.
    tripped: AtomicBool,
}

/// The breaker opened, and a success closed it within one `pause`: events were bad, and not the plugin. For as long
/// again it takes more to open it, so that a burst of bad events opens it a few times and not all along.
#[derive(Debug, Clone, Copy)]
struct FalseAlarm {
    /// By how much the threshold has grown.
    times: u32,
    /// Until when.
    until: Timestamp,
}

#[derive(Debug, Default)]
struct Deliveries {
    /// Failed, and nothing has succeeded since.
    failed: HashSet<DeliveryId>,
    /// Failed while another succeeded: the delivery is bad, and not the plugin.
    bad: HashSet<DeliveryId>,
    /// That the breaker has opened for bad events alone.
    alarm: Option<FalseAlarm>,
}

impl Deliveries {
    fn leeway(&self, now: Timestamp, pauses: Pauses) -> u32 {
        let lasts = |alarm: &FalseAlarm| {
            let left = alarm.until.duration_since(now);
            // Longer than a pause: the clock was set back.
            left.is_positive() && Duration::try_from(left).is_ok_and(|left| left <= pauses.first)
        };
        self.alarm.filter(lasts).map_or(1, |alarm| alarm.times)
    }
}

impl Streak {
    /// One that begins, where the breaker stands like this.
    pub(super) fn of(trip: Option<&Trip>) -> Arc<Self> {
        Arc::new(Self { tripped: AtomicBool::new(trip.is_some()), ..Self::default() })
    }

    /// How many failed since the last success.
    fn length(&self) -> u32 {
        match self.remembered.load(Ordering::Relaxed) {
            0 => 0,
            _ => u32::try_from(self.deliveries.lock().failed.len()).unwrap_or(u32::MAX),
        }
    }

    /// A success: those that failed are known to be bad. Nothing is written where none has failed, so that
    /// attempts which succeed share it for free.
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

    /// A failure; how many different deliveries have failed by now.
    fn add(&self, delivery: DeliveryId) -> u32 {
        self.change(|Deliveries { failed, bad, .. }| {
            if !bad.contains(&delivery) && failed.len() < COUNTED {
                failed.insert(delivery);
            }
            u32::try_from(failed.len()).unwrap_or(u32::MAX)
        })
    }

    /// By how much the threshold has grown at this time.
    fn leeway(&self, now: Timestamp, pauses: Pauses) -> u32 {
        self.deliveries.lock().leeway(now, pauses)
    }

    /// A success closes a breaker that has stood like this.
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
    /// The different deliveries that failed since the last success.
    pub fn failures_in_a_row(&self) -> u32 {
        self.streak.length()
    }

    /// Whether its breaker is open, be that written down or not: what runs by this revision as if it were closed
    /// is to begin no more.
    pub fn is_tripped(&self) -> bool {
        self.streak.tripped.load(Ordering::Acquire)
    }

    /// Notes that an attempt of this delivery has committed. Told at once, and not when all of it is on disk: what
    /// fails meanwhile would count as failed in a row.
    pub fn went_well(&self, delivery: DeliveryId) {
        self.streak.end(delivery);
    }
}

impl Registry {
    /// Notes how an attempt of this delivery went: opens the plugin's breaker, or closes it.
    pub async fn heed(&self, plugin: &Plugin, delivery: DeliveryId, health: Health) {
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
        plugin.streak.leeway(self.inner().ambient.now(), plugin.pauses())
    }

    async fn open(&self, plugin: &Plugin, failures: u32) {
        // At once, so that nothing begins while it is being written down.
        if plugin.streak.tripped.swap(true, Ordering::AcqRel) {
            return;
        }
        let now = self.inner().ambient.now();
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
        let (mut was, now) = (None, self.inner().ambient.now());
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

    /// Notes that everything failed that a trial of this plugin has tried. False where the breaker did not turn for
    /// it, being another by now, or because that could not be written down: then the trial goes on.
    pub async fn trial_failed(&self, plugin: &Plugin, vain: Vain) -> bool {
        let now = self.inner().ambient.now();
        let mut next = None;
        let turned = self
            .turn(plugin, |current| {
                // A resume, another revision, or a pause that is over: what this trial says is history.
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

    /// Puts the plugin's breaker as `turn` says, on disk first; false where it does not turn.
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

    /// How long until the next plugin that was paused on its own has a trial.
    pub fn next_trial(&self) -> Option<Duration> {
        let now = self.inner().ambient.now();
        self.list().iter().filter_map(|plugin| plugin.trip?.next(now, plugin.pauses())).min()
    }

    /// Begins the trials whose time has come.
    pub async fn begin_trials(&self) {
        let inner = self.inner();
        let _edit = inner.edit.lock().await;
        let now = inner.ambient.now();
        for plugin in self.list() {
            let Some(trip) = plugin.trip else { continue };
            let next = trip.at(now, plugin.pauses());
            if next != trip {
                // Not written down: a start has a trial at once.
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
    /// Whether they share a count: no other revision came between them, no resume, and the breaker did not close.
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
