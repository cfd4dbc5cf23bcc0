//! The registry knows every plugin that is in the folder or that the store remembers.
//!
//! ```text
//! folder ─► scan ─► loader: an outcome ─► apply: the next state ─► list ─► dispatch, ingress, admin
//!                                                   attempts ─► health ──┘
//! ```
//!
//! The list changes in two ways. A file in the folder is loaded by its own task, so that a slow compilation
//! delays no other file. An operator's command waits for no file.

use std::{path::PathBuf, sync::Arc, time::Duration};

use posthouse_database::Databases;
use posthouse_egress::Egress;
use posthouse_model::{
    DeliveryId, Env, EventType, FailedTrial, NewEvent, Orders, PluginId, Subscriber, Usage,
    config::PluginSettings,
};
use posthouse_store::{PluginChange, PluginRecord, Store, StoreError};
use tokio::sync::{Mutex, watch};

use super::{
    apply,
    breaker::Health,
    config::PluginConfig,
    engine::Engine,
    folder::{self, Missing},
    health,
    list::{List, Loads, PluginError},
    loader::{File, Outcome},
    running::{Plugin, Services},
    scan::{Ended, IgnoredFile, Scan, Seen, Visit},
    watcher::Watcher,
};

/// How soon a file that may have been half written is checked again.
const AGAIN: Duration = Duration::from_millis(1050);

/// All plugins and their states. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    services: Services,
    config: Arc<dyn PluginConfig>,
    dir: PathBuf,
    list: List,
    /// Held during a scan of the folder, so that only one runs at a time.
    scan: Mutex<Scan>,
    ended: Arc<Ended>,
    /// Files that look like plugins and are none, as the last scan found them.
    ignored: parking_lot::Mutex<Vec<IgnoredFile>>,
}

impl Registry {
    /// A registry of this folder and these tables of config.toml. It reads the plugins of earlier runs from the
    /// store, so that a plugin whose file is gone still gets deliveries, which are held.
    ///
    /// # Errors
    /// [`StoreError`] if the store can't be read.
    pub async fn new(
        engine: Engine,
        store: Store,
        databases: Databases,
        egress: Egress,
        dir: PathBuf,
        config: Arc<dyn PluginConfig>,
        env: Env,
    ) -> Result<Self, StoreError> {
        let remember = |record: PluginRecord| {
            let settings = config.settings(&record.name);
            Plugin::remembered(record, settings)
        };
        let list = List::new(store.clone(), store.plugins().await?.into_iter().map(remember));
        let scan = Scan::new(dir.clone(), Arc::clone(&config));
        Ok(Self(Arc::new(Inner {
            services: Services { engine, store, databases, egress, env },
            config,
            dir,
            list,
            ended: scan.ended(),
            scan: Mutex::new(scan),
            ignored: parking_lot::Mutex::default(),
        })))
    }

    /// The databases that plugins may be granted.
    pub fn databases(&self) -> &Databases {
        &self.0.services.databases
    }

    /// Scans the folder once: loads new and changed files, and holds plugins whose file is gone.
    pub async fn scan(&self) {
        let mut scan = self.0.scan.lock().await;
        self.0.look(&mut scan, true).await;
        scan.finish().await;
        self.0.prune().await;
    }

    /// Stops all loading before the daemon ends, so that an interrupted compilation is not counted
    /// against its file.
    pub async fn stop_loading(&self) {
        self.0.scan.lock().await.stop().await;
    }

    /// Reloads each plugin whose settings have changed. Its running attempts keep their settings. A plugin that
    /// does not load continues unchanged.
    pub async fn resettle(&self) {
        let mut scan = self.0.scan.lock().await;
        // A file that is being loaded may have read its settings before they changed.
        scan.finish().await;
        for plugin in self.list() {
            let name = &plugin.record.name;
            if *plugin.settings != self.0.config.settings(name) {
                scan.forget(name);
            }
        }
        self.0.look(&mut scan, true).await;
        scan.finish().await;
    }

    /// Watches the folder (file system events, and a rescan every `rescan`) until the future is dropped.
    pub async fn watch(&self, rescan: Duration) {
        let mut watcher = Watcher::new(self.0.dir.clone());
        let mut eager = true;
        loop {
            watcher.arm();
            let settled = self.0.look(&mut *self.0.scan.lock().await, eager).await;
            eager = tokio::select! {
                () = watcher.changed(if settled { rescan } else { rescan.min(AGAIN) }) => true,
                () = self.0.ended.bell.notified() => {
                    self.0.prune().await;
                    false
                }
            };
        }
    }

