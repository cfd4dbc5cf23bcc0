//! The domain types of posthouse: events, deliveries, effects, grants.
//!
//! This is the lowest layer: no I/O, no clock, no tokio. All other layers use it.

mod ambient;
mod breaker;
mod carried;
mod cause;
mod count;
mod delivery;
mod derived;
mod domain;
mod effects;
mod event;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod grant;
pub mod json;
mod ledger;
mod masker;
mod moment;
mod order;
mod pattern;
mod redact;
mod reloads;
mod samples;
mod secret;
mod spread;
mod strangers;
#[cfg(test)]
pub(crate) mod testing;
mod trace;
mod usage;
mod web;

pub use ambient::{Ambient, Clock, Random};
pub use breaker::{BreakerState, Pauses, Trial, Trip, Vain};
pub use carried::Carried;
pub use cause::{cause, says_nothing};
pub use count::{counted, noun, turn};
pub use delivery::{
    Attempt, DeliveryId, DeliveryState, HeldReason, Job, LeaseToken, LogLevel, LogLine, Outcome,
    ParseDeliveryIdError, PluginId, REVISION_SHOWN, Subscriber,
};
pub use derived::{Derived, Envelope, MAX_DEPTH, MAX_ORGANIZATION, emitted_by};
pub use domain::ascii_domain;
pub use effects::{Effects, KvRead, KvVersion, KvWrite, Mail, OutboxItem, OutboxKind};
pub use event::{Event, EventId, EventSeq, EventType, InvalidName, NewEvent, SourceName};
pub use grant::{Capability, Grants, MailGrant};
pub use ledger::{Receipt, RequestCounts, RequestLedger, RequestOutcome};
pub use masker::Masker;
pub use moment::{TIME_MEMBERS, event_time};
pub use order::{InvalidOrder, OrderBy, OrderKey, Orders};
pub use pattern::{InvalidPattern, Pattern};
pub use redact::{InvalidPointer, Mask, Pointer, REDACTED, Redact};
pub use reloads::{ReloadCounts, ReloadLedger};
pub use samples::{Samples, Unreadable, event_text, known_type, known_types, of_own_type};
pub use secret::Secret;
pub use spread::{LONG_TIMES, SHORT_TIMES, SIZES, Spread, SpreadCounts};
pub use trace::{Fetched, TRACEPARENT, TraceContext};
pub use usage::Usage;
pub use web::{HttpGrant, InvalidWebPattern, WebPattern, WebRequest, is_reserved_header, url_parts};
