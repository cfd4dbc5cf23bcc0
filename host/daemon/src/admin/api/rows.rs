//! Rows of the store, and small records of other crates, as the admin API writes them in JSON and describes
//! them. The doc comments are the descriptions in the OpenAPI document.
//!
//! The API owns these names: a field that the store renames keeps its name here. Each `From` takes its row
//! apart field by field, so a new field of the store does not compile until somebody decides whether the API
//! shows it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use posthouse_guest::plugin;
use posthouse_model::{
    self as model, DeliveryId, DeliveryState, EventOrigin, EventSeq, HeldReason, OutboxState, config,
};
use posthouse_store as store;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::schemas;

/// Rows as their JSON shapes.
pub(super) fn all<Row, Shape: From<Row>>(rows: Vec<Row>) -> Vec<Shape> {
    rows.into_iter().map(Shape::from).collect()
}

/// Writes the ledger of the store as part of another object.
pub(super) fn stats<S: Serializer>(stats: &store::StoreStats, serializer: S) -> Result<S::Ok, S::Error> {
    StoreStats::from(stats.clone()).serialize(serializer)
}

/// Writes the counts of requests as part of another object.
pub(super) fn counts<S: Serializer>(counts: &model::RequestCounts, serializer: S) -> Result<S::Ok, S::Error> {
    RequestCounts::from(counts.clone()).serialize(serializer)
}

/// Writes the rate limit of a source as part of another object.
pub(super) fn rate<S: Serializer>(rate: &Option<config::Rate>, serializer: S) -> Result<S::Ok, S::Error> {
    rate.map(Rate::from).serialize(serializer)
}

/// Writes the newest event of a source as part of another object.
pub(super) fn last_event<S: Serializer>(
    event: &Option<store::LastEvent>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    event.clone().map(LastEvent::from).serialize(serializer)
}

/// One event in a list.
#[derive(Serialize, ToSchema)]
pub(super) struct Event {
    /// The number of the event in the store, in the order in which events were accepted.
    #[schema(value_type = i64)]
    seq: EventSeq,
    /// The source that sent it.
    source: String,
    /// The sender's id.
    id: String,
    /// The event type.
    #[serde(rename = "type")]
    event_type: String,
    /// The organization that it concerns.
    organization: Option<String>,
    /// When it happened, as the sender says.
    occurred_at: Option<Timestamp>,
    /// When the daemon accepted it.
    received_at: Timestamp,
    /// How it arrived: as a signed webhook, emitted by a plugin, or listed by its sender when that was asked.
    #[schema(value_type = schemas::EventOrigin)]
    origin: EventOrigin,
    /// The length of its body in bytes.
    bytes: u64,
    /// The number of its deliveries in each state.
    deliveries: BTreeMap<String, u64>,
}

impl From<store::EventSummary> for Event {
    fn from(row: store::EventSummary) -> Self {
        let store::EventSummary {
            seq,
            source,
            id,
            event_type,
            organization,
            occurred_at,
            received_at,
            origin,
            bytes,
            deliveries,
        } = row;
        Self {
            seq,
            source,
            id,
            event_type,
            organization,
            occurred_at,
            received_at,
            origin,
            bytes,
            deliveries,
        }
    }
}

/// All of one event.
#[derive(Serialize, ToSchema)]
pub(super) struct EventDetail {
    #[serde(flatten)]
    summary: Event,
    /// The id of its trace in an OpenTelemetry collector, in hex. Null if it is not traced.
    trace: Option<String>,
    /// The content type of its request. Null if it had none, or a plugin emitted the event.
    content_type: Option<String>,
    /// The headers of its request that plugins get: those that its source lists, and those that its scheme reads.
    headers: Vec<Header>,
    /// The verified body, byte for byte as it was received. Only the values that the source's `redact` names
    /// are replaced by `[redacted]`.
    body: String,
    /// Whether values of `body` are replaced.
    masked: bool,
    /// Its deliveries, oldest first.
    history: Vec<DeliveryDetail>,
}

impl From<store::EventDetail> for EventDetail {
    fn from(row: store::EventDetail) -> Self {
        let store::EventDetail { summary, trace, content_type, headers, body, masked, history } = row;
        Self {
            summary: summary.into(),
            trace,
            content_type,
            headers: all(headers),
            body,
            masked,
            history: all(history),
        }
    }
}

