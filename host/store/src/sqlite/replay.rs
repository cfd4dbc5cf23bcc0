//! Replays: new deliveries of old events. A replay has a new id, so that it takes effect again, and
//! is linked to the delivery that it replays.
//!
//! If many are replayed at once, all are written before the caller gets an answer, and are deferred: whenever
//! their plugin has little to do, a few of them become ready. So an event that is accepted meanwhile runs
//! after those few and not after a hundred thousand. If such events keep the plugin busy, the replays wait
//! for as long as that lasts.

use posthouse_model::{DeliveryId, EventSeq, EventType, OrderKey, Orders, PluginId};
use rusqlite::{OptionalExtension, Result, params};

use super::{accept::INSERT_DELIVERY, due, query::OF_EVENT, schema::code, session::Session};

use crate::op::Outcome;

impl Session<'_> {
    /// Creates a new delivery for each of these that is finished and was not replayed.
    pub(super) fn replay(&mut self, ids: &[DeliveryId], orders: &Orders) -> Result<Outcome> {
        let mut count = 0;
        for &DeliveryId(id) in ids {
            if let Some(error) = self.no_room() {
                return Ok(if count == 0 { Outcome::Refused(error) } else { Outcome::Count(count) });
            }
            // Checked again: a reader found it, and it may have been replayed since.
            let found: Option<(i64, i64)> = self
                .connection
                .prepare_cached(
                    "SELECT d.event, d.plugin FROM delivery d WHERE d.id = ?1 AND d.state IN (3, 4)
                     AND NOT EXISTS (SELECT 1 FROM delivery again
                                     WHERE again.event = d.event AND again.replay_of = d.id)",
                )?
                .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            if let Some((event, plugin)) = found {
                self.deliver_again(EventSeq(event), PluginId(plugin), id, orders, true)?;
                count += 1;
            }
        }
        Ok(Outcome::Count(count))
    }

    /// Creates a new delivery of the event for each plugin.
    pub(super) fn replay_event(
        &mut self,
        event: EventSeq,
        plugins: &[PluginId],
        orders: &Orders,
    ) -> Result<Outcome> {
        if let Some(error) = self.no_room() {
            return Ok(Outcome::Refused(error));
        }
        let known = self
            .connection
            .prepare_cached("SELECT 1 FROM event WHERE seq = ?1")?
            .query_row([event.0], |_| Ok(()))
            .optional()?;
        if known.is_none() {
            return Ok(Outcome::Deliveries(Vec::new()));
        }
        let latest =
            format!("SELECT ifnull(max(id), 0) FROM delivery WHERE plugin = ?2 AND id IN ({OF_EVENT})");
        let mut made = Vec::with_capacity(plugins.len());
        for &plugin in plugins {
            let latest: i64 =
                self.connection.prepare_cached(&latest)?.query_row([event.0, plugin.0], |row| row.get(0))?;
            made.push(self.deliver_again(event, plugin, latest, orders, false)?);
        }
        Ok(Outcome::Deliveries(made))
    }

    /// Creates a delivery of a stored event; `replay_of` is 0 if it replays none. It runs after all waiting
    /// deliveries of its order key. If it is one of many it is deferred, so that events accepted meanwhile
    /// run first.
    fn deliver_again(
        &mut self,
        event: EventSeq,
        plugin: PluginId,
        replay_of: i64,
        orders: &Orders,
        of_many: bool,
    ) -> Result<DeliveryId> {
        let order_key = match orders.get(&plugin) {
            Some(order) => order.key(&due::read_event(self.connection, event)?),
            None => None,
        };
        let state = if of_many {
            self.lines.has_deferred(plugin);
            code::DEFERRED
        } else if self.is_blocked(plugin, order_key.as_ref())? {
            code::BLOCKED
        } else {
            code::READY
        };
        let sequence = self.counters.sequence();
        let id = sequence.next_delivery;
        sequence.next_delivery += 1;
        self.connection.prepare_cached(INSERT_DELIVERY)?.execute(params![
            id,
            event.0,
            plugin.0,
            state,
            self.now,
            replay_of,
            order_key.as_ref().map(OrderKey::as_str)
        ])?;
        let name: String = self
            .connection
            .prepare_cached("SELECT t.name FROM event e JOIN event_type t ON t.id = e.type WHERE e.seq = ?1")?
            .query_row([event.0], |row| row.get(0))?;
        if let Ok(name) = EventType::new(&name) {
            let event_type = self.counters.event_type(self.connection, &name)?;
            self.counters.hour_made(self.connection, self.now, event_type)?;
        }
        self.counters.made(plugin, state);
        Ok(DeliveryId(id))
    }
}
