//! A store on an engine, with a clock that changes only when a test moves it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
pub(crate) use posthouse_model::testing::{ManualClock, Seeded};
use posthouse_model::{
    Attempt, Clock, Effects, Env, Job, KvRead, KvVersion, KvWrite, Mail, NewEvent, OutboxItem, Outcome,
    PluginId, testing,
};
use tempfile::TempDir;

use crate::{Accepted, DeliveryFilter, Lane, OpenError, Store, StoreOptions, Verdict, memory};

pub(crate) use crate::testing::options;

/// A clock at 2026-01-01T00:00:00Z.
pub(crate) fn clock() -> ManualClock {
    ManualClock::at(Timestamp::from_second(1_767_225_600).unwrap())
}

/// Longer than anything takes; reached only if something never happens.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// Long enough to see that something does not happen.
pub(crate) const MOMENT: Duration = Duration::from_millis(60);

/// The seed of this run, printed: `POSTHOUSE_SEED` sets it.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("POSTHOUSE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed =
        given.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64));
    println!("POSTHOUSE_SEED={seed}");
    seed
}

/// An engine to test, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    /// One file.
    Sqlite,
    /// Everything in memory; leases end with the process.
    Memory,
    /// The same; leases expire after [`LEASE`].
    MemoryWithExpiry,
}

/// How long a lease of [`On::MemoryWithExpiry`] holds. Longer than any other test waits by its clock.
pub(crate) const LEASE: Duration = Duration::from_secs(1_000 * 24 * 3600);

/// The data that an engine keeps when its process dies.
#[derive(Clone)]
pub(crate) enum Disk {
    Folder(Arc<TempDir>),
    Memory(Arc<memory::Disk>),
}

/// A store on an engine, its disk, its clock.
pub(crate) struct Fixture {
    pub(crate) store: Store,
    pub(crate) clock: ManualClock,
    pub(crate) options: StoreOptions,
    pub(crate) on: On,
    pub(crate) disk: Disk,
}

impl On {
    /// Opens a store of this engine on a disk.
    fn open(self, disk: &Disk, options: &StoreOptions, clock: &ManualClock) -> Result<Store, OpenError> {
        match disk {
            Disk::Folder(_) => Store::open(options.clone(), env(clock)),
            Disk::Memory(disk) => {
                let lease = (self == Self::MemoryWithExpiry).then_some(LEASE.as_nanos() as i64);
                Store::open_in_memory(disk, options.clone(), env(clock), lease)
            }
        }
    }

    fn new_disk(self) -> Disk {
        match self {
            Self::Sqlite => Disk::Folder(Arc::new(tempfile::tempdir().unwrap())),
            Self::Memory | Self::MemoryWithExpiry => Disk::Memory(Arc::default()),
        }
    }
}

impl Fixture {
    pub(crate) fn new(on: On) -> Self {
        Self::with(on, |_| ())
    }

