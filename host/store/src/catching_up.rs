//! What the store knows of catching up: how far a sender's list was compared with the store, and which of the listed
//! events are missing here.

use jiff::Timestamp;
use posthouse_model::{EventId, EventSeq, EventType, SecondKey, SourceName, json};

use super::{Answer, Store, op::Op, time::nanos};

/// The most missing events of a source that are kept.
pub const MAX_MISSING: usize = 1000;

/// How long a missing event is kept, in nanoseconds: 30 days, as long as any sender lists events.
pub(super) const MISSING_KEPT: i64 = 30 * 24 * 3_600_000_000_000;

/// The state of catching up on one source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CatchUpState {
    /// The sender's list was compared until this time of the sender. None: never.
    pub compared_to: Option<Timestamp>,
    /// Events that were received until this time may have been removed. None: none was.
    pub removed_to: Option<Timestamp>,
    /// When the newest event of the source was received. None: there was none.
    pub newest: Option<Timestamp>,
    /// Events that the sender lists and the store does not have, oldest first; at most [`MAX_MISSING`].
    pub missing: Vec<MissingEvent>,
}

/// An event that a sender lists and the store does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingEvent {
    /// The sender's id.
    pub id: EventId,
    /// Its type.
    pub event_type: EventType,
    /// When it happened, according to the sender.
    pub occurred_at: Timestamp,
}

/// The result of comparing a part of a sender's list.
#[derive(Debug, Clone, Default)]
pub struct CatchUpStep {
    /// The list is compared until this time. None: no further than before.
    pub compared_to: Option<Timestamp>,
    /// Events that are missing. The oldest are kept if there are too many.
    pub missing: Vec<MissingEvent>,
    /// Events that are missing no longer.
    pub arrived: Vec<EventId>,
}

/// An event of the store, for the comparison with a sender's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredHead {
    /// The store's number.
    pub seq: EventSeq,
    /// Its id.
    pub id: String,
    /// Its second key.
    pub second: Option<SecondKey>,
    /// The member `id` of its body, if it has no second key and that was asked for.
    pub own_id: Option<String>,
    /// When it happened, according to the sender.
    pub occurred_at: Option<Timestamp>,
    /// When it was received.
    pub received_at: Timestamp,
}

/// One step of a walk over the events of a source.
#[derive(Debug, Clone, Default)]
pub struct StoredHeads {
    /// The events of the source, newest first.
    pub heads: Vec<StoredHead>,
    /// Where the next step begins. None: the walk has ended.
    pub next: Option<EventSeq>,
}

/// The names by which the store may know an event.
pub type EventNames = (EventId, Option<SecondKey>);

impl Store {
    /// Records the result of comparing a part of a sender's list.
    ///
    /// # Errors
    /// If the write failed.
    pub async fn catch_up(&self, source: &SourceName, step: CatchUpStep) -> Answer<()> {
        self.ask(Op::CatchUp { source: source.clone(), step }).await.map(drop)
    }

    /// Walks the events of a source that were received at `since` or later, newest first: one step, which begins
    /// before `before`. `own_ids`: reads the bodies of events without a second key.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn stored_heads(
        &self,
        source: &SourceName,
        since: Timestamp,
        before: Option<EventSeq>,
        own_ids: bool,
    ) -> Answer<StoredHeads> {
        self.heads_since(source.clone(), nanos(since), before, own_ids).await
    }
}

/// The member `id` of a body.
pub(super) fn own_id(body: &[u8]) -> Option<String> {
    let id = json::member(std::str::from_utf8(body).ok()?, "id")?;
    json::string(id).map(|id| id.into_owned())
}
