//! A delivery: one event for one plugin, the unit of work, retried and counted by itself.
//!
//! ```text
//!              accept                        attempt done
//!   (event) ──────────► ready ──► leased ──────────────────────► done
//!                         ▲         │  │
//!                         │ due     │  │ rejected, or attempts used up
//!                         │         │  └────────────────────────► dead ──► (replay: a new delivery)
//!                      waiting ◄────┘ failed, attempts left
//!
//!   waiting is a delivery, too, that has to let another go first: one of the same plugin that came
//!   before it and has the same order key. It is ready once that is done or dead.
//!   held: a ready or waiting delivery whose plugin is held (paused, gone, broken, lacks a grant,
//!   tripped).
//!   A daemon that starts finds no lease valid: what was leased is ready again.
//! ```

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Event, OrderKey, TraceContext, Trip};

/// The store's number of a plugin; it stays with the plugin's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct PluginId(pub i64);

/// Who gets a delivery of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscriber {
    /// The plugin.
    pub plugin: PluginId,
    /// With which other deliveries of the plugin this one keeps to the order in which they came; none: it
    /// runs whenever there is room.
    pub order_key: Option<OrderKey>,
    /// Whether the plugin is held, so that the delivery will not run for now.
    pub held: bool,
}

impl From<PluginId> for Subscriber {
    fn from(plugin: PluginId) -> Self {
        Self { plugin, order_key: None, held: false }
    }
}

/// Names a delivery: `dlv_` and a number. A store counts up from a random number, so that ids of two
/// stores do not meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId(pub i64);

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dlv_{}", self.0)
    }
}

/// The text is not a delivery's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no delivery id; one looks like `dlv_123`")]
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

/// Who holds it may complete the delivery; nobody else can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseToken(pub i64);

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// May run now.
    Ready,
    /// Handed to an attempt.
    Leased,
    /// Runs again after its back-off, or once those are finished that came before it.
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

    /// The word for it.
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

/// Why a plugin's deliveries wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "reason", content = "detail")]
pub enum HeldReason {
    /// An operator paused it.
    Paused,
    /// Its file left the plugins folder.
    Gone,
    /// No revision of it loads; the error of the last.
    Broken(String),
    /// It requires what it was not granted; the lines of config.toml that would allow it.
    LacksGrant(String),
    /// Different deliveries of it failed in a row, and it was paused on its own.
    Tripped(Trip),
}

impl HeldReason {
    /// The word of each.
    pub const WORDS: [&str; 5] = ["paused", "gone", "broken", "lacks-grant", "tripped"];

    /// The word for it.
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
    /// Which delivery.
    pub delivery: DeliveryId,
    /// The right to complete it.
    pub token: LeaseToken,
    /// For whom.
    pub plugin: PluginId,
    /// Which attempt this will be, from 1. One that ran into a conflict keeps its number.
    pub attempt: u32,
    /// How often this attempt has run into a conflict and began anew.
    pub conflicts: u32,
    /// Whether an attempt may have run before, and so may have committed in its plugin's database. False
    /// only where it is certain that none has: it comes fresh from the inbox.
    pub may_have_run: bool,
    /// Since when it may run: when it was made, or when its back-off ended.
    pub due_at: Timestamp,
    /// Whether it repeats an older delivery, on an operator's word.
    pub replay: bool,
    /// The span of the attempt, set by who runs it; none where nothing of it is recorded.
    pub trace: Option<TraceContext>,
    /// What happened.
    pub event: Arc<Event>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The guest returned ok, and its effects committed.
    Done,
    /// The guest asked to be run again, trapped, or went over a limit.
    Retry,
    /// The guest refused for good.
    Rejected,
}

impl Outcome {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Retry => "retry",
            Self::Rejected => "rejected",
        }
    }
}

/// How grave a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Every step.
    Trace,
    /// For who looks for a defect.
    Debug,
    /// Worth knowing.
    Info,
    /// Worth a look.
    Warn,
    /// Went wrong.
    Error,
}

/// One line a guest logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// How long after the attempt began. Known while the attempt's record is made, and not kept with it.
    #[serde(skip)]
    pub after: Duration,
    /// How grave.
    pub level: LogLevel,
    /// What it says.
    pub message: String,
}

/// Digits of a revision's SHA-256 that are enough to tell a plugin's revisions apart.
pub const REVISION_SHOWN: usize = 12;

/// The record of one run of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// The revision that ran: the first [`REVISION_SHOWN`] digits of its SHA-256.
    pub revision: Option<String>,
    /// When the instance was asked for.
    pub started_at: Timestamp,
    /// From then until the guest returned.
    pub duration: Duration,
    /// How it ended.
    pub outcome: Outcome,
    /// What went wrong, with the limit where one was reached.
    pub error: Option<String>,
    /// The stack of a trap, innermost function first.
    pub trace: Option<String>,
    /// What the guest logged.
    pub logs: Vec<LogLine>,
    /// What it did, a line each; none where that is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub did: Option<String>,
}
