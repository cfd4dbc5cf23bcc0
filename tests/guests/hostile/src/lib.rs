//! Misbehaves, in one way per event: `data` is `{"action": "…"}`.
//!
//! If the host refuses a call, the refusal becomes the failure's reason, so that a test sees it. An action that
//! the host does not stop ends in `ok`, or never.

use std::{
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use posthouse_sdk::{
    Delivery, Event, Failure, Manifest, Plugin, kv,
    log::{Level, write},
    outbox::Mail,
};
use serde::Deserialize;

struct Hostile;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Action {
    /// Computes forever.
    Spin,
    /// Allocates memory endlessly.
    Grow,
    /// Recurses endlessly.
    Recurse,
    /// Recurses endlessly, with frames in linear memory.
    Nest,
    /// Panics, in a function with a name.
    Trap,
    /// Logs 100,000 lines.
    LogFlood,
    /// Logs one line of 1 MB.
    BigLine,
    /// Fails with a reason of 1 MB.
    HugeReason,
    /// Writes keys endlessly.
    StageFlood,
    /// Sends mails endlessly.
    MailFlood,
    /// Writes a value of 16 MiB.
    BigValue,
    /// Reads a key of 16 MiB.
    BigKey,
    /// Lists everything, repeatedly.
    ListFlood,
    /// Has effects, and then panics.
    StageAndTrap,
    /// Behaves well.
    Ok,
}

#[derive(Deserialize)]
struct Wish {
    action: Action,
}

impl Plugin for Hostile {
    fn manifest() -> Manifest {
        Manifest::new("does what a plugin must not").on(["*"])
    }

    fn handle(event: Event, _delivery: Delivery) -> Result<(), Failure> {
        match event.json::<Wish>()?.action {
            Action::Spin => spin(),
            Action::Grow => grow(),
            Action::Recurse => _ = black_box(recurse(&AtomicU64::new(0))),
            Action::Nest => _ = black_box(nest(1)),
            Action::Trap => tripwire(&event.id),
            Action::LogFlood => (0..100_000).for_each(|line| write(Level::Info, &format!("line {line}"))),
            Action::BigLine => write(Level::Info, &"x".repeat(1_000_000)),
            Action::HugeReason => return Err(Failure::retry("x".repeat(1_000_000))),
            Action::StageFlood => {
                for number in 0_u64.. {
                    kv::set(&format!("flood/{number}"), "x")?;
                }
            }
            Action::MailFlood => loop {
                Mail::new("flood@example.com", "flood", "flood").send()?;
            },
            Action::BigValue => kv::set("big", vec![0; 16 << 20])?,
            Action::BigKey => _ = kv::get(&"x".repeat(16 << 20))?,
            Action::ListFlood => loop {
                black_box(kv::list("", None, 1000)?);
            },
            Action::StageAndTrap => {
                kv::set("staged", "x")?;
                tripwire(&event.id);
            }
            Action::Ok => kv::increment("ok", 1)?,
        }
        Ok(())
    }
}

#[inline(never)]
fn spin() {
    let mut round = 0_u64;
    while black_box(round) < u64::MAX {
        round = round.wrapping_add(1) >> 1;
    }
}

#[inline(never)]
fn grow() {
    let mut taken = Vec::new();
    loop {
        taken.push(black_box(vec![1_u8; 1 << 20]));
    }
}

/// Keeps nothing in linear memory, so that the host's stack overflows and not the guest's own.
#[inline(never)]
#[allow(unconditional_recursion, reason = "that is what it is for")]
fn recurse(depth: &AtomicU64) -> u64 {
    depth.fetch_add(1, Relaxed);
    recurse(depth) + depth.load(Relaxed)
}

/// Keeps its frame in linear memory, so that the guest's own stack overflows.
#[inline(never)]
#[allow(unconditional_recursion, reason = "that is what it is for")]
fn nest(depth: u64) -> u64 {
    let frame = black_box([depth; 16]);
    nest(frame[0] + 1) + black_box(frame)[15]
}

/// The stack trace of the trap must name this function.
#[inline(never)]
fn tripwire(event: &str) {
    panic!("stepped on the wire with {event}");
}

posthouse_sdk::plugin!(Hostile);
