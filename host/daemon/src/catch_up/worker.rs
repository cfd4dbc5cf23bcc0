//! When senders are asked: one task for each source, so that a slow sender keeps no other source waiting.
//!
//! A task compares at the start, after posthouse accepted nothing for a while, and from time to time. After a failure it
//! tries again soon, then less and less often. An operator's comparison waits for one that runs.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use parking_lot::Mutex;
use posthouse_egress::Egress;
use posthouse_model::{
    CatchUpReason, CatchUpReport, CatchUpStatus, Env,
    config::{CatchUp, Config, Source},
};
use posthouse_store::Store;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    asker::Asker,
    run::{Order, Subject, run},
    walk::Limits,
};

use crate::ingress::{ListedReader, Subscribers};

/// How often the settings and the store are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A longer time between two looks means that the machine slept.
const SLEPT: Duration = Duration::from_secs(60);

/// The wait after a failure. Each further one is twice as long, up to `every`.
const AGAIN: Duration = Duration::from_secs(10);

/// The wait before a comparison goes on that took too long.
const GO_ON: Duration = Duration::from_secs(1);

/// Operators' comparisons that may wait for one source.
const WAITING: usize = 4;

/// Asks the senders of all sources that want it; cheap to clone.
#[derive(Clone)]
pub struct CatchUps(Arc<Inner>);

struct Inner {
    config: Arc<ArcSwap<Config>>,
    store: Store,
    egress: Egress,
    subscribers: Subscribers,
    env: Env,
    workers: Mutex<BTreeMap<String, Worker>>,
}

/// The task of one source.
struct Worker {
    source: Source,
    handle: Arc<Handle>,
    orders: mpsc::Sender<Wanted>,
    stop: CancellationToken,
}

/// What a task shows of itself.
struct Handle {
    status: Mutex<CatchUpStatus>,
    outage: Notify,
}

/// An operator's comparison.
struct Wanted {
    since: Option<Timestamp>,
    dry_run: bool,
    reply: oneshot::Sender<CatchUpReport>,
}

impl CatchUps {
    /// Nobody is asked before [`Self::run`].
    pub fn new(
        config: Arc<ArcSwap<Config>>,
        store: Store,
        egress: Egress,
        subscribers: Subscribers,
        env: Env,
    ) -> Self {
        Self(Arc::new(Inner { config, store, egress, subscribers, env, workers: Mutex::default() }))
    }

    /// The status of each source that has `catch_up`, by its name.
    pub fn statuses(&self) -> BTreeMap<String, CatchUpStatus> {
        let workers = self.0.workers.lock();
        workers.iter().map(|(name, worker)| (name.clone(), worker.handle.status.lock().clone())).collect()
    }

    /// Compares now, or after the comparison that runs.
    ///
    /// # Errors
    /// Why nothing was compared, in words.
    pub async fn compare(
        &self,
        source: &str,
        since: Option<Timestamp>,
        dry_run: bool,
    ) -> Result<CatchUpReport, String> {
        let orders = self.0.workers.lock().get(source).map(|worker| worker.orders.clone());
        let orders =
            orders.ok_or_else(|| format!("source `{source}` has no [source.catch_up] in config.toml"))?;
        let (reply, report) = oneshot::channel();
        orders
            .try_send(Wanted { since, dry_run, reply })
            .map_err(|_| format!("source `{source}` has {WAITING} comparisons waiting already"))?;
        report
            .await
            .map_err(|_| "the comparison was stopped: the settings changed, or the daemon stops".to_owned())
    }

    /// Runs the tasks that config.toml wants until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let (mut was_well, mut looked_at) = (true, self.0.env.now());
        let mut seen: Weak<Config> = Weak::new();
        loop {
            let config = self.0.config.load_full();
            // A reload makes another one.
            if !std::ptr::eq(seen.as_ptr(), Arc::as_ptr(&config)) {
                self.follow(&config);
                seen = Arc::downgrade(&config);
            }
            drop(config);
            let is_well = self.accepts();
            let now = self.0.env.now();
            let slept =
                now.duration_since(looked_at) > jiff::SignedDuration::try_from(SLEPT).unwrap_or_default();
            if (is_well && !was_well) || slept {
                self.0.workers.lock().values().for_each(|worker| worker.handle.outage.notify_one());
            }
            (was_well, looked_at) = (is_well, now);
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        self.0.workers.lock().values().for_each(|worker| worker.stop.cancel());
    }

    /// Whether the store accepts events.
    fn accepts(&self) -> bool {
        let store = &self.0.store;
        let backlog = store.backlog();
        store.failure().is_none()
            && store.trouble().is_none()
            && store.shortage().is_none()
            && backlog.used < backlog.limit
    }

