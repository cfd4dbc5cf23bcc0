//! Rows that the store returns, and the filters that select them.
//!
//! The types name no database and derive no `Serialize`: the admin API owns its JSON (`admin/api/rows.rs`).

use std::collections::BTreeMap;

use jiff::Timestamp;
use posthouse_model::{
    Capability, DeliveryId, DeliveryState, Effects, EventId, EventOrigin, EventSeq, HeldReason, LogLine,
    Mask, NewEvent, OutboxHead, OutboxItem, OutboxState, Outcome, Pattern, PluginId, Redact, SecondKey,
    SourceName, Subscriber, TraceContext,
};

/// The result of offering an event to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// On disk, with its deliveries.
    Stored(EventSeq),
    /// The source has sent an event with this id, or with this second key; nothing was written.
    Duplicate,
}

/// An event that is offered to the store.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The event.
    pub event: NewEvent,
    /// Another name of the same event. An event of its source with the same one is a duplicate, whatever its id.
    pub second: Option<SecondKey>,
    /// The plugins that get it.
    pub subscribers: Vec<Subscriber>,
    /// How it arrived.
    pub origin: EventOrigin,
}

/// The result of an attempt, for the store to record.
#[derive(Debug)]
pub enum Verdict {
    /// Commit the effects and "done" in one transaction.
    Done(Effects),
    /// No effects; run the delivery again at this time.
    Retry(Timestamp),
    /// No effects; the delivery becomes a dead letter.
    Dead,
}

/// The result of a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completed {
    /// Written as it was submitted.
    Written,
    /// Something that the attempt read has changed: nothing was written, and the job arrives through its lane
    /// again.
    Conflict,
    /// The lease is no longer valid: nothing was written.
    LostLease,
}

/// A plugin's record in the store.
#[derive(Debug, Clone)]
pub struct PluginRecord {
    /// Its number, which always belongs to this name.
    pub id: PluginId,
    /// Its name: the stem of its file.
    pub name: String,
    /// SHA-256 of the file, hexadecimal; none before the first revision was loaded.
    pub revision: Option<String>,
    /// Its own description, one line.
    pub description: String,
    /// The subscription in effect.
    pub events: Vec<Pattern>,
    /// The capabilities that it requires.
    pub requires: Vec<Capability>,
    /// Why it is held; none if it serves.
    pub held: Option<HeldReason>,
    /// The error of the last load, if it failed.
    pub last_error: Option<String>,
    /// Whether an operator paused it. Stored separately from `held`, which may have other reasons.
    pub paused: bool,
    /// When its revision was loaded.
    pub loaded_at: Option<Timestamp>,
}

/// One change of a plugin's record. An update writes the fields that it names and no others, so that two
/// writers never overwrite each other's fields.
#[derive(Debug, Clone)]
pub struct PluginUpdate {
    /// Why the plugin is held after the change; none if it serves.
    pub held: Option<HeldReason>,
    /// The fields that change together with `held`.
    pub change: PluginChange,
}

/// The fields of a [`PluginUpdate`].
#[derive(Debug, Clone)]
pub enum PluginChange {
    /// A revision was loaded. Clears the last error.
    Loaded {
        /// SHA-256 of the file, hexadecimal; none if unchanged.
        revision: Option<String>,
        /// The revision's own description, one line.
        description: String,
        /// The subscription in effect.
        events: Vec<Pattern>,
        /// The capabilities that it requires.
        requires: Vec<Capability>,
        /// When it was loaded.
        loaded_at: Option<Timestamp>,
    },
    /// The subscription changed, and no revision was loaded.
    Subscribed(Vec<Pattern>),
    /// The file did not load; the error.
    Failed(String),
    /// The file is again the revision that runs. Clears the last error.
    Recovered,
    /// An operator paused or resumed it.
    Paused(bool),
    /// Only `held` changes.
    Held,
}

/// The store's number of an outbox item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OutboxId(pub i64);

