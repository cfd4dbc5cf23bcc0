//! A runner: takes one plugin's jobs from its lane and runs an attempt for each, so many at once.
//!
//! A permit is held from the asking for an instance until the result is in the writer's queue, not
//! until it is on disk: the guest's time is what `concurrency` bounds, and commits are grouped behind it.
//!
//! An attempt that met conflicts takes every permit and lets the writer finish what is queued before it
//! reads: then nobody can be in its way, so a busy key slows its plugin down but never starves a
//! delivery.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use tokio::{
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
    time::Instant,
};
use tracing::{debug, error, warn};

use super::{Redactions, retry::wait_after, turned};
use crate::{
    database::{CommitError, Committed},
    fault::{self, FaultPoint},
    model::{Ambient, Attempt, Effects, Job, Outcome, REVISION_SHOWN},
    plugin::{AttemptFailure, AttemptReport, Finished, Plugin, Registry},
    store::{Lane, Store, StoreError, Verdict},
};

/// Jobs that a lane holds in memory: enough to keep the guests busy while a commit is on its way.
const LANE_CAPACITY: usize = 1024;

/// Conflicts after which an attempt runs alone.
const CONFLICTS_BEFORE_ALONE: u32 = 2;

/// How long a job rests that could not be run for a reason that is not the guest's.
const REST: Duration = Duration::from_secs(1);

/// The runner of one plugin. Dropped, it stops at once.
pub(super) struct Runner {
    attempts: Arc<Attempts>,
    closing: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Runner {
    /// Opens the plugin's lane and begins to run what comes through it.
    pub(super) async fn start(
        store: &Store,
        registry: &Registry,
        plugin: Arc<Plugin>,
        ambient: Ambient,
        redactions: Redactions,
    ) -> Result<Self, StoreError> {
        let lane = store.open_lane(plugin.record.id, LANE_CAPACITY).await?;
        let concurrency = concurrency(&plugin);
        let attempts = Arc::new(Attempts {
            store: store.clone(),
            registry: registry.clone(),
            plugin: ArcSwap::new(plugin),
            ambient,
            redactions,
            concurrency,
            permits: Arc::new(Semaphore::new(concurrency as usize)),
            under_way: AtomicUsize::new(0),
        });
        let (closing, closed) = watch::channel(false);
        let task = tokio::spawn(Arc::clone(&attempts).receive(lane, closed));
        Ok(Self { attempts, closing, task })
    }

    /// Attempts that begin from now on run this revision.
    pub(super) fn replace(&self, plugin: Arc<Plugin>) {
        self.attempts.plugin.store(plugin);
    }

    /// Whether it has as many permits as this plugin is to have.
    pub(super) fn has_permits_for(&self, plugin: &Plugin) -> bool {
        self.attempts.concurrency == concurrency(plugin)
    }

    /// How many attempts run now.
    pub(super) fn attempts(&self) -> usize {
        self.attempts.under_way.load(Ordering::Relaxed)
    }

    /// Begins no more attempts and gives the rest back to the store; those under way end by themselves.
    pub(super) fn close(self) {
        self.closing.send_replace(true);
    }

    /// As [`Self::close`], and waits until they have ended, or stops them at the deadline.
    pub(super) async fn finish(mut self, deadline: Instant) {
        self.closing.send_replace(true);
        if tokio::time::timeout_at(deadline, &mut self.task).await.is_err() {
            warn!(
                plugin = %self.attempts.plugin.load().record.name,
                attempts = self.attempts(),
                "attempts did not end in time; they run again after the next start"
            );
            self.task.abort();
        }
    }
}

/// What the attempts of one plugin share.
struct Attempts {
    store: Store,
    registry: Registry,
    plugin: ArcSwap<Plugin>,
    ambient: Ambient,
    redactions: Redactions,
    concurrency: u32,
    permits: Arc<Semaphore>,
    under_way: AtomicUsize,
}

impl Attempts {
    async fn receive(self: Arc<Self>, mut lane: Lane, mut closing: watch::Receiver<bool>) {
        // Owned by this task, so that attempts stop when it does.
        let mut running = JoinSet::new();
        loop {
            let job = tokio::select! {
                biased;
                () = turned(&mut closing) => break,
                job = lane.next() => match job {
                    Some(job) => job,
                    None => break,
                },
            };
            let needed = if job.conflicts > CONFLICTS_BEFORE_ALONE { self.concurrency } else { 1 };
            let permits = tokio::select! {
                biased;
                permits = Arc::clone(&self.permits).acquire_many_owned(needed) => permits,
                () = turned(&mut closing) => {
                    self.release(job).await;
                    break;
                }
            };
            let attempts = Arc::clone(&self);
            running.spawn(async move {
                attempts.under_way.fetch_add(1, Ordering::Relaxed);
                attempts.run(job).await;
                attempts.under_way.fetch_sub(1, Ordering::Relaxed);
                drop(permits);
            });
            while running.try_join_next().is_some() {}
        }
        lane.close().await;
        while running.join_next().await.is_some() {}
    }

