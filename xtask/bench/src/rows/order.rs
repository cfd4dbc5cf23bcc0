//! `order_by`: its cost if nothing waits, and its cost for other deliveries if 100,000 deliveries wait behind
//! a stuck one.

use std::{path::Path, time::Duration};

use posthouse::daemon::env;
use posthouse_harness::Daemon;
use posthouse_model::{Attempt, OrderKey, Outcome, Subscriber};
use posthouse_store::Verdict;
use tokio::task::JoinSet;

use super::{
    rate::{KV_GUEST, round_to_last_commit, with_plugins},
    size::{event, store},
};
use crate::{
    bench::{Bench, Round},
    table::{median, per_second, thousands},
};

/// Deliveries behind the stuck one.
const BEHIND: u64 = 100_000;

/// Each event has its own key. That costs one more index lookup when it is stored, and one when it is done.
const ORDER: &str = "[plugin.kv-bench]\norder_by = \"/id\"";

pub(crate) fn measure(bench: &mut Bench) {
    let without = with_plugins(bench.daemon(), 1).start();
    let free = with_plugins(bench.daemon(), 1).toml(ORDER).start();
    let mut stuck = with_plugins(bench.daemon(), 1).toml(ORDER).start();
    stuck.stop();
    fill(&stuck.dir().join("data/posthouse.db"));
    stuck.start();
    assert_eq!(stuck.deliveries_in("waiting"), BEHIND + 1, "the store is filled");

    // All four alternate, after one round of each that does not count.
    let (mut noops, mut rounds) = (Vec::new(), [Vec::new(), Vec::new(), Vec::new()]);
    for round in 0..=bench.arguments.rounds {
        let noop = bench.noop_round();
        let each = [&without, &free, &stuck].map(|daemon: &Daemon| round_to_last_commit(bench, daemon, 1));
        eprintln!("   round {round}: {:?}", each.map(|round| per_second(round.rate)));
        if round > 0 {
            noops.push(noop);
            rounds.iter_mut().zip(each).for_each(|(rounds, round)| rounds.push(round));
        }
    }
    assert_eq!(stuck.deliveries_in("waiting"), BEHIND + 1, "nothing of the stuck key has run");
    let middle = |rounds: &[Round]| median(rounds, |round| round.rate);
    let (noop, [without, free, stuck]) = (middle(&noops), rounds.map(|rounds| middle(&rounds)));
    let of_without = |round: Round| format!("{:.2} of the rate without order_by", round.rate / without.rate);
    let note = format!("each event has its own key; {}", of_without(free));
    bench.add(Bench::rate_row("accept, one plugin, order_by", (noop, free), &note));
    let note = format!("the rate of other keys; {}", of_without(stuck));
    let name = format!("order_by, {} behind a stuck key", thousands(BEHIND));
    bench.add(Bench::rate_row(&name, (noop, stuck), &note));
}

/// Fills a store through its own handle, while no daemon has it.
fn fill(path: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let env = env();
        let store = store(path, 2 * BEHIND, &env);
        let plugin = store.plugin_id(KV_GUEST).await.expect("a plugin's id");
        let mut lane = store.open_lane(plugin, 1).await.expect("a lane");
        let subscriber = Subscriber { order_key: OrderKey::new("stuck"), ..plugin.into() };
        let first = event(0, env.now());
        store.accept(first, [subscriber.clone()]).await.expect("an event that is taken");
        let job = lane.next().await.expect("a delivery");
        let attempt = Attempt {
            number: job.attempt,
            started_at: env.now(),
            duration: Duration::from_micros(50),
            outcome: Outcome::Retry,
            error: Some("the other side is busy".to_owned()),
            trace: None,
            logs: Vec::new(),
            actions: None,
            revision: None,
        };
        let verdict = Verdict::Retry(env.now() + Duration::from_hours(24));
        store.complete(job, attempt, verdict).await.expect("a delivery that waits");
        let mut tasks = JoinSet::new();
        for part in 0..500 {
            let (store, env, subscriber) = (store.clone(), env.clone(), subscriber.clone());
            tasks.spawn(async move {
                for number in (part + 1..=BEHIND).step_by(500) {
                    let event = event(number, env.now());
                    store.accept(event, [subscriber.clone()]).await.expect("an event that is taken");
                }
            });
        }
        tasks.join_all().await;
        lane.close().await;
        store.close().await.expect("a store that closes");
    });
}
