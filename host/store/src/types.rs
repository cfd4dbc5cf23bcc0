//! Rows that the store returns, and the filters that select them.
//!
//! The types name no database and derive no `Serialize`: the admin API owns its JSON (`admin/api/rows.rs`).

use std::collections::BTreeMap;

use jiff::Timestamp;
use posthouse_model::{
    Capability, DeliveryId, DeliveryState, Effects, EventId, EventSeq, HeldReason, LogLine, Mask, OutboxHead,
    OutboxItem, OutboxState, Outcome, Pattern, PluginId, Redact, SourceName, TraceContext,
};

/// What became of an event that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// On disk, with its deliveries.
    Stored(EventSeq),
    /// Same source and id were seen before; nothing was written.
    Duplicate,
}

/// What a finished attempt asks of the store.
#[derive(Debug)]
pub enum Verdict {
    /// Commit the effects and "done" in one transaction.
    Done(Effects),
    /// Nothing took effect; run again at this time.
    Retry(Timestamp),
    /// Nothing took effect; give up.
    Dead,
}

/// What became of a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completed {
    /// Written as it was submitted.
    Written,
    /// Something that the attempt read has changed: nothing was written, and the job comes through its
    /// lane again.
    Conflict,
    /// The token no longer holds: nothing was written.
    LostLease,
}

/// What is known of a plugin, as the store keeps it.
#[derive(Debug, Clone)]
pub struct PluginRecord {
    /// Its number, which stays with the name.
    pub id: PluginId,
    /// Its name: the stem of its file.
    pub name: String,
    /// SHA-256 of the file, hexadecimal; none before a first revision was loaded.
    pub revision: Option<String>,
    /// What it says of itself, in a line.
    pub description: String,
    /// The subscription in force.
    pub events: Vec<Pattern>,
    /// What it can't work without.
    pub requires: Vec<Capability>,
    /// None: serving.
    pub held: Option<HeldReason>,
    /// What the last load said, where it failed.
    pub last_error: Option<String>,
    /// Whether an operator paused it; kept beside `held`, which may have other reasons.
    pub paused: bool,
    /// When its revision was loaded.
    pub loaded_at: Option<Timestamp>,
}

/// One change of a plugin's record. An update writes the fields that it names and no others, so that two
/// writers never overwrite each other's fields.
#[derive(Debug, Clone)]
pub struct PluginUpdate {
    /// Why the plugin is held after the change; none: it serves.
    pub held: Option<HeldReason>,
    /// The fields that change beside `held`.
    pub change: PluginChange,
}

/// The fields of a [`PluginUpdate`].
#[derive(Debug, Clone)]
pub enum PluginChange {
    /// A revision was loaded. Clears the last error.
    Loaded {
        /// SHA-256 of the file, hexadecimal; none: unchanged.
        revision: Option<String>,
        /// What the revision says of itself, in a line.
        description: String,
        /// The subscription in force.
        events: Vec<Pattern>,
        /// What it can't work without.
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
    /// Nothing but `held`.
    Held,
}

/// The store's number of an outbox item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OutboxId(pub i64);

/// A leased outbox item on its way to the sender.
#[derive(Debug, Clone)]
pub struct OutboxJob {
    /// Which item.
    pub id: OutboxId,
    /// The delivery that staged it.
    pub delivery: DeliveryId,
    /// The plugin that staged it.
    pub plugin: PluginId,
    /// Which attempt to send it this will be, from 1.
    pub attempt: u32,
    /// The span that it belongs to: that of the attempt which staged it, until who sends it has one of its
    /// own. None where nothing of it is recorded.
    pub trace: Option<TraceContext>,
    /// What is to be sent.
    pub item: OutboxItem,
}

/// Whose an outbox item is.
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
pub struct Places {
    /// So many together.
    pub at_once: usize,
    /// No plugin gets another place where it would have more of them than are left for the others: one
    /// alone gets half, and what its items wait for holds back nobody's who comes after it.
    pub kept: bool,
}

/// How an attempt to send an outbox item ended.
#[derive(Debug, Clone)]
pub enum OutboxResult {
    /// It is out of our hands.
    Sent,
    /// It is to be tried again.
    Retry {
        /// When.
        due: Timestamp,
        /// What went wrong.
        error: String,
    },
    /// It is given up.
    Dead {
        /// What went wrong.
        error: String,
    },
}

/// Which outbox items to list.
#[derive(Debug, Clone, Default)]
pub struct OutboxFilter {
    /// In this state; none: all.
    pub state: Option<OutboxState>,
    /// This one alone.
    pub id: Option<OutboxId>,
    /// Those that this delivery staged.
    pub delivery: Option<DeliveryId>,
    /// The most rows; 0 means 100, and more than 1,000 means 1,000.
    pub limit: u32,
    /// Only items with a smaller id: the next page.
    pub before: Option<OutboxId>,
}

/// Which events to list. An empty one means all.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Of these types.
    pub event_type: Option<Pattern>,
    /// Of this source.
    pub source: Option<String>,
    /// Of this organization.
    pub organization: Option<String>,
    /// With this id of the sender's.
    pub id: Option<String>,
    /// With this text in the body, as its bytes stand there, whatever the case of its ASCII letters.
    pub text: Option<String>,
    /// Taken in at this time or later.
    pub since: Option<Timestamp>,
    /// Taken in at this time or earlier.
    pub until: Option<Timestamp>,
    /// The most rows; 0 means 100, and more than 1,000 means 1,000.
    pub limit: u32,
    /// Only events with a smaller seq: the next page.
    pub before: Option<EventSeq>,
}

