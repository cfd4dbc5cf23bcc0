//! The spans of a request: its verification, and the storage of its event.

use http::HeaderMap;
use jiff::Timestamp;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use posthouse_model::{NewEvent, RequestOutcome, TRACEPARENT, TraceContext};

use super::{
    Telemetry,
    span::{self, SpanPosition, number, text},
};

/// The record of a request until its answer. It costs nothing if telemetry is off.
pub struct RequestTrace(Option<Box<Notes>>);

struct Notes {
    telemetry: Telemetry,
    began: Timestamp,
    read: Timestamp,
    /// Set once the signature is valid, if the trace is recorded.
    traced: Option<Traced>,
}

struct Traced {
    position: SpanPosition,
    verified: Timestamp,
    stored: Option<Timestamp>,
    about: Vec<opentelemetry_proto::tonic::common::v1::KeyValue>,
}

impl Telemetry {
    /// Begins the record of a request.
    pub fn request(&self) -> RequestTrace {
        RequestTrace(self.0.as_ref().map(|inner| {
            let began = inner.env.now();
            Box::new(Notes { telemetry: self.clone(), began, read: began, traced: None })
        }))
    }
}

impl Notes {
    fn now(&self) -> Timestamp {
        self.telemetry.0.as_ref().map_or(self.began, |inner| inner.env.now())
    }
}

impl RequestTrace {
    /// Records that the body is complete.
    pub fn read(&mut self) {
        if let Some(notes) = &mut self.0 {
            notes.read = notes.now();
        }
    }

    /// Records that the signature is valid and the body is an event. The event joins the trace of the request.
    pub fn verified(&mut self, headers: &HeaderMap, event: &mut NewEvent) {
        let Some(notes) = &mut self.0 else { return };
        let Some(inner) = &notes.telemetry.0 else { return };
        let parent = given(headers);
        let Some(context) = inner.join(parent) else { return };
        event.trace = Some(context);
        notes.traced = Some(Traced {
            position: SpanPosition { context, parent: parent.map(|parent| parent.span), remote: true },
            verified: inner.env.now(),
            stored: None,
            about: span::about(event),
        });
    }

    /// Records that the event is on disk, now or since an earlier request.
    pub fn stored(&mut self) {
        if let Some(notes) = &mut self.0 {
            let now = notes.now();
            if let Some(traced) = &mut notes.traced {
                traced.stored = Some(now);
            }
        }
    }

    /// Records the answer, and sends the spans. `route` is the path of the source.
    pub fn end(self, route: &str, outcome: RequestOutcome, status: u16) {
        let Some(notes) = self.0 else { return };
        let now = notes.now();
        let Notes { telemetry, began, read, traced, .. } = *notes;
        let (Some(inner), Some(traced)) = (telemetry.0, traced) else { return };
        let Traced { position, verified, stored, about } = traced;
        let within = |name: &str, from, to| {
            let position = SpanPosition::below(position.context.child(&inner.env), &position.context);
            inner.exporter.push(span::span(position, name.to_owned(), SpanKind::Internal, from, to));
        };
        within("verify", read, verified);
        if let Some(stored) = stored {
            within("append", verified, stored);
        }
        let (word, reason) = match outcome {
            RequestOutcome::Accepted => ("accepted", None),
            RequestOutcome::Duplicate => ("duplicate", None),
            RequestOutcome::Filtered => ("filtered", None),
            RequestOutcome::Rejected(reason) => ("rejected", Some(reason)),
            RequestOutcome::Failed(reason) => ("failed", Some(reason)),
        };
        let mut span = span::span(position, format!("POST {route}"), SpanKind::Server, began, now);
        span.attributes = about;
        span.attributes.extend([
            text("http.request.method", "POST"),
            text("http.route", route),
            text("url.path", route),
            text("url.scheme", "http"),
            number("http.response.status_code", status),
            text("posthouse.outcome", word),
        ]);
        if status >= 500 {
            span::failed(&mut span, reason.unwrap_or(word), "");
        }
        inner.exporter.push(span);
    }
}

/// The context in the request's `traceparent`; none if there are two of them.
fn given(headers: &HeaderMap) -> Option<TraceContext> {
    let mut all = headers.get_all(TRACEPARENT).iter();
    let first = all.next()?;
    if all.next().is_some() {
        return None;
    }
    TraceContext::parse(first.to_str().ok()?.trim())
}
