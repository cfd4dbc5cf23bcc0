//! Measures the cost of the writer for each event. It prints numbers and asserts nothing.
//!
//! ```text
//! TASKS=64 EVENTS=200000 FILLED=0 cargo test -p posthouse-store sqlite::tests::measure -- --ignored --nocapture
//! ```
//!
//! `FILLED=1` first puts a million finished and a hundred thousand waiting deliveries into the store.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::conformance::support::*;
use crate::{Store, Verdict};

fn given(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Nanoseconds that threads of this name have been on a CPU.
fn cpu(thread: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks
        .filter(|task| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == thread)
        })
        .filter_map(|task| {
            std::fs::read_to_string(task.path().join("schedstat"))
                .ok()?
                .split(' ')
                .next()?
                .parse::<u64>()
                .ok()
        })
        .sum()
}

/// The pipeline: accept, lane, one write of a key, done.
async fn pipeline(fixture: &Fixture, prefix: &'static str, tasks: u64, events: u64) {
    let plugin = fixture.plugin("counter").await;
    let mut lane = fixture.store.open_lane(plugin, 1024).await.unwrap();
    let (keys, left) = (given("KEYS", 10_000), Arc::new(AtomicU64::new(0)));
    let senders: Vec<_> = (0..tasks)
        .map(|_| {
            let (store, left, clock) = (fixture.store.clone(), Arc::clone(&left), fixture.clock.clone());
            let template = fixture.event("template");
            tokio::spawn(async move {
                let mut longest = Duration::ZERO;
                loop {
                    let n = left.fetch_add(1, Ordering::Relaxed);
                    if n >= events {
                        return longest;
                    }
                    let mut event = template.clone();
                    let random = Seeded::new(n).next() * given("RANDOM", 1);
                    let id = format!("{prefix}_{random:016x}{n:08x}");
                    event.id = posthouse_model::EventId::new(&id).unwrap();
                    event.body = vec![b'x'; 700].into();
                    let started = Instant::now();
                    store.accept(event, vec![plugin]).await.unwrap();
                    longest = longest.max(started.elapsed());
                    let _ = &clock;
                }
            })
        })
        .collect();
    let mut done = 0;
    while done < events {
        let job = lane.next().await.unwrap();
        let key = format!("user/{:05}", Seeded::new(done).below(keys));
        let verdict = Verdict::Done(effects(&[(&key, set("the value of a user, of some length or other"))]));
        fixture.finish(job, verdict).await;
        done += 1;
    }
    fixture.store.flush().await.unwrap();
    let mut longest = Duration::ZERO;
    for sender in senders {
        longest = longest.max(sender.await.unwrap());
    }
    println!("longest accept {longest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn writer_cost_of_an_event() {
    let (tasks, events) = (given("TASKS", 64), given("EVENTS", 200_000));
    let mut fixture = Fixture::new(On::Sqlite);
    if given("FILLED", 0) == 1 {
        pipeline(&fixture, "old", 512, 1_000_000).await;
        let plugin = fixture.plugin("waiting").await;
        for batch in 0..100 {
            let accepts: Vec<_> = (0..1000)
                .map(|n| {
                    let (store, event) =
                        (fixture.store.clone(), fixture.event(format!("waiting_{batch}_{n}")));
                    tokio::spawn(async move { store.accept(event, vec![plugin]).await.unwrap() })
                })
                .collect();
            for accept in accepts {
                accept.await.unwrap();
            }
        }
        let store: Store = fixture.crashed().store;
        let started = Instant::now();
        drop(store);
        println!("filled; close took {:?}", started.elapsed());
        let started = Instant::now();
        fixture = fixture.reopened().await;
        println!("close and open took {:?}", started.elapsed());
        let started = Instant::now();
        let found = fixture.crashed();
        println!("copy and open took {:?}", started.elapsed());
        drop(found);
    }
    let threads = ["store-writer", "store-log"];
    let before = threads.map(cpu);
    let started = Instant::now();
    pipeline(&fixture, "new", tasks, events).await;
    let elapsed = started.elapsed();
    println!(
        "{events} events of {tasks} tasks in {elapsed:.2?}: {:.0} events/s",
        events as f64 / elapsed.as_secs_f64()
    );
    for (thread, before) in threads.into_iter().zip(before) {
        println!("{thread}: {:.2} µs CPU an event", (cpu(thread) - before) as f64 / 1000.0 / events as f64);
    }
    let stats = fixture.store.stats().await.unwrap();
    println!(
        "store {} MiB, log {} MiB",
        stats.store_bytes.unwrap_or(0) >> 20,
        stats.wal_bytes.unwrap_or(0) >> 20
    );
}