/// Which deliveries to list, count or replay. An empty one means all.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    /// In this state; held ones are not among the ready and the waiting.
    pub state: Option<DeliveryState>,
    /// For the plugin of this name.
    pub plugin: Option<String>,
    /// Of this event.
    pub event: Option<EventSeq>,
    /// Of events of these types.
    pub event_type: Option<Pattern>,
    /// Of events of this source.
    pub source: Option<String>,
    /// With an error of the same cause as this one; empty: with none.
    pub reason: Option<String>,
    /// Finished, or where it is not finished made, at this time or later.
    pub since: Option<Timestamp>,
    /// The same, at this time or earlier.
    pub until: Option<Timestamp>,
    /// The most rows; 0 means 100, and more than 1,000 means 1,000. Counting and replaying take it as
    /// it is, and 0 as no limit.
    pub limit: u32,
    /// Only deliveries with a smaller id: the next page.
    pub before: Option<DeliveryId>,
}

/// One event in a list.
#[derive(Debug, Clone)]
pub struct EventSummary {
    /// The store's number of it.
    pub seq: EventSeq,
    /// Who sent it.
    pub source: String,
    /// The sender's id.
    pub id: String,
    /// What it is about.
    pub event_type: String,
    /// The organization it concerns.
    pub organization: Option<String>,
    /// When it happened, by the sender's word.
    pub occurred_at: Option<Timestamp>,
    /// When it was taken in.
    pub received_at: Timestamp,
    /// The length of its body.
    pub bytes: u64,
    /// How many deliveries of it are in each state.
    pub deliveries: BTreeMap<String, u64>,
}

/// A page of a search.
#[derive(Debug, Clone, Default)]
pub struct EventPage {
    /// What was found, newest first.
    pub events: Vec<EventSummary>,
    /// Where the next page begins, as [`EventFilter::before`]; none where all has been looked at.
    pub next: Option<EventSeq>,
    /// How far back it looked; none where it looked at all there is.
    pub looked_to: Option<Timestamp>,
}

/// All of one event.
#[derive(Debug, Clone)]
pub struct EventDetail {
    /// As in a list.
    pub summary: EventSummary,
    /// The id of the trace that it belongs to, in hex; none where it is not traced.
    pub trace: Option<String>,
    /// The verified body, as it was received but for what is masked.
    pub body: String,
    /// Whether values of the body are masked. The store masks none.
    pub masked: bool,
    /// Its deliveries, oldest first.
    pub history: Vec<DeliveryDetail>,
}

/// Which event a delivery is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryPlace {
    /// The delivery.
    pub id: DeliveryId,
    /// The sender's id of the event.
    pub event: String,
    /// Who sent the event.
    pub source: SourceName,
    /// For which plugin the delivery is.
    pub plugin: String,
}

/// Every name that the store has seen.
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
    /// The sender's id of the event.
    pub event: String,
    /// Who sent the event.
    pub source: String,
    /// What the event is about.
    pub event_type: String,
    /// For which plugin.
    pub plugin: String,
    /// Where it stands.
    pub state: DeliveryState,
    /// Why it is held, where it is.
    pub held: Option<HeldReason>,
    /// How many attempts have ended.
    pub attempts: u32,
    /// When it may run (again); none once it has finished, or while another blocks it.
    pub due_at: Option<Timestamp>,
    /// When it was made.
    pub made_at: Timestamp,
    /// When it was done or given up.
    pub finished_at: Option<Timestamp>,
    /// What went wrong last.
    pub error: Option<String>,
    /// The earlier delivery that it repeats.
    pub replay_of: Option<DeliveryId>,
    /// The delivery of its order key that has to finish before it may run.
    pub blocked_by: Option<DeliveryId>,
}

/// A page of deliveries.
#[derive(Debug, Clone, Default)]
pub struct DeliveryPage {
    /// What was found, newest first.
    pub deliveries: Vec<DeliverySummary>,
    /// Where the next page begins, as [`DeliveryFilter::before`]; none where all has been looked at.
    pub next: Option<DeliveryId>,
}

