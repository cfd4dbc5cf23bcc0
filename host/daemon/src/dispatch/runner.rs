//! A runner takes one plugin's jobs from its lane and runs an attempt for each, several at once.
//!
//! An attempt takes these steps, first here and then in `commit`:
//!
//! ```text
//!   job ─► may it have run? ──its database has a marker──► finish from the marker, no guest runs
//!     ▼
//!   attempt (a fresh instance) ──failed, or not run──► retry, dead, run again or release
//!     ▼
//!   commit ──conflict──► run again      ──failed──► as a failed attempt      ──not known──► release
//!     ▼
//!   done
//! ```
//!
//! An attempt holds a permit from the search for its marker until it has committed: in its database, or by
//! entering the store's queue. The permit is never held across a store fsync. `concurrency` limits the guests'
//! time, and commits are grouped after it.
//!
//! After conflicts, an attempt takes every permit and waits until the store has committed its queue. No other
//! attempt of its plugin can then conflict with it. A busy key slows its plugin down but never starves a
//! delivery. Other programs that write to the database can still conflict, so too many conflicts count as a
//! failed attempt.
//!
//! If the database ends the session of a delivery too often in a row, that also counts as a failed attempt. A
//! server that restarts does it once, but a statement that crashes its session does it each time.
//!
//! With a `rate`, an attempt also waits for its turn. Meanwhile the job stays in the lane and no instance is taken. The
//! few attempts of a trial do not wait.
//!
//! Each attempt reports its plugin's health to the breaker ([`Health`]). If the breaker is not closed, the
//! runner is on trial: it takes a few deliveries and ends once all of them have failed (`trial`).

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use parking_lot::Mutex;
use posthouse_guest::plugin::{AttemptFailure, AttemptReport, Finished, Health, Plugin};
use posthouse_model::{Attempt, DeliveryId, Env, Job, Outcome, Trial, emitted_by, url_parts};
use posthouse_store::{Lane, Store, StoreError, Verdict};
use tokio::{
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::warn;

use super::{
    Redactions,
    commit::{Commits, Permits},
    masked_attempt, no_room,
    retry::{asked_by_guest, wait_at_least},
    short,
};

use crate::{log_limiter::LogLimiter, rate::Allowance};

/// Jobs that a lane holds in memory. They keep the guests busy while a commit is in progress.
const LANE_CAPACITY: usize = 1024;

/// Conflicts after which an attempt runs alone.
const CONFLICTS_BEFORE_ALONE: u32 = 2;

/// Conflicts after which one more counts as a failed attempt, which waits for its retry.
const MOST_CONFLICTS: u32 = 20;

/// Times in a row that the database may end an attempt's session. One more counts as a failed attempt.
const MOST_BREAKS: u32 = 3;

/// The most deliveries whose broken sessions are counted. Beyond that, all counts start again.
const BROKEN: usize = 1024;

/// How long a job waits if it could not run for a reason that is not the guest's.
const REST: Duration = Duration::from_secs(1);

/// The interval between two looks at a breaker that is about to open.
const GLANCE: Duration = Duration::from_millis(10);

/// The runner of one plugin. Dropping it stops it at once.
pub(super) struct Runner {
    attempts: Arc<Attempts>,
    closing: DropGuard,
    task: JoinHandle<()>,
}

impl Runner {
    /// Opens the plugin's lane and starts to run its jobs.
    pub(super) async fn start(
        commits: &Arc<Commits>,
        plugin: Arc<Plugin>,
        env: Env,
        redactions: Redactions,
    ) -> Result<Self, StoreError> {
        let (id, trial) = (plugin.record.id, plugin.trial());
        let lane = match trial {
            Some(trial) => commits.store.open_trial(id, trial).await?,
            None => commits.store.open_lane(id, LANE_CAPACITY).await?,
        };
        let concurrency = concurrency(&plugin);
        let allowance = plugin.settings.rate.map(Allowance::new);
        let attempts = Arc::new(Attempts {
            store: commits.store.clone(),
            commits: Arc::clone(commits),
            plugin: ArcSwap::new(plugin),
            env,
            redactions,
            concurrency,
            trial,
            over: AtomicBool::new(false),
            permits: Arc::new(Semaphore::new(concurrency as usize)),
            allowance,
            under_way: AtomicUsize::new(0),
            gate: LogLimiter::default(),
            breaks: Mutex::default(),
        });
        let closing = CancellationToken::new();
        let task = match trial {
            Some(trial) => tokio::spawn(Arc::clone(&attempts).try_some(trial, lane, closing.clone())),
            None => tokio::spawn(Arc::clone(&attempts).receive(lane, closing.clone())),
        };
        Ok(Self { attempts, closing: closing.drop_guard(), task })
    }

    /// Attempts that begin from now on run this revision.
    pub(super) fn replace(&self, plugin: Arc<Plugin>) {
        self.attempts.plugin.store(plugin);
    }

    /// Whether this runner can run this plugin: it has the same concurrency, rate and trial, and its trial is not
    /// over.
    pub(super) fn fits(&self, plugin: &Plugin) -> bool {
        let attempts = &self.attempts;
        attempts.concurrency == concurrency(plugin)
            && attempts.trial == plugin.trial()
            && attempts.allowance.as_ref().map(Allowance::rate) == plugin.settings.rate
            && !attempts.over.load(Ordering::Acquire)
    }

    /// How many attempts run now.
    pub(super) fn attempts(&self) -> usize {
        self.attempts.under_way.load(Ordering::Relaxed)
    }

    /// Begins no more attempts and releases the waiting jobs to the store. Running attempts continue to their
    /// end.
    pub(super) fn close(self) {
        drop(self.closing);
    }

    /// As [`Self::close`], and waits until they have ended, or stops them at the deadline.
    pub(super) async fn finish(self, deadline: Instant) {
        let Self { attempts, closing, mut task } = self;
        drop(closing);
        if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
            warn!(
                plugin = %attempts.plugin.load().record.name,
                attempts = attempts.under_way.load(Ordering::Relaxed),
                "stopped attempts at the shutdown deadline; they run again after the next start"
            );
            task.abort();
        }
    }
}

