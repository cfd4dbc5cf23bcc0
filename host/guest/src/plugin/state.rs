//! The state of one plugin at one moment, and its transitions.
//!
//! ```text
//!                file loads, granted                     file leaves
//!   (new) ──────────────────────────► serving ──────────────────────────► gone
//!     │                               │     ▲                              │
//!     │ file does not load            │     │ next revision, or the file   │
//!     └────────► broken ──────────────┼─────┘ again ◄──────────────────────┘
//!                                     │ next revision requires what is not granted
//!                                     └────────► lacks a grant
//!
//!   If a revision serves, a file that does not load changes nothing. A pause by an operator takes precedence
//!   over all these states. An open breaker (`model/breaker.rs`) holds the plugin only if none of them does.
//! ```
//!
//! Each transition is a function of the state: it returns the next state and does no I/O. A value of
//! some type `R` runs a revision. The transitions carry it along and never look into it.

use std::sync::Arc;

use jiff::Timestamp;
use posthouse_model::{
    BreakerState, Capability, DeliveryId, HeldReason, Pattern, Pauses, PluginId, Trial, Trip,
    config::PluginSettings,
};
use posthouse_store::PluginRecord;

use super::breaker::{Health, Streak, Verdict};

/// One plugin at one moment. It is immutable and replaced as a whole at each change. `R` runs its revision.
pub struct State<R> {
    /// The part that the store, the command line and the admin API show.
    pub record: PluginRecord,
    /// Its settings in config.toml.
    pub settings: Arc<PluginSettings>,
    /// Why it does not serve, apart from a pause or an open breaker.
    cause: Option<HeldReason>,
    /// Its breaker, unless that is closed.
    trip: Option<Trip>,
    /// The failures that its breaker counts.
    streak: Arc<Streak>,
    /// The value that runs its revision. None if no revision is loaded.
    runs: Option<R>,
}

/// A revision that has loaded.
#[derive(Debug)]
pub(super) struct Loaded<R> {
    /// The SHA-256 of the file, hexadecimal.
    pub(super) revision: String,
    /// One line for people.
    pub(super) description: String,
    /// The events to which it subscribes.
    pub(super) events: Vec<Pattern>,
    /// The capabilities that it needs to work.
    pub(super) requires: Vec<Capability>,
    /// Those of them that it was not granted.
    pub(super) lacking: Vec<Capability>,
    /// The value that runs it.
    pub(super) runs: R,
}

impl<R> State<R> {
    /// Whether deliveries may run now.
    pub fn serving(&self) -> bool {
        self.record.held.is_none()
    }

    /// The deliveries that may be tried now although the breaker is not closed. None if the breaker is closed,
    /// if its pause is not over, or if the plugin is held for another reason.
    pub fn trial(&self) -> Option<Trial> {
        let at_once = u32::try_from(self.settings.concurrency).unwrap_or(u32::MAX);
        match self.record.held {
            Some(HeldReason::Tripped(trip)) => trip.trial(at_once, self.settings.retry.attempts),
            _ => None,
        }
    }

    /// The state of its breaker.
    pub fn breaker(&self) -> BreakerState {
        self.trip.map_or(BreakerState::Closed, |trip| trip.state())
    }

    /// Its breaker, unless that is closed.
    pub fn trip(&self) -> Option<Trip> {
        self.trip
    }

    /// How many different deliveries failed since the last success.
    pub fn failures_in_a_row(&self) -> u32 {
        self.streak.length()
    }

    /// Whether the breaker is open, even if that is not recorded yet. A runner that was started while it was
    /// closed must begin no more attempts then.
    pub fn is_tripped(&self) -> bool {
        self.streak.is_tripped()
    }

    /// Records that an attempt of this delivery has committed. Callers report this at once and not when
    /// everything is on disk. Otherwise failures in between would count as failures in a row.
    pub fn went_well(&self, delivery: DeliveryId) {
        self.streak.end(delivery);
    }

