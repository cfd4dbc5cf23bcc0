//! Meters: what has committed is counted, once, and what was taken back is not.

use std::time::Duration;

use super::support::*;
use crate::{
    model::{OutboxKind, Outcome, PluginId},
    store::{OutboxResult, Places, PluginMeters, StoreError, StoreMeters, Verdict, conformance::Fault},
};

/// What is counted once all is that has been handed in: who waits is answered first, so that the second of
/// two batches comes after the counting of the first.
async fn counted(house: &House) -> StoreMeters {
    house.store.flush().await.unwrap();
    house.store.flush().await.unwrap();
    house.store.meters()
}

async fn of(house: &House, plugin: PluginId) -> PluginMeters {
    counted(house).await.plugins.remove(&plugin).unwrap()
}

pub(super) async fn attempts_are_counted_when_they_are_on_disk_with_the_time_that_they_waited(on: On) {
    let house = House::new(on);
    let plugin = house.plugin("a").await;
    let mut lane = house.store.open_lane(plugin, 4).await.unwrap();
    house.accept("one", &[plugin]).await;
    let job = next(&mut lane).await;
    assert!(counted(&house).await.plugins.is_empty(), "nothing has run yet");

    // It waits in its lane; then it fails, and waits for as long as it was told to, and a little longer.
    house.clock.advance(Duration::from_secs(3));
    house.finish(job, Verdict::Retry(house.now() + Duration::from_secs(60))).await;
    assert_eq!(of(&house, plugin).await.wait.sum, 3_000_000_000);
    assert!(of(&house, plugin).await.finished.is_empty());
    house.clock.advance(Duration::from_secs(65));
    let job = next(&mut lane).await;
    house.done(job, effects(&[])).await;

    let counted = of(&house, plugin).await;
    assert_eq!(counted.wait.sum, 8_000_000_000);
    assert_eq!((counted.attempt.sum, counted.attempt.counts.iter().sum::<u64>()), (3_000_000, 2));
    assert_eq!(counted.attempts, [(Outcome::Done, 1), (Outcome::Retry, 1), (Outcome::Rejected, 0)]);
    assert_eq!(counted.finished, [(Some("user.created"), 1, 0)]);
}

pub(super) async fn a_clock_that_is_set_back_makes_no_time_negative(on: On) {
    let house = House::new(on);
    let plugin = house.plugin("a").await;
    let mut lane = house.store.open_lane(plugin, 4).await.unwrap();
    let event = house.event("one");
    house.clock.set_back(Duration::from_secs(3600));
    house.store.accept(event, vec![plugin]).await.unwrap();
    let job = next(&mut lane).await;
    house.clock.set_back(Duration::from_secs(3600));
    house.done(job, effects(&[])).await;
    let accept = counted(&house).await.accept;
    assert_eq!((accept.sum, accept.counts.iter().sum::<u64>()), (0, 1));
    assert_eq!(of(&house, plugin).await.wait.sum, 0);
}

pub(super) async fn what_is_taken_back_is_counted_as_that_alone(on: On) {
    let house = House::new(on);
    let plugin = house.plugin("a").await;
    let mut lane = house.store.open_lane(plugin, 4).await.unwrap();
    house.accept("one", &[plugin]).await;
    let job = next(&mut lane).await;
    let before = counted(&house).await;

    house.store.inject(Fault::DiskFull);
    let refused = house.store.accept(house.event("two"), vec![plugin]).await;
    assert!(matches!(refused, Err(StoreError::Io(_))), "{refused:?}");
    let after = house.store.meters();
    assert_eq!((after.failed_commits, &after.accept), (before.failed_commits + 1, &before.accept));
    assert_eq!((&after.commit, &after.batch), (&before.commit, &before.batch));

    // A completion that finds the disk full is written later, and counted once.
    house.store.inject(Fault::DiskFull);
    house.finish(job, Verdict::Dead).await;
    let began = std::time::Instant::now();
    while lane.outstanding() > 0 {
        assert!(began.elapsed() < PATIENCE, "it must be tried again");
        tokio::time::sleep(MOMENT / 10).await;
    }
    let counted = of(&house, plugin).await;
    assert_eq!(counted.attempts, [(Outcome::Done, 0), (Outcome::Retry, 0), (Outcome::Rejected, 1)]);
    assert_eq!(counted.finished, [(Some("user.created"), 0, 1)]);
}