    /// The plugins that get an event of this type, held ones included.
    pub fn subscribers(&self, event_type: &EventType) -> Vec<PluginId> {
        self.0.list.snapshot().wanting(event_type).map(|plugin| plugin.record.id).collect()
    }

    /// The subscribers of this event, held plugins included.
    pub fn recipients(&self, event: &NewEvent) -> Vec<Subscriber> {
        let subscriber = |plugin: &Arc<Plugin>| Subscriber {
            plugin: plugin.record.id,
            order_key: plugin.settings.order_by.as_ref().and_then(|order| order.key(event)),
            held: !plugin.serving(),
        };
        self.0.list.snapshot().wanting(&event.event_type).map(subscriber).collect()
    }

    /// The `order_by` of each plugin that has one, as it is now.
    pub fn orders(&self) -> Orders {
        let order = |plugin: &Arc<Plugin>| Some((plugin.record.id, plugin.settings.order_by.clone()?));
        self.0.list.snapshot().plugins().filter_map(order).collect()
    }

    /// The current settings of the plugin with this name.
    pub fn settings(&self, name: &str) -> PluginSettings {
        self.0.config.settings(name)
    }

    /// The instances that run, those kept for reuse and those that decide, each with their maximum.
    pub fn instances(&self) -> [(&'static str, Usage); 3] {
        self.0.services.engine.usage()
    }

    /// How often files of the plugin with this name were loaded, or failed to load, since the daemon started.
    pub fn loads(&self, name: &str) -> Loads {
        self.0.list.loads(name)
    }

    /// The ignored files of the plugins folder, by name, with the reason.
    pub fn ignored(&self) -> Vec<IgnoredFile> {
        self.0.ignored.lock().clone()
    }

    /// All plugins, by name.
    pub fn list(&self) -> Vec<Arc<Plugin>> {
        self.0.list.all()
    }

    /// The plugin with this id.
    pub fn get(&self, id: PluginId) -> Option<Arc<Plugin>> {
        self.0.list.get(id)
    }

    /// The plugin with this name.
    pub fn by_name(&self, name: &str) -> Option<Arc<Plugin>> {
        self.0.list.by_name(name)
    }

    /// Wakes at every change of the list.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.list.changes()
    }

    /// Holds a plugin's deliveries until it is resumed.
    ///
    /// # Errors
    /// [`PluginError`] says why the plugin was not paused.
    pub async fn pause(&self, name: &str) -> Result<(), PluginError> {
        self.0.told(name, "pause", PluginChange::Paused(true), Plugin::paused).await
    }

    /// Ends a pause, by an operator or by the breaker. A plugin that is held for another reason stays held.
    ///
    /// # Errors
    /// [`PluginError`] says why the plugin was not resumed.
    pub async fn resume(&self, name: &str) -> Result<(), PluginError> {
        self.0.told(name, "resume", PluginChange::Paused(false), Plugin::resumed).await
    }

    /// Forgets a plugin whose file is gone, and which config.toml does not name with a `component`.
    ///
    /// # Errors
    /// [`PluginError`] says why the plugin was not forgotten.
    pub async fn forget(&self, name: &str) -> Result<(), PluginError> {
        let edit = self.0.list.edit().await;
        let plugin = edit.plugin(name)?;
        let components = self.0.config.components();
        let there = folder::look(&self.0.dir, &components).is_ok_and(|looked| {
            let missing = looked.missing.iter().map(|missing| &missing.name);
            looked.plugins.iter().map(|found| &found.name).chain(missing).any(|found| found == name)
        });
        if !plugin.is_gone() || there {
            return Err(PluginError::StillThere(name.to_owned(), components.file(name)));
        }
        edit.forget(&plugin).await?;
        tracing::info!(plugin = name, "plugin forgotten");
        Ok(())
    }

    /// Records how an attempt of this delivery went. Opens or closes the plugin's breaker if needed.
    pub async fn record_health(&self, plugin: &Plugin, delivery: DeliveryId, health: Health) {
        health::record(&self.0.list, &self.0.services.env, plugin, delivery, health).await;
    }

