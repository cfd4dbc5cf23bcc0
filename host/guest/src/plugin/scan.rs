//! A scan brings the registry in line with the plugins folder.
//!
//! A scan can be repeated without harm, so both events and a timer start it. Each file is loaded by its own
//! task. A scan starts these tasks, and the next scan collects their results.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    path::Path,
    sync::Arc,
    time::Duration,
};

use posthouse_model::{HeldReason, config::PluginSettings};
use posthouse_store::{PluginChange, PluginRecord, StoreError};
use tokio::{sync::Notify, task::JoinSet};

use super::{
    folder::{self, Content, Found, ReadError, Stamp},
    registry::{IgnoredFile, Inner},
    revision::{self, Inspection, LoadError},
    standing::Plugin,
};

/// The interval between two looks at the folder while files are being loaded.
const LOOK: Duration = Duration::from_secs(1);

/// What a scan remembers from earlier scans.
#[derive(Default)]
pub(super) struct Memory {
    files: HashMap<String, Seen>,
    /// The tasks that load files.
    pub(super) visits: JoinSet<()>,
    busy: HashMap<String, Busy>,
    warned: HashSet<OsString>,
    /// Whether the last scan could not read the folder.
    blind: bool,
    /// Set by the first scan. It also records that plugins are gone whose files left while the daemon was not
    /// running.
    again: bool,
}

/// A file that is being loaded.
struct Busy {
    /// The file's stamp when it was last looked at, or none if it was gone.
    stamp: Option<Stamp>,
    /// Notified when the stamp changes.
    changed: Arc<Notify>,
}

#[derive(Clone, Copy)]
pub(super) struct Seen {
    stamp: Stamp,
    /// Whether nothing is left to do for this content.
    settled: bool,
}

impl Memory {
    /// Makes the next scan load the file again, although it has not changed.
    pub(super) fn forget(&mut self, name: &str) {
        self.files.remove(name);
    }

    /// Stops everything that is being loaded.
    pub(super) async fn stop(&mut self) {
        self.visits.shutdown().await;
        self.busy.clear();
    }

    /// Notifies the tasks whose file has changed or is gone, so that no outdated content is compiled.
    fn tell_busy(&mut self, present: &[Found]) {
        for (name, busy) in &mut self.busy {
            let stamp = present.iter().find(|found| found.name == *name).map(|found| found.stamp);
            if std::mem::replace(&mut busy.stamp, stamp) != stamp {
                busy.changed.notify_one();
            }
        }
    }
}

impl Inner {
    /// Reads the folder and starts to load new and changed files. Files that did not settle are retried only if
    /// `eager`, so that they are not retried in a loop. Returns whether all known files are settled. If not,
    /// the caller should scan again soon.
    pub(super) async fn look(self: &Arc<Self>, memory: &mut Memory, eager: bool) -> bool {
        self.note(memory);
        let dir = self.dir.clone();
        let looked = tokio::task::spawn_blocking(move || folder::look(&dir))
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let looked = match looked {
            Ok(looked) => looked,
            // Loaded plugins keep running, since an unreadable folder has not lost its files.
            Err(error) => {
                if !std::mem::replace(&mut memory.blind, true) {
                    tracing::error!(dir = %self.dir.display(), %error, "the plugins folder can't be read");
                }
                return false;
            }
        };
        memory.blind = false;
        // Bounds this set, whatever is written to the folder.
        memory.warned.retain(|file| looked.ignored.iter().any(|(ignored, _)| ignored == file));
        let mut ignored: Vec<_> = looked
            .ignored
            .iter()
            .map(|(file, reason)| IgnoredFile { file: file.to_string_lossy().into_owned(), reason })
            .collect();
        ignored.sort_unstable();
        *self.ignored.lock() = ignored;
        for (file, why) in looked.ignored {
            if memory.warned.insert(file.clone()) {
                tracing::warn!(file = %file.display(), why, "ignored a file in the plugins folder");
            }
        }
        memory.tell_busy(&looked.plugins);
        let names: HashSet<_> = looked.plugins.iter().map(|found| found.name.clone()).collect();
        memory.files.retain(|name, _| names.contains(name));
        for found in looked.plugins {
            let seen = memory.files.get(&found.name).copied();
            let due = match seen {
                None => true,
                Some(seen) if seen.settled => seen.stamp != found.stamp,
                Some(_) => eager,
            };
            if due && !memory.busy.contains_key(&found.name) {
                let inner = Arc::clone(self);
                let changed = Arc::new(Notify::new());
                let busy = Busy { stamp: Some(found.stamp), changed: Arc::clone(&changed) };
                memory.busy.insert(found.name.clone(), busy);
                memory.visits.spawn(async move {
                    let name = found.name.clone();
                    let seen = inner.visit(found, seen, &changed).await;
                    inner.visited.lock().push((name, seen));
                    inner.bell.notify_one();
                });
            }
        }
        let mut settled = memory.files.values().all(|seen| seen.settled);
        let first = !std::mem::replace(&mut memory.again, true);
        for (name, plugin) in &self.list.load_full().by_name {
            // For a file that is being loaded, the next scan checks whether it is gone.
            let left = !names.contains(name) && !memory.busy.contains_key(name);
            if left && (first || !plugin.is_gone()) {
                settled &= self.lose(name).await;
            }
        }
        settled
    }

    /// Collects the results of loaded files.
    pub(super) fn note(&self, memory: &mut Memory) {
        while memory.visits.try_join_next().is_some() {}
        for (name, seen) in self.visited.lock().drain(..) {
            memory.busy.remove(&name);
            match seen {
                Some(seen) => memory.files.insert(name, seen),
                None => memory.files.remove(&name),
            };
        }
    }

