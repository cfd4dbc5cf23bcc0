//! A scan finds out which files of the plugins folder are new, changed or gone, and which are being loaded.
//!
//! A scan can be repeated without harm, so both events and a timer start it. Each file is loaded by its own
//! task. A scan starts these tasks, and the next scan collects their results. The caller decides what a task
//! does with a file.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ffi::OsString,
    io,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, task::JoinSet};

use super::{
    config::PluginConfig,
    folder::{self, Found, Looked, Missing, Stamp},
};

/// The interval between two looks at the folder while files are being loaded.
const LOOK: Duration = Duration::from_secs(1);

/// The folder, and the results of earlier scans.
pub(super) struct Scan {
    dir: PathBuf,
    config: Arc<dyn PluginConfig>,
    files: HashMap<String, Seen>,
    /// The tasks that load files.
    visits: JoinSet<()>,
    busy: HashMap<String, Busy>,
    ended: Arc<Ended>,
    warned: HashSet<OsString>,
    /// Whether the last scan could not read the folder.
    blind: bool,
    /// Set by the first scan.
    again: bool,
}

/// A file that is being loaded.
struct Busy {
    /// The file's stamp when it was last looked at, or none if it was gone.
    stamp: Option<Stamp>,
    /// Notified when the stamp changes.
    changed: Arc<Notify>,
}

/// The result of loading one content of a file.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    /// Tells the content from others.
    pub(super) stamp: Stamp,
    /// Whether nothing is left to do for this content.
    pub(super) settled: bool,
}

/// The results of loaded files that no scan has collected yet.
#[derive(Default)]
pub(super) struct Ended {
    results: Mutex<Vec<(String, Option<Seen>)>>,
    /// Wakes the task that watches the folder when there is a new one.
    pub(super) bell: Notify,
}

/// A file to load: it is new or changed, or did not settle last time.
pub(super) struct Visit {
    /// The file.
    pub(super) found: Found,
    /// Its result last time.
    pub(super) seen: Option<Seen>,
    /// Notified when the file may have changed or left.
    pub(super) changed: Arc<Notify>,
}

/// The result of a scan.
pub(super) struct Scanned {
    /// The plugins whose file is in the folder, or is being loaded. For a file that is being loaded, the next
    /// scan checks whether it is gone.
    pub(super) present: HashSet<String>,
    /// Files that look like plugins and are none, by name.
    pub(super) ignored: Vec<IgnoredFile>,
    /// The plugins whose `component` is not in the folder.
    pub(super) missing: Vec<Missing>,
    /// The files that serve other plugins only, with what it means for a plugin of their name.
    pub(super) lent: BTreeMap<String, String>,
    /// Whether all known files are settled. If not, the caller should scan again soon.
    pub(super) settled: bool,
    /// Whether this is the first scan. Files may have left while the daemon was not running.
    pub(super) first: bool,
}

/// A file of the plugins folder that looks like a plugin and is ignored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct IgnoredFile {
    /// Its name. Bytes that are not UTF-8 are replaced.
    pub file: String,
    /// Why it is ignored, and what to do.
    pub reason: &'static str,
}

impl Scan {
    /// A scan of this folder, which has found nothing yet.
    pub(super) fn new(dir: PathBuf, config: Arc<dyn PluginConfig>) -> Self {
        Self {
            dir,
            config,
            files: HashMap::new(),
            visits: JoinSet::new(),
            busy: HashMap::new(),
            ended: Arc::default(),
            warned: HashSet::new(),
            blind: false,
            again: false,
        }
    }

    /// Where the tasks leave their results.
    pub(super) fn ended(&self) -> Arc<Ended> {
        Arc::clone(&self.ended)
    }

    /// Makes the next scan load the file again, although it has not changed.
    pub(super) fn forget(&mut self, name: &str) {
        self.files.remove(name);
    }

    /// Stops everything that is being loaded.
    pub(super) async fn stop(&mut self) {
        self.visits.shutdown().await;
        self.busy.clear();
    }

