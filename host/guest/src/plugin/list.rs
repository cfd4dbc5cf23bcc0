//! The list of all plugins, those included that the store remembers and whose file is gone.
//!
//! Readers take a snapshot without waiting. Only the holder of an [`Edit`] changes the list. It writes to the
//! store before it publishes, so that the subscriptions of accepted events survive a crash.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use arc_swap::{ArcSwap, Guard};
use posthouse_model::{EventType, PluginId};
use posthouse_store::{PluginChange, PluginUpdate, Store, StoreError};
use tokio::sync::{Mutex, MutexGuard, watch};

use super::running::Plugin;

/// All plugins, as they are now.
pub(super) struct List {
    store: Store,
    now: ArcSwap<Snapshot>,
    changes: watch::Sender<u64>,
    /// Held while the list changes, but not during a compilation.
    edit: Mutex<()>,
    loads: parking_lot::Mutex<BTreeMap<String, Loads>>,
}

/// Why an operator's command failed.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// No plugin has this name.
    #[error("no plugin `{0}`; `posthouse plugins` lists them")]
    Unknown(String),
    /// A plugin whose file is still there, or that config.toml gives a `component`, can't be forgotten.
    #[error(
        "plugin `{0}` still has its file; remove `{1}` from the plugins folder, or the `component` of \
         [plugin.{0}] from config.toml, first"
    )]
    StillThere(String, String),
    /// The store did not record the change.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How often files of a plugin were loaded since the daemon started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loads {
    /// Files that became the revision in force.
    pub loaded: u64,
    /// Files that did not load.
    pub failed: u64,
}

/// All plugins at one moment.
#[derive(Default, Clone)]
pub(super) struct Snapshot {
    by_name: BTreeMap<String, Arc<Plugin>>,
    by_id: HashMap<PluginId, Arc<Plugin>>,
}

impl Snapshot {
    /// The plugins, by name.
    pub(super) fn plugins(&self) -> impl Iterator<Item = &Arc<Plugin>> {
        self.by_name.values()
    }

    /// The plugins that subscribe to events of this type, held ones included.
    pub(super) fn wanting(&self, event_type: &EventType) -> impl Iterator<Item = &Arc<Plugin>> {
        let wants = move |plugin: &&Arc<Plugin>| plugin.record.events.iter().any(|p| p.matches(event_type));
        self.by_name.values().filter(wants)
    }

    fn insert(&mut self, plugin: Plugin) {
        let plugin = Arc::new(plugin);
        self.by_id.insert(plugin.record.id, Arc::clone(&plugin));
        self.by_name.insert(plugin.record.name.clone(), plugin);
    }
}

impl List {
    /// A list of these plugins, whose changes go to this store.
    pub(super) fn new(store: Store, plugins: impl IntoIterator<Item = Plugin>) -> Self {
        let mut now = Snapshot::default();
        plugins.into_iter().for_each(|plugin| now.insert(plugin));
        Self {
            store,
            now: ArcSwap::from_pointee(now),
            changes: watch::Sender::new(0),
            edit: Mutex::default(),
            loads: parking_lot::Mutex::default(),
        }
    }

    /// All plugins, as they are now.
    pub(super) fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.now.load()
    }

    /// All plugins, by name.
    pub(super) fn all(&self) -> Vec<Arc<Plugin>> {
        self.now.load().by_name.values().cloned().collect()
    }

    /// The plugin with this id.
    pub(super) fn get(&self, id: PluginId) -> Option<Arc<Plugin>> {
        self.now.load().by_id.get(&id).cloned()
    }

    /// The plugin with this name.
    pub(super) fn by_name(&self, name: &str) -> Option<Arc<Plugin>> {
        self.now.load().by_name.get(name).cloned()
    }

    /// How often files of the plugin with this name were loaded, or failed to load, since the daemon started.
    pub(super) fn loads(&self, name: &str) -> Loads {
        self.loads.lock().get(name).copied().unwrap_or_default()
    }

    /// Wakes at every change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Returns the right to change the list. Waits while another task has it.
    pub(super) async fn edit(&self) -> Edit<'_> {
        Edit { list: self, _held: self.edit.lock().await }
    }

    /// Replaces the plugin with this name by the result of `next`, after the store has recorded the change.
    pub(super) async fn change(
        &self,
        name: &str,
        change: PluginChange,
        next: impl FnOnce(&Plugin) -> Plugin,
    ) -> Result<(), PluginError> {
        let edit = self.edit().await;
        let next = next(&*edit.plugin(name)?);
        Ok(edit.commit(next, change).await?)
    }
}

/// The right to change the list.
pub(super) struct Edit<'a> {
    list: &'a List,
    _held: MutexGuard<'a, ()>,
}

impl Edit<'_> {
    /// The plugin with this name.
    pub(super) fn plugin(&self, name: &str) -> Result<Arc<Plugin>, PluginError> {
        self.list.by_name(name).ok_or_else(|| PluginError::Unknown(name.to_owned()))
    }

    /// Writes the change of a plugin to the store. Nothing is published yet.
    pub(super) async fn save(&self, next: &Plugin, change: PluginChange) -> Result<(), StoreError> {
        let held = next.record.held.clone();
        self.list.store.update_plugin(next.record.id, PluginUpdate { held, change }).await
    }

    /// Replaces the plugin in the list.
    pub(super) fn publish(&self, next: Plugin) {
        self.swap(|list| list.insert(next));
    }

    /// Writes the change of a plugin to the store, and then replaces the plugin in the list.
    pub(super) async fn commit(&self, next: Plugin, change: PluginChange) -> Result<(), StoreError> {
        self.save(&next, change).await?;
        self.publish(next);
        Ok(())
    }

    /// Counts a load of this plugin's file.
    pub(super) fn count(&self, name: &str, loads: bool) {
        let mut counts = self.list.loads.lock();
        let counts = counts.entry(name.to_owned()).or_default();
        *(if loads { &mut counts.loaded } else { &mut counts.failed }) += 1;
    }

    /// Removes the plugin from the store and from the list.
    pub(super) async fn forget(&self, plugin: &Plugin) -> Result<(), StoreError> {
        let (id, name) = (plugin.record.id, &plugin.record.name);
        self.list.store.forget_plugin(id).await?;
        self.list.loads.lock().remove(name);
        self.swap(|list| {
            list.by_name.remove(name);
            list.by_id.remove(&id);
        });
        Ok(())
    }

    fn swap(&self, change: impl FnOnce(&mut Snapshot)) {
        let mut next = Snapshot::clone(&self.list.now.load());
        change(&mut next);
        self.list.now.store(Arc::new(next));
        self.list.changes.send_modify(|count| *count += 1);
    }
}
