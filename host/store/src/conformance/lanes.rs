//! Lanes: in order, within capacity, and only the holder of the lease completes.

use std::time::Duration;

use posthouse_model::{HeldReason, LeaseToken};

use super::support::*;

use crate::{DeliveryFilter, PluginChange, PluginUpdate, Verdict};

pub(super) async fn jobs_come_in_order_and_no_more_than_the_lane_holds(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    for n in 0..5 {
        fixture.accept(n, &[plugin]).await;
    }
    let mut lane = fixture.store.open_lane(plugin, 2).await.unwrap();
    for n in 5..10 {
        fixture.accept(n, &[plugin]).await;
    }
    let mut held = Vec::new();
    for n in 0..10 {
        let job = next(&mut lane).await;
        assert_eq!(job.event.content.id.as_str(), n.to_string());
        assert_eq!((job.attempt, job.event.data()), (1, r#"{"n":1}"#));
        held.push(job);
        assert!(lane.outstanding() <= 2);
        if held.len() == 2 {
            assert_quiet(&mut lane).await;
            for job in held.drain(..) {
                fixture.done(job, effects(&[])).await;
            }
        }
    }
    assert_eq!(fixture.states().await, ["done"; 10]);
    assert_eq!(lane.outstanding(), 0);
    fixture.assert_balanced().await;
}

pub(super) async fn what_is_accepted_while_the_lane_has_room_comes_at_once(on: On) {
    let fixture = Fixture::new(on);
    let (a, b) = (fixture.plugin("a").await, fixture.plugin("b").await);
    let mut lane = fixture.store.open_lane(a, 4).await.unwrap();
    fixture.accept("one", &[a, b]).await;
    let job = next(&mut lane).await;
    assert_eq!((job.plugin, job.event.content.id.as_str()), (a, "one"));
    assert_eq!(fixture.states().await, ["leased", "ready"]);
    fixture.assert_balanced().await;
}

pub(super) async fn a_retry_waits_until_it_is_due_and_counts_its_attempt(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 4).await.unwrap();
    fixture.accept("one", &[plugin]).await;
    let job = next(&mut lane).await;
    fixture.finish(job, Verdict::Retry(fixture.now() + Duration::from_secs(60))).await;
    fixture.store.flush().await.unwrap();
    assert_eq!(fixture.states().await, ["waiting"]);
    fixture.clock.advance(Duration::from_secs(59));
    assert_quiet(&mut lane).await;
    fixture.clock.advance(Duration::from_secs(1));
    // Only the writer's own clock wakes it.
    let job = next(&mut lane).await;
    assert_eq!(job.attempt, 2);
    fixture.finish(job, Verdict::Dead).await;
    fixture.store.flush().await.unwrap();
    assert_eq!(fixture.states().await, ["dead"]);
    let detail = &fixture.store.event(None, "one").await.unwrap()[0].history[0];
    assert_eq!(detail.summary.attempts, 2);
    assert_eq!(detail.attempt_log.len(), 2);
    assert_eq!(detail.summary.error.as_deref(), Some("it failed"));
    fixture.assert_balanced().await;
}

pub(super) async fn what_is_due_for_longest_comes_first(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 1).await.unwrap();
    fixture.accept("early", &[plugin]).await;
    let job = next(&mut lane).await;
    fixture.clock.advance(Duration::from_secs(1));
    fixture.accept("middle", &[plugin]).await;
    fixture.clock.advance(Duration::from_secs(10));
    fixture.accept("late", &[plugin]).await;
    fixture.finish(job, Verdict::Retry(fixture.now() - Duration::from_secs(5))).await;
    for id in ["middle", "early", "late"] {
        let job = next(&mut lane).await;
        assert_eq!(job.event.content.id.as_str(), id);
        fixture.done(job, effects(&[])).await;
    }
}

pub(super) async fn a_clock_that_is_set_back_stops_nothing(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    fixture.accept("one", &[plugin]).await;
    fixture.clock.set_back(Duration::from_secs(3600));
    let mut lane = fixture.store.open_lane(plugin, 1).await.unwrap();
    assert_eq!(next(&mut lane).await.event.content.id.as_str(), "one");
}

pub(super) async fn a_lane_that_closes_gives_its_jobs_back_uncounted(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 8).await.unwrap();
    for n in 0..4 {
        fixture.accept(n, &[plugin]).await;
    }
    let first = next(&mut lane).await;
    lane.close().await;
    assert_eq!(fixture.states().await, ["leased", "ready", "ready", "ready"]);
    fixture.store.release(first).await.unwrap();

    let mut lane = fixture.store.open_lane(plugin, 8).await.unwrap();
    for n in 0..4 {
        let job = next(&mut lane).await;
        assert_eq!((job.event.content.id.as_str(), job.attempt), (n.to_string().as_str(), 1));
    }
    drop(lane);
    fixture.assert_balanced().await;
    assert_eq!(fixture.store.stats().await.unwrap().lost_leases, 0);
}