/// One header.
#[derive(Serialize, ToSchema)]
pub(super) struct Header {
    /// The name, in lower case.
    name: String,
    /// The value.
    value: String,
}

impl From<(String, String)> for Header {
    fn from((name, value): (String, String)) -> Self {
        Self { name, value }
    }
}

/// One decision in a list.
#[derive(Serialize, ToSchema)]
pub(super) struct Decision {
    /// The id of the decision. Its effects have it as a delivery's.
    #[schema(value_type = schemas::DeliveryId)]
    id: DeliveryId,
    /// The interceptor.
    interceptor: String,
    /// The sender's id of the request.
    request: String,
    /// The trigger.
    trigger: String,
    /// The plugin that decides. Null if there was none.
    plugin: Option<String>,
    /// The organization that it concerns.
    organization: Option<String>,
    /// The state of the decision.
    #[schema(value_type = schemas::DecisionState)]
    state: model::DecisionState,
    /// What the plugin decided. Null if it did not.
    #[schema(value_type = Option<schemas::DecisionWord>)]
    decision: Option<&'static str>,
    /// The JSON that is answered to this id. Null while it is under way.
    answer: Option<String>,
    /// Why the sender did not get a decision of the plugin.
    #[schema(value_type = Option<schemas::Fallback>)]
    cause: Option<model::Fallback>,
    /// Whether it committed after another answer had been sent.
    late: bool,
    /// When the request was received.
    received_at: Timestamp,
    /// When the decision ended.
    finished_at: Option<Timestamp>,
    /// The time from the request until the decision ended, in microseconds.
    took_us: Option<u64>,
    /// The error, or a remark about a decision.
    error: Option<String>,
}

impl From<store::DecisionSummary> for Decision {
    fn from(row: store::DecisionSummary) -> Self {
        let store::DecisionSummary {
            id,
            interceptor,
            request,
            trigger,
            plugin,
            organization,
            state,
            allows,
            answer,
            cause,
            late,
            received_at,
            finished_at,
            took_us,
            error,
        } = row;
        let decision = allows.map(|allows| model::Ruling::plain(allows).word());
        Self {
            id,
            interceptor,
            request,
            trigger,
            plugin,
            organization,
            state,
            decision,
            answer,
            cause,
            late,
            received_at,
            finished_at,
            took_us,
            error,
        }
    }
}

/// All of one decision.
#[derive(Serialize, ToSchema)]
pub(super) struct DecisionDetail {
    #[serde(flatten)]
    summary: Decision,
    /// The first digits of the SHA-256 of the revision that ran.
    revision: Option<String>,
    /// The stack of a trap, innermost function first.
    trace: Option<String>,
    /// The log lines of the guest.
    logs: Vec<LogLine>,
    /// What it did, one action each.
    actions: Vec<String>,
    /// The verified body, but for the values that `redact` of the interceptor names.
    body: String,
    /// The mails and requests that it staged.
    outbox: Vec<OutboxItem>,
}

impl From<store::DecisionDetail> for DecisionDetail {
    fn from(row: store::DecisionDetail) -> Self {
        let store::DecisionDetail { summary, revision, trace, logs, actions, body, outbox } = row;
        Self { summary: summary.into(), revision, trace, logs: all(logs), actions, body, outbox: all(outbox) }
    }
}

/// One delivery in a list.
#[derive(Serialize, ToSchema)]
pub(super) struct Delivery {
    /// The id of the delivery.
    #[schema(value_type = schemas::DeliveryId)]
    id: DeliveryId,
    /// The sender's id of the event.
    event: String,
    /// The source that sent the event.
    source: String,
    /// The type of the event.
    #[serde(rename = "type")]
    event_type: String,
    /// The plugin that gets the event.
    plugin: String,
    /// The state of the delivery.
    #[schema(value_type = schemas::DeliveryState)]
    state: DeliveryState,
    /// Why it is held. Null in other states.
    #[schema(value_type = Option<schemas::HeldReason>)]
    held: Option<HeldReason>,
    /// The number of attempts that have ended.
    attempts: u32,
    /// When it may run. Null once it has finished, or while another delivery blocks it.
    due_at: Option<Timestamp>,
    /// When it was made.
    made_at: Timestamp,
    /// When it was done, or became a dead letter.
    finished_at: Option<Timestamp>,
    /// The last error.
    error: Option<String>,
    /// The earlier delivery that it replays.
    #[schema(value_type = Option<schemas::DeliveryId>)]
    replay_of: Option<DeliveryId>,
    /// The delivery with the same order key that must finish before this one may run.
    #[schema(value_type = Option<schemas::DeliveryId>)]
    behind: Option<DeliveryId>,
}

