//! Decides about the requests of interceptors, while their senders wait.
//!
//! ```text
//!   request ─► under way? ──yes──► waits for the same answer
//!     ▼
//!   begin (on disk) ──known──► the recorded answer
//!     ▼
//!   decide: a reserved instance ──trap, unsure, limit──► rolled back, on_failure
//!     ▼                         ──deadline────────────► rolled back, on_failure
//!   commit: the plugin's database, then the store ──conflict──► once more
//!     ▼                         ──deadline────────────► on_failure now; the decision is marked late
//!   the answer
//! ```
//!
//! A decision has no retry, no back-off and no dead letter: its sender is gone by then. Each one is a record. Its effects
//! commit before the answer leaves, by the same steps as those of a delivery (`commit.rs`): if the plugin has a database,
//! that decides, and the marker there carries the decision.
//!
//! A daemon that dies leaves decisions that neither ended nor answered. The next start finishes those that had committed
//! in their plugin's database from the marker, and marks them as late. All others are decided when their sender asks
//! again.

use std::{
    collections::{HashMap, HashSet},
    panic::AssertUnwindSafe,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use posthouse_database::{CommitError, Committed, Transaction};
use posthouse_guest::plugin::{AttemptFailure, AttemptReport, Finished, Health, Plugin, Registry};
use posthouse_model::{
    Answered, Attempt, Carried, Decision, DecisionLedger, DeliveryId, Derived, Effects, Env, Envelope, Event,
    EventId, EventSeq, EventType, FailedTrial, Fallback, Job, LeaseToken, Outcome, PluginId, Question,
    Ruling, SourceName,
    config::Interceptor,
    fault::{self, FaultPoint},
    late_data,
};
use posthouse_store::{
    Begun, Completed, DecidedBy, DecisionEnd, DecisionRun, NewDecision, OpenDecision, Store,
};
use tokio::{runtime::Handle, sync::watch, time::timeout_at};
use tracing::{debug, info, warn};

use super::{Redactions, apart, masked_attempt, no_room, short};

use crate::log_limiter::LogLimiter;

/// How often a guest runs for one decision: once more after a conflict.
const RUNS: u32 = 2;

/// How much longer than the deadline a sender waits for the task that decides, which answers at the deadline itself.
const GRACE: Duration = Duration::from_millis(100);

/// The type of the event about a decision that committed too late.
const LATE: &str = "interceptor.late";

/// What a sender gets, and how it is counted.
#[derive(Debug, Clone)]
pub struct Told {
    /// The JSON.
    pub body: String,
    /// How that came about.
    pub how: Answered,
}

/// A request, by its interceptor and its id.
type Key = (SourceName, EventId);

/// Decides. Cheap to clone.
#[derive(Clone)]
pub struct Decisions(Arc<Shared>);

struct Shared {
    store: Store,
    registry: Registry,
    env: Env,
    redactions: Redactions,
    ledger: Arc<DecisionLedger>,
    /// Where guests run.
    runtime: Handle,
    /// The decisions that are under way, with the answer once it is known.
    under_way: Mutex<HashMap<Key, watch::Receiver<Option<Told>>>>,
    /// Plugins whose breaker is open, and for which one decision is being tried.
    trying: Mutex<HashSet<PluginId>>,
    /// Limits the log lines about fall-backs.
    gate: LogLimiter,
}

impl Decisions {
    /// Decides on the threads of this runtime.
    pub fn new(
        store: Store,
        registry: Registry,
        env: Env,
        redactions: Redactions,
        ledger: Arc<DecisionLedger>,
        runtime: Handle,
    ) -> Self {
        let (under_way, trying, gate) = (Mutex::default(), Mutex::default(), LogLimiter::default());
        Self(Arc::new(Shared { store, registry, env, redactions, ledger, runtime, under_way, trying, gate }))
    }

    /// Returns the answer to a question that arrived at this time, at the latest at the deadline of the interceptor. Two
    /// requests with one id are decided once.
    pub async fn decide(self, question: Question, interceptor: Arc<Interceptor>, arrived: Instant) -> Told {
        let deadline = arrived + interceptor.deadline;
        let key = (question.source.clone(), question.id.clone());
        let (mut answers, first) = match self.begin(&key) {
            Ok(tell) => {
                let answers = tell.subscribe();
                let work = Work {
                    shared: Arc::clone(&self.0),
                    question,
                    interceptor: Arc::clone(&interceptor),
                    arrived,
                    deadline,
                    tell,
                };
                self.clone().spawn(key, async move { work.run().await });
                (answers, true)
            }
            Err(answers) => (answers, false),
        };
        let told = timeout_at((deadline + GRACE).into(), answers.wait_for(Option::is_some)).await;
        let told = match told {
            Ok(Ok(told)) => told.clone(),
            Ok(Err(_)) => Some(fallback(&interceptor, Fallback::Stopped)),
            Err(_) => None,
        };
        let mut told = told.unwrap_or_else(|| fallback(&interceptor, Fallback::Timeout));
        if !first {
            told.how = Answered::Repeated;
        }
        self.0.ledger.answered(interceptor.name(), told.how, arrived.elapsed());
        told
    }

    /// Finishes the decisions of an earlier daemon that had committed in their plugin's database. Called once, at the
    /// start.
    pub async fn recover(self) {
        let open = match self.0.store.open_decisions().await {
            Ok(open) => open,
            Err(error) => return warn!(%error, "could not read the decisions that did not end"),
        };
        for decision in open {
            let Ok(source) = SourceName::new(&format!("{}{}", Question::SOURCE, decision.interceptor)) else {
                continue;
            };
            let key = (source.clone(), decision.request.clone());
            // Its sender has asked again meanwhile.
            let Ok(tell) = self.begin(&key) else { continue };
            if let Err(error) = self.0.recover(source, decision).await {
                warn!(%error, "could not finish a decision; it is finished after the next start");
            }
            drop(tell);
            self.0.under_way.lock().remove(&key);
        }
    }

    /// Marks a request as under way.
    ///
    /// # Errors
    /// It is under way already: where its answer will be.
    fn begin(&self, key: &Key) -> Result<watch::Sender<Option<Told>>, watch::Receiver<Option<Told>>> {
        let mut under_way = self.0.under_way.lock();
        if let Some(answers) = under_way.get(key) {
            return Err(answers.clone());
        }
        let (tell, answers) = watch::channel(None);
        under_way.insert(key.clone(), answers);
        Ok(tell)
    }

    /// Runs the work on a request where guests run. The request is under way until the work ends.
    fn spawn(self, key: Key, work: impl Future<Output = ()> + Send + 'static) {
        let runtime = self.0.runtime.clone();
        runtime.spawn(async move {
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                tracing::error!(interceptor = %key.0, request = %key.1, "a decision panicked in the host");
            }
            self.0.under_way.lock().remove(&key);
        });
    }
}

