//! Derived events: taken in with the completion that emits them, or not at all.

use std::time::Duration;

use super::support::*;
use crate::{
    model::{Derived, Effects, Envelope, EventId, EventType, KvVersion, PluginId, SourceName},
    store::{EventFilter, StoreError, Verdict, conformance::Fault},
};

fn emitting(house: &House, id: &str, to: &[PluginId]) -> Effects {
    let envelope = Envelope {
        source: SourceName::new("plugin:a").unwrap(),
        id: EventId::new(id).unwrap(),
        event_type: EventType::new("seat.added").unwrap(),
        organization: Some("org_1".to_owned()),
        occurred_at: house.now(),
        depth: 3,
    };
    let mut derived = Derived::new(envelope, "{\"n\":2}");
    derived.subscribers = to.iter().copied().map(Into::into).collect();
    Effects { emitted: vec![derived], ..Effects::default() }
}

pub(super) async fn a_derived_event_comes_with_its_deliveries_when_the_attempt_is_done(on: On) {
    let house = House::new(on);
    let (a, b) = (house.plugin("a").await, house.plugin("b").await);
    let mut lane = house.store.open_lane(a, 4).await.unwrap();
    let mut other = house.store.open_lane(b, 4).await.unwrap();
    house.accept("one", &[a]).await;
    let job = next(&mut lane).await;
    house.clock.advance(Duration::from_secs(5));
    house.finish(job, Verdict::Done(emitting(&house, "dlv_1.1", &[b]))).await;

    let job = next(&mut other).await;
    let content = &job.event.content;
    assert_eq!((content.id.as_str(), content.source.as_str()), ("dlv_1.1", "plugin:a"));
    assert_eq!((content.depth, content.received_at, content.data()), (3, house.now(), "{\"n\":2}"));
    assert_eq!(house.states().await, ["done", "leased"]);
    house.assert_balanced().await;

    // Read back it is the same: its depth is not lost by a crash.
    let found = house.crashed();
    let mut other = found.store.open_lane(b, 4).await.unwrap();
    let again = next(&mut other).await;
    assert_eq!((again.event.content.depth, again.event.data()), (3, "{\"n\":2}"));
}

pub(super) async fn nothing_is_emitted_without_done(on: On) {
    let house = House::new(on);
    let a = house.plugin("a").await;
    let mut lane = house.store.open_lane(a, 4).await.unwrap();
    house.accept("one", &[a]).await;
    let job = next(&mut lane).await;

    // In conflict: what it read is not so.
    let conflicting = saw(emitting(&house, "dlv_1.1", &[a]), "k", Some(KvVersion(7)));
    house.finish(job, Verdict::Done(conflicting)).await;
    let job = next(&mut lane).await;
    // Given back, and its completion comes late.
    house.store.release(job.clone()).await.unwrap();
    house.finish(job, Verdict::Done(emitting(&house, "dlv_1.1", &[a]))).await;
    house.store.flush().await.unwrap();
    assert_eq!(house.store.events(EventFilter::default()).await.unwrap().len(), 1);
    house.assert_balanced().await;
}

pub(super) async fn a_batch_that_is_taken_back_emits_once_when_it_is_tried_again(on: On) {
    let house = House::new(on);
    let a = house.plugin("a").await;
    let mut lane = house.store.open_lane(a, 4).await.unwrap();
    house.accept("one", &[a]).await;
    let job = next(&mut lane).await;
    house.store.inject(Fault::DiskFull);
    house.finish(job, Verdict::Done(emitting(&house, "dlv_1.1", &[a]))).await;
    let derived = next(&mut lane).await;
    assert_eq!(derived.event.content.id.as_str(), "dlv_1.1");
    house.done(derived, Effects::default()).await;
    assert_eq!(house.states().await, ["done", "done"]);
    house.assert_balanced().await;
}

pub(super) async fn the_room_for_more_is_known_before_a_commit_and_no_commit_is_refused(on: On) {
    let house = House::with(on, |options| options.max_backlog = 2);
    let (a, b) = (house.plugin("a").await, house.plugin("b").await);
    let mut lane = house.store.open_lane(a, 4).await.unwrap();
    house.accept("one", &[a]).await;
    assert_eq!(house.store.room(), Ok(()));
    house.accept("two", &[a]).await;
    assert_eq!(house.store.room(), Err(StoreError::Backlog(2)));
    let job = next(&mut lane).await;
    house.done(job, emitting(&house, "dlv_1.1", &[a, b])).await;
    assert_eq!(house.states().await, ["done", "leased", "leased", "ready"]);
    assert_eq!(house.store.room(), Err(StoreError::Backlog(3)));
    house.assert_balanced().await;
}
