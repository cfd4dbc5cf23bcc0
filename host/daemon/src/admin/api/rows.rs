//! Rows of the store as the admin API writes them in JSON. `openapi.json` describes the same shapes.
//!
//! The API owns these names: a field that the store renames keeps its name here. Each `From` takes its row
//! apart field by field, so a new field of the store does not compile until somebody decides whether the API
//! shows it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use posthouse_model::{DeliveryId, DeliveryState, EventSeq, HeldReason, LogLine, OutboxState, Outcome};
use posthouse_store as store;
use serde::{Serialize, Serializer};

/// Rows as their JSON shapes.
pub(super) fn all<Row, Shape: From<Row>>(rows: Vec<Row>) -> Vec<Shape> {
    rows.into_iter().map(Shape::from).collect()
}

/// Writes the ledger of the store as part of another object.
pub(super) fn stats<S: Serializer>(stats: &store::StoreStats, serializer: S) -> Result<S::Ok, S::Error> {
    StoreStats::from(stats.clone()).serialize(serializer)
}

/// Writes the newest event of a source as part of another object.
pub(super) fn last_event<S: Serializer>(
    event: &Option<store::LastEvent>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    event.clone().map(LastEvent::from).serialize(serializer)
}

/// One event in a list.
#[derive(Serialize)]
pub(super) struct EventSummary {
    seq: EventSeq,
    source: String,
    id: String,
    #[serde(rename = "type")]
    event_type: String,
    organization: Option<String>,
    occurred_at: Option<Timestamp>,
    received_at: Timestamp,
    bytes: u64,
    deliveries: BTreeMap<String, u64>,
}

impl From<store::EventSummary> for EventSummary {
    fn from(row: store::EventSummary) -> Self {
        let store::EventSummary {
            seq,
            source,
            id,
            event_type,
            organization,
            occurred_at,
            received_at,
            bytes,
            deliveries,
        } = row;
        Self { seq, source, id, event_type, organization, occurred_at, received_at, bytes, deliveries }
    }
}

/// All of one event.
#[derive(Serialize)]
pub(super) struct EventDetail {
    #[serde(flatten)]
    summary: EventSummary,
    trace: Option<String>,
    body: String,
    masked: bool,
    history: Vec<DeliveryDetail>,
}

impl From<store::EventDetail> for EventDetail {
    fn from(row: store::EventDetail) -> Self {
        let store::EventDetail { summary, trace, body, masked, history } = row;
        Self { summary: summary.into(), trace, body, masked, history: all(history) }
    }
}

/// One delivery in a list.
#[derive(Serialize)]
pub(super) struct DeliverySummary {
    id: DeliveryId,
    event: String,
    source: String,
    #[serde(rename = "type")]
    event_type: String,
    plugin: String,
    state: DeliveryState,
    held: Option<HeldReason>,
    attempts: u32,
    due_at: Option<Timestamp>,
    made_at: Timestamp,
    finished_at: Option<Timestamp>,
    error: Option<String>,
    replay_of: Option<DeliveryId>,
    behind: Option<DeliveryId>,
}

impl From<store::DeliverySummary> for DeliverySummary {
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
#[derive(Serialize)]
pub(super) struct DeliveryDetail {
    #[serde(flatten)]
    summary: DeliverySummary,
    attempt_log: Vec<AttemptDetail>,
    outbox: Vec<OutboxSummary>,
}

impl From<store::DeliveryDetail> for DeliveryDetail {
    fn from(row: store::DeliveryDetail) -> Self {
        let store::DeliveryDetail { summary, attempt_log, outbox } = row;
        Self { summary: summary.into(), attempt_log: all(attempt_log), outbox: all(outbox) }
    }
}

/// One attempt.
#[derive(Serialize)]
pub(super) struct AttemptDetail {
    number: u32,
    revision: Option<String>,
    started_at: Timestamp,
    duration_us: u64,
    outcome: Outcome,
    error: Option<String>,
    trace: Option<String>,
    logs: Vec<LogLine>,
    did: Vec<String>,
}

impl From<store::AttemptDetail> for AttemptDetail {
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
            did,
        } = row;
        Self { number, revision, started_at, duration_us, outcome, error, trace, logs, did }
    }
}

