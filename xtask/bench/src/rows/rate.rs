//! The number of events a second: verified, stored, and handled to the last commit.

use std::{
    thread,
    time::{Duration, Instant},
};

use posthouse_harness::{Builder, Daemon, Source, guest};

use crate::{
    bench::{Bench, Round},
    noop,
};

/// The guest that reads and writes a key for each event.
pub(crate) const KV_GUEST: &str = "kv-bench";

/// How long deliveries may run after the last request of a round.
const LONGEST_REST: Duration = Duration::from_secs(300);

/// Measures signature and envelope only: the source does not accept the type, so nothing is stored.
pub(crate) fn verify(bench: &mut Bench) {
    let source = Source::new("scalekit").line(r#"events = ["nothing.wanted"]"#);
    let daemon = bench.daemon_with(source).start();
    let both = bench
        .in_turns(|| bench.round(daemon.address(), pid(&daemon), r#"{"received":true,"filtered":true}"#));
    bench.add(Bench::rate_row("verify only", both, "signature and envelope, nothing stored"));
}

/// Measures to the answer, which is sent when the event is on disk. There is no plugin.
pub(crate) fn accept(bench: &mut Bench) {
    let daemon = bench.daemon().start();
    let both = bench.in_turns(|| bench.round(daemon.address(), pid(&daemon), noop::ANSWER));
    bench.add(Bench::rate_row("durable accept", both, "on disk before the answer, no plugin"));
}

/// Measures from the first request to the last commit, with this many subscribed plugins.
pub(crate) fn plugins(bench: &mut Bench, count: usize) {
    let daemon = with_plugins(bench.daemon(), count).start();
    let both = bench.in_turns(|| round_to_last_commit(bench, &daemon, count as u64));
    let (name, made) = match count {
        1 => ("accept, one plugin".to_owned(), "a delivery".to_owned()),
        _ => (format!("accept, {count} plugins"), format!("{count} deliveries")),
    };
    let note = format!("events to the last commit; {made} an event, each with a key written");
    bench.add(Bench::rate_row(&name, both, &note));
}

/// Installs the same guest under this many names.
pub(crate) fn with_plugins(builder: Builder, count: usize) -> Builder {
    let bytes = guest(KV_GUEST);
    (0..count).fold(builder, |builder, number| builder.plugin(&plugin_name(number), bytes.clone()))
}

/// The name of the n-th copy.
pub(crate) fn plugin_name(number: usize) -> String {
    if number == 0 { KV_GUEST.to_owned() } else { format!("{KV_GUEST}-{number}") }
}

/// A round that ends when every delivery that it created is done.
pub(crate) fn round_to_last_commit(bench: &Bench, daemon: &Daemon, deliveries_an_event: u64) -> Round {
    let before = daemon.deliveries_in("done");
    bench.round_until(daemon.address(), pid(daemon), noop::ANSWER, |events| {
        let wanted = before + events * deliveries_an_event;
        let began = Instant::now();
        while daemon.deliveries_in("done") < wanted {
            assert!(began.elapsed() < LONGEST_REST, "{} of {wanted} are done", daemon.deliveries_in("done"));
            thread::sleep(Duration::from_millis(10));
        }
    })
}

/// The id of the daemon's process.
pub(crate) fn pid(daemon: &Daemon) -> u32 {
    daemon.pid().as_raw_nonzero().get() as u32
}
