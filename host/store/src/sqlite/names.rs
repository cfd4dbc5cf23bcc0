//! Names and ids that an operator may ask for: every known name, and the event of a delivery.

use posthouse_model::{DeliveryId, SourceName};
use rusqlite::{Connection, OptionalExtension as _, Result};

use super::reads::Reads;

use crate::{Answer, DeliveryPlace, Names};

impl Reads {
    pub(crate) async fn names(&self) -> Answer<Names> {
        self.read(|connection| {
            Ok(Names {
                sources: column(connection, "SELECT name FROM source ORDER BY name")?,
                plugins: column(connection, "SELECT name FROM plugin ORDER BY name")?,
                types: column(connection, "SELECT name FROM event_type ORDER BY name")?,
            })
        })
        .await
    }

    pub(crate) async fn place_of(&self, delivery: DeliveryId) -> Answer<Option<DeliveryPlace>> {
        self.read(move |connection| {
            let found: Option<(String, String, String)> = connection
                .prepare_cached(
                    "SELECT e.id, s.name, p.name FROM delivery d JOIN event e ON e.seq = d.event
                     JOIN source s ON s.id = e.source JOIN plugin p ON p.id = d.plugin WHERE d.id = ?1",
                )?
                .query_row([delivery.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()?;
            Ok(found.and_then(|(event, source, plugin)| {
                let source = SourceName::new(&source).ok()?;
                Some(DeliveryPlace { id: delivery, event, source, plugin })
            }))
        })
        .await
    }
}

fn column(connection: &Connection, sql: &str) -> Result<Vec<String>> {
    connection.prepare_cached(sql)?.query_map([], |row| row.get(0))?.collect()
}