/// A leased outbox item on its way to the sender.
#[derive(Debug, Clone)]
pub struct OutboxJob {
    /// The item.
    pub id: OutboxId,
    /// The delivery that staged it.
    pub delivery: DeliveryId,
    /// The plugin that staged it.
    pub plugin: PluginId,
    /// The number of the next attempt to send it, from 1.
    pub attempt: u32,
    /// The span that it belongs to: first that of the attempt that staged it, then the span of its sending.
    /// None if it is not recorded.
    pub trace: Option<TraceContext>,
    /// The mail or request.
    pub item: OutboxItem,
}

/// The origin of an outbox item.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The source of the event.
    pub source: SourceName,
    /// The event's id.
    pub event: EventId,
    /// The plugin's name.
    pub plugin: String,
}

/// How many outbox items of a kind may be leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxSlots {
    /// The maximum number at once.
    pub at_once: usize,
    /// Whether a plugin may hold at most as many slots as it leaves free for the others. Then a single plugin
    /// gets half, and slow items of one plugin do not delay items of other plugins.
    pub kept: bool,
}

/// The result of an attempt to send an outbox item.
#[derive(Debug, Clone)]
pub enum OutboxResult {
    /// The other side accepted it.
    Sent,
    /// It will be retried.
    Retry {
        /// When.
        due: Timestamp,
        /// The error.
        error: String,
    },
    /// It is dead.
    Dead {
        /// The error.
        error: String,
    },
}

/// The filter for a list of outbox items.
#[derive(Debug, Clone, Default)]
pub struct OutboxFilter {
    /// Only items in this state; none selects all.
    pub state: Option<OutboxState>,
    /// Only this item.
    pub id: Option<OutboxId>,
    /// Only items that this delivery staged.
    pub delivery: Option<DeliveryId>,
    /// The maximum number of rows; 0 means 100, and more than 1,000 means 1,000.
    pub limit: u32,
    /// Only items with a smaller id: the next page.
    pub before: Option<OutboxId>,
}

/// Selects the events of a list. An empty filter selects all.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Of these types.
    pub event_type: Option<Pattern>,
    /// Of this source.
    pub source: Option<String>,
    /// Of this organization.
    pub organization: Option<String>,
    /// With this id, as the sender assigned it.
    pub id: Option<String>,
    /// With this text in the body, compared byte for byte except for the case of ASCII letters.
    pub text: Option<String>,
    /// Received at this time or later.
    pub since: Option<Timestamp>,
    /// Received at this time or earlier.
    pub until: Option<Timestamp>,
    /// The maximum number of rows; 0 means 100, and more than 1,000 means 1,000.
    pub limit: u32,
    /// Only events with a smaller seq: the next page.
    pub before: Option<EventSeq>,
}

/// Selects deliveries to list, count or replay. An empty filter selects all.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    /// In this state. Held deliveries do not count as ready or waiting.
    pub state: Option<DeliveryState>,
    /// For the plugin of this name.
    pub plugin: Option<String>,
    /// Of this event.
    pub event: Option<EventSeq>,
    /// Of events of these types.
    pub event_type: Option<Pattern>,
    /// Of events of this source.
    pub source: Option<String>,
    /// With an error that has the same cause as this one; empty: without an error.
    pub reason: Option<String>,
    /// Finished (or, if unfinished, created) at this time or later.
    pub since: Option<Timestamp>,
    /// Finished (or, if unfinished, created) at this time or earlier.
    pub until: Option<Timestamp>,
    /// The maximum number of rows; 0 means 100, and more than 1,000 means 1,000. Counting and replaying use
    /// the number unchanged, and 0 means no limit.
    pub limit: u32,
    /// Only deliveries with a smaller id: the next page.
    pub before: Option<DeliveryId>,
}

/// One event in a list.
#[derive(Debug, Clone)]
pub struct EventSummary {
    /// The store's number of the event.
    pub seq: EventSeq,
    /// The source that sent it.
    pub source: String,
    /// The id that the sender assigned.
    pub id: String,
    /// Its type.
    pub event_type: String,
    /// The organization it concerns.
    pub organization: Option<String>,
    /// When it happened, according to the sender.
    pub occurred_at: Option<Timestamp>,
    /// When it was received.
    pub received_at: Timestamp,
    /// How it arrived.
    pub origin: EventOrigin,
    /// The length of its body.
    pub bytes: u64,
    /// The number of its deliveries in each state.
    pub deliveries: BTreeMap<String, u64>,
}

