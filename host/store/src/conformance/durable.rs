//! Completing durably: the caller gets an answer once the completion is on disk, and many share one commit.
//! Also whether a delivery may have run, and whether it is finished.

use posthouse_model::{DeliveryId, Effects, Job, KvWrite, LeaseToken};

use super::support::*;

use crate::{Completed, StoreError, Verdict, conformance::InjectedFailure};

async fn durably(fixture: &Fixture, job: Job, effects: Effects) -> Result<Completed, StoreError> {
    let verdict = Verdict::Done(effects);
    let attempt = fixture.attempt(&job, &verdict);
    fixture.store.complete_durably(job, attempt, verdict).await
}

pub(super) async fn what_was_told_is_on_disk(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 4).await.unwrap();
    fixture.accept("one", &[plugin]).await;
    let job = next(&mut lane).await;
    assert_eq!(durably(&fixture, job, effects(&[("k", set("v"))])).await, Ok(Completed::Written));
    let found = fixture.crashed();
    assert_eq!(found.states().await, ["done"]);
    assert_eq!(found.store.kv_get(plugin, "k").await.unwrap().unwrap().0, b"v");
}

pub(super) async fn a_conflict_and_a_lost_lease_are_told_apart(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 4).await.unwrap();
    fixture.accept("one", &[plugin]).await;
    fixture.accept("two", &[plugin]).await;
    let (one, two) = (next(&mut lane).await, next(&mut lane).await);
    assert_eq!(durably(&fixture, one.clone(), effects(&[("k", set("1"))])).await, Ok(Completed::Written));
    assert_eq!(durably(&fixture, one, effects(&[("k", set("2"))])).await, Ok(Completed::LostLease));
    let late = saw(effects(&[("k", set("3"))]), "k", None);
    assert_eq!(durably(&fixture, two, late).await, Ok(Completed::Conflict));
    assert_eq!(next(&mut lane).await.conflicts, 1);
    let stats = fixture.store.stats().await.unwrap();
    assert_eq!((stats.conflicts, stats.lost_leases), (1, 1));
    fixture.assert_balanced().await;
}

pub(super) async fn many_wait_for_one_commit_together(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 256).await.unwrap();
    let mut jobs = Vec::new();
    for n in 0..200 {
        fixture.accept(n, &[plugin]).await;
        jobs.push(next(&mut lane).await);
    }
    let done = jobs.into_iter().map(|job| durably(&fixture, job, effects(&[("n", KvWrite::Add(1))])));
    // None of these delays the next: all are submitted before the first is answered.
    let answers = futures_util::future::join_all(done).await;
    assert!(answers.iter().all(|answer| *answer == Ok(Completed::Written)), "{answers:?}");
    assert_eq!(fixture.store.kv_get(plugin, "n").await.unwrap().unwrap().0, b"200");
    assert_eq!(lane.outstanding(), 0);
    fixture.assert_balanced().await;
}

pub(super) async fn a_full_disk_is_waited_out_and_a_disk_in_doubt_is_told(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 4).await.unwrap();
    fixture.accept("one", &[plugin]).await;
    fixture.accept("two", &[plugin]).await;
    let (one, two) = (next(&mut lane).await, next(&mut lane).await);
    fixture.store.inject(InjectedFailure::DiskFull);
    assert_eq!(durably(&fixture, one, effects(&[])).await, Ok(Completed::Written));
    fixture.store.inject(InjectedFailure::InDoubt);
    assert!(matches!(durably(&fixture, two, effects(&[])).await, Err(StoreError::Poisoned(_))));
}

pub(super) async fn a_conflict_elsewhere_runs_again_at_once_and_is_counted(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 4).await.unwrap();
    fixture.accept("one", &[plugin]).await;
    let job = next(&mut lane).await;
    fixture.store.run_again(job).await.unwrap();
    let again = next(&mut lane).await;
    assert_eq!((again.attempt, again.conflicts, again.may_have_run), (1, 1, false));
    fixture.store.run_again(Job { token: LeaseToken(99), ..again.clone() }).await.unwrap();
    fixture.done(again, effects(&[])).await;
    let stats = fixture.store.stats().await.unwrap();
    assert_eq!((stats.conflicts, stats.lost_leases), (1, 1));
    fixture.assert_balanced().await;
}

pub(super) async fn only_what_is_fresh_from_the_inbox_is_certain_not_to_have_run(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 1).await.unwrap();
    for id in ["fresh", "backlog", "third"] {
        fixture.accept(id, &[plugin]).await;
    }
    let fresh = next(&mut lane).await;
    assert!(!fresh.may_have_run);
    fixture.store.release(fresh).await.unwrap();
    assert!(next_done(&fixture, &mut lane, "fresh").await);
    // Its lease stayed in the store, however long the job waited there.
    assert!(!next_done(&fixture, &mut lane, "backlog").await);
    let third = next(&mut lane).await;
    assert!(!third.may_have_run);
    fixture.finish(third, Verdict::Retry(fixture.now())).await;
    assert!(next(&mut lane).await.may_have_run);

    // Leased at a power cut, and again before it has run: neither start knows of an attempt.
    let found = fixture.crashed().crashed();
    let mut lane = found.store.open_lane(plugin, 1).await.unwrap();
    assert!(next(&mut lane).await.may_have_run);
}

/// Completes the next job and returns whether it may have run.
async fn next_done(fixture: &Fixture, lane: &mut crate::Lane, id: &str) -> bool {
    let job = next(lane).await;
    assert_eq!(job.event.content.id.as_str(), id);
    let may_have_run = job.may_have_run;
    fixture.done(job, effects(&[])).await;
    may_have_run
}

pub(super) async fn what_is_finished_is_known_and_what_is_unknown_is_not(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 8).await.unwrap();
    for n in 0..3 {
        fixture.accept(n, &[plugin]).await;
    }
    let (done, dead, leased) = (next(&mut lane).await, next(&mut lane).await, next(&mut lane).await);
    let ids = [done.delivery, dead.delivery, leased.delivery, DeliveryId(7)];
    fixture.done(done, effects(&[])).await;
    fixture.finish(dead, Verdict::Dead).await;
    fixture.store.flush().await.unwrap();
    assert_eq!(fixture.store.done_among(ids.to_vec()).await.unwrap(), ids[..1]);
}

pub(super) async fn what_is_dead_and_took_effect_after_all_comes_again_and_nothing_else_does(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 8).await.unwrap();
    for n in 0..3 {
        fixture.accept(n, &[plugin]).await;
    }
    let (done, dead, leased) = (next(&mut lane).await, next(&mut lane).await, next(&mut lane).await);
    let ids = [done.delivery, dead.delivery, leased.delivery, DeliveryId(7)];
    fixture.done(done, effects(&[])).await;
    fixture.finish(dead, Verdict::Dead).await;
    assert_eq!(fixture.store.revive(ids.to_vec()).await, Ok(1));
    let again = next(&mut lane).await;
    assert_eq!((again.delivery, again.may_have_run), (ids[1], true));
    fixture.assert_balanced().await;
    fixture.done(again, effects(&[])).await;
    assert_eq!(fixture.states().await, ["done", "done", "leased"]);
    assert_eq!(fixture.store.revive(ids.to_vec()).await, Ok(0));
    fixture.assert_balanced().await;
}
