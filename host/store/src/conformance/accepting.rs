//! The inbox: durable, once, bounded.

use futures_of::all;
use posthouse_model::SourceName;

use super::support::*;

use crate::{Accepted, StoreError};

mod futures_of {
    //! Runs futures at once, so that their operations share a batch.

    pub(in crate::conformance) async fn all<T: Send + 'static>(
        futures: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
    ) -> Vec<T> {
        let tasks: Vec<_> = futures.into_iter().map(tokio::spawn).collect();
        let mut outputs = Vec::new();
        for task in tasks {
            outputs.push(task.await.unwrap());
        }
        outputs
    }
}

pub(super) async fn an_event_that_was_answered_is_there_after_a_crash(on: On) {
    let fixture = Fixture::new(on);
    let plugins = [fixture.plugin("a").await, fixture.plugin("b").await];
    for n in 0..20 {
        fixture.accept(n, &plugins).await;
        let found = fixture.crashed();
        assert_eq!(found.states().await, vec!["ready"; 2 * (n + 1)]);
    }
}

pub(super) async fn an_event_seen_before_is_a_duplicate_and_makes_nothing(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    fixture.accept("one", &[plugin]).await;
    let again = fixture.store.accept(fixture.event("one"), vec![plugin]).await.unwrap();
    assert_eq!(again, Accepted::Duplicate);
    assert_eq!(fixture.states().await, ["ready"]);
    let mut elsewhere = fixture.event("one");
    elsewhere.source = SourceName::new("other").unwrap();
    let other = fixture.store.accept(elsewhere, vec![plugin]).await.unwrap();
    assert!(matches!(other, Accepted::Stored(_)), "the id is unique within its source only");
}

pub(super) async fn of_equal_events_at_once_exactly_one_is_stored(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    for round in 0..10 {
        let offers = (0..16).map(|_| {
            let (store, event) = (fixture.store.clone(), fixture.event(round));
            async move { store.accept(event, vec![plugin]).await.unwrap() }
        });
        let answers = all(offers).await;
        let stored = answers.iter().filter(|answer| **answer != Accepted::Duplicate).count();
        assert_eq!((stored, answers.len()), (1, 16));
    }
    assert_eq!(fixture.states().await, ["ready"; 10]);
}

pub(super) async fn a_full_backlog_takes_nothing_more_but_knows_what_it_has(on: On) {
    let fixture = Fixture::with(on, |options| options.max_backlog = 3);
    let plugin = fixture.plugin("a").await;
    for n in 0..3 {
        fixture.accept(n, &[plugin]).await;
    }
    let refused = fixture.store.accept(fixture.event("more"), vec![plugin]).await;
    assert_eq!(refused, Err(StoreError::Backlog(3)));
    let known = fixture.store.accept(fixture.event(1), vec![plugin]).await;
    assert_eq!(known, Ok(Accepted::Duplicate));

    let mut lane = fixture.store.open_lane(plugin, 1).await.unwrap();
    fixture.done(next(&mut lane).await, effects(&[])).await;
    fixture.accept("more", &[plugin]).await;
}

pub(super) async fn an_event_nobody_wants_is_kept_all_the_same(on: On) {
    let fixture = Fixture::new(on);
    fixture.accept("one", &[]).await;
    assert_eq!(fixture.store.event(None, "one").await.unwrap().len(), 1);
    assert!(fixture.states().await.is_empty());
}
