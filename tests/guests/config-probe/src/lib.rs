//! Stores what it sees: `config/<key>` is each configuration value that the event's `data` asks for
//! (`{"keys": ["a", "b"]}`), and `event/<id>` is the whole event as text.

use posthouse_sdk::{Delivery, Event, Failure, Manifest, Plugin, config, kv};
use serde::Deserialize;

struct ConfigProbe;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wish {
    keys: Vec<String>,
}

impl Plugin for ConfigProbe {
    fn manifest() -> Manifest {
        Manifest::new("tells what it sees").on(["*"])
    }

    fn handle(event: Event, delivery: Delivery) -> Result<(), Failure> {
        for key in event.json::<Wish>().unwrap_or_default().keys {
            let value = config::get(&key).map_or("absent".to_owned(), |value| format!("= {value}"));
            kv::set(&format!("config/{key}"), value)?;
        }
        kv::set(&format!("event/{}", event.id), format!("{event:?} {delivery:?}"))?;
        Ok(())
    }
}

posthouse_sdk::plugin!(ConfigProbe);
