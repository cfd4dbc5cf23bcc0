//! The registry: every plugin there is, in the folder or only in the store's memory.
//!
//! Readers take the list as it stands, without waiting. It changes in two ways: a scan of the folder
//! (never two at once; it may wait for a compiler) and an operator's word (which waits for no scan).
//! Both write to the store before the list is swapped, so that what events are taken in for is known
//! after a crash too.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ffi::OsString,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, watch};

use super::{
    engine::Engine,
    folder::{self, Found, ReadError, Stamp},
    revision::{self, Inspection, LoadError},
    standing::Plugin,
    watcher::Watcher,
};
use crate::{
    config::PluginSettings,
    model::{Ambient, EventType, HeldReason, PluginId},
    store::{Store, StoreError},
};

/// How soon a file is looked at again that may have been half written.
const AGAIN: Duration = Duration::from_millis(1050);

/// Says what each plugin gets.
type Settings = Arc<dyn Fn(&str) -> PluginSettings + Send + Sync>;

/// Every plugin there is, and how each stands. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    engine: Engine,
    store: Store,
    dir: PathBuf,
    settings: Settings,
    ambient: Ambient,
    list: ArcSwap<List>,
    changes: watch::Sender<u64>,
    /// Held while the folder is looked through.
    scan: Mutex<Memory>,
    /// Held while the list changes; never while something compiles.
    edit: Mutex<()>,
}

#[derive(Default, Clone)]
struct List {
    by_name: BTreeMap<String, Arc<Plugin>>,
    by_id: HashMap<PluginId, Arc<Plugin>>,
}

/// What a scan remembers of those before it.
#[derive(Default)]
struct Memory {
    files: HashMap<String, Seen>,
    warned: HashSet<OsString>,
    /// The folder could not be read last time.
    blind: bool,
    /// The first scan writes down how plugins stand that were serving when the daemon ended.
    again: bool,
}

struct Seen {
    stamp: Stamp,
    /// Nothing is left to do for this content.
    settled: bool,
}

/// Why an operator's word was not followed.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// There is no such plugin.
    #[error("no plugin `{0}`; `posthouse plugins` lists them")]
    Unknown(String),
    /// Only what is gone can be forgotten.
    #[error("plugin `{0}` still has its file in the plugins folder; remove `{0}.wasm` first")]
    StillThere(String),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Registry {
    /// A registry of this folder; `settings` says what each plugin gets. Remembers, from the store, the
    /// plugins of earlier runs, so that one whose file is gone keeps getting deliveries, held.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub async fn new(
        engine: Engine,
        store: Store,
        dir: PathBuf,
        settings: Arc<dyn Fn(&str) -> PluginSettings + Send + Sync>,
        ambient: Ambient,
    ) -> Result<Self, StoreError> {
        let mut list = List::default();
        for record in store.plugins().await? {
            let plugin_settings = settings(&record.name);
            list.insert(Plugin::remembered(record, plugin_settings, ambient.clone()));
        }
        Ok(Self(Arc::new(Inner {
            engine,
            store,
            dir,
            settings,
            ambient,
            list: ArcSwap::from_pointee(list),
            changes: watch::Sender::new(0),
            scan: Mutex::default(),
            edit: Mutex::default(),
        })))
    }

    /// Looks through the folder once: loads what is new or changed, holds what went away.
    pub async fn scan(&self) {
        self.0.look().await;
    }

    /// Watches the folder (file system events, and a rescan every `rescan`) until the future is dropped.
    pub async fn watch(&self, rescan: Duration) {
        let mut watcher = Watcher::new(self.0.dir.clone());
        loop {
            watcher.arm();
            let settled = self.0.look().await;
            watcher.changed(if settled { rescan } else { rescan.min(AGAIN) }).await;
        }
    }

    /// Which plugins get an event of this type, held ones included.
    pub fn subscribers(&self, event_type: &EventType) -> Vec<PluginId> {
        let wants = |plugin: &&Arc<Plugin>| plugin.record.events.iter().any(|p| p.matches(event_type));
        self.0.list.load().by_name.values().filter(wants).map(|plugin| plugin.record.id).collect()
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
    /// [`PluginError`] says why it was not.
    pub async fn pause(&self, name: &str) -> Result<(), PluginError> {
        self.0.set_paused(name, true).await
    }

    /// Ends a pause. A plugin that has another reason to be held stays so.
    ///
    /// # Errors
    /// [`PluginError`] says why it was not.
    pub async fn resume(&self, name: &str) -> Result<(), PluginError> {
        self.0.set_paused(name, false).await
    }

    /// Forgets a plugin whose file is gone.
    ///
    /// # Errors
    /// [`PluginError`] says why it was not.
    pub async fn forget(&self, name: &str) -> Result<(), PluginError> {
        let inner = &*self.0;
        let _edit = inner.edit.lock().await;
        let plugin = inner.known(name)?;
        if !plugin.is_gone() || inner.dir.join(format!("{name}.wasm")).exists() {
            return Err(PluginError::StillThere(name.to_owned()));
        }
        inner.store.forget_plugin(plugin.record.id).await?;
        inner.swap(|list| {
            list.by_name.remove(name);
            list.by_id.remove(&plugin.record.id);
        });
        tracing::info!(plugin = name, "plugin forgotten");
        Ok(())
    }
}