    /// Counts how an attempt of this delivery went. The verdict says whether the breaker should change.
    pub(super) fn judge(&self, delivery: DeliveryId, health: Health, now: Timestamp) -> Verdict {
        self.streak.judge(delivery, health, self.settings.breaker.failures, now, self.pauses())
    }

    /// The failures that its breaker counts.
    pub(super) fn streak(&self) -> &Streak {
        &self.streak
    }

    /// Whether both share a count. A new revision, a resume and a closed breaker start a new count.
    pub(super) fn counts_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.streak, &other.streak)
    }

    /// The lengths of its breaker's pauses.
    pub(super) fn pauses(&self) -> Pauses {
        let breaker = self.settings.breaker;
        Pauses { first: breaker.pause, most: breaker.max_pause }
    }

    /// Returns the value that runs its revision, even if the plugin is held. None if no revision is loaded.
    pub(super) fn running(&self) -> Option<&R> {
        self.runs.as_ref()
    }

    /// Whether this revision is loaded, even if the plugin is held.
    pub(super) fn runs(&self, revision: &str) -> bool {
        self.runs.is_some() && self.record.revision.as_deref() == Some(revision)
    }

    /// Whether its file is missing.
    pub(super) fn is_gone(&self) -> bool {
        self.cause == Some(HeldReason::Gone)
    }
}

impl<R: Clone> State<R> {
    /// A plugin that the store remembers, before its file was looked for.
    pub(super) fn remembered(record: PluginRecord, settings: PluginSettings) -> Self {
        // If the breaker was open when the daemon ended, the plugin begins with a trial.
        let trip = match record.held {
            Some(HeldReason::Tripped(trip)) => Some(trip.at_start()),
            _ => None,
        };
        let (settings, streak) = (Arc::new(settings), Streak::of(trip.as_ref()));
        Self { record, settings, cause: None, trip, streak, runs: None }.held(HeldReason::Gone)
    }

    /// A plugin that the store does not know yet.
    pub(super) fn new(id: PluginId, name: &str, settings: Arc<PluginSettings>) -> Self {
        let record = PluginRecord {
            id,
            name: name.to_owned(),
            revision: None,
            description: String::new(),
            events: settings.events.clone().unwrap_or_default(),
            requires: Vec::new(),
            held: None,
            last_error: None,
            paused: false,
            loaded_at: None,
        };
        Self { record, settings, cause: None, trip: None, streak: Arc::default(), runs: None }
    }

    /// Returns the plugin after a revision has loaded, under these settings.
    pub(super) fn loaded(&self, settings: Arc<PluginSettings>, revision: Loaded<R>, now: Timestamp) -> Self {
        let Loaded { revision, description, events, requires, lacking, runs } = revision;
        let lines: Vec<_> = lacking.iter().map(|need| format!("`{}`", need.example())).collect();
        let cause = (!lines.is_empty()).then(|| {
            let lines = lines.join(" and ");
            HeldReason::LacksGrant(format!(
                "add {lines} below [plugin.{}.grants] in config.toml",
                self.record.name
            ))
        });
        // If its file returned unchanged, so does its breaker. Another revision or other settings close it.
        let as_it_was = self.runs.is_none() && self.record.revision.as_ref() == Some(&revision);
        let trip = self.trip.filter(|_| as_it_was && settings.breaker.failures > 0);
        let record = PluginRecord {
            revision: Some(revision),
            description,
            events,
            requires,
            last_error: None,
            loaded_at: Some(now),
            ..self.record.clone()
        };
        let (streak, runs) = (Streak::of(trip.as_ref()), Some(runs));
        Self { record, settings, cause, trip, streak, runs }.settled()
    }

