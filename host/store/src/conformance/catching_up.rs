//! Catching up: events that their sender was asked for, and what is known of the missing ones.

use std::time::Duration;

use posthouse_model::{EventId, EventOrigin, EventType, SecondKey, SourceName};

use super::support::*;

use crate::{Accepted, CatchUpState, CatchUpStep, EventFilter, MAX_MISSING, MissingEvent, Offer};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// An offer of the event that its sender calls `evt_<n>`. A webhook of it has another id.
fn offer(fixture: &Fixture, n: usize, origin: EventOrigin) -> Offer {
    let own = format!("evt_{n}");
    let id = if origin == EventOrigin::Webhook { format!("msg_{n}") } else { own.clone() };
    let second = Some(SecondKey::of_id(&own));
    Offer { event: fixture.event(id), second, subscribers: Vec::new(), origin }
}

fn missing(fixture: &Fixture, n: usize, ago: Duration) -> MissingEvent {
    MissingEvent {
        id: EventId::new(&format!("evt_{n}")).unwrap(),
        event_type: EventType::new("user.created").unwrap(),
        occurred_at: fixture.now() - ago,
    }
}

fn source(fixture: &Fixture) -> SourceName {
    fixture.event("any").source
}

async fn state(fixture: &Fixture) -> CatchUpState {
    fixture.store.catch_up_state(&source(fixture)).await.unwrap()
}

fn ids(state: &CatchUpState) -> Vec<&str> {
    state.missing.iter().map(|event| event.id.as_str()).collect()
}

pub(super) async fn an_event_that_was_asked_for_and_its_webhook_are_one_whichever_comes_first(on: On) {
    let fixture = Fixture::new(on);
    let (asked, webhook) = (EventOrigin::CatchUp, EventOrigin::Webhook);
    let names = |n| (EventId::new(&format!("evt_{n}")).unwrap(), Some(SecondKey::of_id(&format!("evt_{n}"))));
    for (n, first, second) in [(1, asked, webhook), (2, webhook, asked)] {
        let known = fixture.store.knows(&source(&fixture), vec![names(n), names(7)]).await.unwrap();
        assert_eq!(known, [false, false]);
        let accept =
            async |origin| fixture.store.accept_all(vec![offer(&fixture, n, origin)], None).await.unwrap()[0];
        assert!(matches!(accept(first).await, Accepted::Stored(_)));
        assert_eq!(accept(second).await, Accepted::Duplicate);
        let known = fixture.store.knows(&source(&fixture), vec![names(n), names(7)]).await.unwrap();
        assert_eq!(known, [true, false]);
    }
    let other = SourceName::new("other").unwrap();
    assert_eq!(fixture.store.knows(&other, vec![names(1)]).await.unwrap(), [false]);
    let found = fixture.crashed().store.events(EventFilter::default()).await.unwrap();
    let found: Vec<_> = found.iter().map(|event| (event.id.as_str(), event.origin)).collect();
    assert_eq!(found, [("msg_2", webhook), ("evt_1", asked)]);
}

