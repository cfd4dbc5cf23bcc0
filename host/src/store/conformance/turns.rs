//! Many replays at once: they wait for their turn, and what is taken in meanwhile does not wait for them.

use super::support::*;
use crate::{
    model::{DeliveryState, OrderBy, Orders, PluginId},
    store::{DeliveryFilter, Verdict, conformance::Fault},
};

/// How many replays wait. The engine in memory looks at all of them in each batch.
fn many(on: On) -> usize {
    if on == On::Sqlite { 1500 } else { 800 }
}

fn dead() -> DeliveryFilter {
    DeliveryFilter { state: Some(DeliveryState::Dead), ..DeliveryFilter::default() }
}

/// A store with so many dead letters, of a plugin that has no lane now.
async fn house(on: On) -> (House, PluginId) {
    let many = many(on);
    let house = House::new(on);
    let plugin = house.plugin("a").await;
    let mut lane = house.store.open_lane(plugin, 64).await.unwrap();
    for n in 0..many {
        house.accept(n, &[plugin]).await;
        house.finish(next(&mut lane).await, Verdict::Dead).await;
    }
    lane.close().await;
    (house, plugin)
}

async fn replay(house: &House, orders: Orders) {
    let many = many(house.on);
    assert_eq!(house.store.replay_deliveries(dead(), orders).await.unwrap(), many as u64);
}

async fn waiting(house: &House) -> u64 {
    house.store.stats().await.unwrap().replays_waiting
}

pub(super) async fn what_is_taken_in_runs_after_a_few_of_them_and_none_is_forgotten(on: On) {
    let many = many(on);
    let (house, plugin) = house(on).await;
    let mut lane = house.store.open_lane(plugin, 1024).await.unwrap();
    replay(&house, Orders::new()).await;
    assert!(waiting(&house).await >= many as u64 - 200, "a few are ready");
    let mut done = 0;
    for live in 0..5 {
        house.accept(format!("live_{live}"), &[plugin]).await;
        let mut before = 0;
        loop {
            let job = next(&mut lane).await;
            let is_live = job.event.content.id.as_str() == format!("live_{live}");
            house.done(job, effects(&[])).await;
            done += 1;
            if is_live {
                break;
            }
            before += 1;
        }
        assert!(before < 200, "{before} replays came before event {live}");
    }
    assert!(waiting(&house).await > 0);
    house.assert_sum_is(2 * many as u64 + 5).await;

    // What waits for its turn waits on after a restart; what had been leased runs again.
    drop(lane);
    let house = house.reopened().await;
    let mut lane = house.store.open_lane(plugin, 1024).await.unwrap();
    while done < many + 5 {
        house.finish(next(&mut lane).await, Verdict::Done(effects(&[]))).await;
        done += 1;
    }
    house.store.flush().await.unwrap();
    assert_quiet(&mut lane).await;
    let stats = house.store.stats().await.unwrap();
    assert_eq!((stats.replays_waiting, stats.states[&DeliveryState::Done]), (0, many as u64 + 5));
    house.assert_sum_is(2 * many as u64 + 5).await;
}

pub(super) async fn a_batch_that_fails_loses_no_turn(on: On) {
    let many = many(on);
    let (house, plugin) = house(on).await;
    replay(&house, Orders::new()).await;
    let mut lane = house.store.open_lane(plugin, 1024).await.unwrap();
    for n in 0..many {
        if n % 100 == 7 {
            house.store.inject(Fault::DiskFull);
        }
        house.finish(next(&mut lane).await, Verdict::Done(effects(&[]))).await;
    }
    while house.store.flush().await.is_err() {}
    assert_eq!(
        (waiting(&house).await, house.store.states().await.unwrap()[&DeliveryState::Done]),
        (0, many as u64)
    );
}

pub(super) async fn with_one_order_for_all_they_keep_to_it_and_the_others_follow(on: On) {
    let many = many(on);
    let (house, plugin) = house(on).await;
    let orders: Orders = [(plugin, OrderBy::new("organization").unwrap())].into();
    replay(&house, orders.clone()).await;
    // It has the key of all of them.
    let event = house.event("last");
    let order_key = orders[&plugin].key(&event);
    let subscriber = crate::model::Subscriber { order_key, ..plugin.into() };
    house.store.accept(event, [subscriber]).await.unwrap();
    let mut lane = house.store.open_lane(plugin, 1024).await.unwrap();
    for n in 0..many {
        let job = next(&mut lane).await;
        assert_eq!(job.event.content.id.as_str(), n.to_string());
        house.done(job, effects(&[])).await;
    }
    assert_eq!(next(&mut lane).await.event.content.id.as_str(), "last");
}

pub(super) async fn a_plugin_that_is_forgotten_leaves_none_of_them_behind(on: On) {
    let many = many(on);
    let (house, plugin) = house(on).await;
    replay(&house, Orders::new()).await;
    house.store.forget_plugin(plugin).await.unwrap();
    assert_eq!(waiting(&house).await, 0);
    assert_eq!(house.store.states().await.unwrap()[&DeliveryState::Dead], 2 * many as u64);
}

impl House {
    /// So many deliveries were made, and each is in a state.
    async fn assert_sum_is(&self, made: u64) {
        let stats = self.store.stats().await.unwrap();
        assert_eq!((stats.made, stats.states.values().sum::<u64>()), (made, made), "{stats:?}");
    }
}
