//! Counters of the store's work since the daemon started, for the metrics.
//!
//! After each commit the committer counts what it has committed, so a batch that was rolled back counts
//! nothing, and a completion counts once. Only the committer counts deliveries and commits; a reader never
//! waits for a lock. The counts of the ledger on disk are not repeated here.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::RwLock;
use posthouse_model::{
    EventType, Histogram, HistogramCounts, LONG_TIMES, OutboxKind, Outcome, PluginId, SHORT_TIMES, SIZES,
    known_type, known_types,
};

use super::{Store, types::OutboxResult};

/// The outcomes of attempts, each at its number.
const OUTCOMES: [Outcome; 3] = [Outcome::Done, Outcome::Retry, Outcome::Rejected];

/// The counters.
pub(super) struct Meters {
    accept: Histogram,
    commit: Histogram,
    batch: Histogram,
    failed_commits: AtomicU64,
    plugins: RwLock<HashMap<PluginId, Arc<PluginMeter>>>,
    /// By kind: sent, to be retried, dead.
    outbox: [[AtomicU64; 3]; OutboxKind::ALL.len()],
}

/// The counters of one plugin.
struct PluginMeter {
    wait: Histogram,
    attempt: Histogram,
    attempts: [AtomicU64; OUTCOMES.len()],
    /// Done and dead deliveries by the number of their type; the last entry is for all unknown types.
    finished: Box<[[AtomicU64; 2]]>,
}

/// An attempt that is on disk.
pub(super) struct Ended<'a> {
    pub(super) plugin: PluginId,
    pub(super) event_type: &'a EventType,
    pub(super) outcome: Outcome,
    /// Whether that made its delivery done or dead; none if it runs again.
    pub(super) done: Option<bool>,
    /// The time from when the delivery was due until the attempt began, in nanoseconds.
    pub(super) waited: u64,
    /// The duration of the attempt, in nanoseconds.
    pub(super) took: u64,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            accept: Histogram::new(SHORT_TIMES),
            commit: Histogram::new(SHORT_TIMES),
            batch: Histogram::new(SIZES),
            failed_commits: AtomicU64::new(0),
            plugins: RwLock::default(),
            outbox: Default::default(),
        }
    }
}

impl Default for PluginMeter {
    fn default() -> Self {
        Self {
            wait: Histogram::new(LONG_TIMES),
            attempt: Histogram::new(SHORT_TIMES),
            attempts: Default::default(),
            finished: (0..=known_types().len()).map(|_| Default::default()).collect(),
        }
    }
}

impl Meters {
    /// Counts an attempt to send an item.
    pub(super) fn sent(&self, kind: OutboxKind, result: &OutboxResult) {
        let outcome = match result {
            OutboxResult::Sent => 0,
            OutboxResult::Retry { .. } => 1,
            OutboxResult::Dead { .. } => 2,
        };
        self.outbox[kind as usize][outcome].fetch_add(1, Ordering::Relaxed);
    }

    fn snapshot(&self) -> StoreMeters {
        let plugins = self.plugins.read();
        let [mail, request] = &self.outbox;
        let count = |counts: &[AtomicU64; 3]| counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        StoreMeters {
            accept: self.accept.snapshot(),
            commit: self.commit.snapshot(),
            batch: self.batch.snapshot(),
            failed_commits: self.failed_commits.load(Ordering::Relaxed),
            plugins: plugins.iter().map(|(plugin, meter)| (*plugin, meter.snapshot())).collect(),
            outbox: [(OutboxKind::Mail, count(mail)), (OutboxKind::Request, count(request))],
        }
    }
}

impl PluginMeter {
    fn snapshot(&self) -> PluginMeters {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let types = known_types().iter().map(|known| Some(known.as_str())).chain([None]);
        PluginMeters {
            wait: self.wait.snapshot(),
            attempt: self.attempt.snapshot(),
            attempts: OUTCOMES.map(|outcome| (outcome, load(&self.attempts[outcome as usize]))),
            finished: types
                .zip(&self.finished)
                .map(|(event_type, [done, dead])| (event_type, load(done), load(dead)))
                .filter(|(_, done, dead)| done + dead > 0)
                .collect(),
        }
    }
}