/// All of one delivery.
#[derive(Debug, Clone)]
pub struct DeliveryDetail {
    /// As in a list.
    pub summary: DeliverySummary,
    /// Its attempts, first to last.
    pub attempt_log: Vec<AttemptDetail>,
    /// The outbox items that its effects held.
    pub outbox: Vec<OutboxSummary>,
}

/// One attempt.
#[derive(Debug, Clone)]
pub struct AttemptDetail {
    /// From 1.
    pub number: u32,
    /// The revision that ran, the first digits of its SHA-256; none where it was not recorded.
    pub revision: Option<String>,
    /// When the instance was asked for.
    pub started_at: Timestamp,
    /// From then until the guest returned, in microseconds.
    pub duration_us: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// What went wrong.
    pub error: Option<String>,
    /// The stack of a trap, innermost function first.
    pub trace: Option<String>,
    /// What the guest logged.
    pub logs: Vec<LogLine>,
    /// What it did: keys, SQL, requests, what it staged.
    pub actions: Vec<String>,
}

/// One outbox item in a list.
#[derive(Debug, Clone)]
pub struct OutboxSummary {
    /// Its id.
    pub id: OutboxId,
    /// The delivery that staged it.
    pub delivery: DeliveryId,
    /// The sender's id of the event; none if the event has left the store.
    pub event: Option<String>,
    /// Who sent the event.
    pub source: Option<String>,
    /// The plugin that staged it.
    pub plugin: Option<String>,
    /// Addresses and subject of a mail, method and URL of a request; never a text, header or body.
    pub head: OutboxHead,
    /// The Message-ID of a mail, the Idempotency-Key of a request.
    pub key: Option<String>,
    /// Its state.
    pub state: OutboxState,
    /// How often it was tried.
    pub attempts: u32,
    /// When the delivery that staged it was committed.
    pub staged_at: Option<Timestamp>,
    /// When it is tried (again); none once it has finished.
    pub due_at: Option<Timestamp>,
    /// When it was sent or given up.
    pub finished_at: Option<Timestamp>,
    /// What went wrong last.
    pub error: Option<String>,
}

/// The ledger of deliveries, the outbox, and the last 24 hours by event type.
#[derive(Debug, Clone, Default)]
pub struct StoreStats {
    /// Deliveries ever made, those included that retention has removed.
    pub made: u64,
    /// By state; the sum must be `made`.
    pub states: BTreeMap<DeliveryState, u64>,
    /// By event type, over the last 24 hours.
    pub by_type: Vec<TypeStats>,
    /// Outbox items ever made, by state.
    pub outbox: BTreeMap<OutboxState, u64>,
    /// By plugin.
    pub plugins: Vec<PluginStats>,
    /// Attempts that ran into a conflict and ran again.
    pub conflicts: u64,
    /// Completions that came without a valid lease; nothing of them was written.
    pub lost_leases: u64,
    /// Size of the store's file; none if the engine has no file.
    pub store_bytes: Option<u64>,
    /// Size of its write-ahead log; none if the engine has none of its own.
    pub wal_bytes: Option<u64>,
    /// Free on its disk; none where the system does not say.
    pub disk_free_bytes: Option<u64>,
    /// What is to stay free; with less nothing is taken in. 0: no bound.
    pub min_free_bytes: u64,
    /// In use in the store's file.
    pub live_bytes: u64,
    /// Beyond which finished events leave before their time; none: no bound.
    pub max_bytes: Option<u64>,
    /// Whether more is in use than that, and nothing is left that may leave.
    pub oversize: bool,
    /// Deliveries that were replayed with many others and wait for their turn.
    pub replays_waiting: u64,
}

/// Deliveries of one event type over the last 24 hours (the present hour and the 23 before it).
#[derive(Debug, Clone)]
pub struct TypeStats {
    /// The type.
    pub event_type: String,
    /// Deliveries made.
    pub total: u64,
    /// Deliveries done.
    pub completed: u64,
    /// Deliveries given up.
    pub failed: u64,
    /// Mean duration of the attempts that ended a delivery, in milliseconds; none if none did.
    pub average_ms: Option<f64>,
    /// Half of those attempts took no longer, give or take a tenth; in milliseconds.
    pub p50_ms: Option<f64>,
    /// 95 of 100 of those attempts took no longer, give or take a tenth; in milliseconds.
    pub p95_ms: Option<f64>,
    /// 99 of 100 of those attempts took no longer, give or take a tenth; in milliseconds.
    pub p99_ms: Option<f64>,
}