pub(super) async fn a_conflict_is_no_attempt(on: On) {
    let house = House::new(on);
    let plugin = house.plugin("a").await;
    let mut lane = house.store.open_lane(plugin, 4).await.unwrap();
    house.accept("one", &[plugin]).await;
    let job = next(&mut lane).await;
    house.store.run_again(job).await.unwrap();
    let job = next(&mut lane).await;
    house.store.release(job).await.unwrap();
    let job = next(&mut lane).await;
    assert!(counted(&house).await.plugins.is_empty());
    house.done(job, effects(&[])).await;
    assert_eq!(of(&house, plugin).await.attempts[0], (Outcome::Done, 1));
}

pub(super) async fn the_oldest_is_known_whether_it_runs_waits_or_is_tried_again(on: On) {
    let house = House::new(on);
    let plugin = house.plugin("a").await;
    let made_at = house.now();
    let mut lane = house.store.open_lane(plugin, 1).await.unwrap();
    house.accept("one", &[plugin]).await;
    let job = next(&mut lane).await;
    house.clock.advance(Duration::from_secs(10));
    house.accept("two", &[plugin]).await;
    let open = async || house.store.stats().await.unwrap().plugins[0].oldest_open;
    assert_eq!(house.store.oldest_leased().await.unwrap(), [(plugin, made_at)]);
    assert_eq!(open().await, Some(house.now()));

    // The first one is due after the second now, and is the older one still.
    house.finish(job, Verdict::Retry(house.now() + Duration::from_secs(60))).await;
    let second = next(&mut lane).await;
    assert_eq!(house.store.oldest_leased().await.unwrap(), [(plugin, house.now())]);
    assert_eq!(open().await, Some(made_at));
    house.done(second, effects(&[])).await;
    house.clock.advance(Duration::from_secs(60));
    let first = next(&mut lane).await;
    house.done(first, effects(&[])).await;
    assert!(house.store.oldest_leased().await.unwrap().is_empty());
    assert_eq!(open().await, None);
}

pub(super) async fn what_becomes_of_items_is_counted_by_kind(on: On) {
    let house = House::new(on);
    let plugin = house.plugin("a").await;
    let mut lane = house.store.open_lane(plugin, 1).await.unwrap();
    house.accept("one", &[plugin]).await;
    let mut effects = effects(&[]);
    effects.outbox.extend([mail("one"), mail("two"), mail("three")]);
    house.done(next(&mut lane).await, effects).await;
    assert_eq!(house.store.unsent().await.unwrap(), [(OutboxKind::Mail, 3), (OutboxKind::Request, 0)]);

    let places = Places { at_once: 3, kept: false };
    let items = house.store.lease_outbox(OutboxKind::Mail, places).await.unwrap();
    assert_eq!(house.store.unsent().await.unwrap()[0].1, 3, "what is on its way is not sent yet");
    let (due, error) = (house.now() + Duration::from_secs(60), "451".to_owned());
    house.store.complete_outbox(&items[0], OutboxResult::Sent).await.unwrap();
    house.store.complete_outbox(&items[1], OutboxResult::Retry { due, error }).await.unwrap();
    house.store.complete_outbox(&items[2], OutboxResult::Dead { error: "550".to_owned() }).await.unwrap();
    // Once more, though it is on its way no longer.
    house.store.complete_outbox(&items[0], OutboxResult::Sent).await.unwrap();
    assert_eq!(
        house.store.meters().outbox,
        [(OutboxKind::Mail, [1, 1, 1]), (OutboxKind::Request, [0, 0, 0])]
    );
    assert_eq!(house.store.unsent().await.unwrap()[0].1, 1);
}