    /// Starts, replaces and stops tasks so that they fit the settings.
    fn follow(&self, config: &Config) {
        let wanted: BTreeMap<&str, (&Source, &CatchUp)> = config
            .sources
            .iter()
            .filter_map(|source| Some((source.name.as_str(), (source, source.catch_up.as_ref()?))))
            .collect();
        let mut workers = self.0.workers.lock();
        workers.retain(|name, worker| {
            let stays = wanted.get(name.as_str()).is_some_and(|(source, _)| **source == worker.source);
            if !stays {
                worker.stop.cancel();
            }
            stays
        });
        for (name, (source, settings)) in wanted {
            if workers.contains_key(name) {
                continue;
            }
            if let Some(worker) = self.start(source, settings, config.server.max_body) {
                workers.insert(name.to_owned(), worker);
            }
        }
    }

    fn start(&self, source: &Source, settings: &CatchUp, max_body: u64) -> Option<Worker> {
        let Inner { store, egress, subscribers, env, .. } = &*self.0;
        let subject = Subject {
            source: source.clone(),
            settings: settings.clone(),
            reader: ListedReader::new(source)?,
            store: store.clone(),
            subscribers: Arc::clone(subscribers),
            env: env.clone(),
            limits: Limits::usual(usize::try_from(max_body).unwrap_or(usize::MAX)),
        };
        let asker = Asker::new(source.name.as_str(), settings, egress, env.clone());
        let status = Mutex::new(CatchUpStatus::new(settings.mode.as_str()));
        let handle = Arc::new(Handle { status, outage: Notify::new() });
        let (orders, wanted) = mpsc::channel(WAITING);
        let stop = CancellationToken::new();
        let task = Task { subject, asker, handle: Arc::clone(&handle) };
        let stopped = stop.clone();
        tokio::spawn(async move { stopped.run_until_cancelled(task.work(wanted)).await });
        Some(Worker { source: source.clone(), handle, orders, stop })
    }
}

struct Task {
    subject: Subject,
    asker: Asker,
    handle: Arc<Handle>,
}

impl Task {
    async fn work(mut self, mut wanted: mpsc::Receiver<Wanted>) {
        let mut failures = 0;
        let mut reason = CatchUpReason::Start;
        loop {
            let order = Order { reason, since: None, dry_run: false };
            let (report, out_of_time) = self.compare(order).await;
            failures = if report.error.is_none() || out_of_time { 0 } else { failures + 1 };
            let wait = if out_of_time { GO_ON } else { self.wait(failures) };
            let until = tokio::time::Instant::now() + wait;
            reason = loop {
                tokio::select! {
                    () = tokio::time::sleep_until(until) => break CatchUpReason::Interval,
                    () = self.handle.outage.notified() => break CatchUpReason::Outage,
                    Some(Wanted { since, dry_run, reply }) = wanted.recv() => {
                        let order = Order { reason: CatchUpReason::Operator, since, dry_run };
                        let (report, _) = self.compare(order).await;
                        drop(reply.send(report));
                    }
                }
            };
        }
    }

    /// The wait after so many failures in a row.
    fn wait(&self, failures: u32) -> Duration {
        let every = self.subject.settings.every;
        match failures {
            0 => every,
            _ => AGAIN.saturating_mul(1 << (failures - 1).min(16)).min(every),
        }
    }

    async fn compare(&mut self, order: Order) -> (CatchUpReport, bool) {
        self.handle.status.lock().running = true;
        let (report, out_of_time) = run(&self.subject, &mut self.asker, order).await;
        let source = &self.subject.source.name;
        let missing = self.subject.store.catch_up_state(source).await.map(|state| state.missing.len() as u64);
        log(source.as_str(), &report);
        let mut status = self.handle.status.lock();
        let missing = missing.unwrap_or(status.missing);
        status.count(report.clone(), missing);
        status.running = false;
        drop(status);
        (report, out_of_time)
    }
}

/// Logs a result, without any id: events may be personal.
fn log(source: &str, report: &CatchUpReport) {
    let CatchUpReport { listed, here, missing, taken_in, unreadable, .. } = *report;
    let (reason, told) = (report.reason.as_str(), report.summary());
    if report.error.is_some() || missing > taken_in || unreadable > 0 {
        tracing::warn!(source, reason, listed, here, missing, taken_in, unreadable, "catch-up: {told}");
    } else if missing > 0 || report.reason != CatchUpReason::Interval {
        tracing::info!(source, reason, listed, here, missing, taken_in, "catch-up: {told}");
    } else {
        tracing::debug!(source, reason, listed, here, "catch-up: {told}");
    }
}