    /// One job, from the guest's first instruction to the writer's queue.
    async fn run(&self, job: Job) {
        if job.conflicts > CONFLICTS_BEFORE_ALONE
            && let Err(error) = self.store.flush().await
        {
            warn!(delivery = %job.delivery, %error, "the store did not settle before an attempt");
        }
        let plugin = self.plugin.load_full();
        let Ok(mut report) = AssertUnwindSafe(plugin.attempt(&job)).catch_unwind().await else {
            error!(delivery = %job.delivery, plugin = %plugin.record.name, "an attempt panicked in the host");
            let (attempt, verdict) = self.judge(&plugin, &job, panicked(self.ambient.now()));
            return self.complete(job, attempt, verdict).await;
        };
        if let Ok(Finished { effects, .. }) = &mut report.result
            && !effects.emitted.is_empty()
        {
            match self.store.room() {
                Ok(()) => self.address(effects),
                Err(full) => {
                    let error = format!("limit `max_backlog` reached: {full}, so nothing can be emitted");
                    report.result = Err(AttemptFailure::Stopped { error, trace: None });
                }
            }
        }
        let marked = self.settle(&mut report).await;
        if let Err(AttemptFailure::Conflict) = &report.result {
            return self.release(job).await;
        }
        if let Err(AttemptFailure::NotRun { error }) = &report.result {
            warn!(delivery = %job.delivery, plugin = %plugin.record.name, %error, "an attempt could not begin");
            tokio::time::sleep(REST).await;
            return self.release(job).await;
        }
        let delivery = job.delivery;
        let (mut attempt, verdict) = self.judge(&plugin, &job, report);
        self.mask(&job, &mut attempt);
        self.complete(job, attempt, verdict).await;
        if let (true, Some(database)) = (marked, plugin.database())
            && self.store.flush().await.is_ok()
            && let Err(error) = database.remove_markers(&[delivery]).await
        {
            warn!(%delivery, %error, "a marker could not be removed");
        }
    }

    /// Commits what the attempt did in its database; says whether that left a marker.
    async fn settle(&self, report: &mut AttemptReport) -> bool {
        let Ok(Finished { transaction, .. }) = &mut report.result else { return false };
        let Some(transaction) = transaction.take() else { return false };
        let failure = match transaction.commit(b"{}".to_vec()).await {
            Ok(committed) => return committed == Committed::Marked,
            Err(CommitError::AlreadyCommitted) => return true,
            Err(CommitError::Conflict) => AttemptFailure::Conflict,
            Err(error @ CommitError::Failed { .. }) => {
                AttemptFailure::Stopped { error: error.to_string(), trace: None }
            }
            Err(error @ (CommitError::Unknown(_) | CommitError::Unavailable(_))) => {
                AttemptFailure::NotRun { error: error.to_string() }
            }
        };
        report.result = Err(failure);
        false
    }