/// The answer of an interceptor without a decision.
fn fallback(interceptor: &Interceptor, cause: Fallback) -> Told {
    Told { body: fallback_ruling(interceptor).answer, how: Answered::Fallback(cause) }
}

fn fallback_ruling(interceptor: &Interceptor) -> Ruling {
    Ruling::plain(interceptor.on_failure.allows() || !interceptor.enforce)
}

/// A decision that could not be made, and why.
struct Failed {
    cause: Fallback,
    error: String,
    attempt: Option<Box<Attempt>>,
    /// Whether the plugin may have committed nevertheless. Then only its marker can tell, and nothing is recorded.
    in_doubt: bool,
}

impl Failed {
    fn new(cause: Fallback, error: impl std::fmt::Display) -> Self {
        Self { cause, error: error.to_string(), attempt: None, in_doubt: false }
    }

    fn in_doubt(error: impl std::fmt::Display) -> Self {
        Self { in_doubt: true, ..Self::new(Fallback::Store, error) }
    }

    fn conflict() -> Self {
        Self::new(Fallback::Conflict, "other transactions changed what it had read, twice")
    }

    /// The same, with the record of the guest's run.
    fn after(self, attempt: Attempt) -> Self {
        Self { attempt: Some(Box::new(attempt)), ..self }
    }
}

/// A run of the guest that decided.
struct Decided {
    ruling: Ruling,
    effects: Effects,
    transaction: Option<Transaction>,
    attempt: Attempt,
}

/// How a commit ended without an error.
enum Commit {
    /// Everything is on disk.
    Done,
    /// Something had changed that the guest read; nothing remains.
    Conflict,
}

