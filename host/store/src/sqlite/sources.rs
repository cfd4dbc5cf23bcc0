//! The newest event of each source, and the payload of a delivery.

use std::collections::HashMap;

use posthouse_model::{DeliveryId, EventSeq, MAX_DEPTH, emitted_by};

use super::reads::Reads;

use crate::{Answer, LastEvent, Payloads, time::timestamp};

impl Reads {
    pub(crate) async fn payloads(
        &self,
        deliveries: Vec<DeliveryId>,
    ) -> Answer<HashMap<DeliveryId, Payloads>> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT s.name, e.id, e.body FROM delivery d JOIN event e ON e.seq = d.event
                 JOIN source s ON s.id = e.source WHERE d.id = ?1
                 UNION ALL SELECT 'interceptor:' || interceptor, request, body FROM decision WHERE id = ?1",
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

    pub(crate) async fn last_events(&self) -> Answer<Vec<LastEvent>> {
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
