//! The newest event of each source, and the payload that a delivery is of.

use std::collections::HashMap;

use super::{Store, StoreError, time::timestamp, views::LastEvent};
use crate::model::{DeliveryId, EventSeq};

impl Store {
    /// The source and the body of the event of each of these deliveries, for those that are in the store.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn payloads(
        &self,
        deliveries: Vec<DeliveryId>,
    ) -> Result<HashMap<DeliveryId, (String, Vec<u8>)>, StoreError> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT s.name, e.body FROM delivery d JOIN event e ON e.seq = d.event
                 JOIN source s ON s.id = e.source WHERE d.id = ?1",
            )?;
            let mut found = HashMap::new();
            for delivery in deliveries {
                let mut rows = statement.query([delivery.0])?;
                if let Some(row) = rows.next()? {
                    found.insert(delivery, (row.get(0)?, row.get(1)?));
                }
            }
            Ok(found)
        })
        .await
    }

    /// The newest event of each source that ever sent one, by the name of the source. The event may have
    /// left the store since.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn last_events(&self) -> Result<Vec<LastEvent>, StoreError> {
        self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT s.name, s.last_event, s.last_at, e.id, t.name FROM source s
                     LEFT JOIN event e ON e.seq = s.last_event LEFT JOIN event_type t ON t.id = e.type
                     WHERE s.last_event IS NOT NULL ORDER BY s.name",
                )?
                .query_map([], |row| {
                    Ok(LastEvent {
                        source: row.get(0)?,
                        seq: EventSeq(row.get(1)?),
                        received_at: timestamp(row.get(2)?),
                        id: row.get(3)?,
                        event_type: row.get(4)?,
                    })
                })?
                .collect()
        })
        .await
    }
}
