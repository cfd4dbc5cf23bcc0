//! Telemetry: traces for an OpenTelemetry collector, where config.toml names one.
//!
//! One trace tells the way of an event from its request to the last thing that came of it:
//!
//! ```text
//!   POST /webhooks/crm        the request; continues the sender's trace          `request`
//!   ├─ verify
//!   ├─ append                 until the event is on disk
//!   ├─ wait crm-sync          since the delivery may run; one for each attempt   `attempt`
//!   ├─ process crm-sync       one attempt, guest log lines as its events
//!   │  ├─ GET                 what the guest fetched
//!   │  ├─ commit app          the commit of the plugin's database
//!   │  ├─ commit              the commit of the store
//!   │  ├─ send mail           an item of the outbox, one span for each try       `sending`
//!   │  └─ wait, process …     of an event that the guest emitted
//!   └─ wait, process …        of other plugins, and of later attempts
//! ```
//!
//! Spans are made after the fact, of what is recorded anyway, so that nothing is built where nobody wants
//! it: a [`Telemetry`] that is off asks no clock and takes no memory. What ties the spans together is kept
//! with the event ([`TraceContext`]), and so holds over retries and restarts. A replay is a trace of its
//! own that links to the event's.
//!
//! A request is traced only once its signature holds: who can't sign can neither choose a trace nor make
//! the collector work. No span holds a body, a secret or the query of a URL; what a guest says is masked as
//! the event's source wants it before it comes here.

mod attempt;
mod export;
mod request;
mod sending;
mod span;

use std::{sync::Arc, time::Duration};

pub use attempt::AttemptTrace;
pub use request::RequestTrace;
pub use sending::SendTrace;

use self::export::Exporter;
use crate::{
    config,
    egress::{Egress, EgressError},
    model::{Ambient, TraceContext},
};

/// Makes spans and sends them, or does nothing at all. Cheap to clone.
#[derive(Clone, Default)]
pub struct Telemetry(Option<Arc<Inner>>);

struct Inner {
    ambient: Ambient,
    /// Of traces that begin here those are recorded whose id, as a number of 63 bits, is less.
    below: u64,
    exporter: Exporter,
}

impl Telemetry {
    /// One that does what config.toml says; off where it names no collector. Needs a runtime.
    ///
    /// # Errors
    /// [`EgressError`] where no client can be made.
    pub fn start(
        settings: &config::Telemetry,
        egress: &Egress,
        ambient: &Ambient,
    ) -> Result<Self, EgressError> {
        let Some(url) = settings.otlp.clone() else { return Ok(Self::default()) };
        let courier = egress.courier(url, &settings.header)?;
        let exporter = Exporter::start(courier, span::resource(&settings.service_name, ambient));
        Ok(Self(Some(Arc::new(Inner { ambient: ambient.clone(), below: below(settings.sample), exporter }))))
    }

    /// Sends what waits, for no longer than `patience`; then ends. What is left is dropped, and said.
    pub async fn finish(&self, patience: Duration) {
        if let Some(inner) = &self.0 {
            inner.exporter.finish(patience).await;
        }
    }
}

impl Inner {
    /// The context of a span below `parent`, or that of a trace that begins here. None where it is not to be
    /// recorded: a parent decides for itself, else chance does.
    fn join(&self, parent: Option<TraceContext>) -> Option<TraceContext> {
        match parent {
            Some(parent) => parent.sampled().then(|| parent.child(&self.ambient)),
            None => {
                let root = TraceContext::root(&self.ambient);
                self.samples(&root).then_some(root)
            }
        }
    }

    /// As OpenTelemetry's TraceIdRatioBased has it: other services with the same ratio choose the same.
    fn samples(&self, root: &TraceContext) -> bool {
        let (_, low) = root.trace.split_at(8);
        low.try_into().is_ok_and(|low| u64::from_be_bytes(low) >> 1 < self.below)
    }
}

fn below(ratio: f64) -> u64 {
    const ALL: u64 = 1 << 63;
    if ratio >= 1.0 { ALL } else { (ratio * ALL as f64) as u64 }
}