impl From<store::DeliverySummary> for Delivery {
    fn from(row: store::DeliverySummary) -> Self {
        let store::DeliverySummary {
            id,
            event,
            source,
            event_type,
            plugin,
            state,
            held,
            attempts,
            due_at,
            made_at,
            finished_at,
            error,
            replay_of,
            blocked_by,
        } = row;
        Self {
            id,
            event,
            source,
            event_type,
            plugin,
            state,
            held,
            attempts,
            due_at,
            made_at,
            finished_at,
            error,
            replay_of,
            behind: blocked_by,
        }
    }
}

/// All of one delivery.
#[derive(Serialize, ToSchema)]
pub(super) struct DeliveryDetail {
    #[serde(flatten)]
    summary: Delivery,
    /// Its attempts, first to last.
    attempt_log: Vec<Attempt>,
    /// The outbox items that it staged.
    outbox: Vec<OutboxItem>,
}

impl From<store::DeliveryDetail> for DeliveryDetail {
    fn from(row: store::DeliveryDetail) -> Self {
        let store::DeliveryDetail { summary, attempt_log, outbox } = row;
        Self { summary: summary.into(), attempt_log: all(attempt_log), outbox: all(outbox) }
    }
}

/// One attempt.
#[derive(Serialize, ToSchema)]
pub(super) struct Attempt {
    /// The number of the attempt, from 1.
    #[schema(minimum = 1)]
    number: u32,
    /// The first digits of the SHA-256 of the plugin's file. Null if it was not recorded.
    revision: Option<String>,
    /// When it began.
    started_at: Timestamp,
    /// Its duration in microseconds.
    duration_us: u64,
    /// How it ended.
    outcome: Outcome,
    /// The error.
    error: Option<String>,
    /// The stack of a trap, innermost function first.
    trace: Option<String>,
    /// The plugin's log lines.
    logs: Vec<LogLine>,
    /// The plugin's actions: keys, SQL, requests, staged items. They contain no values.
    #[serde(rename = "did")]
    actions: Vec<String>,
}

impl From<store::AttemptDetail> for Attempt {
    fn from(row: store::AttemptDetail) -> Self {
        let store::AttemptDetail {
            number,
            revision,
            started_at,
            duration_us,
            outcome,
            error,
            trace,
            logs,
            actions,
        } = row;
        Self {
            number,
            revision,
            started_at,
            duration_us,
            outcome: outcome.into(),
            error,
            trace,
            logs: all(logs),
            actions,
        }
    }
}

/// One outbox item in a list.
#[derive(Serialize, ToSchema)]
pub(super) struct OutboxItem {
    /// The number of the item.
    id: i64,
    /// The delivery that staged it.
    #[schema(value_type = schemas::DeliveryId)]
    delivery: DeliveryId,
    /// The sender's id of the event. Null if the event has left the store.
    event: Option<String>,
    /// The source that sent the event. Null if the event has left the store.
    source: Option<String>,
    /// The plugin that staged it.
    plugin: Option<String>,
    /// `mail`, or `request` for an HTTP request.
    kind: &'static str,
    /// The addresses and the subject of a mail, or the method and the URL of a request. Never a text, header
    /// or body.
    summary: String,
    /// The Message-ID of a mail, or the Idempotency-Key of a request.
    key: Option<String>,
    /// The state of the item.
    #[schema(value_type = schemas::OutboxState)]
    state: OutboxState,
    /// The number of tries.
    attempts: u32,
    /// When the delivery that staged it was committed.
    staged_at: Option<Timestamp>,
    /// When it is tried. Null once it has finished.
    due_at: Option<Timestamp>,
    /// When it was sent, or became dead.
    finished_at: Option<Timestamp>,
    /// The last error.
    error: Option<String>,
}

