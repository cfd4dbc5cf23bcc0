//! The time of an answer at half the highest rate, in an open loop.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::rate::{pid, round_to_last_commit, with_plugins};
use crate::{
    bench::{Bench, PATH, all_good},
    load::{self, Seen},
    noop,
    requests::Batch,
    table::{Row, median, thousands},
};

pub(crate) fn measure(bench: &mut Bench) {
    for plugins in [0, 1] {
        let daemon = with_plugins(bench.daemon(), plugins).start();
        let round = || match plugins {
            0 => bench.round(daemon.address(), pid(&daemon), noop::ANSWER),
            _ => round_to_last_commit(bench, &daemon, 1),
        };
        // The first round only warms up.
        let highest = [round(), round()][1].rate;
        let rate = highest / 2.0;
        let (mut noops, mut subjects) = (Vec::new(), Vec::new());
        for _ in 0..bench.arguments.rounds {
            noops.push(percentiles(&at_rate(bench, bench.noop.address, rate)));
            subjects.push(percentiles(&at_rate(bench, daemon.address(), rate)));
            daemon.wait_settled();
        }
        let (noop, subject) = (median(&noops, |times| times[1]), median(&subjects, |times| times[1]));
        let shown = |[half, most, nearly_all]: [f64; 3]| {
            format!("{most:.2} ms (p50 {half:.2}, p99.9 {nearly_all:.2})")
        };
        let what = if plugins == 0 { "no plugin" } else { "one plugin" };
        bench.add(Row {
            name: format!("p99 of the answer, {what}"),
            value: shown(subject),
            noop: shown(noop),
            ratio: Some(subject[1] / noop[1]),
            note: format!(
                "open loop at half the highest rate, {}/s, each answer counted from when it was due",
                thousands(rate as u64)
            ),
            ..Row::default()
        });
    }
}

pub(super) fn at_rate(bench: &Bench, address: SocketAddr, rate: f64) -> Seen {
    let lasting = Duration::from_secs_f64(bench.arguments.seconds);
    let batch = Arc::new(Batch::sign(PATH, (rate * lasting.as_secs_f64()) as usize + 1));
    all_good(load::open(address, &batch, lasting, rate, noop::ANSWER))
}

/// p50, p99 and p99.9, in ms.
pub(super) fn percentiles(seen: &Seen) -> [f64; 3] {
    [0.5, 0.99, 0.999].map(|share| f64::from(seen.percentile(share)) / 1000.0)
}
