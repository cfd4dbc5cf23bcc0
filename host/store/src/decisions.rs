//! Decisions of interceptors: the handle's methods, and their rows.
//!
//! ```text
//!   begin ──► running ──(the guest decides)──► end ──► decided     effects and record in one transaction
//!     │          │                              └────► fallback    no effects
//!     │          └─ the daemon stopped: the next request with this id begins it again, with the same number
//!     └─ the id is known: the recorded answer
//! ```
//!
//! A decision has a number of the same sequence as deliveries, so that markers, outbox items and Idempotency-Keys of
//! both are distinct.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use posthouse_model::{
    Attempt, DecisionState, DeliveryId, Effects, EventId, EventType, Fallback, LogLine, NewEvent, OutboxKind,
    PluginId, Ruling, Subscriber,
};

use super::{
    Answer, Completed, OutboxSummary, Store, StoreError,
    op::{Op, Outcome, Record, outbox_items},
    reads::{Reads, ask},
};

/// The pause between two attempts to record a decision while the disk is full.
const PAUSE: Duration = Duration::from_millis(200);

/// The number of decisions that one transaction removes.
const SLICE: u32 = 500;

/// A request of an interceptor that is about to be decided.
#[derive(Debug, Clone)]
pub struct NewDecision {
    /// The name of the interceptor.
    pub interceptor: String,
    /// The sender's id of the request; unique within its interceptor.
    pub request: EventId,
    /// The trigger.
    pub trigger: EventType,
    /// The plugin that decides. None if there is none.
    pub plugin: Option<PluginId>,
    /// The organization, at most 255 bytes.
    pub organization: Option<Arc<str>>,
    /// When it was received.
    pub received_at: Timestamp,
    /// The verified body.
    pub body: Bytes,
}

/// The right to end a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecisionRun {
    /// The number of the decision, which its effects have instead of a delivery's.
    pub decision: DeliveryId,
    /// How often it has begun.
    pub run: u32,
}

/// The result of beginning a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// It is to be decided now.
    Now {
        /// The right to end it.
        run: DecisionRun,
        /// Whether an earlier run may have committed in the plugin's database.
        may_have_run: bool,
    },
    /// It was decided before.
    Known {
        /// Whether the recorded answer allows.
        allows: bool,
        /// The recorded answer.
        answer: String,
    },
}

/// The end of a decision.
#[derive(Debug, Clone)]
pub struct DecisionEnd {
    /// The decision.
    pub run: DecisionRun,
    /// The plugin that it belongs to.
    pub plugin: Option<PluginId>,
    /// What ended it.
    pub how: DecidedBy,
    /// What the sender gets.
    pub sent: Ruling,
    /// The time from the request until now.
    pub took: Duration,
    /// The record of the attempt. None if no guest ran.
    pub attempt: Option<Attempt>,
    /// Why there is no decision, in words. None: that of the attempt.
    pub error: Option<String>,
}

/// What ended a decision.
#[derive(Debug, Clone)]
pub enum DecidedBy {
    /// The plugin, with these effects.
    Plugin {
        /// Whether it allows.
        allows: bool,
        /// What it changed.
        effects: Effects,
    },
    /// posthouse, for this reason. Nothing that the guest staged remains.
    Fallback(Fallback),
}

/// The end of a decision with its texts encoded.
#[derive(Debug)]
pub(super) struct EncodedEnd {
    pub(super) run: DecisionRun,
    pub(super) plugin: Option<PluginId>,
    pub(super) effects: Option<Effects>,
    /// Outbox items as JSON.
    pub(super) items: Vec<(OutboxKind, String)>,
    pub(super) decided: Option<bool>,
    pub(super) cause: Option<Fallback>,
    pub(super) answer: String,
    pub(super) took_us: i64,
    pub(super) record: Option<Record>,
    pub(super) error: Option<String>,
}

impl EncodedEnd {
    fn new(end: DecisionEnd) -> Self {
        let DecisionEnd { run, plugin, how, sent, took, attempt, error } = end;
        let (effects, decided, cause) = match how {
            DecidedBy::Plugin { allows, effects } => (Some(effects), Some(allows), None),
            DecidedBy::Fallback(cause) => (None, None, Some(cause)),
        };
        let items = effects.as_ref().map(outbox_items).unwrap_or_default();
        let record = attempt.map(Record::new);
        let error = error.or_else(|| record.as_ref().and_then(|record| record.error.clone()));
        Self {
            run,
            plugin,
            effects,
            items,
            decided,
            cause,
            answer: sent.answer,
            took_us: i64::try_from(took.as_micros()).unwrap_or(i64::MAX),
            record,
            error,
        }
    }

    /// The state of the record.
    pub(super) fn state(&self) -> DecisionState {
        if self.decided.is_some() { DecisionState::Decided } else { DecisionState::Fallback }
    }
}