    /// Reads the folder and starts a `visit` of each new or changed file. A visit returns none if the file
    /// changed or left meanwhile; the next scan looks at it again. Files that did not settle are retried only
    /// if `eager`, so that they are not retried in a loop. Returns none if the folder can't be read.
    pub(super) async fn look<F>(&mut self, eager: bool, visit: impl Fn(Visit) -> F) -> Option<Scanned>
    where
        F: Future<Output = Option<Seen>> + Send + 'static,
    {
        self.collect();
        let looked = match self.read().await {
            Ok(looked) => looked,
            // Loaded plugins keep running, since an unreadable folder has not lost its files.
            Err(error) => {
                if !std::mem::replace(&mut self.blind, true) {
                    tracing::error!(dir = %self.dir.display(), %error, "the plugins folder can't be read");
                }
                return None;
            }
        };
        self.blind = false;
        self.tell_busy(&looked.plugins);
        let ignored = self.ignored(looked.ignored);
        let mut present: HashSet<_> = looked.plugins.iter().map(|found| found.name.clone()).collect();
        self.files.retain(|name, _| present.contains(name));
        for found in looked.plugins {
            let seen = self.files.get(&found.name).copied();
            let due = match seen {
                None => true,
                Some(seen) if seen.settled => seen.stamp != found.stamp,
                Some(_) => eager,
            };
            if due && !self.busy.contains_key(&found.name) {
                self.start(found, seen, &visit);
            }
        }
        present.extend(self.busy.keys().cloned());
        let settled = self.files.values().all(|seen| seen.settled);
        let first = !std::mem::replace(&mut self.again, true);
        Some(Scanned { present, ignored, missing: looked.missing, lent: looked.lent, settled, first })
    }

    /// Waits until all current loads end, and stops those whose file changes or leaves.
    pub(super) async fn finish(&mut self) {
        loop {
            tokio::select! {
                ended = self.visits.join_next() => if ended.is_none() { break },
                () = tokio::time::sleep(LOOK) => {
                    if let Ok(looked) = self.read().await {
                        self.tell_busy(&looked.plugins);
                    }
                }
            }
        }
        self.collect();
    }

    async fn read(&self) -> io::Result<Looked> {
        let (dir, components) = (self.dir.clone(), self.config.components());
        let looked = tokio::task::spawn_blocking(move || folder::look(&dir, &components)).await;
        looked.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// Starts the task that loads this file.
    fn start<F>(&mut self, found: Found, seen: Option<Seen>, visit: impl Fn(Visit) -> F)
    where
        F: Future<Output = Option<Seen>> + Send + 'static,
    {
        let (name, changed) = (found.name.clone(), Arc::new(Notify::new()));
        let busy = Busy { stamp: Some(found.stamp), changed: Arc::clone(&changed) };
        self.busy.insert(name.clone(), busy);
        let (visit, ended) = (visit(Visit { found, seen, changed }), self.ended());
        self.visits.spawn(async move {
            let seen = visit.await;
            ended.results.lock().push((name, seen));
            ended.bell.notify_one();
        });
    }

    /// Collects the results of loaded files.
    fn collect(&mut self) {
        while self.visits.try_join_next().is_some() {}
        for (name, seen) in self.ended.results.lock().drain(..) {
            self.busy.remove(&name);
            match seen {
                Some(seen) => self.files.insert(name, seen),
                None => self.files.remove(&name),
            };
        }
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

    /// Logs each ignored file once, and returns them all, by name.
    fn ignored(&mut self, ignored: Vec<(OsString, &'static str)>) -> Vec<IgnoredFile> {
        // Bounds this set, whatever is written to the folder.
        self.warned.retain(|file| ignored.iter().any(|(ignored, _)| ignored == file));
        let mut files = Vec::with_capacity(ignored.len());
        for (file, reason) in ignored {
            files.push(IgnoredFile { file: file.to_string_lossy().into_owned(), reason });
            if !self.warned.contains(&file) {
                tracing::warn!(file = %file.display(), why = reason, "ignored a file in the plugins folder");
                self.warned.insert(file);
            }
        }
        files.sort_unstable();
        files
    }
}
