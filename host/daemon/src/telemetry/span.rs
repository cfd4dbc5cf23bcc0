//! Spans as OTLP writes them, and their common attributes.
//!
//! Attributes have the names of OpenTelemetry's semantic conventions where those exist. Otherwise they begin
//! with `posthouse.`.

use jiff::Timestamp;
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{
        Span, SpanFlags, Status,
        span::{Event, Link, SpanKind},
        status::StatusCode,
    },
};
use posthouse_model::{Env, LogLevel, LogLine, NewEvent, TraceContext, shortened};

/// The most lines of a guest's log in one span.
pub(super) const MOST_LINES: usize = 128;
/// The longest text, in bytes; a longer one is cut.
const LONGEST: usize = 2048;

/// The position of a span in its trace.
#[derive(Debug, Clone, Copy)]
pub(super) struct SpanPosition {
    pub(super) context: TraceContext,
    pub(super) parent: Option<[u8; 8]>,
    /// Whether the parent belongs to another program.
    pub(super) remote: bool,
}

impl SpanPosition {
    pub(super) fn below(context: TraceContext, parent: &TraceContext) -> Self {
        Self { context, parent: Some(parent.span), remote: false }
    }
}

pub(super) fn span(
    position: SpanPosition,
    name: String,
    kind: SpanKind,
    from: Timestamp,
    to: Timestamp,
) -> Span {
    let SpanPosition { context, parent, remote } = position;
    let remote = if remote { SpanFlags::ContextIsRemoteMask as u32 } else { 0 };
    Span {
        trace_id: context.trace.to_vec(),
        span_id: context.span.to_vec(),
        parent_span_id: parent.map(|parent| parent.to_vec()).unwrap_or_default(),
        flags: u32::from(context.flags) | SpanFlags::ContextHasIsRemoteMask as u32 | remote,
        name,
        kind: kind.into(),
        start_time_unix_nano: nanos(from),
        // The clock may have been set back in between.
        end_time_unix_nano: nanos(to.max(from)),
        ..Span::default()
    }
}

/// The attributes of an event, for each span about it.
pub(super) fn about(event: &NewEvent) -> Vec<KeyValue> {
    vec![
        text("messaging.system", "posthouse"),
        text("messaging.message.id", event.id.as_str()),
        number("messaging.message.body.size", event.body.len()),
        text("posthouse.source", event.source.as_str()),
        text("posthouse.event.type", event.event_type.as_str()),
    ]
}

pub(super) fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(shortened(value, LONGEST)))
}

pub(super) fn number(key: &str, value: impl TryInto<i64>) -> KeyValue {
    attribute(key, Value::IntValue(value.try_into().unwrap_or(i64::MAX)))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// Marks a span as failed. `kind` is one of a few words; `message` is for people.
pub(super) fn failed(span: &mut Span, kind: &str, message: &str) {
    span.attributes.push(text("error.type", kind));
    span.status = Some(Status { message: shortened(message, LONGEST), code: StatusCode::Error.into() });
}

/// Adds the lines of a guest's log as events of its attempt's span.
pub(super) fn say(span: &mut Span, began: Timestamp, lines: &[LogLine]) {
    span.dropped_events_count = u32::try_from(lines.len().saturating_sub(MOST_LINES)).unwrap_or(u32::MAX);
    span.events.extend(lines.iter().take(MOST_LINES).map(|line| {
        let severity = match line.level {
            LogLevel::Trace => "TRACE",
            LogLevel::Debug => "DEBUG",
            LogLevel::Info => "INFO",
            LogLevel::Warn => "WARN",
            LogLevel::Error => "ERROR",
        };
        Event {
            time_unix_nano: nanos(began.saturating_add(line.after).unwrap_or(began)),
            name: "log".to_owned(),
            attributes: vec![
                text("posthouse.log.severity", severity),
                text("posthouse.log.message", line.message.as_str()),
            ],
            dropped_attributes_count: 0,
        }
    }));
}

/// Adds the stack of a trap.
pub(super) fn trapped(span: &mut Span, at: Timestamp, error: &str, stack: &str) {
    span.events.push(Event {
        time_unix_nano: nanos(at),
        name: "exception".to_owned(),
        attributes: vec![
            text("exception.type", "trap"),
            text("exception.message", error),
            text("exception.stacktrace", stack),
        ],
        dropped_attributes_count: 0,
    });
}

pub(super) fn link(to: &TraceContext) -> Link {
    Link {
        trace_id: to.trace.to_vec(),
        span_id: to.span.to_vec(),
        flags: u32::from(to.flags) | SpanFlags::ContextHasIsRemoteMask as u32,
        ..Link::default()
    }
}

/// The origin of the spans: this daemon, since this start.
pub(super) fn resource(service: &str, env: &Env) -> Resource {
    let mut id = [0; 16];
    env.fill(&mut id);
    // A random UUID, RFC 9562, 5.4.
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    let id = hex::encode(id);
    let uuid = [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-");
    Resource {
        attributes: vec![
            text("service.name", service),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("service.instance.id", uuid),
        ],
        ..Resource::default()
    }
}

pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "posthouse".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

fn nanos(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or(0)
}