pub(super) async fn a_second_lane_takes_over_and_the_first_can_finish_what_it_has(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut first = fixture.store.open_lane(plugin, 1).await.unwrap();
    fixture.accept("one", &[plugin]).await;
    let job = next(&mut first).await;
    let mut second = fixture.store.open_lane(plugin, 1).await.unwrap();
    fixture.accept("two", &[plugin]).await;
    assert_eq!(next(&mut second).await.event.content.id.as_str(), "two");
    assert!(first.next().await.is_none());
    fixture.done(job, effects(&[])).await;
    assert_eq!((first.outstanding(), second.outstanding()), (0, 1));
    assert_eq!(fixture.states().await, ["done", "leased"]);
}

pub(super) async fn only_the_holder_of_the_lease_completes_and_only_once(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 1).await.unwrap();
    fixture.accept("one", &[plugin]).await;
    let job = next(&mut lane).await;
    let mut forged = job.clone();
    forged.token = LeaseToken(job.token.0 + 1);
    fixture.done(forged, effects(&[("k", set("forged"))])).await;
    assert_eq!(fixture.states().await, ["leased"]);
    assert_eq!(fixture.store.kv_get(plugin, "k").await.unwrap(), None);

    // Both may be in one batch.
    fixture.finish(job.clone(), Verdict::Done(effects(&[("k", set("first"))]))).await;
    fixture.finish(job, Verdict::Done(effects(&[("k", set("second"))]))).await;
    fixture.store.flush().await.unwrap();
    assert_eq!(fixture.store.kv_get(plugin, "k").await.unwrap().unwrap().0, b"first");
    assert_eq!(fixture.store.stats().await.unwrap().lost_leases, 2);
    assert_eq!(lane.outstanding(), 0);
    fixture.assert_balanced().await;
}

pub(super) async fn leases_end_with_the_process_and_the_attempt_keeps_its_number(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 8).await.unwrap();
    fixture.accept("one", &[plugin]).await;
    fixture.accept("two", &[plugin]).await;
    let (one, two) = (next(&mut lane).await, next(&mut lane).await);
    fixture.finish(one, Verdict::Retry(fixture.now())).await;
    let one = next(&mut lane).await;
    assert_eq!((one.attempt, two.attempt), (2, 1));

    let found = fixture.crashed();
    assert_eq!(found.states().await, ["ready", "ready"]);
    found.assert_balanced().await;
    found.done(two, effects(&[("k", set("late"))])).await;
    assert_eq!(
        found.store.kv_get(plugin, "k").await.unwrap(),
        None,
        "the lease of an earlier process is void"
    );
    let mut lane = found.store.open_lane(plugin, 8).await.unwrap();
    assert_eq!((next(&mut lane).await.attempt, next(&mut lane).await.attempt), (2, 1));
}

pub(super) async fn deliveries_of_a_held_plugin_show_as_held(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 1).await.unwrap();
    for n in 0..3 {
        fixture.accept(n, &[plugin]).await;
    }
    let job = next(&mut lane).await;
    let held = Some(HeldReason::LacksGrant("mail = {}".to_owned()));
    let update = |held, change| fixture.store.update_plugin(plugin, PluginUpdate { held, change });
    update(held.clone(), PluginChange::Paused(true)).await.unwrap();
    update(held.clone(), PluginChange::Failed("it does not load".to_owned())).await.unwrap();
    assert_eq!(fixture.states().await, ["leased", "held", "held"]);
    let summary = fixture.store.deliveries(DeliveryFilter::default()).await.unwrap().remove(0);
    assert_eq!(summary.held, held);
    fixture.assert_balanced().await;
    lane.close().await;
    fixture.store.release(job).await.unwrap();

    let fixture = fixture.reopened().await;
    let record = fixture.store.plugins().await.unwrap().remove(0);
    assert!(record.paused && record.last_error.is_some(), "no update wrote another's field: {record:?}");
    assert_eq!(fixture.states().await, ["held"; 3]);
    let update = PluginUpdate { held: None, change: PluginChange::Recovered };
    fixture.store.update_plugin(plugin, update).await.unwrap();
    assert_eq!(fixture.states().await, ["ready"; 3]);
    fixture.assert_balanced().await;
}