pub(super) async fn what_is_missing_is_kept_until_it_is_here_and_within_a_bound(on: On) {
    let fixture = Fixture::new(on);
    let name = source(&fixture);
    assert_eq!(state(&fixture).await, CatchUpState::default());
    let compared_to = Some(fixture.now());
    let found = [(1, DAY), (2, 2 * DAY), (3, 3 * DAY)].map(|(n, ago)| missing(&fixture, n, ago));
    let step = CatchUpStep { compared_to, missing: found.to_vec(), arrived: Vec::new() };
    fixture.store.catch_up(&name, step.clone()).await.unwrap();
    fixture.store.catch_up(&name, CatchUpStep { compared_to: None, ..step }).await.unwrap();
    let after = state(&fixture.crashed()).await;
    assert_eq!((after.compared_to, ids(&after)), (compared_to, vec!["evt_3", "evt_2", "evt_1"]));

    let arrived = vec![EventId::new("evt_2").unwrap(), EventId::new("never_missed").unwrap()];
    fixture.store.catch_up(&name, CatchUpStep { arrived, ..CatchUpStep::default() }).await.unwrap();
    assert_eq!(ids(&state(&fixture).await), ["evt_3", "evt_1"]);
    // After 30 days nobody lists them any more.
    fixture.clock.advance(28 * DAY);
    fixture.store.catch_up(&name, CatchUpStep::default()).await.unwrap();
    assert_eq!(ids(&state(&fixture).await), ["evt_1"]);

    let many = (10..MAX_MISSING + 100).map(|n| missing(&fixture, n, DAY)).collect();
    fixture.store.catch_up(&name, CatchUpStep { missing: many, ..CatchUpStep::default() }).await.unwrap();
    let after = state(&fixture).await;
    assert_eq!((after.missing.len(), after.compared_to), (MAX_MISSING, compared_to));
    let other = SourceName::new("other").unwrap();
    assert_eq!(fixture.store.catch_up_state(&other).await.unwrap(), CatchUpState::default());
}

pub(super) async fn what_may_have_been_removed_is_known_by_its_time(on: On) {
    let fixture = Fixture::new(on);
    let mut times = Vec::new();
    for n in 1..=3 {
        times.push(fixture.now());
        let accepted = fixture.store.accept_all(vec![offer(&fixture, n, EventOrigin::Webhook)], None).await;
        assert!(matches!(accepted.unwrap()[..], [Accepted::Stored(_)]));
        fixture.clock.advance(DAY / 2);
    }
    fixture.clock.advance(Duration::from_secs(60));
    let before = state(&fixture).await;
    assert_eq!((before.removed_to, before.newest), (None, Some(times[2])));
    // The store of these tests keeps events for a day.
    assert_eq!(fixture.store.prune().await.unwrap(), 2);
    let after = state(&fixture.crashed()).await;
    assert_eq!((after.removed_to, after.newest), (Some(times[1]), Some(times[2])));
}

pub(super) async fn the_events_of_a_source_are_walked_newest_first(on: On) {
    let fixture = Fixture::new(on);
    let mut times = Vec::new();
    for n in 1..=4 {
        times.push(fixture.now());
        let mut own = offer(&fixture, n, EventOrigin::Webhook);
        let mut foreign = own.clone();
        foreign.event.source = SourceName::new("other").unwrap();
        own.event.occurred_at = Some(fixture.now() - DAY);
        fixture.store.accept_all(vec![own, foreign], None).await.unwrap();
        fixture.clock.advance(Duration::from_secs(60));
    }
    let found = fixture.store.stored_heads(&source(&fixture), times[1], None, true).await.unwrap();
    assert_eq!(found.next, None);
    let told: Vec<_> = found.heads.iter().map(|head| (head.id.as_str(), head.received_at)).collect();
    assert_eq!(told, [("msg_4", times[3]), ("msg_3", times[2]), ("msg_2", times[1])]);
    assert_eq!(found.heads[0].second, Some(SecondKey::of_id("evt_4")));
    assert_eq!(found.heads[0].occurred_at, Some(times[3] - DAY));
    let rest = fixture
        .store
        .stored_heads(&source(&fixture), times[0], Some(found.heads[1].seq), true)
        .await
        .unwrap();
    let old =
        Offer { event: fixture.event("evt_old"), second: None, ..offer(&fixture, 9, EventOrigin::Webhook) };
    fixture.store.accept_all(vec![old], None).await.unwrap();
    for asked in [true, false] {
        let found = fixture.store.stored_heads(&source(&fixture), fixture.now(), None, asked).await.unwrap();
        let ids = found.heads.iter().map(|head| head.own_id.as_deref()).collect::<Vec<_>>();
        assert_eq!(ids, [asked.then_some("evt_old")]);
    }
    assert_eq!(rest.heads.iter().map(|head| head.id.as_str()).collect::<Vec<_>>(), ["msg_2", "msg_1"]);
}
