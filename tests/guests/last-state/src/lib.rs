//! Keeps the state of each user after the last event. Key `state/<id>` is `created`, `updated` or `deleted` with
//! the number of the event that wrote it last, and `log/<id>` has the numbers in the order in which the events
//! took effect. So the result is right only if its events run in order.
//!
//! `data` is `{"user": {"id": …}, "n": 3}`; `"fail": 2` fails the first two attempts after they have
//! written, `"trap": true` makes that a panic, `"reject": true` rejects the event.

use posthouse_sdk::{Delivery, Event, Failure, Manifest, Plugin, kv};
use serde::Deserialize;

struct LastState;

#[derive(Deserialize)]
struct Wish {
    n: u64,
    #[serde(default)]
    fail: u32,
    #[serde(default)]
    trap: bool,
    #[serde(default)]
    reject: bool,
}

impl Plugin for LastState {
    fn manifest() -> Manifest {
        Manifest::new("keeps the last state of each user").on(["user.*"])
    }

    fn handle(event: Event, delivery: Delivery) -> Result<(), Failure> {
        let user = event.user()?.id;
        let wish: Wish = event.json()?;
        let state = event.event_type.trim_start_matches("user.");
        kv::set(&format!("state/{user}"), format!("{state} {}", wish.n))?;
        let log = format!("log/{user}");
        let before = kv::get(&log)?.unwrap_or_default();
        let before = String::from_utf8_lossy(&before);
        kv::set(&log, format!("{before} {}", wish.n).trim_start())?;
        let fails = delivery.attempt <= wish.fail;
        assert!(!(fails && wish.trap), "asked to trap");
        match fails {
            true => Err(Failure::retry(format!("asked to fail {} times", wish.fail))),
            false if wish.reject => Err(Failure::reject("asked to refuse")),
            false => Ok(()),
        }
    }
}

posthouse_sdk::plugin!(LastState);