impl From<store::OutboxSummary> for OutboxItem {
    fn from(row: store::OutboxSummary) -> Self {
        let store::OutboxSummary {
            id,
            delivery,
            event,
            source,
            plugin,
            head,
            key,
            state,
            attempts,
            staged_at,
            due_at,
            finished_at,
            error,
        } = row;
        Self {
            id: id.0,
            delivery,
            event,
            source,
            plugin,
            kind: head.kind(),
            summary: head.summary(),
            key,
            state,
            attempts,
            staged_at,
            due_at,
            finished_at,
            error,
        }
    }
}

/// The ledger of deliveries, the outbox, and the last 24 hours by event type.
#[derive(Serialize, ToSchema)]
pub(super) struct StoreStats {
    /// Deliveries made since the store was created, those that retention removed included.
    made: u64,
    /// Deliveries by state. The sum is `made`.
    #[schema(value_type = BTreeMap<String, u64>)]
    states: BTreeMap<DeliveryState, u64>,
    /// The last 24 hours by event type.
    by_type: Vec<TypeStats>,
    /// Outbox items by state.
    #[schema(value_type = BTreeMap<String, u64>)]
    outbox: BTreeMap<OutboxState, u64>,
    /// Deliveries by plugin.
    plugins: Vec<PluginStats>,
    /// Attempts that ran again because of a conflict.
    conflicts: u64,
    /// Completions without a valid lease. Nothing of them was written.
    lost_leases: u64,
    /// The size of the store's file. Null if the engine has no file.
    store_bytes: Option<u64>,
    /// The size of its write-ahead log. Null if the engine has no file for it.
    wal_bytes: Option<u64>,
    /// The free space on the store's disk. Null if the system does not say.
    disk_free_bytes: Option<u64>,
    /// `min_free` of `[store]`: with less free space, the daemon answers events with 503. 0 means no limit.
    min_free_bytes: u64,
    /// The bytes in use in the store's file.
    live_bytes: u64,
    /// `max_size` of `[store]`: beyond it, the daemon removes finished events before their time. Null means no
    /// limit.
    max_bytes: Option<u64>,
    /// Whether more than `max_bytes` is in use and nothing is left to remove.
    oversize: bool,
    /// Deliveries of a replay of many that wait for their turn.
    replays_waiting: u64,
}

impl From<store::StoreStats> for StoreStats {
    fn from(row: store::StoreStats) -> Self {
        let store::StoreStats {
            made,
            states,
            by_type,
            outbox,
            plugins,
            conflicts,
            lost_leases,
            store_bytes,
            wal_bytes,
            disk_free_bytes,
            min_free_bytes,
            live_bytes,
            max_bytes,
            oversize,
            replays_waiting,
        } = row;
        Self {
            made,
            states,
            by_type: all(by_type),
            outbox,
            plugins: all(plugins),
            conflicts,
            lost_leases,
            store_bytes,
            wal_bytes,
            disk_free_bytes,
            min_free_bytes,
            live_bytes,
            max_bytes,
            oversize,
            replays_waiting,
        }
    }
}

/// Deliveries of one event type over the last 24 hours.
#[derive(Serialize, ToSchema)]
pub(super) struct TypeStats {
    /// The event type.
    #[serde(rename = "type")]
    event_type: String,
    /// Deliveries created.
    total: u64,
    /// Deliveries done.
    completed: u64,
    /// Deliveries that became dead letters.
    failed: u64,
    /// The mean duration of the attempts that ended a delivery, in milliseconds. Null if there were none.
    average_ms: Option<f64>,
    /// The median of these durations in milliseconds, within 10 %. Null if there were none.
    p50_ms: Option<f64>,
    /// The 95th percentile of these durations in milliseconds, within 10 %. Null if there were none.
    p95_ms: Option<f64>,
    /// The 99th percentile of these durations in milliseconds, within 10 %. Null if there were none.
    p99_ms: Option<f64>,
}

impl From<store::TypeStats> for TypeStats {
    fn from(row: store::TypeStats) -> Self {
        let store::TypeStats { event_type, total, completed, failed, average_ms, p50_ms, p95_ms, p99_ms } =
            row;
        Self { event_type, total, completed, failed, average_ms, p50_ms, p95_ms, p99_ms }
    }
}