/// The plugin that decides, and whether this is a trial of it.
struct Chosen {
    plugin: Arc<Plugin>,
    trial: Option<Trying>,
}

/// A trial of a plugin whose breaker is open. Another one may begin when this is dropped.
struct Trying {
    shared: Arc<Shared>,
    plugin: PluginId,
}

impl Drop for Trying {
    fn drop(&mut self) {
        self.shared.trying.lock().remove(&self.plugin);
    }
}

/// One request on its way to an answer.
struct Work {
    shared: Arc<Shared>,
    question: Question,
    interceptor: Arc<Interceptor>,
    arrived: Instant,
    deadline: Instant,
    tell: watch::Sender<Option<Told>>,
}

impl Work {
    async fn run(self) {
        let chosen = self.choose();
        let new = NewDecision {
            interceptor: self.interceptor.name().to_owned(),
            request: self.question.id.clone(),
            trigger: self.question.trigger.clone(),
            plugin: chosen.as_ref().ok().map(|chosen| chosen.plugin.record.id),
            organization: self.question.organization.clone(),
            received_at: self.question.received_at,
            body: self.question.body.clone(),
        };
        let begun = timeout_at(self.deadline.into(), self.shared.store.begin_decision(new)).await;
        let (run, may_have_run) = match begun {
            Ok(Ok(Begun::Now { run, may_have_run })) => (run, may_have_run),
            Ok(Ok(Begun::Known { answer, .. })) => {
                return self.tell(Told { body: answer, how: Answered::Repeated });
            }
            Ok(Err(error)) => return self.not_recorded(&Failed::new(Fallback::Store, error)),
            Err(_) => {
                return self
                    .not_recorded(&Failed::new(Fallback::Timeout, "the store did not answer in time"));
            }
        };
        let chosen = match chosen {
            Ok(chosen) => chosen,
            Err(failed) => return self.fall_back(run, None, failed).await,
        };
        if may_have_run {
            let earlier = self.shared.earlier(&chosen.plugin, run.decision);
            match timeout_at(self.deadline.into(), earlier).await {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(carried))) => return self.resume(run, &chosen.plugin, carried).await,
                Ok(Err(failed)) => return self.not_recorded(&failed),
                Err(_) => return self.not_recorded(&Failed::in_doubt("its database did not answer in time")),
            }
        }
        let began = Instant::now();
        let decided = self.decide(run, &chosen.plugin, may_have_run).await;
        self.shared.judge(&chosen, run.decision, decided.as_ref().err(), began.elapsed()).await;
        if let Err(failed) = decided {
            self.fall_back(run, Some(&chosen.plugin), failed).await;
        }
    }

    /// The plugin that decides, if it can.
    fn choose(&self) -> Result<Chosen, Failed> {
        let (name, trigger) = (&self.interceptor.plugin, &self.question.trigger);
        let Some(plugin) = self.shared.registry.by_name(name) else {
            return Err(Failed::new(Fallback::NoPlugin, format_args!("there is no plugin `{name}`")));
        };
        match plugin.intercepts() {
            Some(triggers) if triggers.contains(trigger) => {}
            Some(triggers) => {
                let error = format!("plugin `{name}` decides about {triggers}, and not about {trigger}");
                return Err(Failed::new(Fallback::NoPlugin, error));
            }
            None => {
                let error = format!("plugin `{name}` does not export `interceptor`, or does not load");
                return Err(Failed::new(Fallback::NoPlugin, error));
            }
        }
        if plugin.serving() {
            return Ok(Chosen { plugin, trial: None });
        }
        let id = plugin.record.id;
        if plugin.trial().is_some() && self.shared.trying.lock().insert(id) {
            let trial = Some(Trying { shared: Arc::clone(&self.shared), plugin: id });
            return Ok(Chosen { plugin, trial });
        }
        let why = plugin.record.held.as_ref().map(ToString::to_string).unwrap_or_default();
        Err(Failed::new(Fallback::Held, format_args!("plugin `{name}` is held: {why}")))
    }

    /// Runs the guest, commits what it decided, and tells the answer.
    async fn decide(&self, run: DecisionRun, plugin: &Arc<Plugin>, may_have_run: bool) -> Result<(), Failed> {
        for conflicts in 0..RUNS {
            let job = self.job(run, plugin, conflicts, may_have_run);
            let Some(decided) = self.attempt(plugin, &job).await? else { continue };
            let (ruling, attempt) = (decided.ruling.clone(), decided.attempt.clone());
            let mut commit = pin!(self.commit(run, plugin, decided));
            let (committed, late) = match timeout_at(self.deadline.into(), &mut commit).await {
                Ok(committed) => (committed, false),
                Err(_) => {
                    // The sender goes on without it. What is being committed may not be taken back any more.
                    self.tell(fallback(&self.interceptor, Fallback::Timeout));
                    (commit.await, true)
                }
            };
            match committed {
                Ok(Commit::Done) if late => {
                    self.late(run, &ruling).await;
                    return Ok(());
                }
                Ok(Commit::Done) => {
                    self.tell(self.answer(&ruling));
                    return Ok(());
                }
                Ok(Commit::Conflict) if conflicts + 1 < RUNS && !late => {}
                Ok(Commit::Conflict) => return Err(Failed::conflict().after(attempt)),
                Err(failed) => return Err(failed.after(attempt)),
            }
        }
        Err(Failed::conflict())
    }

    /// Runs the guest once. None after a conflict.
    async fn attempt(&self, plugin: &Arc<Plugin>, job: &Job) -> Result<Option<Decided>, Failed> {
        let guest = AssertUnwindSafe(plugin.decide(job, &self.question, self.deadline)).catch_unwind();
        let Ok(report) = timeout_at(self.deadline.into(), guest).await else {
            return Err(self.timed_out());
        };
        let Ok(AttemptReport { result, started_at, duration, logs, actions, .. }) = report else {
            return Err(Failed::new(Fallback::Stopped, "posthouse itself panicked; see its log"));
        };
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
        match result {
            Ok(finished) => self.ruled(finished, attempt).await.map(Some),
            Err(AttemptFailure::Conflict) => Ok(None),
            Err(failure) => {
                let (cause, error, trace) = told_by(failure);
                let outcome = if cause == Fallback::Unsure { Outcome::Rejected } else { Outcome::Retry };
                let attempt = Attempt { outcome, error: Some(error), trace, ..attempt };
                let attempt = self.mask(attempt).await;
                let error = attempt.error.clone().unwrap_or_default();
                Err(Failed::new(cause, error).after(attempt))
            }
        }
    }

    /// Checks what a guest decided. If it can't be an answer, dropping the transaction rolls everything back.
    async fn ruled(&self, finished: Finished, mut attempt: Attempt) -> Result<Decided, Failed> {
        let Finished { effects, transaction, decision } = finished;
        let ruling = match decision.map(Decision::rule) {
            Some(Ok(ruling)) => ruling,
            Some(Err(error)) => {
                return Err(Failed::new(Fallback::Invalid, error).after(self.mask(attempt).await));
            }
            None => return Err(Failed::new(Fallback::Stopped, "the guest returned no decision")),
        };
        attempt.error.clone_from(&ruling.remark);
        let attempt = self.mask(attempt).await;
        if let Some(error) = no_room(&self.shared.store, &effects) {
            return Err(Failed::new(Fallback::Store, error).after(attempt));
        }
        if Instant::now() >= self.deadline {
            return Err(self.timed_out().after(attempt));
        }
        Ok(Decided { ruling, effects, transaction, attempt })
    }

    /// Commits a decision: in the plugin's database if it has one, then in the store.
    async fn commit(&self, run: DecisionRun, plugin: &Plugin, decided: Decided) -> Result<Commit, Failed> {
        fault::reached(FaultPoint::GuestReturned);
        let Decided { ruling, mut effects, transaction, attempt } = decided;
        self.shared.address(&mut effects);
        let Some(transaction) = transaction else {
            let end = self.end(run, plugin, &ruling, effects, attempt);
            return self.commit_in_store(end).await;
        };
        let carried = serde_json::to_vec(&Carried::new(&effects, &attempt).with_ruling(&ruling))
            .map_err(|error| Failed::new(Fallback::Store, error))?;
        match transaction.commit(carried, ()).await {
            Ok(Committed::Marked) => {
                fault::reached(FaultPoint::DatabaseSynced);
                let end = self.end(run, plugin, &ruling, effects, attempt);
                match self.shared.store.end_committed_decision(end).await {
                    Ok(Completed::Written) => {
                        fault::reached(FaultPoint::StoreTold);
                        Ok(Commit::Done)
                    }
                    Ok(_) => Err(Failed::in_doubt("another run of it has begun")),
                    Err(error) => Err(Failed::in_doubt(error)),
                }
            }
            Ok(Committed::NothingWritten) => {
                self.commit_in_store(self.end(run, plugin, &ruling, effects, attempt)).await
            }
            Err(CommitError::Conflict) => Ok(Commit::Conflict),
            Err(error @ CommitError::Failed { .. }) => {
                Err(Failed::new(Fallback::Stopped, format_args!("the commit failed: {error}")))
            }
            // An earlier run committed, or only the marker can tell whether this one did.
            Err(error) => Err(Failed::in_doubt(error)),
        }
    }

    /// Commits a decision that has nothing to commit in a database of the plugin.
    async fn commit_in_store(&self, end: DecisionEnd) -> Result<Commit, Failed> {
        match self.shared.store.end_decision(end).await {
            Ok(Completed::Written) => Ok(Commit::Done),
            Ok(Completed::Conflict) => Ok(Commit::Conflict),
            Ok(Completed::LostLease) => Err(Failed::in_doubt("another run of it has begun")),
            Err(error) => Err(Failed::new(Fallback::Store, error)),
        }
    }

    fn timed_out(&self) -> Failed {
        let error = format_args!("no decision within {:?} (`deadline`)", self.interceptor.deadline);
        Failed::new(Fallback::Timeout, error)
    }

    fn end(
        &self,
        run: DecisionRun,
        plugin: &Plugin,
        ruling: &Ruling,
        effects: Effects,
        attempt: Attempt,
    ) -> DecisionEnd {
        DecisionEnd {
            run,
            plugin: Some(plugin.record.id),
            how: DecidedBy::Plugin { allows: ruling.allows, effects },
            sent: self.sent(ruling),
            took: self.arrived.elapsed(),
            attempt: Some(attempt),
            error: None,
        }
    }

    /// Finishes a decision from the marker of an earlier run.
    async fn resume(&self, run: DecisionRun, plugin: &Plugin, carried: Carried) {
        let ruling = carried.ruling.clone().unwrap_or_else(|| fallback_ruling(&self.interceptor));
        let (mut effects, attempt) = carried.into_effects();
        self.shared.address(&mut effects);
        let end = self.end(run, plugin, &ruling, effects, attempt);
        match self.shared.store.end_committed_decision(end).await {
            Ok(Completed::Written) => {
                info!(decision = %run.decision, "completed a decision from its marker");
                self.tell(self.answer(&ruling));
            }
            Ok(_) => self.not_recorded(&Failed::in_doubt("another run of it has begun")),
            Err(error) => self.not_recorded(&Failed::in_doubt(error)),
        }
    }

    /// Records that there is no decision, and tells the answer: after the record is on disk, or at the deadline.
    async fn fall_back(&self, run: DecisionRun, plugin: Option<&Arc<Plugin>>, failed: Failed) {
        if failed.in_doubt {
            return self.not_recorded(&failed);
        }
        self.log(&failed);
        let Failed { cause, error, attempt, .. } = failed;
        let error = self.masked(error).await;
        let end = DecisionEnd {
            run,
            plugin: plugin.map(|plugin| plugin.record.id),
            how: DecidedBy::Fallback(cause),
            sent: fallback_ruling(&self.interceptor),
            took: self.arrived.elapsed(),
            attempt: attempt.map(|attempt| *attempt),
            error: Some(error),
        };
        let mut record = pin!(self.shared.store.end_decision(end));
        let recorded = timeout_at(self.deadline.into(), &mut record).await;
        self.tell(fallback(&self.interceptor, cause));
        let recorded = match recorded {
            Ok(recorded) => recorded,
            Err(_) => record.await,
        };
        if let Err(error) = recorded {
            warn!(decision = %run.decision, %error, "could not record an answer without a decision");
        }
    }

    /// Tells the answer without a decision, and leaves the record as it is.
    fn not_recorded(&self, failed: &Failed) {
        self.log(failed);
        self.tell(fallback(&self.interceptor, failed.cause));
    }

    /// The reason may quote the request, so it is in the record and not in the log.
    fn log(&self, failed: &Failed) {
        let Some(held_back) = self.shared.gate.admit() else { return };
        warn!(
            interceptor = self.interceptor.name(),
            request = %self.question.id,
            plugin = self.interceptor.plugin,
            cause = %failed.cause,
            in_doubt = failed.in_doubt,
            answered = fallback_ruling(&self.interceptor).word(),
            held_back,
            "answered without a decision"
        );
    }

    /// Tells the answer, unless there was one before.
    fn tell(&self, told: Told) {
        self.tell.send_if_modified(|before| {
            let first = before.is_none();
            if first {
                *before = Some(told);
            }
            first
        });
    }

    /// What the sender gets for a ruling.
    fn sent(&self, ruling: &Ruling) -> Ruling {
        if self.interceptor.enforce { ruling.clone() } else { Ruling::plain(true) }
    }

    fn answer(&self, ruling: &Ruling) -> Told {
        let overruled = !self.interceptor.enforce && !ruling.allows;
        debug!(
            interceptor = self.interceptor.name(),
            request = %self.question.id,
            decided = ruling.word(),
            overruled,
            "decided"
        );
        Told { body: self.sent(ruling).answer, how: Answered::Decided { allows: ruling.allows, overruled } }
    }

    async fn late(&self, run: DecisionRun, ruling: &Ruling) {
        let sent = fallback_ruling(&self.interceptor);
        self.shared.late(run.decision, &self.question, ruling, &sent).await;
    }

    /// The question as a job, which is what the effects of a guest belong to.
    fn job(&self, run: DecisionRun, plugin: &Plugin, conflicts: u32, may_have_run: bool) -> Job {
        Job {
            delivery: run.decision,
            token: LeaseToken(i64::from(run.run)),
            expires: None,
            ordered: false,
            plugin: plugin.record.id,
            attempt: run.run,
            conflicts,
            may_have_run,
            due_at: self.question.received_at,
            replay: false,
            trace: None,
            event: Arc::new(Event { seq: EventSeq(0), content: self.question.event() }),
        }
    }

    /// Masks the request's values in the record of an attempt.
    async fn mask(&self, attempt: Attempt) -> Attempt {
        let redact = (self.shared.redactions)(self.question.source.as_str());
        if redact.is_empty() {
            return attempt;
        }
        let body = self.question.body.clone();
        masked_attempt(attempt, body.len(), move || redact.mask(&body)).await
    }

    /// Masks the request's values in a text.
    async fn masked(&self, mut text: String) -> String {
        let redact = (self.shared.redactions)(self.question.source.as_str());
        if redact.is_empty() {
            return text;
        }
        let body = self.question.body.clone();
        let mask = move || {
            redact.mask(&body).text(&mut text);
            text
        };
        apart(self.question.body.len(), mask).await.unwrap_or_default()
    }
}