    /// Masks in what is written down of an attempt what nobody is to read of the event.
    fn mask(&self, job: &Job, attempt: &mut Attempt) {
        if attempt.logs.is_empty() && attempt.error.is_none() && attempt.trace.is_none() {
            return;
        }
        let mask = (self.redactions)(&job.event.content.source).mask(&job.event.content.body);
        attempt.logs.iter_mut().for_each(|line| mask.text(&mut line.message));
        attempt.error.iter_mut().chain(&mut attempt.trace).for_each(|text| mask.text(text));
    }

    /// Finds out who gets the events that were emitted.
    fn address(&self, effects: &mut Effects) {
        let now = self.ambient.now();
        for derived in &mut effects.emitted {
            derived.subscribers = self.registry.recipients(&derived.event(now));
        }
    }

    /// What the store shall do about an attempt that ended like this.
    fn judge(&self, plugin: &Plugin, job: &Job, report: AttemptReport) -> (Attempt, Verdict) {
        let AttemptReport { result, started_at, duration, logs } = report;
        let mut attempt = Attempt {
            number: job.attempt,
            revision: plugin.record.revision.as_ref().map(|revision| short(revision)),
            started_at,
            duration,
            outcome: Outcome::Retry,
            error: None,
            trace: None,
            logs,
        };
        let mut after = None;
        match result {
            Ok(Finished { effects, .. }) => {
                fault::reached(FaultPoint::GuestReturned);
                attempt.outcome = Outcome::Done;
                return (attempt, Verdict::Done(effects));
            }
            Err(AttemptFailure::Reject { reason }) => {
                attempt.outcome = Outcome::Rejected;
                attempt.error = Some(reason);
            }
            Err(AttemptFailure::Retry { reason, after: asked }) => {
                attempt.error = Some(reason);
                after = asked;
            }
            Err(AttemptFailure::Stopped { error, trace }) => {
                attempt.error = Some(error);
                attempt.trace = trace;
            }
            Err(AttemptFailure::NotRun { error }) => attempt.error = Some(error),
            // It was given back before.
            Err(AttemptFailure::Conflict) => {}
        }
        // The attempts are counted even where the guest knows better when to try again.
        let wait = match attempt.outcome {
            Outcome::Rejected => None,
            _ => wait_after(&plugin.settings.retry, job.attempt, &self.ambient)
                .map(|wait| after.unwrap_or(wait)),
        };
        debug!(
            delivery = %job.delivery,
            plugin = %plugin.record.name,
            attempt = job.attempt,
            outcome = attempt.outcome.as_str(),
            "an attempt failed"
        );
        let due = wait.map(|wait| self.ambient.now().saturating_add(wait).unwrap_or(jiff::Timestamp::MAX));
        (attempt, due.map_or(Verdict::Dead, Verdict::Retry))
    }

    async fn complete(&self, job: Job, attempt: Attempt, verdict: Verdict) {
        let delivery = job.delivery;
        if let Err(error) = self.store.complete(job, attempt, verdict).await {
            warn!(%delivery, %error, "an attempt could not be completed; it runs again after the next start");
        }
    }

    async fn release(&self, job: Job) {
        let delivery = job.delivery;
        if let Err(error) = self.store.release(job).await {
            warn!(%delivery, %error, "a delivery could not be given back; it runs after the next start");
        }
    }
}

/// How many attempts of a plugin may run at once.
fn concurrency(plugin: &Plugin) -> u32 {
    u32::try_from(plugin.settings.concurrency.max(1)).unwrap_or(u32::MAX)
}

/// A revision as it stands beside an attempt.
fn short(revision: &str) -> String {
    revision.get(..REVISION_SHOWN).unwrap_or(revision).to_owned()
}

/// The report of an attempt that a defect of posthouse ended.
fn panicked(now: jiff::Timestamp) -> AttemptReport {
    AttemptReport {
        result: Err(AttemptFailure::Stopped {
            error: "posthouse itself failed in this attempt; its log has the panic".to_owned(),
            trace: None,
        }),
        started_at: now,
        duration: Duration::ZERO,
        logs: Vec::new(),
    }
}
