//! Operations on the store, and what each came to. Plain data: no channels and no closures, so that any engine
//! can apply them, carry them over or send them elsewhere.
//!
//! Whoever waits for an outcome is known to the committer alone (`committer.rs`).

use std::sync::Arc;

use jiff::Timestamp;
use posthouse_model::{
    Attempt, DeliveryId, Effects, EventSeq, Job, NewEvent, Orders, OutboxItem, OutboxKind, Outcome as Ending,
    PluginId, Subscriber,
};

use super::{
    Accepted, Completed, FirstAttempt, OutboxId, OutboxResult, PluginUpdate, StoreError, Verdict,
    meters::Ended, time::nanos, types::AuditId,
};

/// One change of the store. An engine applies it whole or refuses it whole.
#[derive(Debug)]
pub(super) enum Op {
    /// Stores an event with a delivery for each subscriber. → [`Outcome::Accepted`]
    Accept {
        event: NewEvent,
        subscribers: Vec<Subscriber>,
        /// Whether the outcome names the deliveries.
        watched: bool,
    },
    /// Ends the lease of a job. → [`Outcome::Completed`]
    Complete(Box<Completion>),
    /// Makes those of the deliveries ready that are dead. → [`Outcome::Count`]
    Revive(Vec<DeliveryId>),
    /// Makes a new delivery for each of these that is finished and was not replayed. → [`Outcome::Count`]
    Replay { deliveries: Vec<DeliveryId>, orders: Arc<Orders> },
    /// Makes a new delivery of the event for each plugin. → [`Outcome::Deliveries`]
    ReplayEvent { event: EventSeq, plugins: Vec<PluginId>, orders: Orders },
    /// Records how sending an item ended. → [`Outcome::Flag`]: whether it was leased.
    CompleteOutbox { item: OutboxId, kind: OutboxKind, result: OutboxResult },
    /// Makes leased items ready again. → [`Outcome::Done`]
    ReleaseOutbox(Vec<(OutboxId, OutboxKind)>),
    /// Makes given-up items ready as if never tried: these, or all if the list is empty. → [`Outcome::Count`]
    ReplayOutbox(Vec<OutboxId>),
    /// Gives a plugin's name its id. → [`Outcome::Plugin`]
    RegisterPlugin(String),
    /// Writes the named fields of a plugin's record. → [`Outcome::Done`]
    UpdatePlugin { plugin: PluginId, update: PluginUpdate },
    /// One slice of forgetting a plugin. → [`Outcome::Flag`]: whether there is more to do.
    ForgetPlugin(PluginId),
    /// A revision serves from now on. → [`Outcome::Done`]
    LoadRevision { plugin: PluginId, sha256: String, description: String },
    /// The plugin's file left. → [`Outcome::Done`]
    RemoveRevision(PluginId),
    /// A content of the file does not load. → [`Outcome::Done`]
    RefuseRevision { plugin: PluginId, sha256: String, ending: String },
    /// An operator begins an action. → [`Outcome::Audit`]
    BeginAudit { actor: String, action: String, target: String },
    /// An operator's action ended. → [`Outcome::Done`]
    EndAudit { entry: AuditId, outcome: String },
    /// Removes those of the events that may leave. → [`Outcome::Removed`]
    Remove { events: Vec<EventSeq>, cause: Cause },
    /// Gives some unused space back to the system. → [`Outcome::Flag`]: whether there is more.
    ReleaseSpace { most: Option<u64> },
    /// Asks when the oldest delivery was made that each open lane has leased. → [`Outcome::OldestLeased`]
    OldestLeased,
    /// Changes nothing. An engine leaves it behind where it moved an operation out. → [`Outcome::Done`]
    Nothing,
}

/// What an operation came to, once its batch has committed.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It was done.
    Done,
    /// The store refused it: nothing of it was written.
    Refused(StoreError),
    /// The event, and its deliveries that will run for now if the operation was watched.
    Accepted(Accepted, Vec<DeliveryId>),
    Completed(Completed),
    /// How many rows it changed.
    Count(u64),
    Flag(bool),
    Plugin(PluginId),
    Deliveries(Vec<DeliveryId>),
    Audit(AuditId),
    /// How many events left, and whether enough have.
    Removed(u64, bool),
    OldestLeased(Vec<(PluginId, Timestamp)>),
}

/// Why finished events leave.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cause {
    /// They are past their retention.
    Age,
    /// The store is too large: until no more than this many bytes are in use.
    Size(u64),
}

/// A job that comes back. The submitting thread has encoded its texts.
#[derive(Debug)]
pub(super) struct Completion {
    pub(super) job: Job,
    pub(super) verdict: Conclusion,
}

/// What a completion writes.
#[derive(Debug)]
pub(super) enum Conclusion {
    /// The effects, the outbox items as JSON, and "done".
    Done(Record, Effects, Vec<(OutboxKind, String)>),
    /// Nothing took effect; due again at this time, in nanoseconds since 1970.
    Retry(Record, i64),
    /// Nothing took effect; given up.
    Dead(Record),
    /// The attempt ran into a conflict elsewhere and runs again at once.
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
    /// What it did, a line each.
    pub(super) actions: Option<String>,
}

impl Completion {
    pub(super) fn new(job: Job, attempt: Attempt, verdict: Verdict) -> Self {
        let record = Record::new(attempt);
        let verdict = match verdict {
            Verdict::Done(effects) => {
                let item = |item: &OutboxItem| Some((item.kind(), serde_json::to_string(item).ok()?));
                let items = effects.outbox.iter().filter_map(item).collect();
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

    /// Whether it holds effects.
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

    /// How the attempt ended, for whoever waits for the first attempt of a delivery.
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
    fn new(attempt: Attempt) -> Self {
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