/// The state that the attempts of one plugin share.
pub(super) struct Attempts {
    store: Store,
    pub(super) commits: Arc<Commits>,
    pub(super) plugin: ArcSwap<Plugin>,
    env: Env,
    redactions: Redactions,
    concurrency: u32,
    /// The trial while the breaker is not closed. None if the breaker is closed.
    trial: Option<Trial>,
    /// Set once everything that was tried has failed.
    pub(super) over: AtomicBool,
    permits: Arc<Semaphore>,
    /// None if the plugin has no rate.
    allowance: Option<Allowance>,
    under_way: AtomicUsize,
    /// Limits the log lines about dead letters.
    gate: LogLimiter,
    /// How often in a row the database ended the session of each delivery.
    breaks: Mutex<HashMap<DeliveryId, u32>>,
}

impl Attempts {
    async fn receive(self: Arc<Self>, mut lane: Lane, closing: CancellationToken) {
        // Owned by this task, so that attempts stop when it does.
        let mut running = JoinSet::new();
        loop {
            let job = tokio::select! {
                biased;
                () = closing.cancelled() => break,
                job = lane.next() => match job {
                    Some(job) => job,
                    None => break,
                },
            };
            let permits = tokio::select! {
                biased;
                permits = self.ready(&job) => permits,
                () = closing.cancelled() => {
                    self.release(job).await;
                    break;
                }
            };
            running.spawn(Arc::clone(&self).begin(job, permits));
            while running.try_join_next().is_some() {}
        }
        lane.close().await;
        while running.join_next().await.is_some() {}
    }

    /// As [`Self::permits`], but waits for the plugin's rate, and while its breaker is about to open. This runner is
    /// closed soon then.
    async fn ready(&self, job: &Job) -> Permits {
        let permits = self.permits(job).await;
        if let Some(allowance) = &self.allowance {
            allowance.turn().await;
        }
        while self.plugin.load().is_tripped() {
            tokio::time::sleep(GLANCE).await;
        }
        permits
    }

    /// Acquires what the job needs to run: one permit, or all of them so that it runs alone.
    pub(super) async fn permits(&self, job: &Job) -> Permits {
        let needed = if job.conflicts > CONFLICTS_BEFORE_ALONE { self.concurrency } else { 1 };
        Arc::clone(&self.permits).acquire_many_owned(needed).await
    }

    /// Runs a job and reports to the plugin's breaker how it ended.
    pub(super) async fn begin(self: Arc<Self>, job: Job, permits: Permits) -> Health {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let (plugin, delivery) = (self.plugin.load_full(), job.delivery);
        let health = self.run(&plugin, job, permits).await;
        self.commits.registry.record_health(&plugin, delivery, health).await;
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        health
    }

