//! The registry lists every plugin that is in the folder or that the store remembers.
//!
//! Readers take a snapshot of the list without waiting. The list changes in two ways. A file in the folder is
//! loaded by its own task, so that a slow compilation delays no other file. An operator's command waits for no
//! file. Both write to the store before they swap the list, so that the subscriptions of accepted events
//! survive a crash.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use posthouse_database::Databases;
use posthouse_egress::Egress;
use posthouse_model::{
    Env, EventType, NewEvent, Orders, PluginId, Subscriber, Usage, config::PluginSettings,
};
use posthouse_store::{PluginChange, PluginUpdate, Store, StoreError};
use tokio::sync::{Mutex, Notify, watch};

use super::{
    engine::Engine,
    scan::{Memory, Seen},
    standing::Plugin,
    watcher::Watcher,
};

/// How soon a file that may have been half written is checked again.
const AGAIN: Duration = Duration::from_millis(1050);

/// Returns the settings of each plugin.
type Settings = Arc<dyn Fn(&str) -> PluginSettings + Send + Sync>;

/// All plugins and their states. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

pub(super) struct Inner {
    pub(super) engine: Engine,
    pub(super) store: Store,
    pub(super) databases: Databases,
    pub(super) egress: Egress,
    pub(super) dir: PathBuf,
    pub(super) settings: Settings,
    pub(super) env: Env,
    pub(super) list: ArcSwap<List>,
    changes: watch::Sender<u64>,
    /// Held during a scan of the folder, so that only one runs at a time.
    scan: Mutex<Memory>,
    /// The results of loaded files. `bell` wakes the watching task when there is a new one.
    pub(super) visited: parking_lot::Mutex<Vec<(String, Option<Seen>)>>,
    pub(super) bell: Notify,
    pub(super) loads: parking_lot::Mutex<BTreeMap<String, Loads>>,
    /// Files that look like plugins and are none, as the last scan found them.
    pub(super) ignored: parking_lot::Mutex<Vec<IgnoredFile>>,
    /// Held while the list changes, but not during a compilation.
    pub(super) edit: Mutex<()>,
}

#[derive(Default, Clone)]
pub(super) struct List {
    pub(super) by_name: BTreeMap<String, Arc<Plugin>>,
    by_id: HashMap<PluginId, Arc<Plugin>>,
}

/// A file of the plugins folder that looks like a plugin and is ignored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct IgnoredFile {
    /// Its name. Bytes that are not UTF-8 are replaced.
    pub file: String,
    /// Why it is ignored, and what to do.
    pub reason: &'static str,
}

/// How often files of a plugin were loaded since the daemon started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loads {
    /// Files that became the revision in force.
    pub loaded: u64,
    /// Files that did not load.
    pub failed: u64,
}