/// A page of a search.
#[derive(Debug, Clone, Default)]
pub struct EventPage {
    /// The matches, newest first.
    pub events: Vec<EventSummary>,
    /// Where the next page begins, as [`EventFilter::before`]; none if the search is complete.
    pub next: Option<EventSeq>,
    /// The receipt time of the oldest event that the search looked at; none if the search is complete.
    pub looked_to: Option<Timestamp>,
}

/// Everything about one event.
#[derive(Debug, Clone)]
pub struct EventDetail {
    /// As in a list.
    pub summary: EventSummary,
    /// The id of its trace, in hex; none if it is not traced.
    pub trace: Option<String>,
    /// The content type of its request, as far as it is kept.
    pub content_type: Option<String>,
    /// The headers that it keeps for plugins, those that prove its sender excluded.
    pub headers: Vec<(String, String)>,
    /// The verified body, as received except for masked values.
    pub body: String,
    /// Whether values of the body are masked. The store itself masks nothing.
    pub masked: bool,
    /// Its deliveries, oldest first.
    pub history: Vec<DeliveryDetail>,
}

/// The event that a delivery belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryPlace {
    /// The delivery.
    pub id: DeliveryId,
    /// The event's id, as the sender assigned it.
    pub event: String,
    /// The source that sent the event.
    pub source: SourceName,
    /// The plugin that the delivery is for.
    pub plugin: String,
}

/// Every name that the store knows.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Sources that sent an event.
    pub sources: Vec<String>,
    /// Plugins, forgotten ones included.
    pub plugins: Vec<String>,
    /// Types of events.
    pub types: Vec<String>,
}

/// One delivery in a list.
#[derive(Debug, Clone)]
pub struct DeliverySummary {
    /// Its id.
    pub id: DeliveryId,
    /// The event's id, as the sender assigned it.
    pub event: String,
    /// The source that sent the event.
    pub source: String,
    /// The type of the event.
    pub event_type: String,
    /// The plugin that it is for.
    pub plugin: String,
    /// Its state.
    pub state: DeliveryState,
    /// Why it is held; none if it is not.
    pub held: Option<HeldReason>,
    /// The number of finished attempts.
    pub attempts: u32,
    /// When it may run (again); none if it has finished, or another delivery blocks it.
    pub due_at: Option<Timestamp>,
    /// When it was created.
    pub made_at: Timestamp,
    /// When it became done or dead.
    pub finished_at: Option<Timestamp>,
    /// The last error.
    pub error: Option<String>,
    /// The earlier delivery that it replays.
    pub replay_of: Option<DeliveryId>,
    /// The delivery of its order key that has to finish before it may run.
    pub blocked_by: Option<DeliveryId>,
}

/// A page of deliveries.
#[derive(Debug, Clone, Default)]
pub struct DeliveryPage {
    /// The matches, newest first.
    pub deliveries: Vec<DeliverySummary>,
    /// Where the next page begins, as [`DeliveryFilter::before`]; none if the search is complete.
    pub next: Option<DeliveryId>,
}

/// Everything about one delivery.
#[derive(Debug, Clone)]
pub struct DeliveryDetail {
    /// As in a list.
    pub summary: DeliverySummary,
    /// Its attempts, first to last.
    pub attempt_log: Vec<AttemptDetail>,
    /// The outbox items that it staged.
    pub outbox: Vec<OutboxSummary>,
}

/// One attempt.
#[derive(Debug, Clone)]
pub struct AttemptDetail {
    /// From 1.
    pub number: u32,
    /// The first digits of the SHA-256 of the revision that ran; none if it was not recorded.
    pub revision: Option<String>,
    /// When it asked for an instance.
    pub started_at: Timestamp,
    /// The time from then until the guest returned, in microseconds.
    pub duration_us: u64,
    /// Its outcome.
    pub outcome: Outcome,
    /// The error.
    pub error: Option<String>,
    /// The stack of a trap, innermost function first.
    pub trace: Option<String>,
    /// The log lines of the guest.
    pub logs: Vec<LogLine>,
    /// Its actions: keys, SQL, requests, staged items.
    pub actions: Vec<String>,
}

