//! The plugin seat-billing as it is, of which every tenth attempt traps after it has done its work: when
//! there is most to take back. Which ones is decided by the delivery's id and the attempt's number, so that
//! a delivery does not trap for ever.

// Its source, and not the crate: as a dependency that would be built once more, without being a plugin, and
// take the other's place in the folder of built modules.
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

/// A hash that is the same everywhere and always.
fn fnv1a(bytes: &[u8]) -> u64 {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    // Its low bits alone are not even enough.
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix);
    hash ^ (hash >> 32)
}
