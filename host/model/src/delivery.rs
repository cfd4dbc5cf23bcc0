//! A delivery: one event for one plugin. It is the unit of work, with its own retries and counters.
//!
//! ```text
//!              accept                        attempt done
//!   (event) ──────────► ready ──► leased ──────────────────────► done
//!                         ▲         │  │
//!                         │ due     │  │ rejected, or attempts used up
//!                         │         │  └────────────────────────► dead ──► (replay: a new delivery)
//!                      waiting ◄────┘ failed, attempts left
//!
//!   waiting: also a delivery that waits for another one of the same plugin, which was received before it
//!   and has the same order key. It is ready once that one is done or dead.
//!   held: a ready or waiting delivery whose plugin is held (paused, gone, broken, lacks a grant,
//!   tripped).
//!   When a daemon starts, no lease is valid: a leased delivery is ready again.
//! ```

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Event, OrderKey, TraceContext, Trip};

/// The store's number of a plugin. A plugin's name keeps its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct PluginId(pub i64);

/// A plugin that gets a delivery of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscriber {
    /// The plugin.
    pub plugin: PluginId,
    /// The key that keeps deliveries of the plugin in the order of their arrival. None means that this one
    /// runs whenever there is room.
    pub order_key: Option<OrderKey>,
    /// Whether the plugin is held, so that the delivery does not run for now.
    pub held: bool,
}

impl From<PluginId> for Subscriber {
    fn from(plugin: PluginId) -> Self {
        Self { plugin, order_key: None, held: false }
    }
}

/// The id of a delivery: `dlv_` and a number. A store counts up from a random number, so that two stores do
/// not use the same ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId(pub i64);

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dlv_{}", self.0)
    }
}

/// The text is not a delivery's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a delivery id; an example is `dlv_123`")]
pub struct ParseDeliveryIdError(String);

impl FromStr for DeliveryId {
    type Err = ParseDeliveryIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix("dlv_")
            .and_then(|number| number.parse().ok())
            .map(Self)
            .ok_or_else(|| ParseDeliveryIdError(text.to_owned()))
    }
}

impl Serialize for DeliveryId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The right to complete a delivery. Only the holder of the token can complete it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseToken(pub i64);

/// The state of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// May run now.
    Ready,
    /// An attempt has it.
    Leased,
    /// Runs again after its back-off, or when the deliveries that must precede it are finished.
    Waiting,
    /// Waits for its plugin; see [`HeldReason`].
    Held,
    /// Its effects are committed.
    Done,
    /// Given up.
    Dead,
}

impl DeliveryState {
    /// Every state, in the order in which people read them.
    pub const ALL: [Self; 6] = [Self::Ready, Self::Leased, Self::Waiting, Self::Held, Self::Done, Self::Dead];

    /// The name of the state.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Leased => "leased",
            Self::Waiting => "waiting",
            Self::Held => "held",
            Self::Done => "done",
            Self::Dead => "dead",
        }
    }
}

impl fmt::Display for DeliveryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a plugin's deliveries are held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "reason", content = "detail")]
pub enum HeldReason {
    /// An operator paused it.
    Paused,
    /// Its file left the plugins folder.
    Gone,
    /// No revision of it loads; the error of the last one.
    Broken(String),
    /// It requires a capability that it was not granted; the lines of config.toml that would allow it.
    LacksGrant(String),
    /// Different deliveries of it failed in a row, and its breaker paused it automatically.
    Tripped(Trip),
}

impl HeldReason {
    /// The name of each reason.
    pub const WORDS: [&str; 5] = ["paused", "gone", "broken", "lacks-grant", "tripped"];

    /// The name of the reason.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Gone => "gone",
            Self::Broken(_) => "broken",
            Self::LacksGrant(_) => "lacks-grant",
            Self::Tripped(_) => "tripped",
        }
    }
}

impl fmt::Display for HeldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paused => f.write_str("paused by an operator"),
            Self::Gone => f.write_str("its file is not in the plugins folder"),
            Self::Broken(error) => write!(f, "broken: {error}"),
            Self::LacksGrant(lines) => write!(f, "lacks a grant: {lines}"),
            Self::Tripped(trip) => trip.fmt(f),
        }
    }
}

/// A leased delivery on its way to an attempt.
#[derive(Debug, Clone)]
pub struct Job {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The right to complete it.
    pub token: LeaseToken,
    /// When that right expires; none: with the process.
    pub expires: Option<Timestamp>,
    /// Whether later deliveries of its order key wait for this one.
    pub ordered: bool,
    /// The plugin that it is for.
    pub plugin: PluginId,
    /// The number of this attempt, from 1. An attempt that ran into a conflict keeps its number.
    pub attempt: u32,
    /// How often this attempt has run into a conflict and started again.
    pub conflicts: u32,
    /// Whether an attempt may have run before, and so may have committed in its plugin's database. False only
    /// if that is certain: the delivery is new from the inbox.
    pub may_have_run: bool,
    /// When it became ready: when it was created, or when its back-off ended.
    pub due_at: Timestamp,
    /// Whether it is an operator's replay of an older delivery.
    pub replay: bool,
    /// The span of the attempt, which the runner sets. None if the trace is not recorded.
    pub trace: Option<TraceContext>,
    /// The event.
    pub event: Arc<Event>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The guest returned ok, and its effects committed.
    Done,
    /// The guest asked for a retry, trapped, or exceeded a limit.
    Retry,
    /// The guest refused the event permanently.
    Rejected,
}

impl Outcome {
    /// The name of the outcome.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Retry => "retry",
            Self::Rejected => "rejected",
        }
    }
}

/// The severity of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Every step.
    Trace,
    /// For debugging.
    Debug,
    /// Worth knowing.
    Info,
    /// Worth a look.
    Warn,
    /// An error.
    Error,
}

/// A line that a guest logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// The time since the attempt began. Known while the attempt's record is made, and not stored with it.
    #[serde(skip)]
    pub after: Duration,
    /// The severity.
    pub level: LogLevel,
    /// The text.
    pub message: String,
}

/// The number of hexadecimal digits of a revision's SHA-256 that tell a plugin's revisions apart.
pub const REVISION_SHOWN: usize = 12;

/// The record of one run of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The number of the attempt, from 1.
    pub number: u32,
    /// The revision that ran: the first [`REVISION_SHOWN`] digits of its SHA-256.
    pub revision: Option<String>,
    /// When an instance was requested.
    pub started_at: Timestamp,
    /// The time from then until the guest returned.
    pub duration: Duration,
    /// How it ended.
    pub outcome: Outcome,
    /// The error, with the limit if one was reached.
    pub error: Option<String>,
    /// The stack of a trap, innermost function first.
    pub trace: Option<String>,
    /// The lines that the guest logged.
    pub logs: Vec<LogLine>,
    /// The actions of the guest, one a line. None if it did nothing.
    #[serde(rename = "did", default, skip_serializing_if = "Option::is_none")]
    pub actions: Option<String>,
}
