//! The fuzz target of markers, which are in an operator's database.

#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a fuzz target panics where a promise is broken"
)]

use super::Carried;

/// The parser accepts or refuses any content of a marker. Content that it accepts survives a round trip.
pub fn carried(input: &[u8]) {
    let Ok(carried) = serde_json::from_slice::<Carried>(input) else { return };
    let written = serde_json::to_vec(&carried).expect("what was read can be written");
    let again: Carried = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(again, carried);
    let (effects, attempt) = carried.clone().into_effects();
    assert_eq!(Carried::new(&effects, &attempt), carried);
}