    /// Runs one job, from the search for its marker to its end.
    async fn run(&self, plugin: &Plugin, mut job: Job, permits: Permits) -> Health {
        let name = &plugin.record.name;
        let mut trace = self.commits.telemetry.attempt(&mut job);
        if job.may_have_run {
            match self.commits.find(plugin, job.delivery).await {
                Ok(None) => {}
                Ok(Some(earlier)) => {
                    self.commits.resume(name, job, earlier, trace).await;
                    return Health::Unknown;
                }
                Err(error) => return self.release_after_rest(job, plugin, &error.to_string()).await,
            }
        }
        if job.conflicts > CONFLICTS_BEFORE_ALONE
            && let Err(error) = self.store.flush().await
        {
            about!(warn, job, name, %error, "could not flush the store before an attempt");
        }
        let AttemptReport { result, started_at, duration, logs, mut fetched, actions } =
            self.attempt(plugin, &job).await;
        if let Some(trace) = &mut trace {
            // The empty name belongs to no source, so this asks whether any source has masks.
            if !(self.redactions)("").is_empty() {
                fetched.iter_mut().for_each(|fetched| fetched.url.truncate(url_parts(&fetched.url).0.len()));
            }
            trace.fetched(fetched);
        }
        let attempt = Attempt {
            number: job.attempt,
            revision: plugin.record.revision.as_ref().map(|revision| short(revision)),
            started_at,
            duration,
            outcome: Outcome::Done,
            error: None,
            trace: None,
            logs,
            actions,
        };
        let attempt = self.mask(&job, attempt).await;
        let result = match result {
            Ok(finished) => self.commits.commit(plugin, &job, &attempt, finished, permits, &mut trace).await,
            Err(failure) => Err(failure),
        };
        match result {
            Ok(()) => {
                about!(debug, job, name, "attempt succeeded");
                Health::Well
            }
            Err(AttemptFailure::NotRun { error }) => self.release_after_rest(job, plugin, &error).await,
            Err(AttemptFailure::Broken { error }) if self.may_break(job.delivery) => {
                self.release_after_rest(job, plugin, &error).await
            }
            Err(AttemptFailure::Conflict) if job.conflicts < MOST_CONFLICTS => {
                if let Some(trace) = trace {
                    trace.end(&job, name, &attempt, true);
                }
                self.run_again(job, name).await;
                Health::Unknown
            }
            Err(failure) => {
                if let Err(error) = self.commits.settle(plugin).await {
                    return self.release_after_rest(job, plugin, &error.to_string()).await;
                }
                let health = health(&failure);
                let (attempt, verdict) = self.judge(plugin, &job, attempt, failure);
                let attempt = self.mask(&job, attempt).await;
                if let Some(trace) = trace {
                    trace.end(&job, name, &attempt, false);
                }
                self.complete(job, name, attempt, verdict).await;
                health
            }
        }
    }

    /// Counts a broken session of a delivery. Returns false, and resets the count, if that was one too many.
    fn may_break(&self, delivery: DeliveryId) -> bool {
        let mut breaks = self.breaks.lock();
        if breaks.len() >= BROKEN {
            breaks.clear();
        }
        let count = breaks.entry(delivery).or_default();
        *count += 1;
        let may = *count <= MOST_BREAKS;
        if !may {
            breaks.remove(&delivery);
        }
        may
    }

    /// Masks the event's values in the record of an attempt, off the runtime's threads if the texts or the
    /// payloads are long.
    async fn mask(&self, job: &Job, attempt: Attempt) -> Attempt {
        let texts = [&attempt.error, &attempt.trace, &attempt.actions];
        if attempt.logs.is_empty() && texts.into_iter().all(Option::is_none) {
            return attempt;
        }
        let content = &job.event.content;
        let (source, redactions) = (content.source.as_str(), Arc::clone(&self.redactions));
        let redact = redactions(source);
        if redact.is_empty() {
            return attempt;
        }
        let payloads = match emitted_by(source, content.id.as_str()) {
            Some(cause) => self.store.payloads(vec![cause]).await.unwrap_or_default().remove(&cause),
            None => None,
        };
        let payloads = payloads.unwrap_or_default();
        let event = Arc::clone(&job.event);
        let bytes = event.content.body.len() + payloads.bytes();
        let mask = move || redact.mask(&event.content.body).and(payloads.mask(|source| redactions(source)));
        masked_attempt(attempt, bytes, mask).await
    }

    /// Runs the guest. If it emits events and the backlog has no room for them, the attempt fails before any
    /// commit.
    async fn attempt(&self, plugin: &Plugin, job: &Job) -> AttemptReport {
        let Ok(mut report) = AssertUnwindSafe(plugin.attempt(job)).catch_unwind().await else {
            about!(error, job, plugin.record.name, "attempt panicked in the host");
            return panicked(self.env.now());
        };
        if let Ok(Finished { effects, .. }) = &report.result
            && let Some(error) = no_room(&self.store, effects)
        {
            report.result = Err(AttemptFailure::NoRoom { error });
        }
        report
    }

