//! Meters: committed operations are counted once, and those that were rolled back are not.

use std::time::Duration;

use posthouse_model::{OutboxKind, Outcome, PluginId};

use super::support::*;

use crate::{
    OutboxResult, OutboxSlots, PluginMeters, StoreError, StoreMeters, Verdict, conformance::InjectedFailure,
};

/// The counts once everything submitted has been counted. Callers are answered before the counting, so a
/// second batch must follow the counting of the first.
async fn counted(fixture: &Fixture) -> StoreMeters {
    fixture.store.flush().await.unwrap();
    fixture.store.flush().await.unwrap();
    fixture.store.meters()
}

async fn of(fixture: &Fixture, plugin: PluginId) -> PluginMeters {
    counted(fixture).await.plugins.remove(&plugin).unwrap()
}

pub(super) async fn attempts_are_counted_when_they_are_on_disk_with_the_time_that_they_waited(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 4).await.unwrap();
    fixture.accept("one", &[plugin]).await;
    let job = next(&mut lane).await;
    assert!(counted(&fixture).await.plugins.is_empty(), "nothing has run yet");

    // It waits in its lane; then it fails, and waits for its retry and a little longer.
    fixture.clock.advance(Duration::from_secs(3));
    fixture.finish(job, Verdict::Retry(fixture.now() + Duration::from_secs(60))).await;
    assert_eq!(of(&fixture, plugin).await.wait.sum, 3_000_000_000);
    assert!(of(&fixture, plugin).await.finished.is_empty());
    fixture.clock.advance(Duration::from_secs(65));
    let job = next(&mut lane).await;
    fixture.done(job, effects(&[])).await;

    let counted = of(&fixture, plugin).await;
    assert_eq!(counted.wait.sum, 8_000_000_000);
    assert_eq!((counted.attempt.sum, counted.attempt.counts.iter().sum::<u64>()), (3_000_000, 2));
    assert_eq!(counted.attempts, [(Outcome::Done, 1), (Outcome::Retry, 1), (Outcome::Rejected, 0)]);
    assert_eq!(counted.finished, [(Some("user.created"), 1, 0)]);
}

pub(super) async fn a_clock_that_is_set_back_makes_no_time_negative(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 4).await.unwrap();
    let event = fixture.event("one");
    fixture.clock.set_back(Duration::from_secs(3600));
    fixture.store.accept(event, vec![plugin]).await.unwrap();
    let job = next(&mut lane).await;
    fixture.clock.set_back(Duration::from_secs(3600));
    fixture.done(job, effects(&[])).await;
    let accept = counted(&fixture).await.accept;
    assert_eq!((accept.sum, accept.counts.iter().sum::<u64>()), (0, 1));
    assert_eq!(of(&fixture, plugin).await.wait.sum, 0);
}

pub(super) async fn what_is_taken_back_is_counted_as_that_alone(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 4).await.unwrap();
    fixture.accept("one", &[plugin]).await;
    let job = next(&mut lane).await;
    let before = counted(&fixture).await;

    fixture.store.inject(InjectedFailure::DiskFull);
    let refused = fixture.store.accept(fixture.event("two"), vec![plugin]).await;
    assert!(matches!(refused, Err(StoreError::Io(_))), "{refused:?}");
    let after = fixture.store.meters();
    assert_eq!((after.failed_commits, &after.accept), (before.failed_commits + 1, &before.accept));
    assert_eq!((&after.commit, &after.batch), (&before.commit, &before.batch));

    // A completion that finds the disk full is written later, and counted once.
    fixture.store.inject(InjectedFailure::DiskFull);
    fixture.finish(job, Verdict::Dead).await;
    let began = std::time::Instant::now();
    while lane.outstanding() > 0 {
        assert!(began.elapsed() < TIMEOUT, "it must be tried again");
        tokio::time::sleep(MOMENT / 10).await;
    }
    let counted = of(&fixture, plugin).await;
    assert_eq!(counted.attempts, [(Outcome::Done, 0), (Outcome::Retry, 0), (Outcome::Rejected, 1)]);
    assert_eq!(counted.finished, [(Some("user.created"), 0, 1)]);
}

pub(super) async fn a_conflict_is_no_attempt(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 4).await.unwrap();
    fixture.accept("one", &[plugin]).await;
    let job = next(&mut lane).await;
    fixture.store.run_again(job).await.unwrap();
    let job = next(&mut lane).await;
    fixture.store.release(job).await.unwrap();
    let job = next(&mut lane).await;
    assert!(counted(&fixture).await.plugins.is_empty());
    fixture.done(job, effects(&[])).await;
    assert_eq!(of(&fixture, plugin).await.attempts[0], (Outcome::Done, 1));
}

pub(super) async fn the_oldest_is_known_whether_it_runs_waits_or_is_tried_again(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let made_at = fixture.now();
    let mut lane = fixture.store.open_lane(plugin, 1).await.unwrap();
    fixture.accept("one", &[plugin]).await;
    let job = next(&mut lane).await;
    fixture.clock.advance(Duration::from_secs(10));
    fixture.accept("two", &[plugin]).await;
    let open = async || fixture.store.stats().await.unwrap().plugins[0].oldest_open;
    assert_eq!(fixture.store.oldest_leased().await.unwrap(), [(plugin, made_at)]);
    assert_eq!(open().await, Some(fixture.now()));

    // The first one is now due after the second, but is still older.
    fixture.finish(job, Verdict::Retry(fixture.now() + Duration::from_secs(60))).await;
    let second = next(&mut lane).await;
    assert_eq!(fixture.store.oldest_leased().await.unwrap(), [(plugin, fixture.now())]);
    assert_eq!(open().await, Some(made_at));
    fixture.done(second, effects(&[])).await;
    fixture.clock.advance(Duration::from_secs(60));
    let first = next(&mut lane).await;
    fixture.done(first, effects(&[])).await;
    assert!(fixture.store.oldest_leased().await.unwrap().is_empty());
    assert_eq!(open().await, None);
}

pub(super) async fn what_becomes_of_items_is_counted_by_kind(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 1).await.unwrap();
    fixture.accept("one", &[plugin]).await;
    let mut effects = effects(&[]);
    effects.outbox.extend([mail("one"), mail("two"), mail("three")]);
    fixture.done(next(&mut lane).await, effects).await;
    assert_eq!(fixture.store.unsent().await.unwrap(), [(OutboxKind::Mail, 3), (OutboxKind::Request, 0)]);

    let slots = OutboxSlots { at_once: 3, kept: false };
    let items = fixture.store.lease_outbox(OutboxKind::Mail, slots).await.unwrap();
    assert_eq!(fixture.store.unsent().await.unwrap()[0].1, 3, "what is on its way is not sent yet");
    let (due, error) = (fixture.now() + Duration::from_secs(60), "451".to_owned());
    fixture.store.complete_outbox(&items[0], OutboxResult::Sent).await.unwrap();
    fixture.store.complete_outbox(&items[1], OutboxResult::Retry { due, error }).await.unwrap();
    fixture.store.complete_outbox(&items[2], OutboxResult::Dead { error: "550".to_owned() }).await.unwrap();
    // Again, though it is no longer being sent.
    fixture.store.complete_outbox(&items[0], OutboxResult::Sent).await.unwrap();
    assert_eq!(
        fixture.store.meters().outbox,
        [(OutboxKind::Mail, [1, 1, 1]), (OutboxKind::Request, [0, 0, 0])]
    );
    assert_eq!(fixture.store.unsent().await.unwrap()[0].1, 1);
}
