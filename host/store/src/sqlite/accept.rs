//! Accepting: writes an event and its deliveries once, before the sender gets an answer.

use std::sync::Arc;

use posthouse_model::{DeliveryId, Event, EventOrigin, EventSeq, Job, OrderKey, SecondKey, Subscriber};
use rusqlite::{Result, params};

use super::{catching_up::CAUGHT_UP, schema::code, session::Session};

use crate::{
    Accepted, Offer, StoreError,
    op::Outcome,
    time::{nanos, timestamp},
};

pub(super) const INSERT_EVENT: &str = "
INSERT INTO event (seq, source, type, organization, occurred_at, received_at, first_delivery, fanout,
                   data_start, data_end, id, body, depth, trace, second, origin,
                   content_type, headers, original)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)
ON CONFLICT (source, id) DO NOTHING
ON CONFLICT (source, second) WHERE second IS NOT NULL DO NOTHING";

pub(super) const INSERT_DELIVERY: &str = "
INSERT INTO delivery (id, event, plugin, state, attempts, made_at, due_at, replay_of, order_key)
VALUES (?1, ?2, ?3, ?4, 0, ?5, ?5, ?6, ?7)";

impl Session<'_> {
    /// Stores events, unless the backlog is full: all of them, or none.
    pub(super) fn accept(&mut self, offers: Vec<Offer>, watched: bool) -> Result<Outcome> {
        // An event without subscribers adds nothing to the backlog, but needs disk space like any other.
        let wanted = offers.iter().any(|offer| !offer.subscribers.is_empty());
        let full = self.file.space.shortage().or_else(|| self.backlog_full().filter(|_| wanted));
        if let Some(error) = full {
            // The sender of duplicates gets that answer even if the store is full.
            for offer in &offers {
                if !self.has(offer)? {
                    return Ok(Outcome::Refused(error));
                }
            }
            return Ok(Outcome::Accepted(vec![Accepted::Duplicate; offers.len()], Vec::new()));
        }
        let mut deliveries = Vec::new();
        let mut accepted = Vec::with_capacity(offers.len());
        for offer in offers {
            let watched = watched.then_some(&mut deliveries);
            accepted.push(self.take_in(offer, watched)?);
        }
        Ok(Outcome::Accepted(accepted, deliveries))
    }

    /// Whether the store has this event already.
    fn has(&mut self, offer: &Offer) -> Result<bool> {
        let source = self.counters.source(self.connection, &offer.event.source)?;
        let second = offer.second.as_ref().map(SecondKey::as_bytes);
        let sql = "SELECT 1 FROM event WHERE source = ?1 AND id = ?2
                   UNION ALL SELECT 1 FROM event WHERE source = ?1 AND second = ?3 AND second IS NOT NULL";
        self.connection.prepare_cached(sql)?.exists(params![source, offer.event.id.as_str(), second])
    }

    /// Writes an event and its deliveries. If a plugin's lane has room and no older delivery waits, the new
    /// one goes straight to the lane: it is written as leased, and never read back.
    pub(super) fn take_in(
        &mut self,
        offer: Offer,
        mut watched: Option<&mut Vec<DeliveryId>>,
    ) -> Result<Accepted> {
        let Offer { event, second, subscribers, origin } = offer;
        let source = self.counters.source(self.connection, &event.source)?;
        let event_type = self.counters.event_type(self.connection, &event.event_type)?;
        let sequence = self.counters.sequence();
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
            second.as_ref().map(SecondKey::as_bytes),
            (origin == EventOrigin::CatchUp).then_some(CAUGHT_UP),
            event.request.content_type.as_deref(),
            event.request.stored_headers(),
            event.request.original.as_deref(),
        ])?;
        if inserted == 0 {
            return Ok(Accepted::Duplicate);
        }
        sequence.next_event += 1;
        sequence.next_delivery += subscribers.len() as i64;
        self.counters.event_taken(self.connection, self.now, source, seq)?;
        let event = Arc::new(Event { seq: EventSeq(seq), content: event });
        for (id, Subscriber { plugin, order_key, held }) in (first..).zip(subscribers) {
            let blocked = self.is_blocked(plugin, order_key.as_ref())?;
            let ready = self.counters.tally(plugin).states[code::READY as usize];
            let lane = match blocked {
                true => None,
                false => self.lines.may_take(plugin, ready > 0, self.now),
            };
            let state = match lane {
                Some(_) => code::LEASED,
                None if blocked => code::BLOCKED,
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
            self.counters.made(plugin, state);
            self.counters.hour_made(self.connection, self.now, event_type)?;
            let delivery = DeliveryId(id);
            if let Some(watched) = watched.as_deref_mut().filter(|_| !held) {
                watched.push(delivery);
            }
            if let Some(lane) = lane {
                self.lines.leased(plugin);
                self.jobs.push(Job {
                    delivery,
                    token: self.leases.give(delivery, lane, order_key.clone()),
                    expires: None,
                    ordered: order_key.is_some(),
                    plugin,
                    attempt: 1,
                    conflicts: 0,
                    may_have_run: false,
                    due_at: timestamp(self.now),
                    replay: false,
                    trace: None,
                    event: Arc::clone(&event),
                });
            }
        }
        Ok(Accepted::Stored(EventSeq(seq)))
    }

    /// The refusal, if no more deliveries of old events can be created.
    pub(super) fn no_room(&self) -> Option<StoreError> {
        self.file.space.shortage().or_else(|| self.backlog_full())
    }

    /// The refusal, if the backlog is full.
    fn backlog_full(&self) -> Option<StoreError> {
        let unfinished = self.counters.unfinished().unsigned_abs();
        (unfinished >= self.max_backlog).then_some(StoreError::Backlog(unfinished))
    }
}
