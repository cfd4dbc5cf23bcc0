//! Opening a store: one daemon at a time, never one of a later version, and no lease outlives its run.

use super::support::*;
use crate::store::OpenError;

#[tokio::test]
async fn a_store_is_one_daemons_until_it_closes() {
    let house = House::new();
    assert!(matches!(house.reopen(), Err(OpenError::Locked(_))));
    house.store.close().await.unwrap();
    assert!(house.reopen().is_ok());
}

#[tokio::test]
async fn what_was_leased_in_an_earlier_run_runs_again_and_its_attempt_was_not_counted() {
    let house = House::new();
    let plugin = house.plugin("a").await;
    let mut lane = house.store.open_lane(plugin, 8).await.unwrap();
    house.accept("a", &[plugin]).await;
    let before = next(&mut lane).await;
    let found = house.crashed();
    assert_eq!(found.states().await, ["ready"]);
    let mut lane = found.store.open_lane(plugin, 8).await.unwrap();
    let after = next(&mut lane).await;
    assert_eq!((before.delivery, before.attempt), (after.delivery, after.attempt));
}