/// Deliveries of one plugin, ever.
#[derive(Debug, Clone)]
pub struct PluginStats {
    /// Its name.
    pub plugin: String,
    /// Deliveries made.
    pub made: u64,
    /// By state; the sum must be `made`.
    pub states: BTreeMap<DeliveryState, u64>,
    /// When the delivery was made that has been ready, waiting or held for longest.
    pub oldest_open: Option<Timestamp>,
    /// Of those that wait: replayed with many others, until there is room.
    pub replays_waiting: u64,
}

/// The store's number of an entry of the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AuditId(pub i64);

/// Which entries of the audit log to list.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Only of actions that hold these words, the last of which may be the beginning of one: `pause` and
    /// `pause pl` mean `pause plugin`.
    pub action: Option<String>,
    /// Only what was begun then or later.
    pub since: Option<Timestamp>,
    /// The most rows; 0 means 100, and more than 1,000 means 1,000.
    pub limit: u32,
    /// Only entries with a smaller id: the next page.
    pub before: Option<AuditId>,
}

/// Something that an operator did.
#[derive(Debug, Clone)]
pub struct AuditEntry {
    /// Its number.
    pub id: AuditId,
    /// When it was begun.
    pub at: Timestamp,
    /// How the operator came in: `token`, or `session` and the first digits of it.
    pub actor: String,
    /// What was done, in a word or two.
    pub action: String,
    /// To what.
    pub target: String,
    /// What came of it; none where the daemon did not live to see it.
    pub outcome: Option<String>,
}

/// Dead letters of one plugin that have one cause.
#[derive(Debug, Clone)]
pub struct DeadGroup {
    /// The plugin.
    pub plugin: String,
    /// The cause: what went wrong last, with `…` for ids, numbers and values; empty where nothing was said.
    pub reason: String,
    /// The whole reason of the newest.
    pub example: String,
    /// How many there are.
    pub count: u64,
    /// How many of them have not been replayed.
    pub to_replay: u64,
    /// When the first was given up.
    pub first_at: Option<Timestamp>,
    /// When the last was given up.
    pub last_at: Option<Timestamp>,
    /// The newest of them.
    pub newest: DeliveryId,
}

/// The newest event of a source.
#[derive(Debug, Clone)]
pub struct LastEvent {
    /// The source.
    pub source: String,
    /// The store's number of it.
    pub seq: EventSeq,
    /// When it was taken in.
    pub received_at: Timestamp,
    /// The sender's id; none where it has left the store.
    pub id: Option<String>,
    /// What it is about; none where it has left the store.
    pub event_type: Option<String>,
}

/// What happened within a part of a series.
#[derive(Debug, Clone)]
pub struct Point {
    /// When it begins.
    pub at: Timestamp,
    /// How long it is, in minutes.
    pub minutes: u64,
    /// Events taken in.
    pub events: u64,
    /// Deliveries made.
    pub made: u64,
    /// Deliveries done.
    pub completed: u64,
    /// Deliveries given up.
    pub failed: u64,
    /// Deliveries that were unfinished at its end.
    pub unfinished: u64,
    /// Half of the attempts that ended a delivery took no longer; in milliseconds, none if none did.
    pub p50_ms: Option<f64>,
    /// The same of 95 of 100.
    pub p95_ms: Option<f64>,
    /// The same of 99 of 100.
    pub p99_ms: Option<f64>,
}

/// The newest attempts of a plugin.
#[derive(Debug, Clone)]
pub struct Recent {
    /// How many were looked at.
    pub attempts: u64,
    /// How many of them did not end well.
    pub failed: u64,
    /// Half of them took no longer; in milliseconds, none if there is none.
    pub p50_ms: Option<f64>,
    /// The same of 95 of 100.
    pub p95_ms: Option<f64>,
    /// The same of 99 of 100.
    pub p99_ms: Option<f64>,
    /// Which revisions ran, and how many of them each.
    pub revisions: Vec<(String, u64)>,
}

/// One content that a plugin's file has had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginRevision {
    /// The SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// What it said of itself; empty where it could not.
    pub description: String,
    /// When it was loaded, or refused.
    pub loaded_at: Timestamp,
    /// When it ended; none while it serves.
    pub ended_at: Option<Timestamp>,
    /// Why it ended: `replaced`, `removed`, or `refused` with the reason.
    pub ending: Option<String>,
}

/// The source and the body of an event, and of those that it is derived of, up to the webhook.
#[derive(Debug, Clone, Default)]
pub struct Payloads(pub(super) Vec<(String, Vec<u8>)>);

impl Payloads {
    /// Bytes of all bodies.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(_, body)| body.len()).sum()
    }

    /// What is masked of a text that came of them.
    pub fn mask(&self, redact: impl Fn(&str) -> Redact) -> Mask {
        Mask::of_all(self.0.iter().map(|(source, body)| (source.as_str(), &**body)), redact)
    }
}