/// One outbox item in a list.
#[derive(Debug, Clone)]
pub struct OutboxSummary {
    /// Its id.
    pub id: OutboxId,
    /// The delivery that staged it.
    pub delivery: DeliveryId,
    /// The event's id, as the sender assigned it; none if the event is no longer in the store.
    pub event: Option<String>,
    /// The source that sent the event.
    pub source: Option<String>,
    /// The plugin that staged it.
    pub plugin: Option<String>,
    /// Addresses and subject of a mail, method and URL of a request; never a text, header or body.
    pub head: OutboxHead,
    /// The Message-ID of a mail, the Idempotency-Key of a request.
    pub key: Option<String>,
    /// Its state.
    pub state: OutboxState,
    /// The number of attempts to send it.
    pub attempts: u32,
    /// When the delivery that staged it was committed.
    pub staged_at: Option<Timestamp>,
    /// When the next attempt is due; none if it has finished.
    pub due_at: Option<Timestamp>,
    /// When it was sent or became dead.
    pub finished_at: Option<Timestamp>,
    /// The last error.
    pub error: Option<String>,
}

/// The ledger of deliveries, the outbox, and the last 24 hours by event type.
#[derive(Debug, Clone, Default)]
pub struct StoreStats {
    /// Deliveries ever created, including those that retention has removed.
    pub made: u64,
    /// By state; the sum must be `made`.
    pub states: BTreeMap<DeliveryState, u64>,
    /// By event type, over the last 24 hours.
    pub by_type: Vec<TypeStats>,
    /// Outbox items ever staged, by state.
    pub outbox: BTreeMap<OutboxState, u64>,
    /// By plugin.
    pub plugins: Vec<PluginStats>,
    /// Attempts that were repeated after a conflict.
    pub conflicts: u64,
    /// Completions without a valid lease; nothing of them was written.
    pub lost_leases: u64,
    /// Size of the store's file; none if the engine has no file.
    pub store_bytes: Option<u64>,
    /// Size of its write-ahead log; none if the engine has no log.
    pub wal_bytes: Option<u64>,
    /// Free space on its disk; none if the system does not report it.
    pub disk_free_bytes: Option<u64>,
    /// With less free space than this, events are refused. 0: no limit.
    pub min_free_bytes: u64,
    /// Bytes of the store's file that are in use.
    pub live_bytes: u64,
    /// With more bytes in use than this, finished events are removed early; none: no limit.
    pub max_bytes: Option<u64>,
    /// Whether more bytes are in use than that, and no event may be removed.
    pub oversize: bool,
    /// Deferred deliveries: replayed with many others, and waiting for their turn.
    pub replays_waiting: u64,
}

/// Deliveries of one event type over the last 24 hours (the current hour and the 23 before it).
#[derive(Debug, Clone)]
pub struct TypeStats {
    /// The type.
    pub event_type: String,
    /// Deliveries created.
    pub total: u64,
    /// Deliveries done.
    pub completed: u64,
    /// Dead letters.
    pub failed: u64,
    /// Mean duration of the attempts that finished a delivery, in milliseconds; none if there were none.
    pub average_ms: Option<f64>,
    /// The median of these durations, in milliseconds, within a tenth.
    pub p50_ms: Option<f64>,
    /// Their 95th percentile, in milliseconds, within a tenth.
    pub p95_ms: Option<f64>,
    /// Their 99th percentile, in milliseconds, within a tenth.
    pub p99_ms: Option<f64>,
}

/// All deliveries of one plugin.
#[derive(Debug, Clone)]
pub struct PluginStats {
    /// Its name.
    pub plugin: String,
    /// Deliveries created.
    pub made: u64,
    /// By state; the sum must be `made`.
    pub states: BTreeMap<DeliveryState, u64>,
    /// When its oldest unfinished delivery was created.
    pub oldest_open: Option<Timestamp>,
    /// Its deferred deliveries: replayed with many others, and waiting for their turn.
    pub replays_waiting: u64,
}

/// The store's number of an entry of the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AuditId(pub i64);

