//! An operator's pages and searches over a large store, while events arrive.
//!
//! The time of a page is counted to its last byte, so it is an upper bound for its first byte. The cost of
//! searches for senders is measured twice: as the rate of accepted events while searches run one after
//! another, and as the time of an answer at 1,000 events a second.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use posthouse_harness::Daemon;

use super::{
    latency::{at_rate, percentiles},
    rate::{pid, with_plugins},
    size::{Fill, fill},
};
use crate::{
    bench::Bench,
    noop,
    table::{Row, median, thousands},
};

/// Events a second that arrive while pages are loaded.
const INCOMING: f64 = 1000.0;

/// How often each page is loaded.
const TIMES: usize = 20;

/// The pages of the dashboard.
const PAGES: [(&str, &str); 12] = [
    ("overview", "/"),
    ("overview of a day", "/?window=24h"),
    ("events", "/events"),
    ("one event", "/events/scalekit/evt_fill_000000500000"),
    ("deliveries", "/deliveries"),
    ("dead letters", "/dead-letters"),
    ("replay, counted first", "/replay"),
    ("outbox", "/outbox"),
    ("plugins", "/plugins"),
    ("one plugin", "/plugins/kv-bench"),
    ("sources", "/sources"),
    ("audit log", "/audit"),
];

/// Searches for rare things, which must look far back.
const SEARCHES: [(&str, &str); 7] = [
    ("a text that is nowhere", "/events?text=nobody%40nowhere.example"),
    ("a text of the oldest event", "/events?text=user0%40example.com"),
    ("an organization without events", "/events?organization=org_of_nobody"),
    ("a type without events", "/events?type=no.such"),
    ("an id", "/events?id=evt_fill_000000000007"),
    ("a time before all", "/events?until=2020-01-01T00%3A00%3A00Z"),
    ("deliveries of a state that is nowhere", "/deliveries?state=leased"),
];

pub(crate) fn measure(bench: &mut Bench) {
    let (finished, dead) = (bench.arguments.finished, bench.arguments.dead);
    let mut daemon = with_plugins(bench.daemon(), 1).start();
    daemon.stop();
    let filled = Fill { finished, dead, waiting: 0 };
    fill(&daemon.dir().join("data/posthouse.db"), &filled);
    daemon.start();
    let holding = format!("{} events in the store", thousands(finished + dead));

    let [noop_first, pages, searches] = under_load(bench, &daemon);
    for (what, all, best) in [("page", &pages, PAGES.len()), ("search", &searches, SEARCHES.len())] {
        assert_eq!(all.len(), best, "each was asked for");
        for (name, times) in all {
            bench.add(row(&format!("{what}: {name}"), times, &noop_first[0].1, &holding));
        }
    }
    daemon.wait_settled();
    accepting(bench, &daemon, &holding);
}

/// The requests, with the time of each answer, in ms, ascending.
type Times = Vec<(&'static str, Vec<f64>)>;

/// Loads all pages again and again while events arrive.
fn under_load(bench: &Bench, daemon: &Daemon) -> [Times; 3] {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let incoming = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                at_rate(bench, daemon.address(), INCOMING);
            }
        });
        let noop = format!("http://{}{}", bench.noop.address, crate::bench::PATH);
        let plain = vec![(
            "no-op",
            timed(|| {
                let answer = ureq::post(&noop).send("{}");
                assert!(answer.is_ok(), "the no-op answers: {answer:?}");
            }),
        )];
        let ask = |(name, path): (&'static str, &str)| {
            let times = timed(|| {
                let answer = daemon.admin("GET", path, None);
                assert_eq!(answer.status, 200, "GET {path}: {answer}");
            });
            (name, times)
        };
        let answers = [plain, PAGES.map(ask).into(), SEARCHES.map(ask).into()];
        over.store(true, Ordering::Relaxed);
        incoming.join().expect("a load that is taken");
        answers
    })
}

fn timed(ask: impl Fn()) -> Vec<f64> {
    let once = || {
        let began = Instant::now();
        ask();
        began.elapsed().as_secs_f64() * 1000.0
    };
    let mut times: Vec<_> = (0..TIMES).map(|_| once()).collect();
    times.sort_unstable_by(f64::total_cmp);
    times
}

fn row(name: &str, times: &[f64], noop: &[f64], note: &str) -> Row {
    let (usual, longest) = (median(times, |time| *time), times[times.len() - 1]);
    let noop = median(noop, |time| *time);
    Row {
        name: name.into(),
        value: format!("{usual:.1} ms (longest of {TIMES}: {longest:.1})"),
        noop: format!("{noop:.1} ms"),
        ratio: Some(usual / noop),
        note: format!("{note}, {}/s coming in", thousands(INCOMING as u64)),
        ..Row::default()
    }
}

/// The cost of searches for senders.
fn accepting(bench: &mut Bench, daemon: &Daemon, holding: &str) {
    let (mut quiet, mut searched) = (Vec::new(), Vec::new());
    let (mut quiet_p99, mut searched_p99) = (Vec::new(), Vec::new());
    for round in 0..=bench.arguments.rounds {
        let rate = || bench.round(daemon.address(), pid(daemon), noop::ANSWER).rate;
        let p99 = || percentiles(&at_rate(bench, daemon.address(), INCOMING));
        let one = [rate(), while_searching(daemon, rate)];
        daemon.wait_settled();
        // Meanwhile SQLite checkpoints what was written at full speed; that belongs to neither measurement.
        let _folding = p99();
        let other = [p99(), while_searching(daemon, p99)];
        eprintln!("   round {round}: {one:.0?}/s, {other:.2?} ms (p50, p99, p99.9), quiet and searched");
        // The first round only warms up.
        if round > 0 {
            quiet.push(one[0]);
            searched.push(one[1]);
            quiet_p99.push(other[0]);
            searched_p99.push(other[1]);
        }
    }
    let (quiet, searched) = (median(&quiet, |rate| *rate), median(&searched, |rate| *rate));
    bench.add(Row {
        name: "accept, searches beside it".into(),
        value: format!("{}/s", thousands(searched as u64)),
        noop: format!("{}/s", thousands(quiet as u64)),
        ratio: Some(searched / quiet),
        note: format!("beside the same without searches, not the no-op; one plugin; {holding}"),
        ..Row::default()
    });
    let middle = |of: &[[f64; 3]]| median(of, |times| times[1]);
    let (quiet, searched) = (middle(&quiet_p99), middle(&searched_p99));
    let shown = |[p50, p99, _]: [f64; 3]| format!("{p99:.2} ms (p50 {p50:.2})");
    bench.add(Row {
        name: "p99 of the answer, searches beside it".into(),
        value: shown(searched),
        noop: shown(quiet),
        ratio: Some(searched[1] / quiet[1]),
        note: format!(
            "at {}/s, beside the same without searches; p50 {:.2} of it",
            thousands(INCOMING as u64),
            searched[0] / quiet[0]
        ),
        ..Row::default()
    });
}

/// Does the work while searches run, one after another.
fn while_searching<T>(daemon: &Daemon, work: impl FnOnce() -> T) -> T {
    let over = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        let searching = scope.spawn(|| {
            let mut searches = 0;
            while !over.load(Ordering::Relaxed) {
                assert_eq!(daemon.admin("GET", SEARCHES[0].1, None).status, 200, "a search");
                searches += 1;
            }
            searches
        });
        // Gives the first search time to begin before anything is measured.
        thread::sleep(Duration::from_millis(50));
        let result = work();
        over.store(true, Ordering::Relaxed);
        assert!(searching.join().expect("searches that are answered") > 0, "something was searched");
        result
    })
}
