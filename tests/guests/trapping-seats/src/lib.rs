//! The unchanged plugin seat-billing, except that every tenth attempt traps after its work, when there is most to
//! roll back. The delivery's id and the attempt's number decide which attempts trap, so that a delivery does not
//! trap forever.

// This includes the source instead of using the crate: a dependency would be built again, without being a plugin,
// and would replace the other module in the folder of built modules.
#[path = "../../../../plugins/seat-billing/src/seats.rs"]
mod seats;

use posthouse_sdk::{Delivery, Event, Failure, Manifest, Plugin};

use crate::seats::SeatBilling;

struct TrappingSeats;

impl Plugin for TrappingSeats {
    fn manifest() -> Manifest {
        SeatBilling::manifest()
    }

    fn handle(event: Event, delivery: Delivery) -> Result<(), Failure> {
        let traps = fnv1a(format!("{}/{}", delivery.id, delivery.attempt).as_bytes()).is_multiple_of(10);
        SeatBilling::handle(event, delivery)?;
        assert!(!traps, "this attempt traps");
        Ok(())
    }
}

posthouse_sdk::plugin!(TrappingSeats);

/// A hash that is the same on every machine and in every version.
fn fnv1a(bytes: &[u8]) -> u64 {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    // The low bits alone are not uniform enough.
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix);
    hash ^ (hash >> 32)
}
