//! Failures: a full disk fails what it must, and the store survives it. A write that leaves the state of the
//! disk unknown stops the store.

use posthouse_model::{OutboxKind, OutboxState};

use super::support::*;

use crate::{OutboxSlots, StoreError, Verdict, conformance::InjectedFailure};

pub(super) async fn after_a_failed_sync_nothing_is_answered_well(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 4).await.unwrap();
    fixture.accept("before", &[plugin]).await;
    let job = next(&mut lane).await;
    fixture.store.inject(InjectedFailure::InDoubt);
    let failed = fixture.store.accept(fixture.event("failed"), vec![plugin]).await;
    let Err(StoreError::Poisoned(reason)) = failed else { panic!("{failed:?}") };
    assert_eq!(fixture.store.failure(), Some(reason));

    let poisoned = |result: &StoreError| matches!(result, StoreError::Poisoned(_));
    assert!(poisoned(&fixture.store.accept(fixture.event("after"), vec![plugin]).await.unwrap_err()));
    assert!(poisoned(&fixture.store.flush().await.unwrap_err()));
    assert!(poisoned(&fixture.store.release(job).await.unwrap_err()));
    assert!(poisoned(
        &fixture
            .store
            .lease_outbox(OutboxKind::Mail, OutboxSlots { at_once: 1, kept: false })
            .await
            .unwrap_err()
    ));
    assert!(poisoned(&fixture.store.open_lane(plugin, 1).await.err().unwrap()));
    assert!(lane.next().await.is_none());
    // It can still be looked at.
    assert_eq!(fixture.store.stats().await.unwrap().made, 1);

    drop(lane);
    assert!(poisoned(&fixture.store.close().await.unwrap_err()));
    let store = fixture.reopen().unwrap();
    let fixture = Fixture { store, ..fixture };
    assert_eq!(fixture.states().await, ["ready"]);
    fixture.assert_balanced().await;
    fixture.accept("failed", &[plugin]).await;
}

pub(super) async fn a_completion_that_finds_the_disk_full_is_not_forgotten(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 4).await.unwrap();
    fixture.accept("one", &[plugin]).await;
    let job = next(&mut lane).await;
    fixture.store.inject(InjectedFailure::DiskFull);
    let mut effects = effects(&[("k", set("v"))]);
    effects.outbox.push(mail("hello"));
    fixture.finish(job, Verdict::Done(effects)).await;
    let began = std::time::Instant::now();
    while lane.outstanding() > 0 {
        assert!(began.elapsed() < TIMEOUT, "it must be tried again");
        tokio::time::sleep(MOMENT / 10).await;
    }
    assert_eq!(fixture.states().await, ["done"]);
    assert_eq!(fixture.store.kv_get(plugin, "k").await.unwrap().unwrap().0, b"v");
    assert_eq!(fixture.store.stats().await.unwrap().outbox[&OutboxState::Ready], 1);
    assert_eq!(fixture.store.kv_bytes(plugin), 2);
    fixture.assert_balanced().await;
}

pub(super) async fn what_a_failed_batch_handed_over_is_handed_over_again(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    fixture.accept("one", &[plugin]).await;
    fixture.store.inject(InjectedFailure::DiskFull);
    // Opening the lane fills it, and that batch fails.
    let mut lane = fixture.store.open_lane(plugin, 1).await.unwrap();
    let job = next(&mut lane).await;
    assert_eq!(lane.outstanding(), 1);
    assert_quiet(&mut lane).await;
    fixture.done(job, effects(&[])).await;
    assert_eq!(fixture.store.stats().await.unwrap().lost_leases, 0);
    fixture.assert_balanced().await;
}
