//! Plugins: the engine that runs them, the registry that knows them, the watcher that swaps them.
//! (contract stub)

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{
    config::PluginSettings,
    model::*,
    store::{Store, StoreError},
};

/// The wasmtime engine with its pool, its linker, its compiler child and its AOT cache.
#[derive(Clone)]
pub struct Engine(Arc<()>);

/// How to make an engine.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Where AOT code is kept: `<state>/aot`, mode 0700.
    pub cache_dir: PathBuf,
    /// The most instances at once; a further one waits.
    pub instances: u32,
    /// The program whose `compile` subcommand compiles.
    pub compiler: PathBuf,
}

#[derive(Debug, thiserror::Error)]
#[error("the plugin engine can't start: {0}")]
pub struct EngineError(pub String);

impl Engine {
    pub fn new(_options: EngineOptions, _ambient: Ambient) -> Result<Self, EngineError> {
        unimplemented!()
    }
}

/// The hidden subcommand `posthouse compile`: reads a wasm file, writes AOT code, under limits that it
/// sets on itself. Returns the exit code.
pub fn compile_child(_wasm: &std::path::Path, _out: &std::path::Path) -> i32 {
    unimplemented!()
}

/// Every plugin there is, and how each stands. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<()>);

impl Registry {
    /// A registry of this folder; `settings` says what each plugin gets. Remembers, from the store, the
    /// plugins of earlier runs, so that one whose file is gone keeps getting deliveries, held.
    pub async fn new(
        _engine: Engine,
        _store: Store,
        _dir: PathBuf,
        _settings: Arc<dyn Fn(&str) -> PluginSettings + Send + Sync>,
        _ambient: Ambient,
    ) -> Result<Self, StoreError> {
        unimplemented!()
    }
    /// Looks through the folder once: loads what is new or changed, holds what went away.
    pub async fn scan(&self) {
        unimplemented!()
    }
    /// Watches the folder (notify events + a rescan every `rescan`) until the future is dropped.
    pub async fn watch(&self, _rescan: Duration) {
        unimplemented!()
    }
    /// Which plugins get an event of this type, held ones included.
    pub fn subscribers(&self, _event_type: &EventType) -> Vec<PluginId> {
        unimplemented!()
    }
    /// All plugins, by name.
    pub fn list(&self) -> Vec<Arc<Plugin>> {
        unimplemented!()
    }
    pub fn get(&self, _id: PluginId) -> Option<Arc<Plugin>> {
        unimplemented!()
    }
    pub fn by_name(&self, _name: &str) -> Option<Arc<Plugin>> {
        unimplemented!()
    }
    /// Wakes at every change of the list.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        unimplemented!()
    }
    pub async fn pause(&self, _name: &str) -> Result<(), PluginError> {
        unimplemented!()
    }
    pub async fn resume(&self, _name: &str) -> Result<(), PluginError> {
        unimplemented!()
    }
    /// Forgets a plugin whose file is gone.
    pub async fn forget(&self, _name: &str) -> Result<(), PluginError> {
        unimplemented!()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    #[error("no plugin `{0}`; `posthouse plugins` lists them")]
    Unknown(String),
    #[error("plugin `{0}` still has its file in the plugins folder; remove `{0}.wasm` first")]
    StillThere(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One plugin at one moment: immutable, replaced whole at each change.
pub struct Plugin {
    /// What the store, the command line and the admin API show.
    pub record: crate::store::PluginRecord,
    pub settings: Arc<PluginSettings>,
    // code: Option<Arc<Revision>> (InstancePre, reuse pool)
}

impl Plugin {
    /// Whether deliveries may run now.
    pub fn serving(&self) -> bool {
        self.record.held.is_none()
    }
    /// One run of a delivery. Never panics, never outlasts its limits; everything that goes wrong is in
    /// the report. Dropped at an await it leaves nothing behind.
    pub async fn attempt(&self, _job: &Job) -> AttemptReport {
        unimplemented!()
    }
}

/// How an attempt ended, before the store has committed it.
#[derive(Debug)]
pub struct AttemptReport {
    pub result: Result<Effects, AttemptFailure>,
    pub started_at: jiff::Timestamp,
    pub duration: Duration,
    pub logs: Vec<LogLine>,
}

/// Why an attempt did not do its work.
#[derive(Debug)]
pub enum AttemptFailure {
    /// The guest said `retry` or `retry-after`.
    Retry { reason: String, after: Option<Duration> },
    /// The guest said `reject`.
    Reject { reason: String },
    /// A trap, a limit (named in the error), a time-out.
    Stopped { error: String, trace: Option<String> },
    /// Not the guest's doing (the store could not be read, the plugin has no code any more): the job is
    /// to be released, not counted.
    NotRun { error: String },
}
