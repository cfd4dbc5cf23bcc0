//! Order: deliveries with one key run one at a time, in the order in which they were created, whatever their
//! results; and no other delivery waits for them.

use std::{collections::BTreeMap, time::Duration};

use posthouse_model::{
    DeliveryState, Effects, Job, KvVersion, OrderBy, OrderKey, Orders, PluginId, Subscriber,
};

use super::support::*;

use crate::{Accepted, DeliveryFilter, Lane, Verdict, conformance::InjectedFailure};

fn keyed(plugin: PluginId, key: &str) -> Subscriber {
    Subscriber { order_key: OrderKey::new(key), ..plugin.into() }
}

async fn accept(fixture: &Fixture, id: impl std::fmt::Display, plugin: PluginId, key: &str) {
    let accepted = fixture.store.accept(fixture.event(id), [keyed(plugin, key)]).await.unwrap();
    assert!(matches!(accepted, Accepted::Stored(_)), "{accepted:?}");
}

fn id(job: &Job) -> &str {
    job.event.content.id.as_str()
}

async fn next_is(lane: &mut Lane, expected: &str) -> Job {
    let job = next(lane).await;
    assert_eq!(id(&job), expected);
    job
}

pub(super) async fn one_of_a_key_runs_at_a_time_and_other_keys_beside_it(on: On) {
    let fixture = Fixture::new(on);
    let a = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(a, 16).await.unwrap();
    for n in 0..3 {
        accept(&fixture, format!("x{n}"), a, "x").await;
        accept(&fixture, format!("y{n}"), a, "y").await;
        fixture.accept(format!("free{n}"), &[a]).await;
    }
    let mut running = BTreeMap::new();
    for _ in 0..5 {
        let job = next(&mut lane).await;
        running.insert(id(&job).to_owned(), job);
    }
    assert_quiet(&mut lane).await;
    assert_eq!(running.keys().collect::<Vec<_>>(), ["free0", "free1", "free2", "x0", "y0"]);
    assert_eq!(fixture.states().await.iter().filter(|state| *state == "waiting").count(), 4);
    fixture.assert_balanced().await;

    fixture.done(running.remove("x0").unwrap(), Effects::default()).await;
    let job = next_is(&mut lane, "x1").await;
    assert_quiet(&mut lane).await;
    // A dead one releases the key.
    fixture.finish(job, Verdict::Dead).await;
    let job = next_is(&mut lane, "x2").await;
    fixture.done(job, Effects::default()).await;
    accept(&fixture, "x3", a, "x").await;
    next_is(&mut lane, "x3").await;
    fixture.assert_balanced().await;
}

pub(super) async fn a_retry_a_conflict_and_a_release_hold_back_their_key_alone(on: On) {
    let fixture = Fixture::new(on);
    let (a, b) = (fixture.plugin("a").await, fixture.plugin("b").await);
    let mut lane = fixture.store.open_lane(a, 16).await.unwrap();
    let mut other = fixture.store.open_lane(b, 16).await.unwrap();
    accept(&fixture, "x0", a, "x").await;
    accept(&fixture, "x1", a, "x").await;
    // The same key of another plugin is another key.
    accept(&fixture, "x2", b, "x").await;
    next_is(&mut other, "x2").await;

    let job = next_is(&mut lane, "x0").await;
    fixture.finish(job, Verdict::Done(saw(Effects::default(), "k", Some(KvVersion(7))))).await;
    let job = next_is(&mut lane, "x0").await;
    assert_eq!(job.conflicts, 1);
    fixture.store.release(job).await.unwrap();
    let job = next_is(&mut lane, "x0").await;
    fixture.finish(job, Verdict::Retry(fixture.now() + Duration::from_secs(60))).await;
    accept(&fixture, "y0", a, "y").await;
    let job = next_is(&mut lane, "y0").await;
    fixture.done(job, Effects::default()).await;
    fixture.clock.advance(Duration::from_secs(59));
    accept(&fixture, "x3", a, "x").await;
    assert_quiet(&mut lane).await;
    fixture.assert_balanced().await;

    fixture.clock.advance(Duration::from_secs(1));
    for expected in ["x0", "x1", "x3"] {
        let job = next_is(&mut lane, expected).await;
        assert_quiet(&mut lane).await;
        fixture.done(job, Effects::default()).await;
    }
    fixture.assert_balanced().await;
}

