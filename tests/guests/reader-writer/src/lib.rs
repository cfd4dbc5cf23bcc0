//! Reads key `value`, adds one and writes it. Concurrent attempts conflict, but the final value must still be the
//! number of events.

use posthouse_sdk::{Delivery, Event, Failure, Manifest, Plugin, kv};

struct ReaderWriter;

impl Plugin for ReaderWriter {
    fn manifest() -> Manifest {
        Manifest::new("adds one by reading and writing").on(["*"])
    }

    fn handle(_event: Event, _delivery: Delivery) -> Result<(), Failure> {
        let value = kv::get_number("value")?;
        Ok(kv::set("value", (value + 1).to_string())?)
    }
}

posthouse_sdk::plugin!(ReaderWriter);
