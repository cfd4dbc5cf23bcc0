//! An OpenTelemetry collector: receives traces over OTLP like a real one, and keeps the spans.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1,
};
use prost::Message as _;

use crate::{WebReply, WebRequest, WebServer, eventually};

/// A running collector, which stops on drop.
pub struct Collector(WebServer);

/// A span as it was received.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The trace, in hex.
    pub trace: String,
    /// The span's id, in hex.
    pub id: String,
    /// The parent's id, in hex. Empty if there is no parent.
    pub parent: String,
    /// Whether the parent is marked as another program's.
    pub remote: bool,
    /// The name.
    pub name: String,
    /// The kind, such as `SERVER`.
    pub kind: String,
    /// The start, in nanoseconds since 1970.
    pub start: u64,
    /// The end, in nanoseconds since 1970.
    pub end: u64,
    /// The attributes, with numbers as text.
    pub attributes: BTreeMap<String, String>,
    /// The events within the span.
    pub events: Vec<SpanEvent>,
    /// Traces and spans that it links to.
    pub links: Vec<(String, String)>,
    /// The error. None if the span has none.
    pub error: Option<String>,
    /// The attributes of the program that sent it.
    pub resource: BTreeMap<String, String>,
}

/// An event within a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanEvent {
    /// The time, in nanoseconds since 1970.
    pub at: u64,
    /// The name.
    pub name: String,
    /// The attributes.
    pub attributes: BTreeMap<String, String>,
}

impl Collector {
    /// Starts a collector that accepts everything.
    ///
    /// # Panics
    /// If it can't listen.
    #[track_caller]
    pub fn start() -> Self {
        Self::answering(|_| WebReply::status(200))
    }

    /// Starts a collector with these answers.
    ///
    /// # Panics
    /// If it can't listen.
    #[track_caller]
    pub fn answering(answer: impl Fn(&WebRequest) -> WebReply + Send + Sync + 'static) -> Self {
        Self(WebServer::start(answer))
    }

    /// The value of `otlp` in `[telemetry]`.
    pub fn url(&self) -> String {
        self.0.url("")
    }

    /// Every request that it received, whatever the answer was.
    pub fn requests(&self) -> Vec<WebRequest> {
        self.0.requests()
    }

    /// All spans that it received, each once.
    ///
    /// # Panics
    /// If it received anything else.
    #[track_caller]
    pub fn spans(&self) -> Vec<Span> {
        let mut spans = Vec::new();
        for request in self.requests() {
            assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v1/traces"));
            assert_eq!(request.header("content-type"), Some("application/x-protobuf"));
            let export = ExportTraceServiceRequest::decode(&request.body[..]).expect("OTLP");
            for group in export.resource_spans {
                let resource = attributes(&group.resource.expect("a resource").attributes);
                for scope in group.scope_spans {
                    assert_eq!(scope.scope.expect("a scope").name, "posthouse");
                    spans.extend(scope.spans.into_iter().map(|span| Span::new(span, &resource)));
                }
            }
        }
        let mut seen = std::collections::HashSet::new();
        spans.retain(|span: &Span| seen.insert((span.trace.clone(), span.id.clone())));
        spans
    }

    /// Waits for a span.
    ///
    /// # Panics
    /// If it does not arrive.
    #[track_caller]
    pub fn wait_for(&self, what: &str, is_it: impl Fn(&Span) -> bool) -> Span {
        eventually(what, || self.spans().into_iter().find(&is_it))
    }

    /// Waits for a span with this name.
    ///
    /// # Panics
    /// If it does not arrive.
    #[track_caller]
    pub fn named(&self, name: &str) -> Span {
        self.wait_for(&format!("a span `{name}`"), |span| span.name == name)
    }
}

impl Span {
    fn new(span: v1::Span, resource: &BTreeMap<String, String>) -> Self {
        assert_ne!(span.flags & 1, 0, "a span of a trace that is not recorded: {span:?}");
        Self {
            trace: hex::encode(&span.trace_id),
            id: hex::encode(&span.span_id),
            parent: hex::encode(&span.parent_span_id),
            remote: span.flags & v1::SpanFlags::ContextIsRemoteMask as u32 != 0,
            kind: span.kind().as_str_name().trim_start_matches("SPAN_KIND_").to_owned(),
            start: span.start_time_unix_nano,
            end: span.end_time_unix_nano,
            attributes: attributes(&span.attributes),
            events: span
                .events
                .into_iter()
                .map(|event| SpanEvent {
                    at: event.time_unix_nano,
                    name: event.name,
                    attributes: attributes(&event.attributes),
                })
                .collect(),
            links: span
                .links
                .iter()
                .map(|link| (hex::encode(&link.trace_id), hex::encode(&link.span_id)))
                .collect(),
            error: span
                .status
                .filter(|status| status.code() == v1::status::StatusCode::Error)
                .map(|status| status.message),
            name: span.name,
            resource: resource.clone(),
        }
    }

    /// The value of an attribute.
    ///
    /// # Panics
    /// If there is none with that name.
    #[track_caller]
    pub fn get(&self, name: &str) -> &str {
        self.attributes.get(name).unwrap_or_else(|| panic!("no `{name}` in {self:?}"))
    }
}

fn attributes(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute
        .value
        .as_ref()
        .and_then(|value| value.value.as_ref())
        .expect("a value")
    {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => panic!("an attribute of a type that is not sent: {other:?}"),
    };
    attributes.iter().map(|attribute| (attribute.key.clone(), text(attribute))).collect()
}