/// What a failed run means for the answer: its cause, its error, the stack of a trap.
fn told_by(failure: AttemptFailure) -> (Fallback, String, Option<String>) {
    match failure {
        AttemptFailure::Reject { reason } | AttemptFailure::Retry { reason, .. } => {
            (Fallback::Unsure, reason, None)
        }
        AttemptFailure::Stopped { error, trace } => (Fallback::Stopped, error, trace),
        AttemptFailure::Conflict => (Fallback::Conflict, "it conflicted".to_owned(), None),
        AttemptFailure::Broken { error }
        | AttemptFailure::NoRoom { error }
        | AttemptFailure::NotRun { error } => (Fallback::Store, error, None),
    }
}

impl Shared {
    /// Returns what an earlier run has committed in the plugin's database, if it has.
    async fn earlier(&self, plugin: &Plugin, decision: DeliveryId) -> Result<Option<Carried>, Failed> {
        let Some(database) = plugin.database() else { return Ok(None) };
        match database.find_marker(decision).await {
            Ok(None) => Ok(None),
            Ok(Some(marker)) => match serde_json::from_slice(&marker) {
                Ok(carried) => Ok(Some(carried)),
                // The parser's own message is left out, because it may quote the marker's content.
                Err(_) => Err(Failed::in_doubt("it committed in its database, but its marker can't be read")),
            },
            Err(error) => Err(Failed::in_doubt(error)),
        }
    }

