//! Failing: a full disk fails what it must and is outlived; a write that leaves the disk in doubt stops
//! the store.

use super::support::*;
use crate::{
    model::OutboxKind,
    store::{Places, StoreError, Verdict, conformance::Fault},
};

pub(super) async fn after_a_failed_sync_nothing_is_answered_well(on: On) {
    let house = House::new(on);
    let plugin = house.plugin("a").await;
    let mut lane = house.store.open_lane(plugin, 4).await.unwrap();
    house.accept("before", &[plugin]).await;
    let job = next(&mut lane).await;
    house.store.inject(Fault::InDoubt);
    let failed = house.store.accept(house.event("failed"), vec![plugin]).await;
    let Err(StoreError::Poisoned(reason)) = failed else { panic!("{failed:?}") };
    assert_eq!(house.store.failure(), Some(reason));

    let poisoned = |result: &StoreError| matches!(result, StoreError::Poisoned(_));
    assert!(poisoned(&house.store.accept(house.event("after"), vec![plugin]).await.unwrap_err()));
    assert!(poisoned(&house.store.flush().await.unwrap_err()));
    assert!(poisoned(&house.store.release(job).await.unwrap_err()));
    assert!(poisoned(
        &house.store.lease_outbox(OutboxKind::Mail, Places { at_once: 1, kept: false }).await.unwrap_err()
    ));
    assert!(poisoned(&house.store.open_lane(plugin, 1).await.err().unwrap()));
    assert!(lane.next().await.is_none());
    // It can still be looked at.
    assert_eq!(house.store.stats().await.unwrap().made, 1);

    drop(lane);
    assert!(poisoned(&house.store.close().await.unwrap_err()));
    let store = house.reopen().unwrap();
    let house = House { store, ..house };
    assert_eq!(house.states().await, ["ready"]);
    house.assert_balanced().await;
    house.accept("failed", &[plugin]).await;
}

pub(super) async fn a_completion_that_finds_the_disk_full_is_not_forgotten(on: On) {
    let house = House::new(on);
    let plugin = house.plugin("a").await;
    let mut lane = house.store.open_lane(plugin, 4).await.unwrap();
    house.accept("one", &[plugin]).await;
    let job = next(&mut lane).await;
    house.store.inject(Fault::DiskFull);
    let mut effects = effects(&[("k", set("v"))]);
    effects.outbox.push(mail("hello"));
    house.finish(job, Verdict::Done(effects)).await;
    let began = std::time::Instant::now();
    while lane.outstanding() > 0 {
        assert!(began.elapsed() < PATIENCE, "it must be tried again");
        tokio::time::sleep(MOMENT / 10).await;
    }
    assert_eq!(house.states().await, ["done"]);
    assert_eq!(house.store.kv_get(plugin, "k").await.unwrap().unwrap().0, b"v");
    assert_eq!(house.store.stats().await.unwrap().outbox["ready"], 1);
    assert_eq!(house.store.kv_bytes(plugin), 2);
    house.assert_balanced().await;
}

pub(super) async fn what_a_failed_batch_handed_over_is_handed_over_again(on: On) {
    let house = House::new(on);
    let plugin = house.plugin("a").await;
    house.accept("one", &[plugin]).await;
    house.store.inject(Fault::DiskFull);
    // Opening the lane fills it, and that batch fails.
    let mut lane = house.store.open_lane(plugin, 1).await.unwrap();
    let job = next(&mut lane).await;
    assert_eq!(lane.outstanding(), 1);
    assert_quiet(&mut lane).await;
    house.done(job, effects(&[])).await;
    assert_eq!(house.store.stats().await.unwrap().lost_leases, 0);
    house.assert_balanced().await;
}
