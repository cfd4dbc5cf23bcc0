//! The breaker of each plugin: counts its failed attempts in a row, and pauses it on its own.
//!
//! What counts is what an attempt says of its plugin's health ([`Health`]). An attempt that went well costs
//! a look at one number; only one that fails for the so-manieth time takes the registry's lock. The count is
//! the revision's: attempts that end on an old one say nothing of the new one.
//!
//! That a plugin is tripped is written down with it, so that a start tries one delivery at once: it neither
//! forgets that the plugin failed nor waits the pause out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use super::{registry::Registry, standing::Plugin};
use crate::model::Trip;

/// What an attempt says of its plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It came to its end: done, or refused by the guest for good.
    Well,
    /// A trap, a limit, a time-out, or the guest's own `retry`.
    Failed,
    /// The guest said when it wants to be run again. It works, and it does not; so a count is left as it is,
    /// and one that was tried is no failure.
    Deferred,
    /// Nothing: what it needed beside the plugin was not there.
    Unknown,
}

/// Failed attempts in a row.
#[derive(Debug, Default)]
pub(super) struct Streak(AtomicU32);

impl Streak {
    /// How many they are.
    fn length(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Ends it. Nothing is written where there is none, so that attempts which go well share it for free.
    fn end(&self) {
        if self.length() > 0 {
            self.0.store(0, Ordering::Relaxed);
        }
    }

    /// One more; how many they are now.
    fn add(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }
}

impl Plugin {
    /// Failed attempts in a row.
    pub fn failures_in_a_row(&self) -> u32 {
        self.streak.length()
    }

    /// Notes that an attempt has committed. Told at once, and not when all of it is on disk: what fails
    /// meanwhile would count as failed in a row.
    pub fn went_well(&self) {
        self.streak.end();
    }

    /// Notes how an attempt went; whether its breaker turns.
    fn turns(&self, health: Health) -> bool {
        let most = self.settings.breaker.failures;
        match health {
            Health::Unknown => false,
            Health::Failed => self.streak.add() >= most && most > 0 || self.is_on_trial(),
            Health::Well => {
                self.streak.end();
                self.is_on_trial()
            }
            Health::Deferred => self.is_on_trial(),
        }
    }
}

impl Registry {
    /// Notes how an attempt of this plugin went. True where that was the one that was tried, and its end
    /// has turned the breaker.
    pub async fn heed(&self, plugin: &Plugin, health: Health) -> bool {
        plugin.turns(health) && self.turn(plugin, health).await && plugin.is_on_trial()
    }

    async fn turn(&self, plugin: &Plugin, health: Health) -> bool {
        let (inner, name) = (self.inner(), &plugin.record.name);
        let _edit = inner.edit.lock().await;
        // Another revision, a resume, or another attempt that came first: what this one says is history.
        let Some(current) = inner.by_name(name).filter(|current| current.stands_as(plugin)) else {
            return true;
        };
        let (breaker, now) = (current.settings.breaker, inner.ambient.now());
        let trip = match (health, current.trip) {
            (Health::Failed, Some(trip)) => Some(trip.again(now, breaker.pause, breaker.max_pause)),
            (Health::Failed, None) => Some(Trip::first(plugin.failures_in_a_row(), now, breaker.pause)),
            _ => None,
        };
        let next = current.with_trip(trip);
        if let Err(error) = inner.store.save_plugin(next.record.clone()).await {
            tracing::warn!(plugin = name, %error, "the store did not take in that the plugin's breaker turned");
            return false;
        }
        inner.swap(|list| list.insert(next));
        match trip {
            Some(Trip { failures, pauses, until, .. }) => tracing::error!(
                plugin = name,
                failures,
                pauses,
                %until,
                "the plugin fails again and again and is paused on its own; its deliveries are held"
            ),
            None => tracing::info!(plugin = name, "the plugin works again; its deliveries run"),
        }
        true
    }

    /// How long until the next plugin that was paused on its own tries one delivery.
    pub fn next_trial(&self) -> Option<Duration> {
        let now = self.inner().ambient.now();
        self.list().iter().filter_map(|plugin| plugin.pause_left(now)).min()
    }

    /// Lets those try one delivery whose pause is over.
    pub async fn begin_trials(&self) {
        let inner = self.inner();
        let _edit = inner.edit.lock().await;
        let now = inner.ambient.now();
        for plugin in self.list() {
            if plugin.pause_left(now).is_some_and(|left| left.is_zero())
                && let Some(trip) = plugin.trip
            {
                // Not written down: a start does the same with every one that is tripped.
                inner.swap(|list| list.insert(plugin.with_trip(Some(Trip { trying: true, ..trip }))));
                tracing::info!(plugin = plugin.record.name, "the pause is over; one delivery is tried");
            }
        }
    }
}

impl Plugin {
    /// Whether nothing has turned its breaker, and no other revision came, since it was `earlier`.
    fn stands_as(&self, earlier: &Self) -> bool {
        Arc::ptr_eq(&self.streak, &earlier.streak) && self.trip == earlier.trip
    }

    /// What is left of the pause that its breaker made; none where it made none.
    fn pause_left(&self, now: jiff::Timestamp) -> Option<Duration> {
        let trip = self.trip.filter(|trip| !trip.trying)?;
        Some(trip.left(now, self.settings.breaker.max_pause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_streak_is_what_failed_since_the_last_that_went_well() {
        let streak = Streak::default();
        assert_eq!([streak.add(), streak.add()], [1, 2]);
        streak.end();
        assert_eq!((streak.length(), streak.add()), (0, 1));
    }
}