impl List {
    fn insert(&mut self, plugin: Plugin) {
        let plugin = Arc::new(plugin);
        self.by_id.insert(plugin.record.id, Arc::clone(&plugin));
        self.by_name.insert(plugin.record.name.clone(), plugin);
    }
}

impl Inner {
    /// One scan. Says whether all is done, or a file has to be looked at again soon.
    async fn look(&self) -> bool {
        let mut memory = self.scan.lock().await;
        let dir = self.dir.clone();
        let looked = tokio::task::spawn_blocking(move || folder::look(&dir))
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let looked = match looked {
            Ok(looked) => looked,
            // What was loaded goes on: a folder that can't be read has not lost its files.
            Err(error) => {
                if !std::mem::replace(&mut memory.blind, true) {
                    tracing::error!(dir = %self.dir.display(), %error, "the plugins folder can't be read");
                }
                return false;
            }
        };
        memory.blind = false;
        for (file, why) in looked.ignored {
            if memory.warned.insert(file.clone()) {
                tracing::warn!(file = %file.display(), why, "ignored a file in the plugins folder");
            }
        }
        let mut settled = true;
        let mut changed = false;
        let names: HashSet<_> = looked.plugins.iter().map(|found| found.name.clone()).collect();
        for found in looked.plugins {
            let seen = memory.files.remove(&found.name);
            if seen.as_ref().is_some_and(|seen| seen.settled && seen.stamp == found.stamp) {
                memory.files.extend(seen.map(|seen| (found.name, seen)));
                continue;
            }
            let name = found.name.clone();
            let seen = self.visit(found, seen).await;
            settled &= seen.settled;
            changed = true;
            memory.files.insert(name, seen);
        }
        memory.files.retain(|name, _| names.contains(name));
        let first = !std::mem::replace(&mut memory.again, true);
        for plugin in self.list.load_full().by_name.values() {
            if !names.contains(&plugin.record.name) && (first || !plugin.is_gone()) {
                settled &= self.lose(&plugin.record.name).await;
            }
        }
        if changed {
            let present =
                self.list.load().by_name.values().filter_map(|p| p.record.revision.clone()).collect();
            self.prune(present).await;
        }
        settled
    }

    /// Loads a file that is new or has changed, or that did not settle last time.
    async fn visit(&self, found: Found, seen: Option<Seen>) -> Seen {
        let Found { name, path, mut stamp } = found;
        let settings = Arc::new((self.settings)(&name));
        let loaded = match revision::read(&path).await {
            Ok(content) => {
                stamp = content.stamp;
                match self.by_name(&name).filter(|plugin| plugin.runs(&content.revision)) {
                    Some(plugin) => return self.recover(&plugin, stamp).await,
                    None => revision::load(&self.engine, &name, &content, Arc::clone(&settings)).await,
                }
            }
            Err(error) => Err(error.into()),
        };
        if let Err(error) = &loaded
            && (stamp.is_young(self.ambient.now())
                || matches!(error, LoadError::Read(ReadError::Changing(_))))
        {
            if seen.is_none_or(|seen| seen.settled) {
                tracing::info!(
                    plugin = name,
                    "a file that just changed does not load yet; it is tried again"
                );
            }
            return Seen { stamp, settled: false };
        }
        let kept = self.settle(&name, settings, loaded).await;
        if let Err(error) = &kept {
            tracing::error!(plugin = name, %error, "the store did not take in how the plugin stands");
        }
        Seen { stamp, settled: kept.is_ok() }
    }

