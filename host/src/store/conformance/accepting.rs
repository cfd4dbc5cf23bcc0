//! The inbox: durable, once, bounded.

use futures_of::all;

use super::support::*;
use crate::{
    model::SourceName,
    store::{Accepted, StoreError},
};

mod futures_of {
    //! Runs futures at once, so that their operations share a batch.

    pub(in crate::store::conformance) async fn all<T: Send + 'static>(
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
    let house = House::new(on);
    let plugins = [house.plugin("a").await, house.plugin("b").await];
    for n in 0..20 {
        house.accept(n, &plugins).await;
        let found = house.crashed();
        assert_eq!(found.states().await, vec!["ready"; 2 * (n + 1)]);
    }
}

pub(super) async fn an_event_seen_before_is_a_duplicate_and_makes_nothing(on: On) {
    let house = House::new(on);
    let plugin = house.plugin("a").await;
    house.accept("one", &[plugin]).await;
    let again = house.store.accept(house.event("one"), vec![plugin]).await.unwrap();
    assert_eq!(again, Accepted::Duplicate);
    assert_eq!(house.states().await, ["ready"]);
    let mut elsewhere = house.event("one");
    elsewhere.source = SourceName::new("other").unwrap();
    let other = house.store.accept(elsewhere, vec![plugin]).await.unwrap();
    assert!(matches!(other, Accepted::Stored(_)), "the id is unique within its source only");
}

pub(super) async fn of_equal_events_at_once_exactly_one_is_stored(on: On) {
    let house = House::new(on);
    let plugin = house.plugin("a").await;
    for round in 0..10 {
        let offers = (0..16).map(|_| {
            let (store, event) = (house.store.clone(), house.event(round));
            async move { store.accept(event, vec![plugin]).await.unwrap() }
        });
        let answers = all(offers).await;
        let stored = answers.iter().filter(|answer| **answer != Accepted::Duplicate).count();
        assert_eq!((stored, answers.len()), (1, 16));
    }
    assert_eq!(house.states().await, ["ready"; 10]);
}

pub(super) async fn a_full_backlog_takes_nothing_more_but_knows_what_it_has(on: On) {
    let house = House::with(on, |options| options.max_backlog = 3);
    let plugin = house.plugin("a").await;
    for n in 0..3 {
        house.accept(n, &[plugin]).await;
    }
    let refused = house.store.accept(house.event("more"), vec![plugin]).await;
    assert_eq!(refused, Err(StoreError::Backlog(3)));
    let known = house.store.accept(house.event(1), vec![plugin]).await;
    assert_eq!(known, Ok(Accepted::Duplicate));

    let mut lane = house.store.open_lane(plugin, 1).await.unwrap();
    house.done(next(&mut lane).await, effects(&[])).await;
    house.accept("more", &[plugin]).await;
}

pub(super) async fn an_event_nobody_wants_is_kept_all_the_same(on: On) {
    let house = House::new(on);
    house.accept("one", &[]).await;
    assert_eq!(house.store.event(None, "one").await.unwrap().len(), 1);
    assert!(house.states().await.is_empty());
}
