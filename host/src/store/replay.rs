//! Replays: new deliveries of old events. A replay has an id of its own, so that it takes effect again,
//! and is linked to the delivery that it repeats.
//!
//! Many at once are all written down before who asked hears of it, and then wait for their turn: whenever
//! their plugin has little to do, a few of them become ready. So an event that is taken in meanwhile runs
//! after those few and not after a hundred thousand; where the plugin is busy with such events, they wait
//! for as long as that lasts.

use std::sync::Arc;

use rusqlite::{OptionalExtension, Result, params};

use super::{
    Store, StoreError,
    inbox::INSERT_DELIVERY,
    query::{OF_EVENT, Walk},
    queue,
    schema::code,
    types::DeliveryFilter,
    writer::Writer,
};
use crate::model::{DeliveryId, EventSeq, EventType, OrderKey, Orders, PluginId};

/// Deliveries that one transaction replays.
const SLICE: usize = 256;

impl Store {
    /// New deliveries of old events, each linked to the one it replays; returns how many. Only what is
    /// done or dead is replayed, the newest where the filter has a limit, and each delivery once, however
    /// often this is called. They are made oldest first, and `orders` says which keep to that order. Works
    /// in slices: the writer stays free for events.
    ///
    /// # Errors
    /// [`StoreError::Backlog`] when too much is unfinished, [`StoreError::NoSpace`] when the disk is nearly
    /// full; what was made before remains, and the next call goes on from there.
    pub async fn replay_deliveries(&self, filter: DeliveryFilter, orders: Orders) -> Result<u64, StoreError> {
        let mut walk = Walk::new(&filter);
        let mut found = Vec::new();
        while let Some(ids) = self.replayable(&filter, &mut walk).await? {
            found.extend(ids);
        }
        found.reverse();
        let orders = Arc::new(orders);
        let mut count = 0;
        for ids in found.chunks(SLICE) {
            let (ids, orders) = (ids.to_vec(), Arc::clone(&orders));
            let made = self.write(move |writer| writer.replay(&ids, &orders)).await?;
            match made {
                Ok(made) => count += made,
                Err(error) if count == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(count)
    }

    /// A new delivery of the event for each of the plugins, linked to the plugin's latest of that event
    /// where it has had one, in the order that `orders` says. Returns their ids: none where there is no
    /// such event.
    ///
    /// # Errors
    /// [`StoreError::Backlog`] when too much is unfinished, [`StoreError::NoSpace`] when the disk is nearly
    /// full.
    pub async fn replay_event(
        &self,
        event: EventSeq,
        plugins: Vec<PluginId>,
        orders: Orders,
    ) -> Result<Vec<DeliveryId>, StoreError> {
        self.write(move |writer| writer.replay_event(event, &plugins, &orders)).await?
    }
}

impl Writer<'_> {
    fn replay(&mut self, ids: &[DeliveryId], orders: &Orders) -> Result<Result<u64, StoreError>> {
        let mut count = 0;
        for &DeliveryId(id) in ids {
            if let Some(error) = self.no_room() {
                return Ok(if count == 0 { Err(error) } else { Ok(count) });
            }
            // Checked again: it was found by a reader, and another replay may have come between.
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
        Ok(Ok(count))
    }

    fn replay_event(
        &mut self,
        event: EventSeq,
        plugins: &[PluginId],
        orders: &Orders,
    ) -> Result<Result<Vec<DeliveryId>, StoreError>> {
        if let Some(error) = self.no_room() {
            return Ok(Err(error));
        }
        let known = self
            .connection
            .prepare_cached("SELECT 1 FROM event WHERE seq = ?1")?
            .query_row([event.0], |_| Ok(()))
            .optional()?;
        if known.is_none() {
            return Ok(Ok(Vec::new()));
        }
        let latest =
            format!("SELECT ifnull(max(id), 0) FROM delivery WHERE plugin = ?2 AND id IN ({OF_EVENT})");
        let mut made = Vec::with_capacity(plugins.len());
        for &plugin in plugins {
            let latest: i64 =
                self.connection.prepare_cached(&latest)?.query_row([event.0, plugin.0], |row| row.get(0))?;
            made.push(self.deliver_again(event, plugin, latest, orders, false)?);
        }
        Ok(Ok(made))
    }

    /// Makes a delivery of an event that is in the store; `replay_of` 0 where it repeats none. It runs
    /// after whatever waits of its order key; one of many waits for its turn as well, so that what is taken
    /// in meanwhile runs.
    fn deliver_again(
        &mut self,
        event: EventSeq,
        plugin: PluginId,
        replay_of: i64,
        orders: &Orders,
        of_many: bool,
    ) -> Result<DeliveryId> {
        let order_key = match orders.get(&plugin) {
            Some(order) => order.key(&queue::read_event(self.connection, event)?),
            None => None,
        };
        let state = if of_many {
            self.lanes.has_later(plugin);
            code::LATER
        } else if self.is_behind(plugin, order_key.as_ref())? {
            code::BEHIND
        } else {
            code::READY
        };
        let sequence = self.memory.sequence();
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
            let event_type = self.memory.event_type(self.connection, &name)?;
            self.memory.hour_made(self.connection, self.now, event_type)?;
        }
        self.memory.made(plugin, state);
        Ok(DeliveryId(id))
    }
}
