//! Many replays at once: they wait for their turn, and events accepted meanwhile do not wait for them.

use posthouse_model::{DeliveryState, OrderBy, Orders, PluginId};

use super::support::*;

use crate::{DeliveryFilter, Verdict, conformance::InjectedFailure};

/// How many replays wait. The engine in memory looks at all of them in each batch.
fn many(on: On) -> usize {
    if on == On::Sqlite { 1500 } else { 800 }
}

fn dead() -> DeliveryFilter {
    DeliveryFilter { state: Some(DeliveryState::Dead), ..DeliveryFilter::default() }
}

/// A store with so many dead letters, of a plugin that has no lane now.
async fn fixture(on: On) -> (Fixture, PluginId) {
    let many = many(on);
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 64).await.unwrap();
    for n in 0..many {
        fixture.accept(n, &[plugin]).await;
        fixture.finish(next(&mut lane).await, Verdict::Dead).await;
    }
    lane.close().await;
    (fixture, plugin)
}

async fn replay(fixture: &Fixture, orders: Orders) {
    let many = many(fixture.on);
    assert_eq!(fixture.store.replay_deliveries(dead(), orders).await.unwrap(), many as u64);
}

async fn waiting(fixture: &Fixture) -> u64 {
    fixture.store.stats().await.unwrap().replays_waiting
}

pub(super) async fn what_is_taken_in_runs_after_a_few_of_them_and_none_is_forgotten(on: On) {
    let many = many(on);
    let (fixture, plugin) = fixture(on).await;
    let mut lane = fixture.store.open_lane(plugin, 1024).await.unwrap();
    replay(&fixture, Orders::new()).await;
    assert!(waiting(&fixture).await >= many as u64 - 200, "a few are ready");
    let mut done = 0;
    for live in 0..5 {
        fixture.accept(format!("live_{live}"), &[plugin]).await;
        let mut before = 0;
        loop {
            let job = next(&mut lane).await;
            let is_live = job.event.content.id.as_str() == format!("live_{live}");
            fixture.done(job, effects(&[])).await;
            done += 1;
            if is_live {
                break;
            }
            before += 1;
        }
        assert!(before < 200, "{before} replays came before event {live}");
    }
    assert!(waiting(&fixture).await > 0);
    fixture.assert_sum_is(2 * many as u64 + 5).await;

    // Deferred deliveries are still deferred after a restart; leased ones run again.
    drop(lane);
    let fixture = fixture.reopened().await;
    let mut lane = fixture.store.open_lane(plugin, 1024).await.unwrap();
    while done < many + 5 {
        fixture.finish(next(&mut lane).await, Verdict::Done(effects(&[]))).await;
        done += 1;
    }
    fixture.store.flush().await.unwrap();
    assert_quiet(&mut lane).await;
    let stats = fixture.store.stats().await.unwrap();
    assert_eq!((stats.replays_waiting, stats.states[&DeliveryState::Done]), (0, many as u64 + 5));
    fixture.assert_sum_is(2 * many as u64 + 5).await;
}

pub(super) async fn a_batch_that_fails_loses_no_turn(on: On) {
    let many = many(on);
    let (fixture, plugin) = fixture(on).await;
    replay(&fixture, Orders::new()).await;
    let mut lane = fixture.store.open_lane(plugin, 1024).await.unwrap();
    for n in 0..many {
        if n % 100 == 7 {
            fixture.store.inject(InjectedFailure::DiskFull);
        }
        fixture.finish(next(&mut lane).await, Verdict::Done(effects(&[]))).await;
    }
    while fixture.store.flush().await.is_err() {}
    assert_eq!(
        (waiting(&fixture).await, fixture.store.states().await.unwrap()[&DeliveryState::Done]),
        (0, many as u64)
    );
}

pub(super) async fn with_one_order_for_all_they_keep_to_it_and_the_others_follow(on: On) {
    let many = many(on);
    let (fixture, plugin) = fixture(on).await;
    let orders: Orders = [(plugin, OrderBy::new("organization").unwrap())].into();
    replay(&fixture, orders.clone()).await;
    // It has the key of all of them.
    let event = fixture.event("last");
    let order_key = orders[&plugin].key(&event);
    let subscriber = posthouse_model::Subscriber { order_key, ..plugin.into() };
    fixture.store.accept(event, [subscriber]).await.unwrap();
    let mut lane = fixture.store.open_lane(plugin, 1024).await.unwrap();
    for n in 0..many {
        let job = next(&mut lane).await;
        assert_eq!(job.event.content.id.as_str(), n.to_string());
        fixture.done(job, effects(&[])).await;
    }
    assert_eq!(next(&mut lane).await.event.content.id.as_str(), "last");
}

pub(super) async fn a_plugin_that_is_forgotten_leaves_none_of_them_behind(on: On) {
    let many = many(on);
    let (fixture, plugin) = fixture(on).await;
    replay(&fixture, Orders::new()).await;
    fixture.store.forget_plugin(plugin).await.unwrap();
    assert_eq!(waiting(&fixture).await, 0);
    assert_eq!(fixture.store.states().await.unwrap()[&DeliveryState::Dead], 2 * many as u64);
}

impl Fixture {
    /// So many deliveries were made, and each is in a state.
    async fn assert_sum_is(&self, made: u64) {
        let stats = self.store.stats().await.unwrap();
        assert_eq!((stats.made, stats.states.values().sum::<u64>()), (made, made), "{stats:?}");
    }
}
