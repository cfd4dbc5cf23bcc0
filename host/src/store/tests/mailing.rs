//! The outbox: an item is there if its attempt committed, and until it is sent or given up.

use std::time::Duration;

use super::support::*;
use crate::{
    model::Effects,
    store::{OutboxFilter, OutboxJob, OutboxResult, Verdict},
};

async fn with_mail(house: &House) -> OutboxJob {
    let plugin = house.plugin("a").await;
    let mut lane = house.store.open_lane(plugin, 8).await.unwrap();
    house.accept("a", &[plugin]).await;
    let job = next(&mut lane).await;
    house.done(job, Effects { outbox: vec![mail("hello")], ..Effects::default() }).await;
    leased(house).await
}

async fn leased(house: &House) -> OutboxJob {
    let items = tokio::time::timeout(PATIENCE, house.store.lease_outbox(8)).await;
    items.expect("an item must come").unwrap().remove(0)
}

async fn states(house: &House) -> Vec<String> {
    let filter = OutboxFilter { limit: 10, ..OutboxFilter::default() };
    house.store.outbox(filter).await.unwrap().into_iter().map(|item| item.state).collect()
}

#[tokio::test]
async fn an_item_that_was_on_its_way_in_a_crash_goes_again() {
    let house = House::new();
    let first = with_mail(&house).await;
    let found = house.crashed();
    let again = leased(&found).await;
    assert_eq!((first.id, first.item), (again.id, again.item));
    found.store.complete_outbox(again.id, OutboxResult::Sent).await.unwrap();
    assert_eq!(states(&found).await, ["sent"]);
}

#[tokio::test]
async fn an_item_that_failed_waits_and_one_given_up_can_be_sent_again() {
    let house = House::new();
    let item = with_mail(&house).await;
    let due = house.now() + Duration::from_secs(60);
    let retry = OutboxResult::Retry { due, error: "busy".to_owned() };
    house.store.complete_outbox(item.id, retry).await.unwrap();
    assert!(tokio::time::timeout(MOMENT, house.store.lease_outbox(8)).await.is_err(), "it is not due");
    house.clock.advance(Duration::from_secs(61));
    let item = leased(&house).await;
    assert_eq!(item.attempt, 2);
    house
        .store
        .complete_outbox(item.id, OutboxResult::Dead { error: "no such box".to_owned() })
        .await
        .unwrap();
    assert_eq!(states(&house).await, ["dead"]);
    assert_eq!(house.store.replay_outbox(vec![item.id]).await.unwrap(), 1);
    assert_eq!(leased(&house).await.item, item.item);
}

#[tokio::test]
async fn an_attempt_that_failed_leaves_nothing_in_the_outbox() {
    let house = House::new();
    let plugin = house.plugin("a").await;
    let mut lane = house.store.open_lane(plugin, 8).await.unwrap();
    house.accept("a", &[plugin]).await;
    house.finish(next(&mut lane).await, Verdict::Dead).await;
    house.store.flush().await.unwrap();
    assert!(states(&house).await.is_empty());
}
