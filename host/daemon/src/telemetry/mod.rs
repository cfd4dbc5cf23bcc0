//! Telemetry: traces for an OpenTelemetry collector, if config.toml names one.
//!
//! One trace covers an event from its request to the last effect:
//!
//! ```text
//!   POST /webhooks/crm        the request; continues the sender's trace          `request`
//!   ├─ verify
//!   ├─ append                 until the event is on disk
//!   ├─ wait crm-sync          since the delivery may run; one for each attempt   `attempt`
//!   ├─ process crm-sync       one attempt; lines of the guest's log as events
//!   │  ├─ GET                 a fetch of the guest
//!   │  ├─ commit app          the commit in the plugin's database
//!   │  ├─ commit              the commit in the store
//!   │  ├─ send mail           an outbox item; one span for each attempt to send   `sending`
//!   │  └─ wait, process …     of an event that the guest emitted
//!   └─ wait, process …        of other plugins, and of later attempts
//! ```
//!
//! Spans are built afterwards, from facts that posthouse records anyway. So a [`Telemetry`] that is off reads
//! no clock and uses no memory. The store keeps the [`TraceContext`] with the event, so the spans belong
//! together even after retries and restarts. A replay is a separate trace that links to the event's.
//!
//! A request is traced only if its signature is valid: a stranger can neither choose a trace nor cause work for
//! the collector. A span contains no body, no secret and no query of a URL. A guest's text is masked, as the
//! event's source configures, before it gets here.

mod attempt;
mod export;
mod request;
mod sending;
mod span;

use std::{sync::Arc, time::Duration};

pub use attempt::AttemptTrace;
pub use request::RequestTrace;
pub use sending::SendTrace;

use posthouse_egress::{Egress, EgressError};
use posthouse_model::{Env, TraceContext, config};

use self::export::Exporter;

/// Makes spans and sends them, or does nothing. Cheap to clone.
#[derive(Clone, Default)]
pub struct Telemetry(Option<Arc<Inner>>);

struct Inner {
    env: Env,
    /// A trace that begins here is recorded if its id, as a number of 63 bits, is less than this.
    below: u64,
    exporter: Exporter,
}

impl Telemetry {
    /// Starts telemetry according to config.toml; it is off if that names no collector. Needs a runtime.
    ///
    /// # Errors
    /// [`EgressError`] if no client can be made.
    pub fn start(settings: &config::Telemetry, egress: &Egress, env: &Env) -> Result<Self, EgressError> {
        let Some(url) = settings.otlp.clone() else { return Ok(Self::default()) };
        let http_poster = egress.http_poster(url, &settings.header)?;
        let exporter = Exporter::start(http_poster, span::resource(&settings.service_name, env));
        Ok(Self(Some(Arc::new(Inner { env: env.clone(), below: below(settings.sample), exporter }))))
    }

    /// Sends the spans that wait, for `within` at most, and ends. The spans left are dropped, and the log
    /// reports them.
    pub async fn finish(&self, within: Duration) {
        if let Some(inner) = &self.0 {
            inner.exporter.finish(within).await;
        }
    }
}

impl Inner {
    /// The context of a span below `parent`, or of a trace that begins here. None if it is not recorded. The
    /// parent's flag decides; without a parent, the sample ratio does.
    fn join(&self, parent: Option<TraceContext>) -> Option<TraceContext> {
        match parent {
            Some(parent) => parent.sampled().then(|| parent.child(&self.env)),
            None => {
                let root = TraceContext::root(&self.env);
                self.samples(&root).then_some(root)
            }
        }
    }

    /// Decides as OpenTelemetry's TraceIdRatioBased does: services with the same ratio record the same traces.
    fn samples(&self, root: &TraceContext) -> bool {
        let (_, low) = root.trace.split_at(8);
        low.try_into().is_ok_and(|low| u64::from_be_bytes(low) >> 1 < self.below)
    }
}

fn below(ratio: f64) -> u64 {
    const ALL: u64 = 1 << 63;
    if ratio >= 1.0 { ALL } else { (ratio * ALL as f64) as u64 }
}
