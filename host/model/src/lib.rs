//! The domain of posthouse: events, deliveries, effects and grants, and the settings of `config.toml`.
//!
//! This is the lowest layer, which all other crates use. The domain types do no I/O, and time and randomness are
//! passed in ([`Env`]). Three modules touch the system: [`config`] reads files, [`owner`] creates them, and
//! [`fault`] kills the process if a test asks for it.

mod breaker;
mod carried;
mod catch_up;
mod cause;
#[cfg(feature = "config")]
pub mod config;
mod count;
mod decimal;
mod decision;
mod decision_ledger;
mod delivery;
mod derived;
mod domain;
mod effects;
mod env;
mod event;
pub mod fault;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod grant;
mod histogram;
mod interceptor_samples;
pub mod json;
mod kv;
mod ledger;
mod mailbox;
mod masker;
mod moment;
pub mod octets;
mod order;
mod outbox;
pub mod owner;
mod pattern;
mod redact;
mod reloads;
mod request_parts;
mod samples;
pub mod seal;
mod secret;
mod sender_samples;
mod shortened;
mod strangers;
#[cfg(any(test, feature = "testing"))]
#[allow(clippy::unwrap_used, reason = "for tests: what fails fails the test")]
pub mod testing;
mod trace;
mod trigger;
mod usage;
mod web;

pub use breaker::{BreakerState, FailedTrial, Pauses, Trial, Trip};
pub use carried::Carried;
pub use catch_up::{CatchUpReason, CatchUpReport, CatchUpStatus, ListedEvent};
pub use cause::{cause, says_nothing};
pub use count::{counted, noun, turn};
pub use decimal::{DecimalError, add_decimal};
pub use decision::{
    Decision, DecisionState, Fallback, InvalidDecision, Membership, OrganizationRef, Question, Ruling,
    late_data,
};
pub use decision_ledger::{Answered, DecisionCounts, DecisionLedger};
pub use delivery::{
    Attempt, DeliveryId, DeliveryState, HeldReason, Job, LeaseToken, LogLevel, LogLine, Outcome,
    ParseDeliveryIdError, PluginId, REVISION_SHOWN, Subscriber,
};
pub use derived::{Derived, Envelope, MAX_DEPTH, MAX_ORGANIZATION, emitted_by};
pub use domain::ascii_domain;
pub use effects::Effects;
pub use env::{Clock, Env, Random};
pub use event::{
    Event, EventId, EventOrigin, EventSeq, EventType, InvalidName, NewEvent, SecondKey, SourceName,
};
pub use grant::{Capability, Grants, MailGrant};
pub use histogram::{Histogram, HistogramCounts, LONG_TIMES, SHORT_TIMES, SIZES};
pub use interceptor_samples::interceptor_samples;
pub use kv::{KvChange, KvRead, KvVersion, KvWrite};
pub use ledger::{LastRefusal, Receipt, RequestCounts, RequestLedger, RequestOutcome};
pub use mailbox::{MailboxError, mailbox};
pub use masker::Masker;
pub use moment::{TIME_MEMBERS, event_time, text_time};
pub use octets::Octets;
pub use order::{InvalidOrder, OrderBy, OrderKey, Orders};
pub use outbox::{Mail, OutboxHead, OutboxItem, OutboxKind, OutboxState};
pub use pattern::{InvalidPattern, Pattern};
pub use redact::{InvalidPointer, Mask, Pointer, REDACTED, Redact};
pub use reloads::{ReloadCounts, ReloadLedger};
pub use request_parts::{JSON, KEPT_HEADERS, RequestParts};
pub use samples::{Samples, Unreadable, event_text, known_type, known_types, of_own_type};
pub use secret::Secret;
pub use sender_samples::{SenderRequest, SenderSamples};
pub use shortened::shortened;
pub use trace::{Fetched, TRACEPARENT, TraceContext};
pub use trigger::Triggers;
pub use usage::Usage;
pub use web::{
    HttpGrant, InvalidWebPattern, WebPattern, WebRequest, is_reserved_header, url_parts, webhook_key,
};
