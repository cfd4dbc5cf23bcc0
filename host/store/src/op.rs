//! Operations on the store, and their outcomes. They are plain data, without channels or closures, so that
//! any engine can apply them, carry them over or send them elsewhere.
//!
//! Only the committer (`committer.rs`) knows which callers wait for an outcome.

use std::sync::Arc;

use jiff::Timestamp;
use posthouse_model::{
    Attempt, DeliveryId, Effects, EventSeq, Job, NewEvent, Orders, OutboxItem, OutboxKind, Outcome as Ending,
    PluginId, SourceName, Subscriber,
};

use super::{
    Accepted, Begun, CatchUpStep, Completed, FirstAttempt, NewDecision, Offer, OutboxId, OutboxResult,
    PluginUpdate, StoreError, Verdict, decisions::EncodedEnd, meters::Ended, time::nanos, types::AuditId,
};

/// One change of the store. An engine applies it completely or refuses it completely.
#[derive(Debug)]
pub(super) enum Op {
    /// Stores events, each with a delivery for each of its subscribers: all of them, or none. →
    /// [`Outcome::Accepted`]
    Accept {
        offers: Vec<Offer>,
        /// Whether the outcome names the deliveries.
        watched: bool,
    },
    /// Records how far the list of a sender was compared, and what is missing. → [`Outcome::Done`]
    CatchUp { source: SourceName, step: CatchUpStep },
    /// Ends the lease of a job. → [`Outcome::Completed`]
    Complete(Box<Completion>),
    /// Makes those of the deliveries ready that are dead. → [`Outcome::Count`]
    Revive(Vec<DeliveryId>),
    /// Creates a new delivery for each of these that is finished and was not replayed. → [`Outcome::Count`]
    Replay { deliveries: Vec<DeliveryId>, orders: Arc<Orders> },
    /// Creates a new delivery of the event for each plugin. → [`Outcome::Deliveries`]
    ReplayEvent { event: EventSeq, plugins: Vec<PluginId>, orders: Orders },
    /// Records how sending an item ended. → [`Outcome::Flag`]: whether it was leased.
    CompleteOutbox { item: OutboxId, kind: OutboxKind, result: OutboxResult },
    /// Makes leased items ready again. → [`Outcome::Done`]
    ReleaseOutbox(Vec<(OutboxId, OutboxKind)>),
    /// Makes dead items ready, with no attempts counted: these, or all if the list is empty. →
    /// [`Outcome::Count`]
    ReplayOutbox(Vec<OutboxId>),
    /// Assigns an id to a plugin's name. → [`Outcome::Plugin`]
    RegisterPlugin(String),
    /// Writes the named fields of a plugin's record. → [`Outcome::Done`]
    UpdatePlugin { plugin: PluginId, update: PluginUpdate },
    /// One slice of forgetting a plugin. → [`Outcome::Flag`]: whether there is more to do.
    ForgetPlugin(PluginId),
    /// A revision serves from now on. → [`Outcome::Done`]
    LoadRevision { plugin: PluginId, sha256: String, description: String },
    /// The plugin's file is gone. → [`Outcome::Done`]
    RemoveRevision(PluginId),
    /// A revision of the file does not load. → [`Outcome::Done`]
    RefuseRevision { plugin: PluginId, sha256: String, ending: String },
    /// An operator begins an action. → [`Outcome::Audit`]
    BeginAudit { actor: String, action: String, target: String },
    /// An operator's action ended. → [`Outcome::Done`]
    EndAudit { entry: AuditId, outcome: String },
    /// Removes those of the events that may be removed. → [`Outcome::Removed`]
    Remove { events: Vec<EventSeq>, cause: Cause },
    /// Returns some unused space to the system. → [`Outcome::Flag`]: whether there is more.
    ReleaseSpace { most: Option<u64> },
    /// Begins a decision, or finds the recorded one. → [`Outcome::Begun`]
    BeginDecision(Box<NewDecision>),
    /// Ends a decision. → [`Outcome::Completed`]
    EndDecision(Box<EncodedEnd>),
    /// Marks a decision as late, and stores the event that says so. → [`Outcome::Flag`]: whether it was marked now.
    MarkLate { decision: DeliveryId, event: Box<NewEvent>, subscribers: Vec<Subscriber> },
    /// Removes at most so many finished decisions that were received before the cutoff, in nanoseconds since 1970, while
    /// more than `goal` bytes are in use. → [`Outcome::Count`]
    RemoveDecisions { cutoff: i64, goal: Option<u64>, most: u32 },
    /// Asks when the oldest leased delivery of each open lane was created. → [`Outcome::OldestLeased`]
    OldestLeased,
    /// Changes nothing. An engine leaves this in place of an operation that it moved out. → [`Outcome::Done`]
    Nothing,
}

