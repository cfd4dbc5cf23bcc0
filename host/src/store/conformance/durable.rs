//! Completing durably: who waits hears it once it is on disk, and many wait for one commit. And what is
//! known of a delivery: whether it may have run, whether it is finished.

use super::support::*;
use crate::{
    model::{DeliveryId, Effects, Job, KvWrite, LeaseToken},
    store::{Completed, StoreError, Verdict, conformance::Fault},
};

async fn durably(house: &House, job: Job, effects: Effects) -> Result<Completed, StoreError> {
    let verdict = Verdict::Done(effects);
    let attempt = house.attempt(&job, &verdict);
    house.store.complete_durably(job, attempt, verdict).await
}

pub(super) async fn what_was_told_is_on_disk(on: On) {
    let house = House::new(on);
    let plugin = house.plugin("a").await;
    let mut lane = house.store.open_lane(plugin, 4).await.unwrap();
    house.accept("one", &[plugin]).await;
    let job = next(&mut lane).await;
    assert_eq!(durably(&house, job, effects(&[("k", set("v"))])).await, Ok(Completed::Written));
    let found = house.crashed();
    assert_eq!(found.states().await, ["done"]);
    assert_eq!(found.store.kv_get(plugin, "k").await.unwrap().unwrap().0, b"v");
}

pub(super) async fn a_conflict_and_a_lost_lease_are_told_apart(on: On) {
    let house = House::new(on);
    let plugin = house.plugin("a").await;
    let mut lane = house.store.open_lane(plugin, 4).await.unwrap();
    house.accept("one", &[plugin]).await;
    house.accept("two", &[plugin]).await;
    let (one, two) = (next(&mut lane).await, next(&mut lane).await);
    assert_eq!(durably(&house, one.clone(), effects(&[("k", set("1"))])).await, Ok(Completed::Written));
    assert_eq!(durably(&house, one, effects(&[("k", set("2"))])).await, Ok(Completed::LostLease));
    let late = saw(effects(&[("k", set("3"))]), "k", None);
    assert_eq!(durably(&house, two, late).await, Ok(Completed::Conflict));
    assert_eq!(next(&mut lane).await.conflicts, 1);
    let stats = house.store.stats().await.unwrap();
    assert_eq!((stats.conflicts, stats.lost_leases), (1, 1));
    house.assert_balanced().await;
}

pub(super) async fn many_wait_for_one_commit_together(on: On) {
    let house = House::new(on);
    let plugin = house.plugin("a").await;
    let mut lane = house.store.open_lane(plugin, 256).await.unwrap();
    let mut jobs = Vec::new();
    for n in 0..200 {
        house.accept(n, &[plugin]).await;
        jobs.push(next(&mut lane).await);
    }
    let done = jobs.into_iter().map(|job| durably(&house, job, effects(&[("n", KvWrite::Add(1))])));
    // None of these makes the next one wait: all are handed in before the first is answered.
    let answers = futures_util::future::join_all(done).await;
    assert!(answers.iter().all(|answer| *answer == Ok(Completed::Written)), "{answers:?}");
    assert_eq!(house.store.kv_get(plugin, "n").await.unwrap().unwrap().0, b"200");
    assert_eq!(lane.outstanding(), 0);
    house.assert_balanced().await;
}

pub(super) async fn a_full_disk_is_waited_out_and_a_disk_in_doubt_is_told(on: On) {
    let house = House::new(on);
    let plugin = house.plugin("a").await;
    let mut lane = house.store.open_lane(plugin, 4).await.unwrap();
    house.accept("one", &[plugin]).await;
    house.accept("two", &[plugin]).await;
    let (one, two) = (next(&mut lane).await, next(&mut lane).await);
    house.store.inject(Fault::DiskFull);
    assert_eq!(durably(&house, one, effects(&[])).await, Ok(Completed::Written));
    house.store.inject(Fault::InDoubt);
    assert!(matches!(durably(&house, two, effects(&[])).await, Err(StoreError::Poisoned(_))));
}