    /// Records that everything that a trial of this plugin tried has failed. Returns false if the breaker has
    /// changed since the trial began, or if the store did not record this. The trial goes on then.
    pub async fn trial_failed(&self, plugin: &Plugin, failed: FailedTrial) -> bool {
        health::trial_failed(&self.0.list, &self.0.services.env, plugin, failed).await
    }

    /// How long until the next trial of a plugin whose breaker is open.
    pub fn next_trial(&self) -> Option<Duration> {
        health::next_trial(&self.0.list, &self.0.services.env)
    }

    /// Begins the trials that are due.
    pub async fn begin_trials(&self) {
        health::begin_trials(&self.0.list, &self.0.services.env).await;
    }
}

impl Inner {
    async fn told(
        &self,
        name: &str,
        word: &str,
        change: PluginChange,
        next: impl FnOnce(&Plugin) -> Plugin,
    ) -> Result<(), PluginError> {
        self.list.change(name, change, next).await?;
        tracing::info!(plugin = name, word, "an operator's word");
        Ok(())
    }

    /// Scans the folder, starts to load new and changed files, and holds plugins whose file is gone. Returns
    /// whether all known files are settled. If not, the caller should scan again soon.
    async fn look(self: &Arc<Self>, scan: &mut Scan, eager: bool) -> bool {
        let visit = |visit| {
            let inner = Arc::clone(self);
            async move { inner.visit(visit).await }
        };
        let Some(scanned) = scan.look(eager, visit).await else { return false };
        *self.ignored.lock() = scanned.ignored;
        let mut settled = scanned.settled;
        let settings = |name: &str| Arc::new(self.config.settings(name));
        for Missing { name, reason } in &scanned.missing {
            settled &= apply::missing(&self.list, &self.services, name, settings(name), reason).await;
        }
        for plugin in self.list.all() {
            let name = &plugin.record.name;
            if scanned.present.contains(name) {
                continue;
            }
            if let Some(reason) = scanned.lent.get(name) {
                settled &= apply::missing(&self.list, &self.services, name, settings(name), reason).await;
            } else if scanned.first || !plugin.is_gone() {
                settled &= apply::left(&self.list, &self.services, name).await;
            }
        }
        settled
    }

    /// Loads a file and puts the outcome into force. Returns none if the file changed or left meanwhile.
    async fn visit(&self, visit: Visit) -> Option<Seen> {
        let Visit { found, seen, changed } = visit;
        let name = found.name.clone();
        let settings = Arc::new(self.config.settings(&name));
        let file = File::read(found).await;
        let stamp = file.stamp;
        let same = |plugin: &Arc<Plugin>| {
            file.sha256().is_some_and(|sha256| plugin.runs(sha256)) && plugin.settings == settings
        };
        if let Some(plugin) = self.list.by_name(&name).filter(same) {
            return Some(Seen { stamp, settled: apply::recovered(&self.list, &plugin).await });
        }
        let (list, services) = (&self.list, &self.services);
        let kept = match file.load(services, &name, Arc::clone(&settings), &changed).await {
            Outcome::Loads(inspection) => apply::loads(list, services, &name, settings, *inspection).await,
            Outcome::Refused { sha256, error } => {
                apply::refused(list, services, &name, settings, error, sha256.as_deref()).await
            }
            Outcome::Young => {
                if seen.is_none_or(|seen| seen.settled) {
                    tracing::info!(
                        plugin = name,
                        "a file that just changed does not load yet; it is tried again"
                    );
                }
                return Some(Seen { stamp, settled: false });
            }
            Outcome::Outdated => {
                tracing::info!(plugin = name, "file changed or left while it was loaded");
                return None;
            }
        };
        if let Err(error) = &kept {
            tracing::error!(plugin = name, %error, "the store did not record the plugin's state");
        }
        Some(Seen { stamp, settled: kept.is_ok() })
    }

    /// Removes old code that no plugin uses from the cache.
    async fn prune(&self) {
        let present: Vec<_> =
            self.list.all().iter().filter_map(|plugin| plugin.record.revision.clone()).collect();
        let engine = self.services.engine.clone();
        drop(tokio::task::spawn_blocking(move || engine.parts().cache.prune(&present)).await);
    }
}
