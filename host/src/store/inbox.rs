//! The inbox: an event and its deliveries are on disk, once, before anybody is told so.

use std::sync::Arc;

use rusqlite::{OptionalExtension, Result, params};
use tokio::sync::oneshot;

use super::{
    Store, StoreError, Watcher,
    schema::code,
    time::{nanos, timestamp},
    writer::{Op, Writer},
};
use crate::model::{DeliveryId, Event, EventSeq, Job, NewEvent, OrderKey, Subscriber};

/// What became of an event that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// On disk, with its deliveries.
    Stored(EventSeq),
    /// Same source and id were seen before; nothing was written.
    Duplicate,
}

pub(super) const INSERT_EVENT: &str = "
INSERT INTO event (seq, source, type, organization, occurred_at, received_at, first_delivery, fanout,
                   data_start, data_end, id, body, depth, trace)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
ON CONFLICT (source, id) DO NOTHING";

pub(super) const INSERT_DELIVERY: &str = "
INSERT INTO delivery (id, event, plugin, state, attempts, made_at, due_at, replay_of, order_key)
VALUES (?1, ?2, ?3, ?4, 0, ?5, ?5, ?6, ?7)";

impl Store {
    /// Takes in an event with a delivery for each subscriber; returns when both are on disk.
    ///
    /// # Errors
    /// [`StoreError::Backlog`] when too much is unfinished, [`StoreError::NoSpace`] when the disk is nearly
    /// full; any other when it could not be written. An event that was refused is not in the store.
    pub async fn accept<S: Into<Subscriber>>(
        &self,
        event: NewEvent,
        subscribers: impl IntoIterator<Item = S>,
    ) -> Result<Accepted, StoreError> {
        self.accept_watched(event, subscribers.into_iter().map(Into::into).collect(), None).await
    }

    /// The same; `watcher` is told how the first attempt of each delivery ended, but for those of held
    /// plugins. Where the event is not new it is told nothing.
    ///
    /// # Errors
    /// As [`Self::accept`].
    pub async fn accept_watched(
        &self,
        event: NewEvent,
        subscribers: Vec<Subscriber>,
        watcher: Option<Watcher>,
    ) -> Result<Accepted, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(Op::Accept { event, subscribers, watcher, reply }).await?;
        answer.await.unwrap_or_else(|_| Err(self.silence()))
    }

    /// Whether more may be made. Asked before a commit of derived events: once an attempt has committed
    /// they can't be refused any more, so that the backlog may go beyond its bound by what the attempts
    /// under way have staged.
    ///
    /// # Errors
    /// [`StoreError::Backlog`] when too much is unfinished.
    pub fn room(&self) -> Result<(), StoreError> {
        let unfinished = self.shared().unfinished();
        if unfinished < self.max_backlog() { Ok(()) } else { Err(StoreError::Backlog(unfinished)) }
    }
}

impl Writer<'_> {
    /// Takes in an event, unless too much is unfinished.
    pub(super) fn accept(
        &mut self,
        event: NewEvent,
        subscribers: &[Subscriber],
        watcher: Option<&Watcher>,
    ) -> Result<Result<Accepted, StoreError>> {
        // An event that nobody wants adds nothing to the backlog, and takes room like any other.
        let full = self.shortage().or_else(|| self.backlog_full().filter(|_| !subscribers.is_empty()));
        if let Some(error) = full {
            let source = self.memory.source(self.connection, &event.source)?;
            // The sender of an event that is here already is told so, however full it is.
            let seen = self
                .connection
                .prepare_cached("SELECT 1 FROM event WHERE source = ?1 AND id = ?2")?
                .query_row(params![source, event.id.as_str()], |_| Ok(()))
                .optional()?;
            return Ok(seen.map_or(Err(error), |()| Ok(Accepted::Duplicate)));
        }
        self.take_in(event, subscribers, watcher).map(Ok)
    }

    /// Writes an event and its deliveries. Each goes straight to its plugin's lane where there is room
    /// and nothing older waits: it is written as leased, and never read back.
    pub(super) fn take_in(
        &mut self,
        event: NewEvent,
        subscribers: &[Subscriber],
        watcher: Option<&Watcher>,
    ) -> Result<Accepted> {
        let source = self.memory.source(self.connection, &event.source)?;
        let event_type = self.memory.event_type(self.connection, &event.event_type)?;
        let sequence = self.memory.sequence();
        let (seq, first) = (sequence.next_event, sequence.next_delivery);
        let inserted = self.sql.insert_event.execute(params![
            seq,
            source,
            event_type,
            event.organization.as_deref(),
            event.occurred_at.map(nanos),
            nanos(event.received_at),
            first,
            subscribers.len() as i64,
            event.data.start,
            event.data.end,
            event.id.as_str(),
            &event.body[..],
            event.depth,
            event.trace.map(|trace| trace.to_bytes()),
        ])?;
        if inserted == 0 {
            return Ok(Accepted::Duplicate);
        }
        sequence.next_event += 1;
        sequence.next_delivery += subscribers.len() as i64;
        self.memory.event_taken(self.connection, self.now, source, seq)?;
        let event = Arc::new(Event { seq: EventSeq(seq), content: event });
        for (id, Subscriber { plugin, order_key, held }) in (first..).zip(subscribers) {
            let plugin = *plugin;
            let behind = self.is_behind(plugin, order_key.as_ref())?;
            let ready = self.memory.tally(plugin).states[code::READY as usize];
            let token = match behind {
                true => None,
                false => self.lanes.hand_over(plugin, id, order_key.as_ref(), ready > 0, self.now),
            };
            let state = match token {
                Some(_) => code::LEASED,
                None if behind => code::BEHIND,
                None => code::READY,
            };
            let key = order_key.as_ref().map(OrderKey::as_str);
            self.sql.insert_delivery.execute(params![
                id,
                seq,
                plugin.0,
                state,
                self.now,
                None::<i64>,
                key
            ])?;
            self.memory.made(plugin, state);
            self.memory.hour_made(self.connection, self.now, event_type)?;
            if let Some(watcher) = watcher.filter(|_| !*held) {
                self.watches.add(id, watcher);
            }
            if let Some(token) = token {
                let delivery = DeliveryId(id);
                let event = Arc::clone(&event);
                let may_have_run = false;
                self.lanes.stage(Job {
                    delivery,
                    token,
                    plugin,
                    attempt: 1,
                    conflicts: 0,
                    may_have_run,
                    due_at: timestamp(self.now),
                    replay: false,
                    trace: None,
                    event,
                });
            }
        }
        Ok(Accepted::Stored(EventSeq(seq)))
    }

    /// The refusal, when no more deliveries of old events can be made.
    pub(super) fn no_room(&self) -> Option<StoreError> {
        self.shortage().or_else(|| self.backlog_full())
    }

    /// The refusal, when the disk is nearly full.
    fn shortage(&self) -> Option<StoreError> {
        self.shared.space().shortage()
    }

    /// The refusal, when as much is unfinished as may be.
    fn backlog_full(&self) -> Option<StoreError> {
        let unfinished = self.memory.unfinished().unsigned_abs();
        (unfinished >= self.max_backlog).then_some(StoreError::Backlog(unfinished))
    }
}
