//! The smallest useful plugin with SQL, for benches: one statement per event, on one of 4096 rows, no JSON.
//! The table `last` exists already; the bench's plain client runs the same statement.

use posthouse_sdk::{Capability, Delivery, Event, Failure, Manifest, Plugin, sql};

struct SqlBench;

impl Plugin for SqlBench {
    fn manifest() -> Manifest {
        Manifest::new("writes one row an event").on(["*"]).requires(Capability::Sql)
    }

    fn handle(event: Event, _delivery: Delivery) -> Result<(), Failure> {
        // FNV-1a: spreads events over the rows, so that attempts rarely use the same one.
        let hash = event
            .id
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        let slot = i64::from(hash & 0xfff);
        sql::execute(
            "INSERT INTO last (slot, events, event) VALUES ($1, 1, $2)
             ON CONFLICT (slot) DO UPDATE SET events = last.events + 1, event = $2",
            &[&slot, &event.id],
        )?;
        Ok(())
    }
}

posthouse_sdk::plugin!(SqlBench);