/// Whether a recorded answer allows.
pub(super) fn allows(answer: &str) -> bool {
    answer.contains(r#""decision":"ALLOW""#)
}

/// Selects decisions. An empty filter selects all.
#[derive(Debug, Clone, Default)]
pub struct DecisionFilter {
    /// Of this interceptor.
    pub interceptor: Option<String>,
    /// In this state.
    pub state: Option<DecisionState>,
    /// That the plugin decided so.
    pub allows: Option<bool>,
    /// With this id of the sender, or this number.
    pub id: Option<String>,
    /// Received at this time or later.
    pub since: Option<Timestamp>,
    /// The maximum number of rows; 0 means 100, and more than 1,000 means 1,000.
    pub limit: u32,
    /// Only decisions with a smaller number: the next page.
    pub before: Option<DeliveryId>,
}

/// One decision in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct DecisionSummary {
    /// Its number.
    pub id: DeliveryId,
    /// The interceptor.
    pub interceptor: String,
    /// The sender's id of the request.
    pub request: String,
    /// The trigger.
    pub trigger: String,
    /// The plugin. None if there was none.
    pub plugin: Option<String>,
    /// The organization that it concerns.
    pub organization: Option<String>,
    /// Its state.
    pub state: DecisionState,
    /// Whether the plugin allows. None if it did not decide.
    pub allows: Option<bool>,
    /// What the sender got. None while it is under way.
    pub answer: Option<String>,
    /// Why the sender did not get a decision of the plugin.
    pub cause: Option<Fallback>,
    /// Whether it committed after another answer had been sent.
    pub late: bool,
    /// When it was received.
    pub received_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The time from the request until it ended, in microseconds.
    pub took_us: Option<u64>,
    /// The error.
    pub error: Option<String>,
}

/// Everything about one decision.
#[derive(Debug, Clone)]
pub struct DecisionDetail {
    /// As in a list.
    pub summary: DecisionSummary,
    /// The first digits of the SHA-256 of the revision that ran.
    pub revision: Option<String>,
    /// The stack of a trap, innermost function first.
    pub trace: Option<String>,
    /// The log lines of the guest.
    pub logs: Vec<LogLine>,
    /// What it did, one action each.
    pub actions: Vec<String>,
    /// The verified body, as received except for masked values.
    pub body: String,
    /// Its outbox items.
    pub outbox: Vec<OutboxSummary>,
}

/// A decision that is under way, or was when an earlier daemon stopped.
#[derive(Debug, Clone)]
pub struct OpenDecision {
    /// Its number.
    pub decision: DeliveryId,
    /// The interceptor.
    pub interceptor: String,
    /// The sender's id of the request.
    pub request: EventId,
    /// The trigger.
    pub trigger: EventType,
    /// The plugin.
    pub plugin: Option<PluginId>,
    /// The organization.
    pub organization: Option<String>,
    /// When it was received.
    pub received_at: Timestamp,
    /// The verified body.
    pub body: Bytes,
}

impl Store {
    /// Begins a decision, or returns what was decided about this request before. It is on disk when this returns. If an
    /// earlier run did not end, that run can no longer end it.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] if the disk is nearly full, any other if the write failed.
    pub async fn begin_decision(&self, new: NewDecision) -> Answer<Begun> {
        match self.ask(Op::BeginDecision(Box::new(new))).await? {
            Outcome::Begun(begun) => Ok(begun),
            _ => Err(StoreError::Closed),
        }
    }

    /// Ends a decision: its effects and its record are on disk when this returns, or nothing is. After a conflict the
    /// decision is still under way.
    ///
    /// # Errors
    /// If the write failed; then nothing of it is stored, unless the store is poisoned.
    pub async fn end_decision(&self, end: DecisionEnd) -> Answer<Completed> {
        match self.ask(Op::EndDecision(Box::new(EncodedEnd::new(end)))).await? {
            Outcome::Completed(completed) => Ok(completed),
            _ => Err(StoreError::Closed),
        }
    }

    /// As [`Self::end_decision`], for a decision that has committed in its plugin's database: while the disk is full, it
    /// waits.
    ///
    /// # Errors
    /// If the store accepts no work any more.
    pub async fn end_committed_decision(&self, end: DecisionEnd) -> Answer<Completed> {
        loop {
            match self.end_decision(end.clone()).await {
                Err(StoreError::Io(_)) => tokio::time::sleep(PAUSE).await,
                ended => return ended,
            }
        }
    }

    /// Records that a decision committed after its sender had got another answer, and stores the event that says so.
    /// Returns whether the decision was marked now.
    ///
    /// # Errors
    /// If the write failed.
    pub async fn mark_late(
        &self,
        decision: DeliveryId,
        event: NewEvent,
        subscribers: Vec<Subscriber>,
    ) -> Answer<bool> {
        match self.ask(Op::MarkLate { decision, event: Box::new(event), subscribers }).await? {
            Outcome::Flag(marked) => Ok(marked),
            _ => Ok(false),
        }
    }

    /// Decisions, newest first.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn decisions(&self, filter: DecisionFilter) -> Answer<Vec<DecisionSummary>> {
        ask!(self.decisions(filter).await)
    }

    /// Everything about the decisions with this id: the sender's, of any interceptor, or the number.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn decision(&self, id: &str) -> Answer<Vec<DecisionDetail>> {
        ask!(self.decision(id).await)
    }

    /// The decisions that are under way, oldest first; right after the start, those that the last daemon did not end.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn open_decisions(&self) -> Answer<Vec<OpenDecision>> {
        ask!(self.open_decisions().await)
    }

    /// Removes decisions that were received before `cutoff` (nanoseconds since 1970), oldest first, in small slices. With
    /// `goal`, only until no more than this many bytes are in use. Returns how many.
    pub(super) async fn prune_decisions(&self, cutoff: i64, goal: Option<u64>) -> Answer<u64> {
        let mut count = 0;
        loop {
            match self.ask(Op::RemoveDecisions { cutoff, goal, most: SLICE }).await? {
                Outcome::Count(removed) if removed > 0 => count += removed,
                _ => return Ok(count),
            }
        }
    }
}
