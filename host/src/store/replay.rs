//! Replays: new deliveries of old events. A replay has an id of its own, so that it takes effect again,
//! and is linked to the delivery that it repeats.

use rusqlite::{OptionalExtension, Result, params};

use super::{
    Store, StoreError,
    inbox::INSERT_DELIVERY,
    query::{OF_EVENT, Walk},
    schema::code,
    views::DeliveryFilter,
    writer::Writer,
};
use crate::model::{DeliveryId, EventSeq, EventType, PluginId};

impl Store {
    /// New deliveries of old events, each linked to the one it replays; returns how many. Only what is
    /// done or dead is replayed, newest first, and each delivery once, however often this is called.
    /// Works in slices: the writer stays free for events.
    ///
    /// # Errors
    /// [`StoreError::Backlog`] when too much is unfinished; what was made before remains, and the next
    /// call goes on from there.
    pub async fn replay_deliveries(&self, filter: DeliveryFilter) -> Result<u64, StoreError> {
        let mut walk = Walk::new(&filter);
        let mut count = 0;
        while let Some(ids) = self.replayable(&filter, &mut walk).await? {
            if !ids.is_empty() {
                count += self.write(move |writer| writer.replay(&ids)).await??;
            }
        }
        Ok(count)
    }

    /// A new delivery of the event for each of the plugins, linked to the plugin's latest of that event
    /// where it has had one. Returns their ids: none where there is no such event.
    ///
    /// # Errors
    /// [`StoreError::Backlog`] when too much is unfinished.
    pub async fn replay_event(
        &self,
        event: EventSeq,
        plugins: Vec<PluginId>,
    ) -> Result<Vec<DeliveryId>, StoreError> {
        self.write(move |writer| writer.replay_event(event, &plugins)).await?
    }
}

impl Writer<'_> {
    fn replay(&mut self, ids: &[DeliveryId]) -> Result<Result<u64, StoreError>> {
        let mut count = 0;
        for &DeliveryId(id) in ids {
            if let Some(error) = self.backlog_full() {
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
                self.deliver_again(EventSeq(event), PluginId(plugin), id)?;
                count += 1;
            }
        }
        Ok(Ok(count))
    }

    fn replay_event(
        &mut self,
        event: EventSeq,
        plugins: &[PluginId],
    ) -> Result<Result<Vec<DeliveryId>, StoreError>> {
        if let Some(error) = self.backlog_full() {
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
            made.push(self.deliver_again(event, plugin, latest)?);
        }
        Ok(Ok(made))
    }

    /// Makes a ready delivery of an event that is in the store; `replay_of` 0 where it repeats none.
    fn deliver_again(&mut self, event: EventSeq, plugin: PluginId, replay_of: i64) -> Result<DeliveryId> {
        let sequence = self.memory.sequence();
        let id = sequence.next_delivery;
        sequence.next_delivery += 1;
        self.connection.prepare_cached(INSERT_DELIVERY)?.execute(params![
            id,
            event.0,
            plugin.0,
            code::READY,
            self.now,
            replay_of
        ])?;
        let name: String = self
            .connection
            .prepare_cached("SELECT t.name FROM event e JOIN event_type t ON t.id = e.type WHERE e.seq = ?1")?
            .query_row([event.0], |row| row.get(0))?;
        if let Ok(name) = EventType::new(&name) {
            let event_type = self.memory.event_type(self.connection, &name)?;
            self.memory.hour_made(self.connection, self.now, event_type)?;
        }
        self.memory.made(plugin, code::READY);
        Ok(DeliveryId(id))
    }
}
