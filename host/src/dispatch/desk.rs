//! A desk: what sends the outbox items of one kind.

use std::time::Duration;

use crate::{
    config::Retry,
    model::OutboxKind,
    store::{OutboxJob, Places},
};

/// Why an item did not leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotSent {
    /// It never will: it makes no sense, or the other side refused it for good.
    Permanent(String),
    /// It may the next time.
    Transient(String),
    /// It may the next time, which is to be no sooner.
    Later {
        /// What happened.
        error: String,
        /// How long to wait at least.
        after: Duration,
    },
}

impl NotSent {
    /// Its kind in a word.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Permanent(_) => "permanent",
            Self::Transient(_) => "transient",
            Self::Later { .. } => "later",
        }
    }
}

/// Sends the items of one kind. A desk waits for no other: one that is slow keeps only its like.
pub(super) trait Desk: Send + Sync + 'static {
    /// What it sends.
    const KIND: OutboxKind;
    /// The most items that are on their way together, and whether places are kept for the items of plugins
    /// that have none: needed where each goes somewhere else, and may wait there.
    const PLACES: Places;

    /// When an item that failed is tried again.
    fn retry(&self) -> &Retry;

    /// Sends an item; ends in time, whatever the other side does.
    fn send(&self, job: &OutboxJob) -> impl Future<Output = Result<(), NotSent>> + Send;

    /// Lets go of what is kept for the next item.
    fn rest(&self) -> impl Future<Output = ()> + Send;
}
