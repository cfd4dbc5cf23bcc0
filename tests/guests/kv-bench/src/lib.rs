//! The smallest useful plugin, for benches: one write of the event's id under one of 4096 keys, no JSON.

use posthouse_sdk::{Delivery, Event, Failure, Manifest, Plugin, kv};

struct KvBench;

impl Plugin for KvBench {
    fn manifest() -> Manifest {
        Manifest::new("writes one key an event").on(["*"])
    }

    fn handle(event: Event, _delivery: Delivery) -> Result<(), Failure> {
        // FNV-1a: spreads events over the keys, so that they use many pages of the store.
        let hash = event
            .id
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        Ok(kv::set(&format!("last/{:03x}", hash & 0xfff), &event.id)?)
    }
}

posthouse_sdk::plugin!(KvBench);
