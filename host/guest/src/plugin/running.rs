//! The running part of a plugin's revision: its code, and the services that it may use.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use posthouse_database::{Database, Databases};
use posthouse_egress::Egress;
use posthouse_model::{Env, Job, PluginId, Question, Triggers, config::PluginSettings};
use posthouse_store::{Entries, Reading, Store, Value};

use super::{
    engine::Engine,
    report::{AttemptFailure, AttemptReport},
    revision::{Code, Inspection},
    state::{Loaded, State},
};

use crate::imports::{KvSource, PluginContext};

/// One plugin at one moment. It is immutable and replaced as a whole at each change.
pub type Plugin = State<Running>;

/// The services that plugins need to run.
#[derive(Clone)]
pub(super) struct Services {
    /// Compiles and runs their code.
    pub(super) engine: Engine,
    /// Has their keys and values.
    pub(super) store: Store,
    /// The databases that they may be granted.
    pub(super) databases: Databases,
    /// Makes their HTTP requests.
    pub(super) egress: Egress,
    /// Time and randomness.
    pub(super) env: Env,
}

impl Services {
    /// The revision that was inspected, ready to run as this plugin under these settings.
    pub(super) fn revision(
        &self,
        plugin: &Plugin,
        settings: &Arc<PluginSettings>,
        inspection: Inspection,
    ) -> Loaded<Running> {
        let (name, grants) = (&plugin.record.name, &settings.grants);
        let context = PluginContext {
            plugin: name.clone(),
            settings: Arc::clone(settings),
            env: self.env.clone(),
            kv: Some(Arc::new(OwnKv { store: self.store.clone(), plugin: plugin.record.id })),
            plugin_http: Some(self.egress.plugin_http(name, &grants.http)),
            database: grants.database.as_ref().and_then(|name| self.databases.get(name)),
        };
        let Inspection { revision, description, events, requires, lacking, intercepts, logs: _, code } =
            inspection;
        let runs = Running {
            engine: self.engine.clone(),
            code: Arc::new(code),
            context: Arc::new(context),
            intercepts: Arc::new(intercepts),
        };
        Loaded { revision, description, events, requires, lacking, runs }
    }
}

/// A revision that can run, with the services that it may use. Cheap to clone.
#[derive(Clone)]
pub struct Running {
    engine: Engine,
    code: Arc<Code>,
    context: Arc<PluginContext>,
    intercepts: Arc<Triggers>,
}

impl Plugin {
    /// The database that it was granted, in which its transactions leave their markers.
    pub fn database(&self) -> Option<&Database> {
        self.running()?.context.database.as_ref()
    }

    /// Runs one attempt of a delivery. It never panics and never exceeds its limits, and its report contains
    /// every error. Dropping the future at an await has no effects.
    pub async fn attempt(&self, job: &Job) -> AttemptReport {
        match self.running() {
            Some(Running { engine, code, context, .. }) => code.attempt(engine, context, job).await,
            None => self.not_run(job),
        }
    }

    /// Asks for a decision about a question, which is that of the job. As [`Self::attempt`], with an instance of those
    /// that are reserved for decisions. The caller ends it at the deadline, by dropping the future.
    pub async fn decide(&self, job: &Job, question: &Question, deadline: Instant) -> AttemptReport {
        match self.running() {
            Some(Running { engine, code, context, .. }) => {
                code.decide(engine, context, job, question, deadline).await
            }
            None => self.not_run(job),
        }
    }

    /// The triggers that it decides about. None if it has no revision, or does not decide.
    pub fn intercepts(&self) -> Option<&Triggers> {
        self.running().filter(|running| running.code.decides()).map(|running| &*running.intercepts)
    }

    fn not_run(&self, job: &Job) -> AttemptReport {
        AttemptReport {
            result: Err(AttemptFailure::NotRun {
                error: format!("plugin `{}` has no revision that loads", self.record.name),
            }),
            // No instance was requested.
            started_at: job.due_at,
            duration: Duration::ZERO,
            logs: Vec::new(),
            actions: None,
            fetched: Vec::new(),
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
