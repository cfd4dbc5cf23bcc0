//! Counts events: key `count` counts all of them, and `seen/<event id>` counts each one separately. So a test
//! can check how often an event took effect. It must be once.
//!
//! The event's `data` may ask for further actions. They run after the counting, so that a failure has something
//! to drop: `{"log": "text"}` logs, `{"spin": 1000000}` computes for that many rounds, `{"mail": "a@b.c"}`
//! stages a mail to that address, `{"fail": 2}` fails the first two attempts, `{"retry_after": 3}` fails
//! the first attempt and asks for that many seconds, `{"reject": true}` rejects the event. `{"reason": "text"}`
//! is the reason of the failure or rejection.

use posthouse_sdk::{Delivery, Event, Failure, Manifest, Plugin, info, kv, outbox::Mail};
use serde::Deserialize;

struct Counter;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wish {
    log: Option<String>,
    spin: u64,
    mail: Option<String>,
    fail: u32,
    retry_after: Option<u32>,
    reject: bool,
    reason: Option<String>,
}

impl Plugin for Counter {
    fn manifest() -> Manifest {
        Manifest::new("counts events").on(["*"])
    }

    fn handle(event: Event, delivery: Delivery) -> Result<(), Failure> {
        let wish: Wish = event.json().unwrap_or_default();
        kv::increment("count", 1)?;
        kv::increment(&format!("seen/{}", event.id), 1)?;
        if let Some(line) = wish.log {
            info!("{line}");
        }
        (0..wish.spin).for_each(|round| _ = std::hint::black_box(round));
        if let Some(to) = wish.mail {
            Mail::new(to, format!("counted {}", event.id), "counted").send()?;
        }
        match wish.retry_after {
            Some(seconds) if delivery.attempt == 1 => {
                Err(Failure::retry_after("asked to fail once", seconds))
            }
            _ if delivery.attempt <= wish.fail => Err(Failure::retry(
                wish.reason.unwrap_or_else(|| format!("asked to fail {} times", wish.fail)),
            )),
            _ if wish.reject => {
                Err(Failure::reject(wish.reason.unwrap_or_else(|| "asked to refuse".to_owned())))
            }
            _ => Ok(()),
        }
    }
}

posthouse_sdk::plugin!(Counter);
