//! The inbox: durable, once, bounded.

use bytes::Bytes;
use futures_of::all;
use posthouse_model::{EventOrigin, NewEvent, PluginId, RequestParts, SecondKey, SourceName};

use super::support::*;

use crate::{Accepted, Offer, StoreError};

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

pub(super) async fn a_second_key_that_was_seen_makes_a_duplicate_whatever_the_id(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let key = |text: &str| Some(SecondKey::of("test", &[text.as_bytes()]));
    let offer = |id: &str, second| offer_of(fixture.event(id), second, plugin);
    let accept = async |offer| fixture.store.accept_all(vec![offer], None).await.unwrap()[0];
    assert!(matches!(accept(offer("one", key("x"))).await, Accepted::Stored(_)));
    assert_eq!(accept(offer("two", key("x"))).await, Accepted::Duplicate, "another id, the same key");
    assert_eq!(accept(offer("one", key("y"))).await, Accepted::Duplicate, "the same id, another key");
    assert_eq!(accept(offer("one", None)).await, Accepted::Duplicate);
    assert!(matches!(accept(offer("two", key("y"))).await, Accepted::Stored(_)), "both are new");
    assert!(matches!(accept(offer("three", None)).await, Accepted::Stored(_)));
    assert!(matches!(accept(offer("four", None)).await, Accepted::Stored(_)), "no key is equal to none");
    let mut elsewhere = offer("five", key("x"));
    elsewhere.event.source = SourceName::new("other").unwrap();
    assert!(matches!(accept(elsewhere).await, Accepted::Stored(_)), "a key is unique within its source only");
    assert_eq!(fixture.crashed().states().await.len(), 5);
}

pub(super) async fn several_events_are_stored_together_or_none_is(on: On) {
    let fixture = Fixture::with(on, |options| options.max_backlog = 3);
    let plugin = fixture.plugin("a").await;
    let offers = |ids: &[&str]| {
        let offer = |id: &&str| offer_of(fixture.event(id), None, plugin);
        ids.iter().map(offer).collect::<Vec<_>>()
    };
    let accepted = fixture.store.accept_all(offers(&["a", "b", "a"]), None).await.unwrap();
    assert!(matches!(accepted[..], [Accepted::Stored(_), Accepted::Stored(_), Accepted::Duplicate]));
    assert_eq!(fixture.crashed().states().await, ["ready"; 2]);
    // The limit is asked once: a request is never half in the store.
    let accepted = fixture.store.accept_all(offers(&["c", "d"]), None).await.unwrap();
    assert!(matches!(accepted[..], [Accepted::Stored(_), Accepted::Stored(_)]));
    let refused = fixture.store.accept_all(offers(&["a", "e"]), None).await;
    assert_eq!(refused, Err(StoreError::Backlog(4)));
    let known = fixture.store.accept_all(offers(&["a", "d"]), None).await;
    assert_eq!(known, Ok(vec![Accepted::Duplicate; 2]));
    assert_eq!(fixture.states().await, ["ready"; 4]);
    assert_eq!(fixture.store.accept_all(Vec::new(), None).await, Ok(Vec::new()));
}

pub(super) async fn what_is_kept_of_a_request_reaches_its_deliveries_and_its_readers(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let pair = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    let request = RequestParts {
        content_type: RequestParts::content_type("application/x-www-form-urlencoded"),
        headers: pair("x-github-event", "issues"),
        signature: pair("x-hub-signature-256", "sha256=00"),
        original: Some(Bytes::from_static(b"a=b")),
    };
    let mut event = fixture.event("kept");
    event.request = request.clone();
    fixture.store.accept(event, vec![plugin]).await.unwrap();
    fixture.accept("bare", &[plugin]).await;

    let found = fixture.crashed();
    let shown = found.store.event(None, "kept").await.unwrap().remove(0);
    assert_eq!(shown.content_type.as_deref(), Some("application/x-www-form-urlencoded"));
    assert_eq!(shown.headers, request.headers, "and never the signature");
    let bare = found.store.event(None, "bare").await.unwrap().remove(0);
    assert_eq!((bare.content_type, bare.headers), (None, Vec::new()));

    let mut lane = found.store.open_lane(plugin, 4).await.unwrap();
    let jobs = [next(&mut lane).await, next(&mut lane).await];
    assert_eq!(jobs[0].event.content.request, request);
    assert_eq!(jobs[1].event.content.request, RequestParts::default());
}

/// An event that arrives as a webhook, for this plugin.
fn offer_of(event: NewEvent, second: Option<SecondKey>, plugin: PluginId) -> Offer {
    Offer { event, second, subscribers: vec![plugin.into()], origin: EventOrigin::Webhook }
}
