//! The cost of a guest's fetch, compared with the same request by the daemon's HTTP client.
//!
//! Both post to the no-op on a kept connection, one request after another. So the difference is the cost of
//! the grant, its checks and the way through the guest.

use std::time::Instant;

use posthouse_harness::{Daemon, Event};
use serde_json::json;

use super::rate::pid;
use crate::{
    bench::{Bench, PATH},
    process::Cpu,
    table::{Row, median},
};

/// Fetches in one attempt, the default limit.
const FETCHES: u32 = 100;
/// Attempts in one round.
const ATTEMPTS: u32 = 10;
const GUEST: &str = "http-probe";

pub(crate) fn measure(bench: &mut Bench) {
    let origin = format!("http://{}", bench.noop.address);
    let url = format!("{origin}{PATH}");
    let grant = format!("[plugin.{GUEST}.grants]\nhttp = [{origin:?}]");
    let daemon = bench.daemon().guest(GUEST).toml(&grant).start();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    // The client needs a provider, though nothing here is encrypted. An error means that there is one
    // already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let (mut bare, mut fetches) = (Vec::new(), Vec::new());
    for round in 0..=bench.arguments.rounds {
        // Runs on a thread of the runtime, like a guest's fetch. The thread that waits here would be woken
        // each time.
        let plain = runtime.block_on(runtime.spawn(plainly(client.clone(), url.clone())));
        let plain = plain.expect("a round that ends");
        let (micros, cpu) = by_guest(&daemon, &url);
        eprintln!("   round {round}: bare client {plain:.0} µs, fetch {micros:.0} µs");
        if round > 0 {
            bare.push(plain);
            fetches.push((micros, cpu));
        }
    }
    let (plain, (micros, cpu)) = (median(&bare, |time| *time), median(&fetches, |(time, _)| *time));
    bench.add(Row {
        name: "fetch".into(),
        value: format!("{micros:.0} µs"),
        subject_cpu: Some(cpu),
        note: format!(
            "one after another, from the no-op, on a kept connection; {plain:.0} µs by the same client \
             without a guest, so {:.0} µs are the way through it; {:.2} of its rate",
            micros - plain,
            plain / micros
        ),
        ..Row::default()
    });
}

/// The time per request, in µs.
async fn plainly(client: reqwest::Client, url: String) -> f64 {
    let requests = FETCHES * ATTEMPTS;
    let began = Instant::now();
    for _ in 0..requests {
        let response = client.post(&url).body("{}").send().await.expect("an answer");
        assert!(response.status().is_success());
        response.bytes().await.expect("a body");
    }
    began.elapsed().as_secs_f64() * 1e6 / f64::from(requests)
}

/// The time per fetch within an attempt, and the daemon's CPU time, both in µs.
fn by_guest(daemon: &Daemon, url: &str) -> (f64, f64) {
    let before = Cpu::of(pid(daemon));
    let request = json!({ "method": "POST", "url": url, "body": "{}" });
    let micros: f64 = (0..ATTEMPTS)
        .map(|_| {
            let event = Event::new("user.created").data(json!({ "requests": [request], "times": FETCHES }));
            assert!(daemon.post_event(&event).accepted());
            daemon.wait_settled();
            let delivery = &daemon.event(&event.id)["history"][0];
            assert_eq!(delivery["state"], json!("done"), "{delivery}");
            delivery["attempt_log"][0]["duration_us"].as_f64().expect("how long it took")
        })
        .sum();
    let requests = u64::from(FETCHES * ATTEMPTS);
    (micros / requests as f64, (Cpu::of(pid(daemon)) - before).micros_each(requests))
}
