//! A replay is a new delivery, linked to the one it repeats, and each dead letter is replayed once.

use super::support::*;
use crate::{
    model::DeliveryState,
    store::{DeliveryFilter, Verdict},
};

#[tokio::test]
async fn dead_letters_are_replayed_once_each_and_linked() {
    let house = House::new();
    let plugin = house.plugin("a").await;
    let mut lane = house.store.open_lane(plugin, 8).await.unwrap();
    for id in ["a", "b"] {
        house.accept(id, &[plugin]).await;
        house.finish(next(&mut lane).await, Verdict::Dead).await;
    }
    house.store.flush().await.unwrap();
    let dead = DeliveryFilter { state: Some(DeliveryState::Dead), limit: 10, ..DeliveryFilter::default() };
    let letters = house.store.deliveries(dead.clone()).await.unwrap();
    assert_eq!(house.store.replay_deliveries(dead.clone()).await.unwrap(), 2);
    assert_eq!(house.store.replay_deliveries(dead).await.unwrap(), 0);
    for _ in 0..2 {
        let job = next(&mut lane).await;
        assert_eq!(job.attempt, 1);
        house.done(job, effects(&[])).await;
    }
    let all =
        house.store.deliveries(DeliveryFilter { limit: 10, ..DeliveryFilter::default() }).await.unwrap();
    let mut linked: Vec<_> = all.iter().filter_map(|delivery| delivery.replay_of).collect();
    let mut replayed: Vec<_> = letters.iter().map(|letter| letter.id).collect();
    linked.sort();
    replayed.sort();
    assert_eq!(linked, replayed);
    house.assert_balanced().await;
}
