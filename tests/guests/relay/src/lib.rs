//! Emits events: `{"emit": "seat.added", "times": 2}` emits two of this type. Their `data` is `{"of": …}`
//! with the id of the event at hand. With `"echo": true` it is the `data` of that event. Relay gets every event,
//! and so also the events it emits, in a chain that only the host ends.
//!
//! If the host refuses an event, relay rejects with the same message. `{"fail": 1}` fails the first attempt after
//! it has emitted, with the ids as the reason; `{"trap": true}` panics there. Key `emitted` counts committed events.

use posthouse_sdk::{
    Delivery, Event, Failure, Manifest, Plugin,
    bindings::posthouse::plugin::outbox::{Derived, Error, emit},
    kv,
};
use serde::Deserialize;

struct Relay;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wish {
    emit: Option<String>,
    times: Option<u32>,
    organization: Option<String>,
    echo: bool,
    fail: u32,
    trap: bool,
}

impl Plugin for Relay {
    fn manifest() -> Manifest {
        Manifest::new("emits what it is asked for").on(["*"])
    }

    fn handle(event: Event, delivery: Delivery) -> Result<(), Failure> {
        let wish: Wish = event.json().unwrap_or_default();
        let Some(event_type) = wish.emit else { return Ok(()) };
        let data = if wish.echo { event.data.clone() } else { format!(r#"{{"of":"{}"}}"#, event.id) };
        let mut ids = Vec::new();
        for _ in 0..wish.times.unwrap_or(1) {
            let derived = Derived {
                event_type: event_type.clone(),
                organization_id: wish.organization.clone(),
                data: data.clone(),
            };
            ids.push(emit(&derived).map_err(refused)?);
            kv::increment("emitted", 1)?;
        }
        assert!(!wish.trap, "asked to trap");
        if delivery.attempt <= wish.fail {
            return Err(Failure::retry(format!("emitted {}", ids.join(" "))));
        }
        Ok(())
    }
}

fn refused(error: Error) -> Failure {
    let (Error::Denied(reason) | Error::Invalid(reason) | Error::Limit(reason)) = error;
    Failure::reject(reason)
}

posthouse_sdk::plugin!(Relay);
