//! A transport sends the outbox items of one kind.

use std::time::Duration;

use posthouse_model::{OutboxKind, config::Retry};
use posthouse_store::{OutboxJob, OutboxSlots};

/// Why an item was not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotSent {
    /// A retry would fail too: the item is invalid, or the other side refused it permanently.
    Permanent(String),
    /// A retry may succeed.
    Transient(String),
    /// A retry may succeed, but not before `after` has passed.
    Later {
        /// The error.
        error: String,
        /// The shortest wait before the retry.
        after: Duration,
    },
}

impl NotSent {
    /// The kind of failure in one word.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Permanent(_) => "permanent",
            Self::Transient(_) => "transient",
            Self::Later { .. } => "later",
        }
    }
}

/// Sends the items of one kind. Transports run independently, so a slow one delays only its own kind.
pub(super) trait Transport: Send + Sync + 'static {
    /// The kind of item that it sends.
    const KIND: OutboxKind;
    /// The maximum number of items being sent at once, and whether slots stay free for plugins that have
    /// none. That matters if each item has its own destination, which may be slow.
    const SLOTS: OutboxSlots;

    /// When a failed item is retried.
    fn retry(&self) -> &Retry;

    /// Sends an item. Returns within a time limit, whatever the other side does.
    fn send(&self, job: &OutboxJob) -> impl Future<Output = Result<(), NotSent>> + Send;

    /// Closes the connections that are kept for the next item.
    fn rest(&self) -> impl Future<Output = ()> + Send;
}
