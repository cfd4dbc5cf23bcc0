//! One plugin at one moment, and the changes of its state.
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

use std::sync::Arc;

use posthouse_database::Database;
use posthouse_model::{BreakerState, Env, HeldReason, Job, PluginId, Trial, Trip, config::PluginSettings};
use posthouse_store::{Entries, PluginRecord, Reading, Store, Value};

use super::{
    breaker::Streak,
    engine::Engine,
    registry::Inner,
    report::{AttemptFailure, AttemptReport},
    revision::{Code, Inspection},
};

use crate::imports::{KvSource, PluginContext};

/// One plugin at one moment. It is immutable and replaced as a whole at each change.
pub struct Plugin {
    /// The part that the store, the command line and the admin API show.
    pub record: PluginRecord,
    /// Its settings in config.toml.
    pub settings: Arc<PluginSettings>,
    /// Why it does not serve, apart from a pause or an open breaker.
    cause: Option<HeldReason>,
    /// Its breaker, unless that is closed.
    pub(super) trip: Option<Trip>,
    /// The failures that its breaker counts.
    pub(super) streak: Arc<Streak>,
    runs: Option<Runs>,
    env: Env,
}

/// What is needed to run a revision.
#[derive(Clone)]
struct Runs {
    engine: Engine,
    code: Arc<Code>,
    context: Arc<PluginContext>,
}

impl Plugin {
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

    /// The database that it was granted, in which its transactions leave their markers.
    pub fn database(&self) -> Option<&Database> {
        self.runs.as_ref()?.context.database.as_ref()
    }

    /// Runs one attempt of a delivery. It never panics and never exceeds its limits, and its report contains
    /// every error. Dropping the future at an await has no effects.
    pub async fn attempt(&self, job: &Job) -> AttemptReport {
        match &self.runs {
            Some(runs) => runs.code.attempt(&runs.engine, &runs.context, job).await,
            None => AttemptReport {
                result: Err(AttemptFailure::NotRun {
                    error: format!("plugin `{}` has no revision that loads", self.record.name),
                }),
                started_at: self.env.now(),
                duration: std::time::Duration::ZERO,
                logs: Vec::new(),
                did: None,
                fetched: Vec::new(),
            },
        }
    }

    /// A plugin that the store remembers, before its file was looked for.
    pub(super) fn remembered(record: PluginRecord, settings: PluginSettings, env: Env) -> Self {
        // If the breaker was open when the daemon ended, a trial comes first.
        let trip = match record.held {
            Some(HeldReason::Tripped(trip)) => Some(trip.at_start()),
            _ => None,
        };
        let (settings, streak) = (Arc::new(settings), Streak::of(trip.as_ref()));
        Self { record, settings, cause: None, trip, streak, runs: None, env }.held(HeldReason::Gone)
    }

    /// A plugin that the store does not know yet.
    pub(super) fn new(id: PluginId, name: &str, settings: Arc<PluginSettings>, env: Env) -> Self {
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
        Self { record, settings, cause: None, trip: None, streak: Arc::default(), runs: None, env }
    }

    /// Returns the plugin after a revision has loaded.
    pub(super) fn loaded(
        &self,
        inner: &Inner,
        settings: Arc<PluginSettings>,
        inspection: Inspection,
    ) -> Self {
        let context = PluginContext {
            plugin: self.record.name.clone(),
            settings: Arc::clone(&settings),
            env: self.env.clone(),
            kv: Some(Arc::new(OwnKv { store: inner.store.clone(), plugin: self.record.id })),
            plugin_http: Some(inner.egress.plugin_http(&self.record.name, &settings.grants.http)),
            database: settings.grants.database.as_ref().and_then(|name| inner.databases.get(name)),
        };
        let lines: Vec<_> = inspection.lacking.iter().map(|need| format!("`{}`", need.example())).collect();
        let cause = (!lines.is_empty()).then(|| {
            let lines = lines.join(" and ");
            HeldReason::LacksGrant(format!(
                "add {lines} below [plugin.{}.grants] in config.toml",
                self.record.name
            ))
        });
        // If its file returned unchanged, so does its breaker. Another revision or other settings close it.
        let as_it_was = self.runs.is_none() && self.record.revision.as_ref() == Some(&inspection.revision);
        let trip = self.trip.filter(|_| as_it_was && settings.breaker.failures > 0);
        let record = PluginRecord {
            revision: Some(inspection.revision),
            description: inspection.description,
            events: inspection.events,
            requires: inspection.requires,
            last_error: None,
            loaded_at: Some(self.env.now()),
            ..self.record.clone()
        };
        let runs = Runs {
            engine: inner.engine.clone(),
            code: Arc::new(inspection.code),
            context: Arc::new(context),
        };
        let (runs, streak) = (Some(runs), Streak::of(trip.as_ref()));
        let next = Self { record, settings, cause, trip, streak, runs, env: self.env.clone() };
        next.settled()
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

    /// Whether this revision is loaded, even if the plugin is held.
    pub(super) fn runs(&self, revision: &str) -> bool {
        self.runs.is_some() && self.record.revision.as_deref() == Some(revision)
    }

    /// Whether its file is missing.
    pub(super) fn is_gone(&self) -> bool {
        self.cause == Some(HeldReason::Gone)
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
            env: self.env.clone(),
        }
    }
}

/// A plugin's own keys in the store.
struct OwnKv {
    store: Store,
    plugin: PluginId,
}

impl KvSource for OwnKv {
    fn get<'a>(&'a self, key: &'a str) -> Reading<'a, Value> {
        self.store.kv_get(self.plugin, key)
    }

    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>, limit: u32) -> Reading<'a, Entries> {
        self.store.kv_list(self.plugin, prefix, after, limit)
    }

    fn bytes(&self) -> u64 {
        self.store.kv_bytes(self.plugin)
    }
}