    pub(crate) fn with(on: On, set: impl FnOnce(&mut StoreOptions)) -> Self {
        let disk = on.new_disk();
        let mut options = match &disk {
            Disk::Folder(folder) => options(&folder.path().join("state/posthouse.db")),
            Disk::Memory(_) => options(Path::new("in memory")),
        };
        set(&mut options);
        let clock = clock();
        let store = on.open(&disk, &options, &clock).unwrap();
        Self { store, clock, options, on, disk }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The state after a power cut: a store opened on a copy of the disk.
    pub(crate) fn crashed(&self) -> Self {
        let (disk, path) = match &self.disk {
            Disk::Folder(_) => {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("posthouse.db");
                for end in ["", "-wal"] {
                    std::fs::copy(beside(&self.options.path, end), beside(&path, end)).unwrap();
                }
                (Disk::Folder(Arc::new(folder)), path)
            }
            Disk::Memory(disk) => (Disk::Memory(disk.copy()), self.options.path.clone()),
        };
        let options = StoreOptions { path, ..self.options.clone() };
        let store = self.on.open(&disk, &options, &self.clock).unwrap();
        Self { store, clock: self.clock.clone(), options, on: self.on, disk }
    }

    /// Closed in order, then opened again.
    pub(crate) async fn reopened(self) -> Self {
        self.store.close().await.unwrap();
        let store = self.reopen().unwrap();
        Self { store, ..self }
    }

    /// Opens the store again, while this one may still be open.
    pub(crate) fn reopen(&self) -> Result<Store, OpenError> {
        self.on.open(&self.disk, &self.options, &self.clock)
    }

    /// A plugin of this name.
    pub(crate) async fn plugin(&self, name: &str) -> PluginId {
        self.store.plugin_id(name).await.unwrap()
    }

    pub(crate) fn event(&self, id: impl std::fmt::Display) -> NewEvent {
        testing::event(&id.to_string(), "user.created", self.now())
    }

    /// Stores an event that is new.
    pub(crate) async fn accept(&self, id: impl std::fmt::Display, plugins: &[PluginId]) {
        let accepted = self.store.accept(self.event(id), plugins.to_vec()).await.unwrap();
        assert!(matches!(accepted, Accepted::Stored(_)), "{accepted:?}");
    }

    pub(crate) async fn done(&self, job: Job, effects: Effects) {
        self.finish(job, Verdict::Done(effects)).await;
        self.store.flush().await.unwrap();
    }

    pub(crate) async fn finish(&self, job: Job, verdict: Verdict) {
        let attempt = self.attempt(&job, &verdict);
        self.store.complete(job, attempt, verdict).await.unwrap();
    }

    pub(crate) fn attempt(&self, job: &Job, verdict: &Verdict) -> Attempt {
        let outcome = match verdict {
            Verdict::Done(_) => Outcome::Done,
            Verdict::Retry(_) => Outcome::Retry,
            Verdict::Dead => Outcome::Rejected,
        };
        Attempt {
            number: job.attempt,
            revision: Some("0123456789ab".to_owned()),
            started_at: self.now(),
            duration: Duration::from_micros(1500),
            outcome,
            error: (outcome != Outcome::Done).then(|| "it failed".to_owned()),
            trace: None,
            logs: Vec::new(),
            actions: (outcome == Outcome::Done).then(|| "set k".to_owned()),
        }
    }

    /// The states of all deliveries, oldest first.
    pub(crate) async fn states(&self) -> Vec<String> {
        let deliveries = self.store.deliveries(DeliveryFilter::default()).await.unwrap();
        deliveries.iter().rev().map(|delivery| delivery.state.to_string()).collect()
    }

    /// The ledger adds up, and agrees with the rows as long as nothing was pruned.
    pub(crate) async fn assert_balanced(&self) {
        self.store.flush().await.unwrap();
        let stats = self.store.stats().await.unwrap();
        assert_eq!(stats.made, stats.states.values().sum::<u64>(), "{stats:?}");
        for plugin in &stats.plugins {
            assert_eq!(plugin.made, plugin.states.values().sum::<u64>(), "{plugin:?}");
        }
        // A lane that has just ended releases its jobs in a later batch. Rows and counts are compared only if
        // nothing changed between the two reads.
        let mut counts = stats.states;
        loop {
            let mut rows = BTreeMap::new();
            for state in counts.keys() {
                let filter = DeliveryFilter { state: Some(*state), limit: 1000, ..DeliveryFilter::default() };
                rows.insert(*state, self.store.deliveries(filter).await.unwrap().len() as u64);
            }
            let after = self.store.states().await.unwrap();
            if after == counts {
                assert_eq!(rows, counts);
                return;
            }
            counts = after;
        }
    }
}

fn env(clock: &ManualClock) -> Env {
    // Each store has its own, as in production.
    static OPENED: AtomicU64 = AtomicU64::new(0);
    let random = Seeded::new(OPENED.fetch_add(1 << 32, Ordering::SeqCst));
    Env::new(clock.clone(), random)
}

pub(crate) fn open_at(options: &StoreOptions, clock: &ManualClock) -> Result<Store, OpenError> {
    Store::open(options.clone(), env(clock))
}

fn beside(path: &std::path::Path, end: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(end);
    path.into()
}

/// The next job of the lane, which must arrive.
pub(crate) async fn next(lane: &mut Lane) -> Job {
    tokio::time::timeout(TIMEOUT, lane.next()).await.expect("a job must come").expect("the lane must be open")
}

/// Nothing may arrive through the lane.
pub(crate) async fn assert_quiet(lane: &mut Lane) {
    assert!(tokio::time::timeout(MOMENT, lane.next()).await.is_err(), "no job may come");
}

pub(crate) fn effects(writes: &[(&str, KvWrite)]) -> Effects {
    let writes = writes.iter().map(|(key, write)| ((*key).to_owned(), write.clone())).collect();
    Effects { writes, ..Effects::default() }
}

pub(crate) fn set(value: &str) -> KvWrite {
    KvWrite::Set(value.as_bytes().to_vec())
}

/// Records that the attempt has read this key, with this version.
pub(crate) fn saw(effects: Effects, key: &str, version: Option<KvVersion>) -> Effects {
    let reads = vec![KvRead::Key { key: key.to_owned(), version }];
    Effects { reads, ..effects }
}

pub(crate) fn mail(subject: &str) -> OutboxItem {
    OutboxItem::Mail(Mail {
        message_id: "<1@example.com>".to_owned(),
        from: "team@example.com".to_owned(),
        to: vec!["ada@example.com".to_owned()],
        cc: Vec::new(),
        bcc: Vec::new(),
        reply_to: None,
        subject: subject.to_owned(),
        text: "the text".to_owned(),
        html: None,
    })
}