/// Deliveries of one plugin.
#[derive(Serialize, ToSchema)]
pub(super) struct PluginStats {
    /// The name of the plugin.
    plugin: String,
    /// Deliveries created.
    made: u64,
    /// Deliveries by state. The sum is `made`.
    #[schema(value_type = BTreeMap<String, u64>)]
    states: BTreeMap<DeliveryState, u64>,
    /// When the oldest delivery that is ready, waiting or held was made.
    oldest_open: Option<Timestamp>,
    /// Deliveries of a replay of many that wait for their turn.
    replays_waiting: u64,
}

impl From<store::PluginStats> for PluginStats {
    fn from(row: store::PluginStats) -> Self {
        let store::PluginStats { plugin, made, states, oldest_open, replays_waiting } = row;
        Self { plugin, made, states, oldest_open, replays_waiting }
    }
}

/// One action of an operator.
#[derive(Serialize, ToSchema)]
pub(super) struct AuditEntry {
    /// The number of the entry.
    id: i64,
    /// When the action began.
    at: Timestamp,
    /// How the operator was authenticated: `token`, or `session` and its mark.
    actor: String,
    /// The action.
    action: String,
    /// The target of the action.
    target: String,
    /// The result. Null while the action runs, and if the daemon stopped before its end.
    outcome: Option<String>,
}

impl From<store::AuditEntry> for AuditEntry {
    fn from(row: store::AuditEntry) -> Self {
        let store::AuditEntry { id, at, actor, action, target, outcome } = row;
        Self { id: id.0, at, actor, action, target, outcome }
    }
}

/// Dead letters of one plugin that have one cause.
#[derive(Serialize, ToSchema)]
pub(super) struct DeadGroup {
    /// The plugin.
    plugin: String,
    /// The cause: the last error, with `…` for ids, numbers and values. Empty if there was no message.
    reason: String,
    /// The whole error of the newest one.
    example: String,
    /// The number of dead letters.
    #[schema(minimum = 1)]
    count: u64,
    /// The number of them that have not been replayed.
    to_replay: u64,
    /// When the first became a dead letter.
    first_at: Option<Timestamp>,
    /// When the last became a dead letter.
    last_at: Option<Timestamp>,
    /// The newest of them.
    #[schema(value_type = schemas::DeliveryId)]
    newest: DeliveryId,
}

impl From<store::DeadGroup> for DeadGroup {
    fn from(row: store::DeadGroup) -> Self {
        let store::DeadGroup { plugin, reason, example, count, to_replay, first_at, last_at, newest } = row;
        Self { plugin, reason, example, count, to_replay, first_at, last_at, newest }
    }
}

/// The newest event of a source.
#[derive(Serialize, ToSchema)]
pub(super) struct LastEvent {
    /// The source.
    source: String,
    /// The number of the event in the store.
    #[schema(value_type = i64)]
    seq: EventSeq,
    /// When the daemon accepted it.
    received_at: Timestamp,
    /// The sender's id. Null if the event has left the store.
    id: Option<String>,
    /// The event type. Null if the event has left the store.
    #[serde(rename = "type")]
    event_type: Option<String>,
}

impl From<store::LastEvent> for LastEvent {
    fn from(row: store::LastEvent) -> Self {
        let store::LastEvent { source, seq, received_at, id, event_type } = row;
        Self { source, seq, received_at, id, event_type }
    }
}

/// One part of a series.
#[derive(Serialize, ToSchema)]
pub(super) struct Point {
    /// When the part begins.
    at: Timestamp,
    /// Its length in minutes.
    #[schema(minimum = 1)]
    minutes: u64,
    /// Events accepted.
    events: u64,
    /// Deliveries created.
    made: u64,
    /// Deliveries done.
    completed: u64,
    /// Deliveries that became dead letters.
    failed: u64,
    /// Deliveries unfinished at its end.
    unfinished: u64,
    /// The median duration of the attempts that ended a delivery, in milliseconds. Null if there were none.
    p50_ms: Option<f64>,
    /// The 95th percentile of these durations in milliseconds. Null if there were none.
    p95_ms: Option<f64>,
    /// The 99th percentile of these durations in milliseconds. Null if there were none.
    p99_ms: Option<f64>,
}