/// One outbox item in a list.
#[derive(Serialize)]
pub(super) struct OutboxSummary {
    id: i64,
    delivery: DeliveryId,
    event: Option<String>,
    source: Option<String>,
    plugin: Option<String>,
    kind: &'static str,
    summary: String,
    key: Option<String>,
    state: OutboxState,
    attempts: u32,
    staged_at: Option<Timestamp>,
    due_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    error: Option<String>,
}

impl From<store::OutboxSummary> for OutboxSummary {
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
#[derive(Serialize)]
pub(super) struct StoreStats {
    made: u64,
    states: BTreeMap<DeliveryState, u64>,
    by_type: Vec<TypeStats>,
    outbox: BTreeMap<OutboxState, u64>,
    plugins: Vec<PluginStats>,
    conflicts: u64,
    lost_leases: u64,
    store_bytes: Option<u64>,
    wal_bytes: Option<u64>,
    disk_free_bytes: Option<u64>,
    min_free_bytes: u64,
    live_bytes: u64,
    max_bytes: Option<u64>,
    oversize: bool,
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
#[derive(Serialize)]
pub(super) struct TypeStats {
    #[serde(rename = "type")]
    event_type: String,
    total: u64,
    completed: u64,
    failed: u64,
    average_ms: Option<f64>,
    p50_ms: Option<f64>,
    p95_ms: Option<f64>,
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
#[derive(Serialize)]
pub(super) struct PluginStats {
    plugin: String,
    made: u64,
    states: BTreeMap<DeliveryState, u64>,
    oldest_open: Option<Timestamp>,
    replays_waiting: u64,
}

impl From<store::PluginStats> for PluginStats {
    fn from(row: store::PluginStats) -> Self {
        let store::PluginStats { plugin, made, states, oldest_open, replays_waiting } = row;
        Self { plugin, made, states, oldest_open, replays_waiting }
    }
}

/// One action of an operator.
#[derive(Serialize)]
pub(super) struct AuditEntry {
    id: i64,
    at: Timestamp,
    actor: String,
    action: String,
    target: String,
    outcome: Option<String>,
}

impl From<store::AuditEntry> for AuditEntry {
    fn from(row: store::AuditEntry) -> Self {
        let store::AuditEntry { id, at, actor, action, target, outcome } = row;
        Self { id: id.0, at, actor, action, target, outcome }
    }
}

/// Dead letters of one plugin that have one cause.
#[derive(Serialize)]
pub(super) struct DeadGroup {
    plugin: String,
    reason: String,
    example: String,
    count: u64,
    to_replay: u64,
    first_at: Option<Timestamp>,
    last_at: Option<Timestamp>,
    newest: DeliveryId,
}

impl From<store::DeadGroup> for DeadGroup {
    fn from(row: store::DeadGroup) -> Self {
        let store::DeadGroup { plugin, reason, example, count, to_replay, first_at, last_at, newest } = row;
        Self { plugin, reason, example, count, to_replay, first_at, last_at, newest }
    }
}

/// The newest event of a source.
#[derive(Serialize)]
pub(super) struct LastEvent {
    source: String,
    seq: EventSeq,
    received_at: Timestamp,
    id: Option<String>,
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
#[derive(Serialize)]
pub(super) struct Point {
    at: Timestamp,
    minutes: u64,
    events: u64,
    made: u64,
    completed: u64,
    failed: u64,
    unfinished: u64,
    p50_ms: Option<f64>,
    p95_ms: Option<f64>,
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
#[derive(Serialize)]
pub(super) struct PluginRevision {
    sha256: String,
    description: String,
    loaded_at: Timestamp,
    ended_at: Option<Timestamp>,
    ending: Option<String>,
}

impl From<store::PluginRevision> for PluginRevision {
    fn from(row: store::PluginRevision) -> Self {
        let store::PluginRevision { sha256, description, loaded_at, ended_at, ending } = row;
        Self { sha256, description, loaded_at, ended_at, ending }
    }
}