/// Why an operator's command failed.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// No plugin has this name.
    #[error("no plugin `{0}`; `posthouse plugins` lists them")]
    Unknown(String),
    /// A plugin whose file is still there can't be forgotten.
    #[error("plugin `{0}` still has its file in the plugins folder; remove `{0}.wasm` first")]
    StillThere(String),
    /// The store did not record the change.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Registry {
    /// A registry of this folder. `settings` returns the settings of each plugin. It reads the plugins of
    /// earlier runs from the store, so that a plugin whose file is gone still gets deliveries, which are held.
    ///
    /// # Errors
    /// [`StoreError`] if the store can't be read.
    pub async fn new(
        engine: Engine,
        store: Store,
        databases: Databases,
        egress: Egress,
        dir: PathBuf,
        settings: Arc<dyn Fn(&str) -> PluginSettings + Send + Sync>,
        env: Env,
    ) -> Result<Self, StoreError> {
        let mut list = List::default();
        for record in store.plugins().await? {
            let plugin_settings = settings(&record.name);
            list.insert(Plugin::remembered(record, plugin_settings, env.clone()));
        }
        Ok(Self(Arc::new(Inner {
            engine,
            store,
            databases,
            egress,
            dir,
            settings,
            env,
            list: ArcSwap::from_pointee(list),
            changes: watch::Sender::new(0),
            scan: Mutex::default(),
            visited: parking_lot::Mutex::default(),
            bell: Notify::new(),
            loads: parking_lot::Mutex::default(),
            ignored: parking_lot::Mutex::default(),
            edit: Mutex::default(),
        })))
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.0
    }

    /// The databases that plugins may be granted.
    pub fn databases(&self) -> &Databases {
        &self.0.databases
    }

    /// Scans the folder once: loads new and changed files, and holds plugins whose file is gone.
    pub async fn scan(&self) {
        let mut memory = self.0.scan.lock().await;
        self.0.look(&mut memory, true).await;
        self.0.finish(&mut memory).await;
        self.0.prune().await;
    }

    /// Stops all loading before the daemon ends, so that no file is blamed for a compilation that was
    /// interrupted.
    pub async fn stop_loading(&self) {
        self.0.scan.lock().await.stop().await;
    }

    /// Loads each plugin whose settings have changed again. Its running attempts keep their settings. A plugin
    /// that does not load goes on as before.
    pub async fn resettle(&self) {
        let mut memory = self.0.scan.lock().await;
        // A file that is being loaded may have read its settings before they changed.
        self.0.finish(&mut memory).await;
        for plugin in self.list() {
            let name = &plugin.record.name;
            if *plugin.settings != (self.0.settings)(name) {
                memory.forget(name);
            }
        }
        self.0.look(&mut memory, true).await;
        self.0.finish(&mut memory).await;
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
                () = self.0.bell.notified() => {
                    self.0.prune().await;
                    false
                }
            };
        }
    }

    /// The plugins that get an event of this type, held ones included.
    pub fn subscribers(&self, event_type: &EventType) -> Vec<PluginId> {
        let wants = |plugin: &&Arc<Plugin>| plugin.record.events.iter().any(|p| p.matches(event_type));
        self.0.list.load().by_name.values().filter(wants).map(|plugin| plugin.record.id).collect()
    }

    /// The subscribers of this event, held plugins included.
    pub fn recipients(&self, event: &NewEvent) -> Vec<Subscriber> {
        let wants = |plugin: &&Arc<Plugin>| plugin.record.events.iter().any(|p| p.matches(&event.event_type));
        let subscriber = |plugin: &Arc<Plugin>| Subscriber {
            plugin: plugin.record.id,
            order_key: plugin.settings.order_by.as_ref().and_then(|order| order.key(event)),
            held: !plugin.serving(),
        };
        self.0.list.load().by_name.values().filter(wants).map(subscriber).collect()
    }

    /// The `order_by` of each plugin that has one, as it is now.
    pub fn orders(&self) -> Orders {
        let list = self.0.list.load();
        let order = |plugin: &Arc<Plugin>| Some((plugin.record.id, plugin.settings.order_by.clone()?));
        list.by_name.values().filter_map(order).collect()
    }

    /// The current settings of the plugin with this name.
    pub fn settings(&self, name: &str) -> PluginSettings {
        (self.0.settings)(name)
    }

    /// The instances that run and those kept for reuse, each with their maximum.
    pub fn instances(&self) -> [(&'static str, Usage); 2] {
        self.0.engine.usage()
    }

    /// How often files of the plugin with this name were loaded, or failed to load, since the daemon started.
    pub fn loads(&self, name: &str) -> Loads {
        self.0.loads.lock().get(name).copied().unwrap_or_default()
    }

    /// The ignored files of the plugins folder, by name, with the reason.
    pub fn ignored(&self) -> Vec<IgnoredFile> {
        self.0.ignored.lock().clone()
    }

    /// All plugins, by name.
    pub fn list(&self) -> Vec<Arc<Plugin>> {
        self.0.list.load().by_name.values().cloned().collect()
    }

    /// The plugin with this id.
    pub fn get(&self, id: PluginId) -> Option<Arc<Plugin>> {
        self.0.list.load().by_id.get(&id).cloned()
    }

    /// The plugin with this name.
    pub fn by_name(&self, name: &str) -> Option<Arc<Plugin>> {
        self.0.by_name(name)
    }

    /// Wakes at every change of the list.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
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

    /// Forgets a plugin whose file is gone.
    ///
    /// # Errors
    /// [`PluginError`] says why the plugin was not forgotten.
    pub async fn forget(&self, name: &str) -> Result<(), PluginError> {
        let inner = &*self.0;
        let _edit = inner.edit.lock().await;
        let plugin = inner.known(name)?;
        if !plugin.is_gone() || inner.dir.join(format!("{name}.wasm")).exists() {
            return Err(PluginError::StillThere(name.to_owned()));
        }
        inner.store.forget_plugin(plugin.record.id).await?;
        inner.loads.lock().remove(name);
        inner.swap(|list| {
            list.by_name.remove(name);
            list.by_id.remove(&plugin.record.id);
        });
        tracing::info!(plugin = name, "plugin forgotten");
        Ok(())
    }
}

impl List {
    pub(super) fn insert(&mut self, plugin: Plugin) {
        let plugin = Arc::new(plugin);
        self.by_id.insert(plugin.record.id, Arc::clone(&plugin));
        self.by_name.insert(plugin.record.name.clone(), plugin);
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
        self.change(name, change, next).await?;
        tracing::info!(plugin = name, word, "an operator's word");
        Ok(())
    }

    /// Replaces a plugin with the result of `next`, after the store has recorded the change.
    pub(super) async fn change(
        &self,
        name: &str,
        change: PluginChange,
        next: impl FnOnce(&Plugin) -> Plugin,
    ) -> Result<(), PluginError> {
        let _edit = self.edit.lock().await;
        let next = next(&*self.known(name)?);
        self.save(&next, change).await?;
        self.swap(|list| list.insert(next));
        Ok(())
    }

    /// Writes the change of a plugin to the store.
    pub(super) async fn save(&self, plugin: &Plugin, change: PluginChange) -> Result<(), StoreError> {
        let held = plugin.record.held.clone();
        self.store.update_plugin(plugin.record.id, PluginUpdate { held, change }).await
    }

    pub(super) fn by_name(&self, name: &str) -> Option<Arc<Plugin>> {
        self.list.load().by_name.get(name).cloned()
    }

    fn known(&self, name: &str) -> Result<Arc<Plugin>, PluginError> {
        self.by_name(name).ok_or_else(|| PluginError::Unknown(name.to_owned()))
    }

    /// Changes the list. The caller holds `edit`.
    pub(super) fn swap(&self, change: impl FnOnce(&mut List)) {
        let mut list = List::clone(&self.list.load());
        change(&mut list);
        self.list.store(Arc::new(list));
        self.changes.send_modify(|count| *count += 1);
    }

    /// Removes old code that no plugin uses from the cache.
    async fn prune(&self) {
        let plugins = self.list.load_full();
        let present: Vec<_> = plugins.by_name.values().filter_map(|p| p.record.revision.clone()).collect();
        let engine = self.engine.clone();
        drop(tokio::task::spawn_blocking(move || engine.parts().cache.prune(&present)).await);
    }
}