    /// Finds the plugins that receive the emitted events.
    fn address(&self, effects: &mut Effects) {
        let now = self.env.now();
        for derived in &mut effects.emitted {
            derived.subscribers = self.registry.recipients(&derived.event(now));
        }
    }

    /// Reports to the plugin's breaker how a decision went.
    async fn judge(&self, chosen: &Chosen, decision: DeliveryId, failed: Option<&Failed>, took: Duration) {
        let health = match failed.map(|failed| failed.cause) {
            None | Some(Fallback::Unsure) => Health::Well,
            Some(Fallback::Stopped | Fallback::Timeout | Fallback::Invalid) => Health::Failed,
            Some(_) => Health::Unknown,
        };
        self.registry.record_health(&chosen.plugin, decision, health).await;
        if chosen.trial.is_some() && health == Health::Failed {
            self.registry
                .trial_failed(&chosen.plugin, FailedTrial { untried: Some(took), retried: true })
                .await;
        }
    }

    /// Marks a decision as late, and stores the event that says so.
    async fn late(&self, decision: DeliveryId, question: &Question, ruling: &Ruling, sent: &Ruling) {
        self.ledger.late(question.interceptor());
        let event = match late_event(decision, question, &late_data(question, ruling, sent), &self.env) {
            Ok(event) => event,
            Err(error) => return warn!(%decision, %error, "could not make the event about a late decision"),
        };
        let event = event.event(self.env.now());
        let subscribers = self.registry.recipients(&event);
        warn!(
            interceptor = question.interceptor(),
            request = %question.id,
            decided = ruling.word(),
            sent = sent.word(),
            "a decision committed after its deadline; the sender went on with another answer"
        );
        if let Err(error) = self.store.mark_late(decision, event, subscribers).await {
            warn!(%decision, %error, "could not mark a decision as late");
        }
    }

