//! An OpenTelemetry collector: takes traces over OTLP as a real one does, and keeps the spans.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1,
};
use prost::Message as _;

use crate::{WebReply, WebRequest, WebServer, eventually};

/// A running collector. Dropped, it stops.
pub struct Collector(WebServer);

/// A span as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The trace, in hex.
    pub trace: String,
    /// Its id, in hex.
    pub id: String,
    /// The parent's id, in hex; empty where it has none.
    pub parent: String,
    /// Whether the parent is said to be another program's.
    pub remote: bool,
    /// Its name.
    pub name: String,
    /// Its kind, such as `SERVER`.
    pub kind: String,
    /// Nanoseconds since 1970.
    pub start: u64,
    /// The same of its end.
    pub end: u64,
    /// Its attributes; numbers as text.
    pub attributes: BTreeMap<String, String>,
    /// What happened within it, and when.
    pub events: Vec<SpanEvent>,
    /// Traces and spans that it links to.
    pub links: Vec<(String, String)>,
    /// What went wrong; none where it is not said to have.
    pub error: Option<String>,
    /// What sent it.
    pub resource: BTreeMap<String, String>,
}

/// Something that happened within a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanEvent {
    /// Nanoseconds since 1970.
    pub at: u64,
    /// Its name.
    pub name: String,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
}

impl Collector {
    /// Starts one that takes all.
    ///
    /// # Panics
    /// Where it can't listen.
    #[track_caller]
    pub fn start() -> Self {
        Self::answering(|_| WebReply::status(200))
    }

    /// Starts one that answers as it is told.
    ///
    /// # Panics
    /// Where it can't listen.
    #[track_caller]
    pub fn answering(answer: impl Fn(&WebRequest) -> WebReply + Send + Sync + 'static) -> Self {
        Self(WebServer::start(answer))
    }

    /// What `[telemetry]` needs as `otlp`.
    pub fn url(&self) -> String {
        self.0.url("")
    }

    /// All that was posted to it, whatever it answered.
    pub fn requests(&self) -> Vec<WebRequest> {
        self.0.requests()
    }

    /// All spans that were posted to it, each once.
    ///
    /// # Panics
    /// Where something else was.
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
    /// Where it does not come.
    #[track_caller]
    pub fn wait_for(&self, what: &str, is_it: impl Fn(&Span) -> bool) -> Span {
        eventually(what, || self.spans().into_iter().find(&is_it))
    }

    /// Waits for a span of this name.
    ///
    /// # Panics
    /// Where it does not come.
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

    /// An attribute.
    ///
    /// # Panics
    /// Where there is none of that name.
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