pub(super) async fn a_conflict_elsewhere_runs_again_at_once_and_is_counted(on: On) {
    let house = House::new(on);
    let plugin = house.plugin("a").await;
    let mut lane = house.store.open_lane(plugin, 4).await.unwrap();
    house.accept("one", &[plugin]).await;
    let job = next(&mut lane).await;
    house.store.run_again(job).await.unwrap();
    let again = next(&mut lane).await;
    assert_eq!((again.attempt, again.conflicts, again.may_have_run), (1, 1, false));
    house.store.run_again(Job { token: LeaseToken(99), ..again.clone() }).await.unwrap();
    house.done(again, effects(&[])).await;
    let stats = house.store.stats().await.unwrap();
    assert_eq!((stats.conflicts, stats.lost_leases), (1, 1));
    house.assert_balanced().await;
}

pub(super) async fn only_what_is_fresh_from_the_inbox_is_certain_not_to_have_run(on: On) {
    let house = House::new(on);
    let plugin = house.plugin("a").await;
    let mut lane = house.store.open_lane(plugin, 1).await.unwrap();
    for id in ["fresh", "backlog", "third"] {
        house.accept(id, &[plugin]).await;
    }
    let fresh = next(&mut lane).await;
    assert!(!fresh.may_have_run);
    house.store.release(fresh).await.unwrap();
    assert!(next_done(&house, &mut lane, "fresh").await);
    // It never left the store, however long it waited there.
    assert!(!next_done(&house, &mut lane, "backlog").await);
    let third = next(&mut lane).await;
    assert!(!third.may_have_run);
    house.finish(third, Verdict::Retry(house.now())).await;
    assert!(next(&mut lane).await.may_have_run);

    // Leased when the power goes, and again before it has run: neither start knows.
    let found = house.crashed().crashed();
    let mut lane = found.store.open_lane(plugin, 1).await.unwrap();
    assert!(next(&mut lane).await.may_have_run);
}

/// Completes the next job and returns whether it may have run.
async fn next_done(house: &House, lane: &mut crate::store::Lane, id: &str) -> bool {
    let job = next(lane).await;
    assert_eq!(job.event.content.id.as_str(), id);
    let may_have_run = job.may_have_run;
    house.done(job, effects(&[])).await;
    may_have_run
}

pub(super) async fn what_is_finished_is_known_and_what_is_unknown_is_not(on: On) {
    let house = House::new(on);
    let plugin = house.plugin("a").await;
    let mut lane = house.store.open_lane(plugin, 8).await.unwrap();
    for n in 0..3 {
        house.accept(n, &[plugin]).await;
    }
    let (done, dead, leased) = (next(&mut lane).await, next(&mut lane).await, next(&mut lane).await);
    let ids = [done.delivery, dead.delivery, leased.delivery, DeliveryId(7)];
    house.done(done, effects(&[])).await;
    house.finish(dead, Verdict::Dead).await;
    house.store.flush().await.unwrap();
    assert_eq!(house.store.done_among(ids.to_vec()).await.unwrap(), ids[..1]);
}

pub(super) async fn what_is_dead_and_took_effect_after_all_comes_again_and_nothing_else_does(on: On) {
    let house = House::new(on);
    let plugin = house.plugin("a").await;
    let mut lane = house.store.open_lane(plugin, 8).await.unwrap();
    for n in 0..3 {
        house.accept(n, &[plugin]).await;
    }
    let (done, dead, leased) = (next(&mut lane).await, next(&mut lane).await, next(&mut lane).await);
    let ids = [done.delivery, dead.delivery, leased.delivery, DeliveryId(7)];
    house.done(done, effects(&[])).await;
    house.finish(dead, Verdict::Dead).await;
    assert_eq!(house.store.revive(ids.to_vec()).await, Ok(1));
    let again = next(&mut lane).await;
    assert_eq!((again.delivery, again.may_have_run), (ids[1], true));
    house.assert_balanced().await;
    house.done(again, effects(&[])).await;
    assert_eq!(house.states().await, ["done", "done", "leased"]);
    assert_eq!(house.store.revive(ids.to_vec()).await, Ok(0));
    house.assert_balanced().await;
}
