//! The span of one attempt to send an outbox item, below the attempt that staged the item.

use jiff::Timestamp;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use posthouse_model::{DeliveryId, OutboxItem, TraceContext};

use super::{
    Telemetry,
    attempt::called,
    span::{self, SpanPosition, number, text},
};

/// The record of a sending attempt that is traced.
pub struct SendTrace {
    telemetry: Telemetry,
    position: SpanPosition,
    began: Timestamp,
}

impl Telemetry {
    /// Begins the span of a sending attempt. `trace` is the item's context, and becomes the span's. If nothing
    /// is recorded, this returns none and clears `trace`.
    pub fn sending(&self, trace: &mut Option<TraceContext>) -> Option<SendTrace> {
        let parent = trace.take();
        let inner = self.0.as_ref()?;
        let parent = parent?;
        let context = parent.child(&inner.env);
        *trace = Some(context);
        let position = SpanPosition::below(context, &parent);
        Some(SendTrace { telemetry: self.clone(), position, began: inner.env.now() })
    }
}

impl SendTrace {
    /// Ends the span and sends it. `failed` is a word for the error, if the item was not sent. With `masked`,
    /// the span contains only the origin of a URL.
    pub fn end(
        self,
        outbox: i64,
        delivery: DeliveryId,
        attempt: u32,
        item: &OutboxItem,
        masked: bool,
        failed: Option<&'static str>,
    ) {
        let Self { telemetry, position, began } = self;
        let Some(inner) = telemetry.0 else { return };
        let kind = item.kind().as_str();
        let mut span = span::span(position, format!("send {kind}"), SpanKind::Client, began, inner.env.now());
        span.attributes = vec![
            number("posthouse.outbox", outbox),
            text("posthouse.outbox.kind", kind),
            text("posthouse.delivery", delivery.to_string()),
            number("posthouse.attempt", attempt),
        ];
        if let OutboxItem::Request(request) = item {
            let url = if masked { request.parts().0 } else { &request.url };
            span.attributes.extend(called(&request.method, url));
        }
        if let Some(word) = failed {
            span::failed(&mut span, word, "");
        }
        inner.exporter.push(span);
    }
}
