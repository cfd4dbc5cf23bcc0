//! The spans of an attempt: its wait, the guest's actions, and the commits after it.

use jiff::Timestamp;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use posthouse_model::{Attempt, DeliveryId, Fetched, Job, Outcome, TraceContext};
use sha2::{Digest as _, Sha256};
use url::Url;

use super::{
    Telemetry,
    span::{self, SpanPosition, number, text},
};

/// The record of an attempt that is traced.
pub struct AttemptTrace {
    telemetry: Telemetry,
    /// The parent span: that of the request, of the attempt that emitted the event, or of the replay.
    parent: TraceContext,
    context: TraceContext,
    /// The event's context, if the attempt belongs to a replay.
    original: Option<TraceContext>,
    fetched: Vec<Fetched>,
    commits: Vec<Commit>,
}

struct Commit {
    /// The plugin's database; none for the store.
    database: Option<String>,
    began: Timestamp,
    ended: Timestamp,
}

impl Telemetry {
    /// Begins the trace of an attempt, and gives the job its span. None if the attempt is not recorded.
    pub fn attempt(&self, job: &mut Job) -> Option<AttemptTrace> {
        let inner = self.0.as_ref()?;
        let event = job.event.content.trace?;
        let parent = if job.replay { replayed(&event, job.delivery) } else { event };
        let context = parent.child(&inner.env);
        job.trace = Some(context);
        let original = job.replay.then_some(event);
        let (fetched, commits) = (Vec::new(), Vec::new());
        Some(AttemptTrace { telemetry: self.clone(), parent, context, original, fetched, commits })
    }
}

impl AttemptTrace {
    /// The trace's id, for the log.
    pub fn id(&self) -> String {
        self.context.trace_id()
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        self.telemetry.0.as_ref().map_or(Timestamp::UNIX_EPOCH, |inner| inner.env.now())
    }

    /// Records the requests that the guest made.
    pub fn fetched(&mut self, fetched: Vec<Fetched>) {
        self.fetched = fetched;
    }

    /// Records a commit that began at `began` and has ended: in this database, or in the store if it is none.
    pub fn committed(&mut self, database: Option<&str>, began: Timestamp) {
        let ended = self.now();
        self.commits.push(Commit { database: database.map(str::to_owned), began, ended });
    }

    /// Ends the trace and sends its spans. With `conflict`, another change prevented the commit, and the
    /// attempt runs again.
    pub fn end(self, job: &Job, plugin: &str, attempt: &Attempt, conflict: bool) {
        let Some(inner) = &self.telemetry.0 else { return };
        let env = &inner.env;
        let push = |span| inner.exporter.push(span);
        if job.conflicts == 0 {
            push(self.waited(job, plugin, attempt));
        }
        let returned = attempt.started_at.saturating_add(attempt.duration).unwrap_or(attempt.started_at);
        let ended = self.commits.last().map_or(returned, |commit| commit.ended.max(returned));
        for Fetched { context, started_at, ended_at, method, url, result } in &self.fetched {
            let position = SpanPosition::below(*context, &self.context);
            let mut span = span::span(position, method.clone(), SpanKind::Client, *started_at, *ended_at);
            span.attributes = called(method, url);
            match result {
                Ok(status) => {
                    span.attributes.push(number("http.response.status_code", *status));
                    if *status >= 400 {
                        span::failed(&mut span, &status.to_string(), "");
                    }
                }
                Err(word) => span::failed(&mut span, word, ""),
            }
            push(span);
        }
        for Commit { database, began, ended } in &self.commits {
            let name = match database {
                Some(database) => format!("commit {database}"),
                None => "commit".to_owned(),
            };
            let position = SpanPosition::below(self.context.child(env), &self.context);
            let mut span = span::span(position, name, SpanKind::Internal, *began, *ended);
            span.attributes.extend(database.as_ref().map(|name| text("posthouse.database", name.as_str())));
            push(span);
        }
        let position = SpanPosition::below(self.context, &self.parent);
        let name = format!("process {plugin}");
        let mut span = span::span(position, name, SpanKind::Consumer, attempt.started_at, ended);
        span.attributes = on(job, plugin);
        span.attributes.extend([
            text("messaging.operation.name", "process"),
            text("messaging.operation.type", "process"),
            number("posthouse.attempt", attempt.number),
        ]);
        if let Some(revision) = &attempt.revision {
            span.attributes.push(text("posthouse.plugin.revision", revision.as_str()));
        }
        span::say(&mut span, attempt.started_at, &attempt.logs);
        let error = attempt.error.as_deref().unwrap_or_default();
        if let Some(stack) = &attempt.trace {
            span::trapped(&mut span, returned, error, stack);
        }
        let outcome = if conflict { "conflict" } else { attempt.outcome.as_str() };
        span.attributes.push(text("posthouse.outcome", outcome));
        if conflict || attempt.outcome != Outcome::Done {
            span::failed(&mut span, outcome, error);
        }
        push(span);
    }

    /// The span between the time when the attempt was due and its start. For the first attempt of a replay, it
    /// is the parent of the replay's other spans.
    fn waited(&self, job: &Job, plugin: &str, attempt: &Attempt) -> Span {
        let first = attempt.number == 1;
        let (position, name) = match (&self.original, &self.telemetry.0) {
            (Some(_), _) if first => (
                SpanPosition { context: self.parent, parent: None, remote: false },
                format!("replay {plugin}"),
            ),
            (_, Some(inner)) => {
                (SpanPosition::below(self.parent.child(&inner.env), &self.parent), format!("wait {plugin}"))
            }
            (_, None) => (SpanPosition::below(self.parent, &self.parent), String::new()),
        };
        let mut span = span::span(position, name, SpanKind::Internal, job.due_at, attempt.started_at);
        span.attributes = on(job, plugin);
        if first {
            span.links.extend(self.original.as_ref().map(span::link));
        }
        span
    }
}

/// The attributes of a delivery's spans.
fn on(job: &Job, plugin: &str) -> Vec<opentelemetry_proto::tonic::common::v1::KeyValue> {
    let mut attributes = span::about(&job.event.content);
    attributes.extend([
        text("messaging.destination.name", plugin),
        text("posthouse.plugin", plugin),
        text("posthouse.delivery", job.delivery.to_string()),
    ]);
    attributes
}

/// The attributes of a span for an outgoing request. The query is left out, because it may contain a secret.
pub(super) fn called(method: &str, url: &str) -> Vec<opentelemetry_proto::tonic::common::v1::KeyValue> {
    let mut attributes = vec![text("http.request.method", method)];
    if let Ok(mut url) = Url::parse(url) {
        url.set_query(None);
        attributes.extend(url.host_str().map(|host| text("server.address", host)));
        attributes.extend(url.port_or_known_default().map(|port| number("server.port", port)));
        attributes.push(text("url.full", url.as_str()));
    }
    attributes
}

/// The context of a replay. It is derived from the event's context and the delivery, so that all attempts of
/// the replay share it, even after a restart.
fn replayed(event: &TraceContext, delivery: DeliveryId) -> TraceContext {
    let digest: [u8; 32] = Sha256::new()
        .chain_update("posthouse replay")
        .chain_update(event.to_bytes())
        .chain_update(delivery.0.to_be_bytes())
        .finalize()
        .into();
    let mut context = *event;
    context.trace.copy_from_slice(&digest[..16]);
    context.span.copy_from_slice(&digest[16..24]);
    context
}
