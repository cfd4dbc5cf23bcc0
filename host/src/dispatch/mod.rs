//! Dispatch: runs each plugin's deliveries, and nobody waits for another's plugin.
//!
//! ```text
//!   registry ──change──► Dispatch ──opens, closes──► one Runner a serving plugin
//!                                                        │ lane.next()      (store: leased jobs)
//!                                                        │ permit           (plugin's concurrency)
//!                                                        ▼
//!                                                     attempt ──► store.complete: done, retry or dead
//! ```
//!
//! A plugin has a lane of its own in the store, a runner of its own here and permits of its own, so one
//! that is slow or failing fills its own lane and no other. A held plugin has no runner: its deliveries
//! stay in the store. Beside the runners goes the [`Sender`], which empties the outbox.

mod mail;
mod retry;
mod runner;
mod sender;
mod sweeper;

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    model::{Ambient, PluginId},
    plugin::{Plugin, Registry},
    store::Store,
};

pub use mail::InvalidMailTarget;
pub use sender::Sender;
pub use sweeper::sweep;

use runner::Runner;

/// Keeps a runner for every plugin that serves.
pub struct Dispatch {
    store: Store,
    registry: Registry,
    ambient: Ambient,
    runners: HashMap<PluginId, Runner>,
}

impl Dispatch {
    /// A dispatch with no runners yet.
    pub fn new(store: Store, registry: Registry, ambient: Ambient) -> Self {
        Self { store, registry, ambient, runners: HashMap::new() }
    }

    /// Follows the registry until `stop` turns true; then lets attempts end within `patience`. What has
    /// not ended by then is dropped without effect and runs after the next start.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>, patience: Duration) {
        let mut changes = self.registry.changes();
        loop {
            // Seen before it is read: a change that comes while we follow the list wakes us again.
            changes.borrow_and_update();
            self.follow().await;
            tokio::select! {
                () = turned(&mut stop) => break,
                changed = changes.changed() => if changed.is_err() { break },
            }
        }
        self.drain(patience).await;
    }

    /// Makes the runners fit the registry's list.
    async fn follow(&mut self) {
        let serving: HashMap<PluginId, Arc<Plugin>> = self
            .registry
            .list()
            .into_iter()
            .filter(|plugin| plugin.serving())
            .map(|plugin| (plugin.record.id, plugin))
            .collect();

        let stopped: Vec<Runner> =
            self.runners.extract_if(|id, _| !serving.contains_key(id)).map(|(_, runner)| runner).collect();
        for runner in stopped {
            // Its attempts under way end on the revision they began with; nobody waits for them here.
            runner.close();
        }
        for (id, plugin) in serving {
            match self.runners.get(&id) {
                Some(runner) => runner.replace(plugin),
                None => {
                    match Runner::start(&self.store, &self.registry, plugin, self.ambient.clone()).await {
                        Ok(runner) => drop(self.runners.insert(id, runner)),
                        Err(error) => warn!(%error, "a plugin's lane could not be opened"),
                    }
                }
            }
        }
    }

    async fn drain(&mut self, patience: Duration) {
        let attempts: usize = self.runners.values().map(Runner::attempts).sum();
        info!(attempts, "waiting for attempts to end");
        let deadline = tokio::time::Instant::now() + patience;
        for (_, runner) in self.runners.drain() {
            runner.finish(deadline).await;
        }
    }
}

/// Waits until the flag is true, or can't become true any more.
async fn turned(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|flag| *flag).await;
}