    /// Puts into force what loading a file came to.
    async fn settle(
        &self,
        name: &str,
        settings: Arc<PluginSettings>,
        loaded: Result<Inspection, LoadError>,
    ) -> Result<(), StoreError> {
        let _edit = self.edit.lock().await;
        let before = match self.by_name(name) {
            Some(plugin) => plugin,
            None => {
                let id = self.store.plugin_id(name).await?;
                Arc::new(Plugin::new(id, name, Arc::clone(&settings), self.ambient.clone()))
            }
        };
        let next = match loaded {
            Ok(inspection) => before.loaded(&self.engine, &self.store, settings, inspection),
            Err(error) => before.failed(error.to_string()),
        };
        self.store.save_plugin(next.record.clone()).await?;
        announce(&next);
        self.swap(|list| list.insert(next));
        Ok(())
    }

    /// The file is again what runs: an error of a content in between is history.
    async fn recover(&self, plugin: &Plugin, stamp: Stamp) -> Seen {
        let settled = plugin.record.last_error.is_none()
            || self.change(&plugin.record.name, Plugin::recovered).await.is_ok();
        Seen { stamp, settled }
    }

    /// The file left.
    async fn lose(&self, name: &str) -> bool {
        let was_gone = self.by_name(name).is_some_and(|plugin| plugin.is_gone());
        match self.change(name, Plugin::gone).await {
            Ok(()) if !was_gone => {
                tracing::warn!(plugin = name, "the plugin's file left; its deliveries are held");
                true
            }
            Ok(()) => true,
            Err(error) => {
                tracing::error!(plugin = name, %error, "the store did not take in that the plugin's file left");
                false
            }
        }
    }

    async fn set_paused(&self, name: &str, paused: bool) -> Result<(), PluginError> {
        self.change(name, |plugin| plugin.paused(paused)).await?;
        tracing::info!(plugin = name, paused, "an operator's word");
        Ok(())
    }

    /// Replaces a plugin by what becomes of it.
    async fn change(&self, name: &str, next: impl FnOnce(&Plugin) -> Plugin) -> Result<(), PluginError> {
        let _edit = self.edit.lock().await;
        let next = next(&*self.known(name)?);
        self.store.save_plugin(next.record.clone()).await?;
        self.swap(|list| list.insert(next));
        Ok(())
    }

    fn by_name(&self, name: &str) -> Option<Arc<Plugin>> {
        self.list.load().by_name.get(name).cloned()
    }

    fn known(&self, name: &str) -> Result<Arc<Plugin>, PluginError> {
        self.by_name(name).ok_or_else(|| PluginError::Unknown(name.to_owned()))
    }

    /// Changes the list; only under `edit`.
    fn swap(&self, change: impl FnOnce(&mut List)) {
        let mut list = List::clone(&self.list.load());
        change(&mut list);
        self.list.store(Arc::new(list));
        self.changes.send_modify(|count| *count += 1);
    }

    async fn prune(&self, present: Vec<String>) {
        let engine = self.engine.clone();
        drop(tokio::task::spawn_blocking(move || engine.parts().cache.prune(&present)).await);
    }
}

/// One line of how a plugin stands after its file was loaded, or was not.
fn announce(plugin: &Plugin) {
    let record = &plugin.record;
    let events: Vec<_> = record.events.iter().map(|pattern| pattern.as_str()).collect();
    let name = &record.name;
    match (&record.last_error, &record.held) {
        (Some(error), None) => {
            tracing::error!(
                plugin = name,
                error,
                "a new revision does not load; the old one goes on serving"
            );
        }
        (Some(error), Some(_)) => {
            tracing::error!(plugin = name, error, "the plugin does not load; it is held")
        }
        (None, Some(HeldReason::LacksGrant(lines))) => {
            tracing::warn!(plugin = name, "the plugin lacks a grant and is held: {lines}");
        }
        (None, held) => {
            let revision = record.revision.as_deref().map(|hash| &hash[..hash.len().min(12)]);
            tracing::info!(plugin = name, revision, ?events, ?held, "plugin loaded");
        }
    }
}