    /// Waits until all current loads end, and stops those whose file changes or leaves.
    pub(super) async fn finish(&self, memory: &mut Memory) {
        loop {
            tokio::select! {
                ended = memory.visits.join_next() => if ended.is_none() { break },
                () = tokio::time::sleep(LOOK) => {
                    let dir = self.dir.clone();
                    if let Ok(Ok(looked)) = tokio::task::spawn_blocking(move || folder::look(&dir)).await {
                        memory.tell_busy(&looked.plugins);
                    }
                }
            }
        }
        self.note(memory);
    }

    /// Loads a file that is new or changed, or that did not settle last time. Returns none if the file changed
    /// or left meanwhile. The next scan looks at it again.
    async fn visit(&self, found: Found, seen: Option<Seen>, changed: &Notify) -> Option<Seen> {
        let Found { name, path, mut stamp } = found;
        let settings = Arc::new((self.settings)(&name));
        let mut sha256 = None;
        let loaded = match revision::read(&path).await {
            Ok(content) => {
                stamp = content.stamp;
                sha256 = Some(content.revision.clone());
                let same =
                    |plugin: &Arc<Plugin>| plugin.runs(&content.revision) && plugin.settings == settings;
                match self.by_name(&name).filter(same) {
                    Some(plugin) => return Some(self.recover(&plugin, stamp).await),
                    None => {
                        let loading = revision::load(&self.engine, &name, &content, Arc::clone(&settings));
                        tokio::select! {
                            loaded = loading => loaded,
                            () = outdated(&path, &content, changed) => {
                                tracing::info!(plugin = name, "file changed or left while it was loaded");
                                return None;
                            }
                        }
                    }
                }
            }
            Err(error) => Err(error.into()),
        };
        if let Err(error) = &loaded
            && (stamp.is_young(self.env.now()) || matches!(error, LoadError::Read(ReadError::Changing(_))))
        {
            if seen.is_none_or(|seen| seen.settled) {
                tracing::info!(
                    plugin = name,
                    "a file that just changed does not load yet; it is tried again"
                );
            }
            return Some(Seen { stamp, settled: false });
        }
        let kept = self.settle(&name, settings, loaded, sha256.as_deref()).await;
        if let Err(error) = &kept {
            tracing::error!(plugin = name, %error, "the store did not take in how the plugin stands");
        }
        Some(Seen { stamp, settled: kept.is_ok() })
    }

    /// Puts the result of loading a file into force.
    async fn settle(
        &self,
        name: &str,
        settings: Arc<PluginSettings>,
        loaded: Result<Inspection, LoadError>,
        sha256: Option<&str>,
    ) -> Result<(), StoreError> {
        let _edit = self.edit.lock().await;
        let before = match self.by_name(name) {
            Some(plugin) => plugin,
            None => {
                let id = self.store.plugin_id(name).await?;
                let new = Plugin::new(id, name, Arc::clone(&settings), self.env.clone());
                self.save(&new, PluginChange::Subscribed(new.record.events.clone())).await?;
                Arc::new(new)
            }
        };
        let loads = loaded.is_ok();
        let (next, change) = match loaded {
            Ok(inspection) => {
                let next = before.loaded(self, settings, inspection);
                let PluginRecord { revision, description, events, requires, loaded_at, .. } =
                    next.record.clone();
                (next, PluginChange::Loaded { revision, description, events, requires, loaded_at })
            }
            Err(error) => {
                let error = error.to_string();
                (before.failed(error.clone()), PluginChange::Failed(error))
            }
        };
        self.save(&next, change).await?;
        let record = &next.record;
        match (&record.last_error, sha256) {
            (None, Some(sha256)) => {
                self.store.revision_loaded(record.id, sha256, &record.description).await?
            }
            (Some(error), Some(sha256)) => self.store.revision_refused(record.id, sha256, error).await?,
            (_, None) => {}
        }
        self.count(name, loads);
        announce(&next);
        self.swap(|list| list.insert(next));
        Ok(())
    }

    /// Counts a load of this plugin's file.
    fn count(&self, name: &str, loads: bool) {
        let mut counts = self.loads.lock();
        let counts = counts.entry(name.to_owned()).or_default();
        *(if loads { &mut counts.loaded } else { &mut counts.failed }) += 1;
    }

    /// The file has the running revision's content again. An error of another content in between is cleared.
    async fn recover(&self, plugin: &Plugin, stamp: Stamp) -> Seen {
        let settled = plugin.record.last_error.is_none()
            || self.change(&plugin.record.name, PluginChange::Recovered, Plugin::recovered).await.is_ok();
        Seen { stamp, settled }
    }

    /// Records that the file has left. Returns whether the store took it.
    async fn lose(&self, name: &str) -> bool {
        let was_gone = self.by_name(name).is_some_and(|plugin| plugin.is_gone());
        match self.change(name, PluginChange::Held, Plugin::gone).await {
            Ok(()) if !was_gone => {
                if let Some(plugin) = self.by_name(name)
                    && let Err(error) = self.store.revision_removed(plugin.record.id).await
                {
                    tracing::error!(plugin = name, %error, "the store did not take in when the revision ended");
                }
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
}

/// Returns once the file is gone or its content has changed. A new timestamp alone does not count.
async fn outdated(path: &Path, content: &Content, changed: &Notify) {
    loop {
        changed.notified().await;
        match revision::read(path).await {
            Ok(now) if now.revision == content.revision => {}
            // Another program is writing to it. The next notification shows the result.
            Err(ReadError::Changing(_)) => {}
            _ => return,
        }
    }
}

/// Logs one line about the plugin's state after its file was loaded, or failed to load.
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
