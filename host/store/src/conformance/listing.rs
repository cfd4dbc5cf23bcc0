//! Lists: whole, in order, and each filter means what it says.

use std::time::Duration;

use posthouse_model::{
    DeliveryState, EventId, EventType, LogLevel, LogLine, Outcome, Pattern, PluginId, SourceName,
};

use super::support::*;

use crate::{DeliveryFilter, EventFilter, Verdict};

/// Thirty events, one a minute, of two sources, three types, two organizations.
async fn fixture(on: On) -> Fixture {
    let fixture = Fixture::new(on);
    let (a, b) = (fixture.plugin("a").await, fixture.plugin("b").await);
    for n in 0..30 {
        let mut event = fixture.event(n);
        event.source = SourceName::new(if n % 10 == 9 { "other" } else { "scalekit" }).unwrap();
        event.event_type =
            EventType::new(["user.created", "user.deleted", "organization.created"][n % 3]).unwrap();
        event.organization = (n % 2 == 0).then(|| "org_even".into());
        fixture.store.accept(event, if n % 5 == 0 { vec![a, b] } else { vec![a] }).await.unwrap();
        fixture.clock.advance(Duration::from_secs(60));
    }
    fixture
}

pub(super) async fn events_are_listed_newest_first_page_by_page(on: On) {
    let fixture = fixture(on).await;
    let (mut before, mut ids) = (None, Vec::new());
    loop {
        let page =
            fixture.store.events(EventFilter { limit: 7, before, ..EventFilter::default() }).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.seq);
        ids.extend(page.into_iter().map(|event| event.id));
    }
    assert_eq!(ids, (0..30).rev().map(|n| n.to_string()).collect::<Vec<_>>());
}

pub(super) async fn each_filter_of_events_means_what_it_says(on: On) {
    let fixture = fixture(on).await;
    let since = fixture.now() - Duration::from_secs(10 * 60);
    let all = EventFilter::default;
    let cases: [(EventFilter, &dyn Fn(usize) -> bool); 6] = [
        (EventFilter { event_type: Some(Pattern::new("user.*").unwrap()), ..all() }, &|n| n % 3 != 2),
        (EventFilter { event_type: Some(Pattern::new("user.deleted").unwrap()), ..all() }, &|n| n % 3 == 1),
        (EventFilter { event_type: Some(Pattern::new("never.seen").unwrap()), ..all() }, &|_| false),
        (EventFilter { source: Some("other".to_owned()), ..all() }, &|n| n % 10 == 9),
        (EventFilter { organization: Some("org_even".to_owned()), ..all() }, &|n| n % 2 == 0),
        (EventFilter { since: Some(since), ..all() }, &|n| n >= 20),
    ];
    for (filter, wanted) in cases {
        let found: Vec<_> =
            fixture.store.events(filter.clone()).await.unwrap().into_iter().map(|event| event.id).collect();
        let expected: Vec<_> = (0..30).rev().filter(|n| wanted(*n)).map(|n| n.to_string()).collect();
        assert_eq!(found, expected, "{filter:?}");
    }
}

pub(super) async fn each_filter_of_deliveries_means_what_it_says(on: On) {
    let fixture = fixture(on).await;
    let a = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(a, 3).await.unwrap();
    fixture.done(next(&mut lane).await, effects(&[])).await;
    fixture.finish(next(&mut lane).await, Verdict::Dead).await;
    fixture.finish(next(&mut lane).await, Verdict::Retry(fixture.now() + Duration::from_secs(60))).await;
    lane.close().await;
    let seq = fixture.store.event(None, "10").await.unwrap()[0].summary.seq;
    let all = || DeliveryFilter { limit: 1000, ..DeliveryFilter::default() };
    let state = |state| DeliveryFilter { state: Some(state), ..all() };
    for (filter, count) in [
        (all(), 36),
        (state(DeliveryState::Done), 1),
        (state(DeliveryState::Dead), 1),
        (state(DeliveryState::Waiting), 1),
        (state(DeliveryState::Leased), 0),
        (state(DeliveryState::Held), 0),
        (state(DeliveryState::Ready), 33),
        (DeliveryFilter { plugin: Some("b".to_owned()), ..all() }, 6),
        (DeliveryFilter { plugin: Some("a".to_owned()), ..state(DeliveryState::Dead) }, 1),
        (DeliveryFilter { plugin: Some("b".to_owned()), ..state(DeliveryState::Dead) }, 0),
        (DeliveryFilter { event: Some(seq), ..all() }, 2),
        (DeliveryFilter { event_type: Some(Pattern::new("organization.*").unwrap()), ..all() }, 12),
        (DeliveryFilter { since: Some(fixture.now() - Duration::from_secs(61)), ..all() }, 3),
        (DeliveryFilter { limit: 5, ..all() }, 5),
    ] {
        assert_eq!(fixture.store.deliveries(filter.clone()).await.unwrap().len(), count, "{filter:?}");
    }
}

pub(super) async fn an_event_is_shown_with_all_that_became_of_it(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 1).await.unwrap();
    fixture.accept("one", &[plugin]).await;
    let mut other = fixture.event("one");
    other.source = SourceName::new("other").unwrap();
    fixture.store.accept(other, Vec::<PluginId>::new()).await.unwrap();
    assert_eq!(fixture.store.event(None, "one").await.unwrap().len(), 2, "an id of two sources");

    let job = next(&mut lane).await;
    let verdict = Verdict::Retry(fixture.now());
    let mut attempt = fixture.attempt(&job, &verdict);
    attempt.trace = Some("handle\nrun".to_owned());
    attempt.logs = vec![LogLine {
        after: Duration::ZERO,
        level: LogLevel::Warn,
        message: "slow\n\"quoted\"".to_owned(),
    }];
    fixture.store.complete(job, attempt.clone(), verdict).await.unwrap();
    let mut effects = effects(&[]);
    effects.outbox.push(mail("hello"));
    fixture.done(next(&mut lane).await, effects).await;

    let source = SourceName::new("scalekit").unwrap();
    let event = fixture.store.event(Some(source), "one").await.unwrap().remove(0);
    assert_eq!(event.body.as_bytes(), &fixture.event("one").body[..]);
    assert_eq!(event.summary.bytes, event.body.len() as u64);
    assert_eq!(event.summary.deliveries["done"], 1);
    assert_eq!(event.summary.organization.as_deref(), Some("org_1"));
    let delivery = &event.history[0];
    assert_eq!((delivery.summary.state, delivery.summary.attempts), (DeliveryState::Done, 2));
    assert_eq!((&delivery.summary.error, delivery.summary.due_at), (&None, None));
    let [first, second] = &delivery.attempt_log[..] else { panic!("{:?}", delivery.attempt_log) };
    assert_eq!((first.outcome, &first.trace, &first.logs), (Outcome::Retry, &attempt.trace, &attempt.logs));
    assert_eq!((first.number, first.duration_us, first.started_at), (1, 1500, attempt.started_at));
    assert_eq!((second.number, second.outcome, &second.error), (2, Outcome::Done, &None));
    assert_eq!((&first.revision, &second.revision), (&attempt.revision, &attempt.revision));
    assert_eq!(delivery.outbox.len(), 1);
    assert_eq!(delivery.outbox[0].delivery, delivery.summary.id);
    assert!(fixture.store.event(None, EventId::new("two").unwrap().as_str()).await.unwrap().is_empty());
}