    /// Decides what the store records for a failed attempt: a retry or a dead letter.
    fn judge(
        &self,
        plugin: &Plugin,
        job: &Job,
        mut attempt: Attempt,
        failure: AttemptFailure,
    ) -> (Attempt, Verdict) {
        attempt.outcome = Outcome::Retry;
        let mut after = None;
        match failure {
            AttemptFailure::Reject { reason } => {
                attempt.outcome = Outcome::Rejected;
                attempt.error = Some(reason);
            }
            AttemptFailure::Retry { reason, after: asked } => {
                attempt.error = Some(reason);
                after = asked;
            }
            AttemptFailure::Stopped { error, trace } => {
                attempt.error = Some(error);
                attempt.trace = trace;
            }
            AttemptFailure::NoRoom { error } | AttemptFailure::NotRun { error } => {
                attempt.error = Some(error);
            }
            AttemptFailure::Broken { error } => {
                attempt.error = Some(format!(
                    "its database ended the session {} times in a row, while a statement or the commit of this \
                     plugin was under way: {error}",
                    MOST_BREAKS + 1
                ));
            }
            AttemptFailure::Conflict => {
                attempt.error = Some(format!(
                    "its transaction conflicted with others {} times in a row: another plugin or program writes to \
                     the same rows",
                    job.conflicts + 1
                ));
            }
        }
        let wait = match attempt.outcome {
            Outcome::Rejected => None,
            _ => {
                let retry = &plugin.settings.retry;
                wait_at_least(retry, job.attempt, asked_by_guest(retry, after), &self.env)
            }
        };
        let (name, outcome) = (&plugin.record.name, attempt.outcome.as_str());
        // The reason may quote the event, in the guest's words or in a trap. It is in the delivery's record,
        // not in the log.
        match wait {
            Some(wait) => {
                about!(debug, job, name, outcome, ?wait, "attempt failed; the delivery will be retried")
            }
            None => {
                if let Some(held_back) = self.gate.admit() {
                    about!(
                        warn,
                        job,
                        name,
                        outcome,
                        held_back,
                        "attempt failed; the delivery is a dead letter"
                    );
                }
            }
        }
        let due = wait.map(|wait| self.env.now().saturating_add(wait).unwrap_or(jiff::Timestamp::MAX));
        (attempt, due.map_or(Verdict::Dead, Verdict::Retry))
    }

    async fn complete(&self, job: Job, plugin: &str, attempt: Attempt, verdict: Verdict) {
        let told = job.clone();
        if let Err(error) = self.store.complete(job, attempt, verdict).await {
            about!(
                warn,
                told,
                plugin,
                %error,
                "could not record an attempt; the delivery runs again after the next start"
            );
        }
    }

    async fn run_again(&self, job: Job, plugin: &str) {
        let told = job.clone();
        if let Err(error) = self.store.run_again(job).await {
            about!(
                warn,
                told,
                plugin,
                %error,
                "could not record a conflict; the delivery runs again after the next start"
            );
        }
    }

    /// Releases a job that did not run, or may not have run, after a short wait. The attempt is not counted.
    async fn release_after_rest(&self, job: Job, plugin: &Plugin, error: &str) -> Health {
        about!(warn, job, plugin.record.name, %error, "could not run an attempt");
        tokio::time::sleep(REST).await;
        self.release(job).await;
        Health::Unknown
    }

    pub(super) async fn release(&self, job: Job) {
        let told = job.clone();
        if let Err(error) = self.store.release(job).await {
            let plugin = &self.plugin.load().record.name;
            about!(
                warn,
                told,
                plugin,
                %error,
                "could not release a delivery; it runs after the next start"
            );
        }
    }
}

/// The effect of a failed attempt on its plugin's health.
fn health(failure: &AttemptFailure) -> Health {
    use AttemptFailure::{Broken, Conflict, NoRoom, NotRun, Reject, Retry, Stopped};
    match failure {
        Reject { .. } => Health::Well,
        // Also if the guest named the time of the retry: something that it needs does not work now.
        Retry { .. } | Stopped { .. } | Conflict | Broken { .. } => Health::Failed,
        NoRoom { .. } | NotRun { .. } => Health::Unknown,
    }
}

/// How many attempts of a plugin may run at once.
fn concurrency(plugin: &Plugin) -> u32 {
    if let Some(trial) = plugin.trial() {
        return trial.width;
    }
    u32::try_from(plugin.settings.concurrency.max(1)).unwrap_or(u32::MAX)
}

/// Reports an attempt that ended because of a defect in posthouse.
fn panicked(now: jiff::Timestamp) -> AttemptReport {
    AttemptReport {
        result: Err(AttemptFailure::Stopped {
            error: "posthouse itself panicked in this attempt; see its log".to_owned(),
            trace: None,
        }),
        started_at: now,
        duration: Duration::ZERO,
        logs: Vec::new(),
        actions: None,
        fetched: Vec::new(),
    }
}