    /// Finishes a decision of an earlier daemon, if it had committed in its plugin's database.
    async fn recover(&self, source: SourceName, open: OpenDecision) -> Result<(), String> {
        let Some(plugin) = open.plugin.and_then(|plugin| self.registry.get(plugin)) else { return Ok(()) };
        let earlier = self.earlier(&plugin, open.decision).await.map_err(|failed| failed.error)?;
        let Some(carried) = earlier else { return Ok(()) };
        let question = question_of(source, &open);
        let new = NewDecision {
            interceptor: open.interceptor,
            request: open.request,
            trigger: open.trigger,
            plugin: open.plugin,
            organization: question.organization.clone(),
            received_at: open.received_at,
            body: open.body,
        };
        let begun = self.store.begin_decision(new).await.map_err(|error| error.to_string())?;
        let Begun::Now { run, .. } = begun else { return Ok(()) };
        let ruling = carried.ruling.clone().unwrap_or_else(|| Ruling::plain(false));
        let (mut effects, attempt) = carried.into_effects();
        self.address(&mut effects);
        let took = self.env.now().duration_since(open.received_at);
        let end = DecisionEnd {
            run,
            plugin: Some(plugin.record.id),
            how: DecidedBy::Plugin { allows: ruling.allows, effects },
            sent: ruling.clone(),
            took: Duration::try_from(took).unwrap_or_default(),
            attempt: Some(attempt),
            error: None,
        };
        match self.store.end_committed_decision(end).await {
            Ok(Completed::Written) => {
                info!(decision = %open.decision, "completed a decision from its marker");
                // Its sender got no answer from the daemon that died.
                self.late(open.decision, &question, &ruling, &Ruling::plain(false)).await;
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// What is known of a question once its request is gone.
fn question_of(source: SourceName, open: &OpenDecision) -> Question {
    Question {
        source,
        id: open.request.clone(),
        trigger: open.trigger.clone(),
        environment: None,
        user: None,
        email: None,
        organization: open.organization.as_deref().map(Arc::from),
        client: None,
        ip: None,
        region: None,
        triggered_at: None,
        received_at: open.received_at,
        body: open.body.clone(),
        data: 0..0,
    }
}

fn late_event(
    decision: DeliveryId,
    question: &Question,
    data: &str,
    env: &Env,
) -> Result<Derived, posthouse_model::InvalidName> {
    let envelope = Envelope {
        source: question.source.clone(),
        id: EventId::new(&format!("{decision}.late"))?,
        event_type: EventType::new(LATE)?,
        organization: question.organization.as_deref().map(str::to_owned),
        occurred_at: env.now(),
        depth: 1,
    };
    Ok(Derived::new(envelope, data))
}