    /// Returns the plugin after its file did not load. A revision that runs keeps serving.
    pub(super) fn failed(&self, error: String) -> Self {
        let mut next = self.copy();
        next.record.last_error = Some(error.clone());
        match self.runs {
            Some(_) => next,
            None => next.held(HeldReason::Broken(error)),
        }
    }

    /// Returns the plugin after its file has the running revision's content again.
    pub(super) fn recovered(&self) -> Self {
        let mut next = self.copy();
        next.record.last_error = None;
        next
    }

    /// Returns the plugin after its file has left. It keeps its subscription, and its deliveries are held.
    pub(super) fn gone(&self) -> Self {
        let mut next = self.copy();
        next.runs = None;
        next.held(HeldReason::Gone)
    }

    /// Returns the plugin after its file was found missing that config.toml names.
    pub(super) fn without_file(&self, error: &str) -> Self {
        let mut next = self.gone();
        next.record.last_error = Some(error.to_owned());
        next
    }

    /// Returns the plugin paused by an operator.
    pub(super) fn paused(&self) -> Self {
        let mut next = self.copy();
        next.record.paused = true;
        next.settled()
    }

    /// Returns the plugin resumed, whether an operator or its breaker had paused it.
    pub(super) fn resumed(&self) -> Self {
        let mut next = self.copy();
        next.record.paused = false;
        // Its failures are counted from zero again.
        next.streak = Arc::default();
        next.with_trip(None)
    }

    /// Returns the plugin with this state of its breaker.
    pub(super) fn with_trip(&self, trip: Option<Trip>) -> Self {
        let mut next = self.copy();
        next.trip = trip;
        next.settled()
    }

    fn held(mut self, cause: HeldReason) -> Self {
        self.cause = Some(cause);
        self.settled()
    }

    fn settled(mut self) -> Self {
        let own = || self.cause.clone().or_else(|| self.trip.map(HeldReason::Tripped));
        self.record.held = if self.record.paused { Some(HeldReason::Paused) } else { own() };
        self
    }