pub(super) async fn the_order_outlives_crashes_and_closed_lanes(on: On) {
    let mut fixture = Fixture::new(on);
    let a = fixture.plugin("a").await;
    for n in 0..6 {
        accept(&fixture, n, a, "x").await;
    }
    for n in 0..6 {
        let mut lane = fixture.store.open_lane(a, 4).await.unwrap();
        let job = next_is(&mut lane, &n.to_string()).await;
        assert_quiet(&mut lane).await;
        match n % 3 {
            // It runs again from the start.
            0 => {
                fixture = fixture.crashed();
                let mut lane = fixture.store.open_lane(a, 4).await.unwrap();
                let job = next_is(&mut lane, &n.to_string()).await;
                fixture.done(job, Effects::default()).await;
            }
            1 => {
                fixture.done(job, Effects::default()).await;
                fixture = fixture.crashed();
            }
            _ => {
                lane.close().await;
                fixture.done(job, Effects::default()).await;
            }
        }
        fixture.assert_balanced().await;
    }
    assert_eq!(fixture.states().await, ["done"; 6]);
}

pub(super) async fn a_batch_that_is_taken_back_lets_the_next_go_once(on: On) {
    let fixture = Fixture::new(on);
    let a = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(a, 4).await.unwrap();
    accept(&fixture, "x0", a, "x").await;
    accept(&fixture, "x1", a, "x").await;
    let job = next_is(&mut lane, "x0").await;
    fixture.store.inject(InjectedFailure::DiskFull);
    fixture.finish(job, Verdict::Done(Effects::default())).await;
    let job = next_is(&mut lane, "x1").await;
    assert_quiet(&mut lane).await;
    fixture.done(job, Effects::default()).await;
    fixture.assert_balanced().await;
}

pub(super) async fn a_clock_that_is_set_back_stops_no_key(on: On) {
    let fixture = Fixture::new(on);
    let a = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(a, 4).await.unwrap();
    accept(&fixture, "x0", a, "x").await;
    accept(&fixture, "x1", a, "x").await;
    let job = next_is(&mut lane, "x0").await;
    fixture.clock.set_back(Duration::from_secs(3600));
    fixture.done(job, Effects::default()).await;
    next_is(&mut lane, "x1").await;
}

pub(super) async fn a_replay_runs_last_of_its_key_and_many_in_the_order_of_the_first(on: On) {
    let fixture = Fixture::new(on);
    let a = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(a, 16).await.unwrap();
    for n in 0..300 {
        accept(&fixture, n, a, "org_1").await;
        let job = next(&mut lane).await;
        fixture.finish(job, Verdict::Dead).await;
    }
    accept(&fixture, "x", a, "org_1").await;
    let running = next_is(&mut lane, "x").await;
    accept(&fixture, "y", a, "org_1").await;
    // The key follows the present order: the events' organization.
    let orders = Orders::from([(a, OrderBy::Organization)]);
    let dead = DeliveryFilter { state: Some(DeliveryState::Dead), ..DeliveryFilter::default() };
    assert_eq!(fixture.store.replay_deliveries(dead, orders.clone()).await.unwrap(), 300);
    let event = fixture.store.event(None, "x").await.unwrap().remove(0);
    fixture.store.replay_event(event.summary.seq, vec![a], orders).await.unwrap();
    assert_quiet(&mut lane).await;
    fixture.done(running, Effects::default()).await;
    let after = ["y".to_owned()].into_iter().chain((0..300).map(|n| n.to_string()));
    for expected in after.chain(["x".to_owned()]) {
        let job = next_is(&mut lane, &expected).await;
        fixture.finish(job, Verdict::Done(Effects::default())).await;
    }
    fixture.assert_balanced().await;

    // Without an order a replay waits for no other delivery.
    accept(&fixture, "z", a, "org_1").await;
    next_is(&mut lane, "z").await;
    fixture.store.replay_event(event.summary.seq, vec![a], Orders::new()).await.unwrap();
    next_is(&mut lane, "x").await;
}

pub(super) async fn a_forgotten_plugin_leaves_nothing_behind_that_nobody_lets_go(on: On) {
    let fixture = Fixture::new(on);
    let a = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(a, 4).await.unwrap();
    for n in 0..1200 {
        accept(&fixture, n, a, if n % 2 == 0 { "x" } else { "y" }).await;
    }
    next_is(&mut lane, "0").await;
    next_is(&mut lane, "1").await;
    fixture.store.forget_plugin(a).await.unwrap();
    let stats = fixture.store.stats().await.unwrap();
    assert_eq!(stats.states[&DeliveryState::Dead], 1200, "{stats:?}");
    accept(&fixture, "again", a, "x").await;
    next_is(&mut lane, "again").await;
}

