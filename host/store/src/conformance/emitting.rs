//! Derived events: stored with the completion that emits them, or not at all.

use std::time::Duration;

use posthouse_model::{Derived, Effects, Envelope, EventId, EventType, KvVersion, PluginId, SourceName};

use super::support::*;

use crate::{EventFilter, StoreError, Verdict, conformance::InjectedFailure};

fn emitting(fixture: &Fixture, id: &str, to: &[PluginId]) -> Effects {
    let envelope = Envelope {
        source: SourceName::new("plugin:a").unwrap(),
        id: EventId::new(id).unwrap(),
        event_type: EventType::new("seat.added").unwrap(),
        organization: Some("org_1".to_owned()),
        occurred_at: fixture.now(),
        depth: 3,
    };
    let mut derived = Derived::new(envelope, "{\"n\":2}");
    derived.subscribers = to.iter().copied().map(Into::into).collect();
    Effects { emitted: vec![derived], ..Effects::default() }
}

pub(super) async fn a_derived_event_comes_with_its_deliveries_when_the_attempt_is_done(on: On) {
    let fixture = Fixture::new(on);
    let (a, b) = (fixture.plugin("a").await, fixture.plugin("b").await);
    let mut lane = fixture.store.open_lane(a, 4).await.unwrap();
    let mut other = fixture.store.open_lane(b, 4).await.unwrap();
    fixture.accept("one", &[a]).await;
    let job = next(&mut lane).await;
    fixture.clock.advance(Duration::from_secs(5));
    fixture.finish(job, Verdict::Done(emitting(&fixture, "dlv_1.1", &[b]))).await;

    let job = next(&mut other).await;
    let content = &job.event.content;
    assert_eq!((content.id.as_str(), content.source.as_str()), ("dlv_1.1", "plugin:a"));
    assert_eq!((content.depth, content.received_at, content.data()), (3, fixture.now(), "{\"n\":2}"));
    assert_eq!(fixture.states().await, ["done", "leased"]);
    fixture.assert_balanced().await;

    // Read back it is the same: a crash does not lose its depth.
    let found = fixture.crashed();
    let mut other = found.store.open_lane(b, 4).await.unwrap();
    let again = next(&mut other).await;
    assert_eq!((again.event.content.depth, again.event.data()), (3, "{\"n\":2}"));
}

pub(super) async fn nothing_is_emitted_without_done(on: On) {
    let fixture = Fixture::new(on);
    let a = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(a, 4).await.unwrap();
    fixture.accept("one", &[a]).await;
    let job = next(&mut lane).await;

    // A conflict: something that it read has changed.
    let conflicting = saw(emitting(&fixture, "dlv_1.1", &[a]), "k", Some(KvVersion(7)));
    fixture.finish(job, Verdict::Done(conflicting)).await;
    let job = next(&mut lane).await;
    // Released, and its completion arrives late.
    fixture.store.release(job.clone()).await.unwrap();
    fixture.finish(job, Verdict::Done(emitting(&fixture, "dlv_1.1", &[a]))).await;
    fixture.store.flush().await.unwrap();
    assert_eq!(fixture.store.events(EventFilter::default()).await.unwrap().len(), 1);
    fixture.assert_balanced().await;
}

pub(super) async fn a_batch_that_is_taken_back_emits_once_when_it_is_tried_again(on: On) {
    let fixture = Fixture::new(on);
    let a = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(a, 4).await.unwrap();
    fixture.accept("one", &[a]).await;
    let job = next(&mut lane).await;
    fixture.store.inject(InjectedFailure::DiskFull);
    fixture.finish(job, Verdict::Done(emitting(&fixture, "dlv_1.1", &[a]))).await;
    let derived = next(&mut lane).await;
    assert_eq!(derived.event.content.id.as_str(), "dlv_1.1");
    fixture.done(derived, Effects::default()).await;
    assert_eq!(fixture.states().await, ["done", "done"]);
    fixture.assert_balanced().await;
}

pub(super) async fn the_room_for_more_is_known_before_a_commit_and_no_commit_is_refused(on: On) {
    let fixture = Fixture::with(on, |options| options.max_backlog = 2);
    let (a, b) = (fixture.plugin("a").await, fixture.plugin("b").await);
    let mut lane = fixture.store.open_lane(a, 4).await.unwrap();
    fixture.accept("one", &[a]).await;
    assert_eq!(fixture.store.room(), Ok(()));
    fixture.accept("two", &[a]).await;
    assert_eq!(fixture.store.room(), Err(StoreError::Backlog(2)));
    let job = next(&mut lane).await;
    fixture.done(job, emitting(&fixture, "dlv_1.1", &[a, b])).await;
    assert_eq!(fixture.states().await, ["done", "leased", "leased", "ready"]);
    assert_eq!(fixture.store.room(), Err(StoreError::Backlog(3)));
    fixture.assert_balanced().await;
}
