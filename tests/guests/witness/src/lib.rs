//! Keeps what it sees of each event: key `<source>/<id>` has its type, its time in nanoseconds and its organization, as
//! JSON.

use posthouse_sdk::{Delivery, Event, Failure, Manifest, Plugin, kv};

struct Witness;

impl Plugin for Witness {
    fn manifest() -> Manifest {
        Manifest::new("keeps what it sees of each event").on(["*"])
    }

    fn handle(event: Event, _: Delivery) -> Result<(), Failure> {
        let seen = serde_json::json!({
            "type": event.event_type,
            "at": event.occurred_at,
            "organization": event.organization_id,
        });
        kv::set(&format!("{}/{}", event.source, event.id), seen.to_string())?;
        Ok(())
    }
}

posthouse_sdk::plugin!(Witness);