/// The committer's access to the counters.
pub(super) struct Counting {
    meters: Arc<Meters>,
    plugins: HashMap<PluginId, Arc<PluginMeter>>,
}

impl Counting {
    pub(super) fn new(meters: Arc<Meters>) -> Self {
        // Read now, while no event waits for it.
        known_types();
        Self { meters, plugins: HashMap::new() }
    }

    /// Counts a commit that wrote something: its duration, and its number of operations.
    pub(super) fn committed(&self, took: Duration, operations: usize) {
        self.meters.commit.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        self.meters.batch.add(operations as u64);
    }

    /// A batch was rolled back.
    pub(super) fn failed(&self) {
        self.meters.failed_commits.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a new event that is on disk, this many nanoseconds after it arrived.
    pub(super) fn accepted(&self, took: i64) {
        // The clock may have been set back meanwhile.
        self.meters.accept.add(took.max(0).unsigned_abs());
    }

    /// An attempt is on disk.
    pub(super) fn ended(&mut self, attempt: &Ended<'_>) {
        let meter = self.plugins.entry(attempt.plugin).or_insert_with(|| {
            let mut plugins = self.meters.plugins.write();
            Arc::clone(plugins.entry(attempt.plugin).or_default())
        });
        meter.wait.add(attempt.waited);
        meter.attempt.add(attempt.took);
        meter.attempts[attempt.outcome as usize].fetch_add(1, Ordering::Relaxed);
        if let Some(done) = attempt.done {
            let number = known_type(attempt.event_type.as_str()).unwrap_or(known_types().len());
            if let Some(of_type) = meter.finished.get(number) {
                of_type[usize::from(!done)].fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The counts since the daemon started.
#[derive(Debug)]
pub struct StoreMeters {
    /// Time from the last byte of a new event until it is on disk, in nanoseconds.
    pub accept: HistogramCounts,
    /// The durations of commits, in nanoseconds.
    pub commit: HistogramCounts,
    /// Operations in one commit.
    pub batch: HistogramCounts,
    /// Batches that were rolled back.
    pub failed_commits: u64,
    /// By plugin, if it has run.
    pub plugins: HashMap<PluginId, PluginMeters>,
    /// Attempts to send items: sent, to be retried, dead.
    pub outbox: [(OutboxKind, [u64; 3]); OutboxKind::ALL.len()],
}

/// The counts of one plugin.
#[derive(Debug)]
pub struct PluginMeters {
    /// The times from when deliveries were due until their attempts began, in nanoseconds.
    pub wait: HistogramCounts,
    /// The durations of attempts, in nanoseconds.
    pub attempt: HistogramCounts,
    /// Attempts by outcome.
    pub attempts: [(Outcome, u64); OUTCOMES.len()],
    /// Deliveries done and dead, by type; none is for all unknown types.
    pub finished: Vec<(Option<&'static str>, u64, u64)>,
}

impl Store {
    /// The counts since the daemon started. Reads nothing from the disk.
    pub fn meters(&self) -> StoreMeters {
        self.shared().meters.snapshot()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_that_anybody_may_make_up_are_counted_together() {
        let meters = Arc::new(Meters::default());
        let mut counting = Counting::new(Arc::clone(&meters));
        for (event_type, done) in
            [("user.created", true), ("user.created", false), ("made.up", true), ("made.up.too", true)]
        {
            let event_type = &EventType::new(event_type).unwrap();
            let (plugin, outcome) = (PluginId(7), Outcome::Done);
            counting.ended(&Ended { plugin, event_type, outcome, done: Some(done), waited: 1, took: 2 });
        }
        let counted = meters.snapshot();
        let plugin = &counted.plugins[&PluginId(7)];
        assert_eq!(plugin.finished, [(Some("user.created"), 1, 1), (None, 2, 0)]);
        assert_eq!(plugin.attempts[0], (Outcome::Done, 4));
        assert_eq!((plugin.wait.sum, plugin.attempt.sum), (4, 8));
    }
}