impl From<store::Point> for Point {
    fn from(row: store::Point) -> Self {
        let store::Point { at, minutes, events, made, completed, failed, unfinished, p50_ms, p95_ms, p99_ms } =
            row;
        Self { at, minutes, events, made, completed, failed, unfinished, p50_ms, p95_ms, p99_ms }
    }
}

/// One content that a plugin file has had.
#[derive(Serialize, ToSchema)]
pub(super) struct PluginRevision {
    /// The SHA-256 of the file, in hex.
    sha256: String,
    /// The description in the plugin's manifest. Empty if the file does not load.
    description: String,
    /// When it was loaded or refused.
    loaded_at: Timestamp,
    /// When it was replaced or removed. Null while it is in force.
    ended_at: Option<Timestamp>,
    /// `replaced`, `removed`, or `refused: …`. Null while it is in force.
    ending: Option<String>,
}

impl From<store::PluginRevision> for PluginRevision {
    fn from(row: store::PluginRevision) -> Self {
        let store::PluginRevision { sha256, description, loaded_at, ended_at, ending } = row;
        Self { sha256, description, loaded_at, ended_at, ending }
    }
}

/// How an attempt ended.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// The plugin returned ok, and its effects are committed.
    Done,
    /// The plugin asked for a retry, trapped, or exceeded a limit.
    Retry,
    /// The plugin refused the event permanently.
    Rejected,
}

impl From<model::Outcome> for Outcome {
    fn from(outcome: model::Outcome) -> Self {
        match outcome {
            model::Outcome::Done => Self::Done,
            model::Outcome::Retry => Self::Retry,
            model::Outcome::Rejected => Self::Rejected,
        }
    }
}

/// A line that a plugin logged.
#[derive(Serialize, ToSchema)]
pub(super) struct LogLine {
    /// The severity.
    level: LogLevel,
    /// The text.
    message: String,
}

impl From<model::LogLine> for LogLine {
    fn from(line: model::LogLine) -> Self {
        let model::LogLine { after: _, level, message } = line;
        Self { level: level.into(), message }
    }
}

/// The severity of a log line.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl From<model::LogLevel> for LogLevel {
    fn from(level: model::LogLevel) -> Self {
        match level {
            model::LogLevel::Trace => Self::Trace,
            model::LogLevel::Debug => Self::Debug,
            model::LogLevel::Info => Self::Info,
            model::LogLevel::Warn => Self::Warn,
            model::LogLevel::Error => Self::Error,
        }
    }
}

/// Requests by result.
#[derive(Serialize, ToSchema)]
pub(super) struct RequestCounts {
    /// Requests that were received.
    received: u64,
    /// New events.
    accepted: u64,
    /// Events that were stored already.
    duplicate: u64,
    /// Events of a type that the source does not accept.
    filtered: u64,
    /// Rejected requests by reason.
    rejected: BTreeMap<String, u64>,
    /// Requests whose event could not be stored, by reason.
    failed: BTreeMap<String, u64>,
}

impl From<model::RequestCounts> for RequestCounts {
    fn from(counts: model::RequestCounts) -> Self {
        let model::RequestCounts { received, accepted, duplicate, filtered, rejected, failed } = counts;
        Self { received, accepted, duplicate, filtered, rejected, failed }
    }
}

/// The rate of signed requests that a source may send, or of attempts that a plugin may begin.
#[derive(Serialize, ToSchema)]
pub(super) struct Rate {
    /// The average number a second.
    per_second: f64,
    /// The number that may follow at once after a pause.
    #[schema(minimum = 1)]
    burst: u32,
}

impl From<config::Rate> for Rate {
    fn from(rate: config::Rate) -> Self {
        let config::Rate { per_second, burst } = rate;
        Self { per_second, burst }
    }
}

/// A file in the plugins folder that is ignored.
#[derive(Serialize, ToSchema)]
pub(super) struct IgnoredFile {
    /// The name of the file.
    file: String,
    /// Why it is ignored, and what to do.
    reason: &'static str,
}

impl From<plugin::IgnoredFile> for IgnoredFile {
    fn from(ignored: plugin::IgnoredFile) -> Self {
        let plugin::IgnoredFile { file, reason } = ignored;
        Self { file, reason }
    }
}