pub(super) async fn what_waits_for_its_turn_says_so(on: On) {
    let fixture = Fixture::new(on);
    let a = fixture.plugin("a").await;
    accept(&fixture, "x0", a, "x").await;
    accept(&fixture, "x1", a, "x").await;
    fixture.accept("free", &[a]).await;
    let listed = fixture.store.deliveries(DeliveryFilter::default()).await.unwrap();
    let seen: Vec<_> = listed
        .iter()
        .rev()
        .map(|delivery| (delivery.state.as_str(), delivery.blocked_by, delivery.due_at.is_some()))
        .collect();
    let first = listed[2].id;
    assert_eq!(seen, [("ready", None, true), ("waiting", Some(first), false), ("ready", None, true)]);
    let waiting = DeliveryFilter { state: Some(DeliveryState::Waiting), ..DeliveryFilter::default() };
    assert_eq!(fixture.store.deliveries(waiting).await.unwrap().len(), 1);
}

/// In any case: never two of a key at once, and never a later one before an earlier.
pub(super) async fn no_key_runs_out_of_order_whatever_happens(on: On) {
    let random = Seeded::new(seed());
    let mut fixture = Fixture::new(on);
    let a = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(a, 8).await.unwrap();
    let mut running: Vec<Job> = Vec::new();
    let mut made = 0;
    // By key, the last that has finished.
    let mut finished: BTreeMap<u64, u64> = BTreeMap::new();
    let key_of = |n: u64| Seeded::new(n).below(5);
    for _ in 0..1500 {
        match random.below(12) {
            0..=3 if made < 300 => {
                accept(&fixture, made, a, &key_of(made).to_string()).await;
                made += 1;
            }
            4..=9 => {
                if let Ok(Some(job)) = tokio::time::timeout(Duration::from_millis(2), lane.next()).await {
                    let n: u64 = id(&job).parse().unwrap();
                    let same = |other: &&Job| key_of(id(other).parse().unwrap()) == key_of(n);
                    assert!(running.iter().find(same).is_none(), "two of a key at once");
                    let last = finished.get(&key_of(n));
                    assert!(last.is_none_or(|last| *last < n), "{n} after {last:?}");
                    running.push(job);
                }
                if running.len() > 2 {
                    let job = running.swap_remove(random.below(running.len() as u64) as usize);
                    let n: u64 = id(&job).parse().unwrap();
                    match random.below(8) {
                        0 => fixture.store.release(job).await.unwrap(),
                        1 | 2 => {
                            let due = fixture.now() + Duration::from_secs(random.below(20));
                            fixture.finish(job, Verdict::Retry(due)).await;
                        }
                        3 => {
                            let wrong = saw(Effects::default(), "k", Some(KvVersion(-1)));
                            fixture.finish(job, Verdict::Done(wrong)).await;
                        }
                        ends => {
                            let verdict =
                                if ends == 4 { Verdict::Dead } else { Verdict::Done(Effects::default()) };
                            fixture.finish(job, verdict).await;
                            finished.insert(key_of(n), n);
                        }
                    }
                    fixture.store.flush().await.unwrap();
                }
            }
            10 => fixture.clock.advance(Duration::from_secs(random.below(15))),
            11 if random.below(4) == 0 => {
                fixture.store.flush().await.unwrap();
                fixture = fixture.crashed();
                running.clear();
                lane = fixture.store.open_lane(a, 1 + random.below(8) as usize).await.unwrap();
            }
            11 if random.below(3) == 0 => {
                drop(lane);
                lane = fixture.store.open_lane(a, 1 + random.below(8) as usize).await.unwrap();
            }
            _ => {}
        }
    }
    fixture.assert_balanced().await;
    // Nothing is stuck: the remaining deliveries finish.
    for job in running {
        fixture.finish(job, Verdict::Dead).await;
    }
    fixture.clock.advance(Duration::from_secs(60));
    loop {
        fixture.store.flush().await.unwrap();
        let stats = fixture.store.stats().await.unwrap();
        if stats.states[&DeliveryState::Done] + stats.states[&DeliveryState::Dead] == made {
            break;
        }
        let job = next(&mut lane).await;
        fixture.finish(job, Verdict::Done(Effects::default())).await;
    }
    fixture.assert_balanced().await;
}