/// The filter for a list of entries of the audit log.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Only actions with these words, the last of which may be incomplete: `pause` and `pause pl` match
    /// `pause plugin`.
    pub action: Option<String>,
    /// Only actions that began then or later.
    pub since: Option<Timestamp>,
    /// The maximum number of rows; 0 means 100, and more than 1,000 means 1,000.
    pub limit: u32,
    /// Only entries with a smaller id: the next page.
    pub before: Option<AuditId>,
}

/// An operator's action.
#[derive(Debug, Clone)]
pub struct AuditEntry {
    /// Its number.
    pub id: AuditId,
    /// When it began.
    pub at: Timestamp,
    /// The operator's credentials: `token`, or `session` and its first digits.
    pub actor: String,
    /// The action, in one or two words.
    pub action: String,
    /// The target of the action.
    pub target: String,
    /// The outcome; none if the daemon stopped before it recorded one.
    pub outcome: Option<String>,
}

/// The dead letters of one plugin with one cause.
#[derive(Debug, Clone)]
pub struct DeadGroup {
    /// The plugin.
    pub plugin: String,
    /// The cause: the last error, with `…` for ids, numbers and values; empty if there was no error text.
    pub reason: String,
    /// The complete reason of the newest.
    pub example: String,
    /// How many there are.
    pub count: u64,
    /// How many of them have not been replayed.
    pub to_replay: u64,
    /// When the first of them died.
    pub first_at: Option<Timestamp>,
    /// When the last of them died.
    pub last_at: Option<Timestamp>,
    /// The newest of them.
    pub newest: DeliveryId,
}

/// The newest event of a source.
#[derive(Debug, Clone)]
pub struct LastEvent {
    /// The source.
    pub source: String,
    /// The store's number of the event.
    pub seq: EventSeq,
    /// When it was received.
    pub received_at: Timestamp,
    /// The sender's id; none if the event is no longer in the store.
    pub id: Option<String>,
    /// Its type; none if the event is no longer in the store.
    pub event_type: Option<String>,
}

/// The counts of one part of a series.
#[derive(Debug, Clone)]
pub struct Point {
    /// When the part begins.
    pub at: Timestamp,
    /// Its length, in minutes.
    pub minutes: u64,
    /// Events received.
    pub events: u64,
    /// Deliveries created.
    pub made: u64,
    /// Deliveries done.
    pub completed: u64,
    /// Deliveries that died.
    pub failed: u64,
    /// Deliveries that were unfinished at the end of the part.
    pub unfinished: u64,
    /// The median duration of attempts that finished a delivery, in milliseconds; none if there were none.
    pub p50_ms: Option<f64>,
    /// The 95th percentile.
    pub p95_ms: Option<f64>,
    /// The 99th percentile.
    pub p99_ms: Option<f64>,
}

/// The newest attempts of a plugin.
#[derive(Debug, Clone)]
pub struct Recent {
    /// The number of attempts.
    pub attempts: u64,
    /// How many of them failed.
    pub failed: u64,
    /// Their median duration, in milliseconds; none if there are no attempts.
    pub p50_ms: Option<f64>,
    /// The 95th percentile.
    pub p95_ms: Option<f64>,
    /// The 99th percentile.
    pub p99_ms: Option<f64>,
    /// The revisions that ran, and the number of attempts of each.
    pub revisions: Vec<(String, u64)>,
}

/// One revision of a plugin's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginRevision {
    /// The SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// Its description; empty if it gave none.
    pub description: String,
    /// When it was loaded or refused.
    pub loaded_at: Timestamp,
    /// When it stopped serving; none while it serves.
    pub ended_at: Option<Timestamp>,
    /// Why it ended: `replaced`, `removed`, or `refused` with the reason.
    pub ending: Option<String>,
}

/// The source and body of an event, and of the events that it is derived from, up to the webhook.
#[derive(Debug, Clone, Default)]
pub struct Payloads(pub(super) Vec<(String, Vec<u8>)>);

impl Payloads {
    /// The total length of the bodies, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(_, body)| body.len()).sum()
    }

    /// The masks for a text that originates from these bodies.
    pub fn mask(&self, redact: impl Fn(&str) -> Redact) -> Mask {
        Mask::of_all(self.0.iter().map(|(source, body)| (source.as_str(), &**body)), redact)
    }
}
