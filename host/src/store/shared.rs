//! What the handle, the writer and the readers share.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::RwLock;
use tokio::sync::watch;

use super::{StoreError, meters::Meters, present::Present, readers::Readers, space::Space};
use crate::model::PluginId;

/// Reads of guests: as many at once as there are threads to run them.
const GUEST_READERS: usize = 8;

/// Reads of people.
const PEOPLE_READERS: usize = 4;

pub(super) struct Shared {
    failure: OnceLock<String>,
    closed: AtomicBool,
    kv_bytes: RwLock<HashMap<PluginId, u64>>,
    unfinished: AtomicU64,
    trouble: RwLock<Option<String>>,
    space: Space,
    /// Whether its files are where they were.
    pub(super) present: Present,
    oversize: AtomicBool,
    /// What is counted for the metrics.
    pub(super) meters: Arc<Meters>,
    /// For reads of keys while a guest runs.
    pub(super) guests: Readers,
    /// For lists, which take longer.
    pub(super) people: Readers,
    /// Counts the commits, for who wants to see what is new.
    pub(super) commits: watch::Sender<u64>,
    #[cfg(test)]
    injected: parking_lot::Mutex<Option<rusqlite::Error>>,
    /// To sync the store's file. The last member: closed before SQLite's connections, it would take
    /// their locks away, as POSIX has it.
    file: File,
}

impl Shared {
    pub(super) fn new(path: PathBuf, min_free: u64) -> std::io::Result<Self> {
        let file = OpenOptions::new().write(true).open(&path)?;
        let space = Space::new(min_free);
        space.look(&file);
        Ok(Self {
            file,
            space,
            present: Present::new(&path),
            oversize: AtomicBool::new(false),
            failure: OnceLock::new(),
            closed: AtomicBool::new(false),
            kv_bytes: RwLock::default(),
            unfinished: AtomicU64::new(0),
            trouble: RwLock::default(),
            meters: Arc::default(),
            guests: Readers::new(path.clone(), GUEST_READERS),
            people: Readers::new(path, PEOPLE_READERS),
            commits: watch::Sender::new(0),
            #[cfg(test)]
            injected: parking_lot::Mutex::default(),
        })
    }

    /// Remembers which files are open, once `connection` has read the store.
    pub(super) fn remember_files(&self, connection: &rusqlite::Connection) -> std::io::Result<()> {
        self.present.remember(&self.file, connection)
    }

    /// Puts on disk what has been copied into the store's file.
    pub(super) fn sync_file(&self) -> std::io::Result<()> {
        self.file.sync_data()
    }

    /// Whether more is in use than `max_size`, and nothing is left that may leave.
    pub(super) fn is_oversize(&self) -> bool {
        self.oversize.load(Ordering::Relaxed)
    }

    pub(super) fn publish_oversize(&self, oversize: bool) {
        self.oversize.store(oversize, Ordering::Relaxed);
    }

    /// Looks at the room on the disk.
    pub(super) fn look_at_disk(&self) {
        self.space.look(&self.file);
    }

    /// The room on the disk, as it was seen last.
    pub(super) fn space(&self) -> &Space {
        &self.space
    }

    /// Why nothing is written any more.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.get().cloned()
    }

    /// Why the last write was taken back, until one succeeds.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.read().clone()
    }

    pub(super) fn publish_trouble(&self, trouble: Option<String>) {
        *self.trouble.write() = trouble;
    }

    /// Stops all writing, for ever. Returns the first reason given.
    pub(super) fn poison(&self, reason: String) -> String {
        self.failure.get_or_init(|| reason).clone()
    }

    /// Ends all reading.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.guests.close();
        self.people.close();
    }

    /// Why the writer gave no answer.
    pub(super) fn silence(&self) -> StoreError {
        match self.failure() {
            Some(reason) => StoreError::Poisoned(reason),
            None => StoreError::Closed,
        }
    }

    pub(super) fn kv_bytes(&self, plugin: PluginId) -> u64 {
        self.kv_bytes.read().get(&plugin).copied().unwrap_or(0)
    }

    pub(super) fn publish_kv_bytes(&self, sizes: impl IntoIterator<Item = (PluginId, i64)>) {
        let mut sizes = sizes.into_iter().peekable();
        if sizes.peek().is_some() {
            let mut published = self.kv_bytes.write();
            published.extend(sizes.map(|(plugin, bytes)| (plugin, u64::try_from(bytes).unwrap_or(0))));
        }
    }

    /// Deliveries that were neither done nor dead at the last commit.
    pub(super) fn unfinished(&self) -> u64 {
        self.unfinished.load(Ordering::Relaxed)
    }

    pub(super) fn publish_unfinished(&self, unfinished: i64) {
        self.unfinished.store(unfinished.unsigned_abs(), Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn inject(&self, error: rusqlite::Error) {
        *self.injected.lock() = Some(error);
    }

    #[cfg(test)]
    pub(super) fn injected(&self) -> Option<rusqlite::Error> {
        self.injected.lock().take()
    }
}