/// The outcome of an operation, once its batch has committed.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It was done.
    Done,
    /// The store refused it: nothing of it was written.
    Refused(StoreError),
    /// What became of each event; if the operation was watched, also those of their deliveries that will run now.
    Accepted(Vec<Accepted>, Vec<DeliveryId>),
    Completed(Completed),
    /// The number of rows that it changed.
    Count(u64),
    Flag(bool),
    Plugin(PluginId),
    Deliveries(Vec<DeliveryId>),
    Audit(AuditId),
    Begun(Begun),
    /// The number of events removed, and whether that is enough.
    Removed(u64, bool),
    OldestLeased(Vec<(PluginId, Timestamp)>),
}

/// Why finished events are removed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cause {
    /// They are past their retention.
    Age,
    /// The store is too large: remove events until no more than this many bytes are in use.
    Size(u64),
}

/// A job whose lease ends. The submitting thread has encoded its texts.
#[derive(Debug)]
pub(super) struct Completion {
    pub(super) job: Job,
    pub(super) verdict: Conclusion,
}

/// The writes of a completion.
#[derive(Debug)]
pub(super) enum Conclusion {
    /// The effects, the outbox items as JSON, and "done".
    Done(Record, Effects, Vec<(OutboxKind, String)>),
    /// No effects; due again at this time, in nanoseconds since 1970.
    Retry(Record, i64),
    /// No effects; the delivery is dead.
    Dead(Record),
    /// The attempt conflicted in another database, and runs again at once.
    Conflict,
    /// The job did not run.
    Released,
}

/// An attempt as it is stored.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) number: u32,
    pub(super) revision: Option<String>,
    /// Nanoseconds since 1970.
    pub(super) started_at: i64,
    pub(super) duration_us: i64,
    /// The same in nanoseconds, for the meters.
    pub(super) took: u64,
    pub(super) outcome: Ending,
    pub(super) error: Option<String>,
    pub(super) trace: Option<String>,
    /// The log lines as JSON.
    pub(super) logs: Option<String>,
    /// Its actions, one per line.
    pub(super) actions: Option<String>,
}

/// The outbox items that a plugin staged, as JSON.
pub(super) fn outbox_items(effects: &Effects) -> Vec<(OutboxKind, String)> {
    let item = |item: &OutboxItem| Some((item.kind(), serde_json::to_string(item).ok()?));
    effects.outbox.iter().filter_map(item).collect()
}

impl Completion {
    pub(super) fn new(job: Job, attempt: Attempt, verdict: Verdict) -> Self {
        let record = Record::new(attempt);
        let verdict = match verdict {
            Verdict::Done(effects) => {
                let items = outbox_items(&effects);
                Conclusion::Done(record, effects, items)
            }
            Verdict::Retry(due) => Conclusion::Retry(record, nanos(due)),
            Verdict::Dead => Conclusion::Dead(record),
        };
        Self { job, verdict }
    }

    pub(super) fn release(job: Job) -> Self {
        Self { job, verdict: Conclusion::Released }
    }

    pub(super) fn conflict(job: Job) -> Self {
        Self { job, verdict: Conclusion::Conflict }
    }

    /// Whether it has effects.
    pub(super) fn has_effects(&self) -> bool {
        matches!(self.verdict, Conclusion::Done(..))
    }

    fn record(&self) -> Option<&Record> {
        match &self.verdict {
            Conclusion::Done(record, ..) | Conclusion::Retry(record, _) | Conclusion::Dead(record) => {
                Some(record)
            }
            Conclusion::Conflict | Conclusion::Released => None,
        }
    }

    /// The attempt for the meters, if it wrote one.
    pub(super) fn ended(&self) -> Option<Ended<'_>> {
        let record = self.record()?;
        Some(Ended {
            plugin: self.job.plugin,
            event_type: &self.job.event.content.event_type,
            outcome: record.outcome,
            done: match self.verdict {
                Conclusion::Done(..) => Some(true),
                Conclusion::Dead(_) => Some(false),
                _ => None,
            },
            // The clock may have been set back meanwhile.
            waited: record.started_at.saturating_sub(nanos(self.job.due_at)).max(0).unsigned_abs(),
            took: record.took,
        })
    }

    /// How the attempt ended, for the sender that waits for the first attempt of a delivery.
    pub(super) fn attempt(&self) -> Option<FirstAttempt> {
        let record = self.record()?;
        Some(match record.outcome {
            Ending::Done => FirstAttempt::Done,
            Ending::Rejected => FirstAttempt::Refused(record.error.clone().unwrap_or_default()),
            Ending::Retry => FirstAttempt::Failed,
        })
    }
}

impl Record {
    pub(super) fn new(attempt: Attempt) -> Self {
        let Attempt { number, revision, started_at, duration, outcome, error, trace, logs, actions } =
            attempt;
        Self {
            number,
            revision,
            started_at: nanos(started_at),
            duration_us: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX),
            took: u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX),
            outcome,
            error,
            trace,
            logs: (!logs.is_empty()).then(|| serde_json::to_string(&logs).unwrap_or_default()),
            actions,
        }
    }
}
