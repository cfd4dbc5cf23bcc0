//! The newest event of each source, and the payload that a delivery is of.

use std::collections::HashMap;

use super::{Store, StoreError, time::timestamp, types::LastEvent};
use crate::model::{DeliveryId, EventSeq, MAX_DEPTH, Mask, Redact, emitted_by};

/// The source and the body of an event, and of those that it is derived of, up to the webhook.
#[derive(Debug, Clone, Default)]
pub struct Payloads(Vec<(String, Vec<u8>)>);

impl Payloads {
    /// Bytes of all bodies.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(_, body)| body.len()).sum()
    }

    /// What is masked of a text that came of them.
    pub fn mask(&self, redact: impl Fn(&str) -> Redact) -> Mask {
        Mask::of_all(self.0.iter().map(|(source, body)| (source.as_str(), &**body)), redact)
    }
}

impl Store {
    /// The payloads that each of these deliveries is because of, as far as they are in the store.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn payloads(
        &self,
        deliveries: Vec<DeliveryId>,
    ) -> Result<HashMap<DeliveryId, Payloads>, StoreError> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT s.name, e.id, e.body FROM delivery d JOIN event e ON e.seq = d.event
                 JOIN source s ON s.id = e.source WHERE d.id = ?1",
            )?;
            let mut found = HashMap::new();
            for delivery in deliveries {
                let (mut next, mut payloads) = (Some(delivery), Payloads::default());
                while let Some(delivery) = next.filter(|_| payloads.0.len() <= usize::from(MAX_DEPTH)) {
                    let mut rows = statement.query([delivery.0])?;
                    let Some(row) = rows.next()? else { break };
                    let source: String = row.get(0)?;
                    next = emitted_by(&source, row.get_ref(1)?.as_str()?);
                    payloads.0.push((source, row.get(2)?));
                }
                found.insert(delivery, payloads);
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