    fn copy(&self) -> Self {
        Self {
            record: self.record.clone(),
            settings: Arc::clone(&self.settings),
            cause: self.cause.clone(),
            trip: self.trip,
            streak: Arc::clone(&self.streak),
            runs: self.runs.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use posthouse_model::{
        Grants,
        config::{Limits, Retry},
    };

    use super::*;

    /// A state whose revisions run nothing: each is a number.
    type Plain = State<u32>;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn settings() -> Arc<PluginSettings> {
        let second = Duration::from_secs(1);
        Arc::new(PluginSettings {
            component: None,
            events: None,
            concurrency: 8,
            reuse: 1,
            rate: None,
            retry: Retry { attempts: 4, base: second, factor: 2.0, max: second, jitter: 0.0 },
            breaker: Default::default(),
            limits: Limits::default(),
            order_by: None,
            grants: Grants::default(),
            config: Default::default(),
        })
    }

    fn revision(revision: &str, runs: u32) -> Loaded<u32> {
        Loaded {
            revision: revision.to_owned(),
            description: String::new(),
            events: vec![Pattern::new("user.*").unwrap()],
            requires: Vec::new(),
            lacking: Vec::new(),
            runs,
        }
    }

    fn new() -> Plain {
        State::new(PluginId(1), "greet", settings())
    }

    fn serving() -> Plain {
        new().loaded(settings(), revision("one", 1), NOW)
    }

    fn tripped(state: &Plain) -> Plain {
        state.with_trip(Some(Trip::first(20, NOW, state.pauses())))
    }

    #[test]
    fn a_revision_serves_until_the_next_one_loads_and_one_that_fails_replaces_none() {
        let first = serving();
        assert!(first.serving() && first.runs("one"));
        assert_eq!((first.running(), first.record.loaded_at), (Some(&1), Some(NOW)));
        let failed = first.failed("no WebAssembly".to_owned());
        assert!(failed.serving() && failed.runs("one"));
        assert_eq!(failed.record.last_error.as_deref(), Some("no WebAssembly"));
        assert_eq!(failed.recovered().record.last_error, None);
        let second = failed.loaded(settings(), revision("two", 2), NOW);
        assert!(second.runs("two") && !second.runs("one"));
        assert_eq!((second.running(), &second.record.last_error), (Some(&2), &None));
    }

    #[test]
    fn a_plugin_of_which_nothing_loads_is_broken() {
        let broken = new().failed("no WebAssembly".to_owned());
        assert_eq!(broken.record.held, Some(HeldReason::Broken("no WebAssembly".to_owned())));
        assert!(broken.running().is_none());
        assert!(broken.loaded(settings(), revision("one", 1), NOW).serving());
    }

    #[test]
    fn a_plugin_whose_file_leaves_is_held_and_keeps_its_subscription() {
        let gone = serving().gone();
        assert!(gone.is_gone() && gone.running().is_none() && !gone.runs("one"));
        assert_eq!(gone.record.held, Some(HeldReason::Gone));
        assert_eq!((gone.record.events.len(), gone.record.revision.as_deref()), (1, Some("one")));
        let broken = gone.failed("no WebAssembly".to_owned());
        assert!(!broken.is_gone(), "a file that does not load is there");
    }

    #[test]
    fn a_plugin_is_held_while_it_lacks_a_grant() {
        let lacking = Loaded { lacking: vec![Capability::Mail], ..revision("one", 1) };
        let held = new().loaded(settings(), lacking, NOW);
        let Some(HeldReason::LacksGrant(lines)) = &held.record.held else { panic!("it is held") };
        assert!(lines.starts_with("add `mail = ") && lines.contains("[plugin.greet.grants]"), "{lines}");
        assert!(held.runs("one"), "it is loaded nevertheless");
        assert!(held.loaded(settings(), revision("one", 2), NOW).serving());
    }

    #[test]
    fn a_pause_takes_precedence_over_a_cause_and_a_cause_over_the_breaker() {
        let open = tripped(&serving());
        assert!(matches!(open.record.held, Some(HeldReason::Tripped(_))));
        let gone = open.gone();
        assert_eq!((&gone.record.held, gone.breaker()), (&Some(HeldReason::Gone), BreakerState::Open));
        let paused = gone.paused();
        assert_eq!((&paused.record.held, paused.trial()), (&Some(HeldReason::Paused), None));
        let resumed = paused.resumed();
        assert_eq!(
            (&resumed.record.held, resumed.breaker()),
            (&Some(HeldReason::Gone), BreakerState::Closed)
        );
        assert!(!resumed.counts_with(&paused), "a resume counts from zero");
    }

    #[test]
    fn the_breaker_stays_open_only_for_the_same_revision_that_returns() {
        let open = tripped(&serving());
        let again = |state: &Plain, name| state.loaded(settings(), revision(name, 2), NOW).breaker();
        assert_eq!(again(&open.gone(), "one"), BreakerState::Open);
        assert_eq!(again(&open.gone(), "two"), BreakerState::Closed);
        assert_eq!(again(&open, "one"), BreakerState::Closed, "other settings, since the file is the same");
        let mut off = PluginSettings::clone(&settings());
        off.breaker.failures = 0;
        let unbroken = open.gone().loaded(Arc::new(off), revision("one", 2), NOW);
        assert_eq!(unbroken.breaker(), BreakerState::Closed);
    }

    #[test]
    fn a_remembered_plugin_is_gone_until_its_file_is_found_and_an_open_breaker_tries_at_once() {
        let record = tripped(&serving()).record;
        let remembered = Plain::remembered(record, PluginSettings::clone(&settings()));
        assert!(remembered.is_gone() && remembered.is_tripped());
        let found = remembered.loaded(settings(), revision("one", 1), NOW);
        assert!(found.trial().is_some_and(|trial| trial.any), "{:?}", found.record.held);
    }
}
