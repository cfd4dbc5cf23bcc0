//! The outbox: items staged with a commit are sent in order of due time, until they are sent or dead.

use std::time::Duration;

use posthouse_model::{OutboxItem, OutboxKind, OutboxState, WebRequest};

use super::support::*;

use crate::{OutboxFilter, OutboxJob, OutboxResult, OutboxSlots};

/// So many slots, none of them reserved.
fn slots(at_once: usize) -> OutboxSlots {
    OutboxSlots { at_once, kept: false }
}

/// A store with these mails in its outbox, each of a separate delivery.
async fn house_with(on: On, subjects: &[&str]) -> Fixture {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 1).await.unwrap();
    for subject in subjects {
        fixture.accept(subject, &[plugin]).await;
        let mut effects = effects(&[]);
        effects.outbox.push(mail(subject));
        fixture.done(next(&mut lane).await, effects).await;
    }
    fixture
}

fn subject(job: &OutboxJob) -> &str {
    let OutboxItem::Mail(mail) = &job.item else { panic!("a mail was leased") };
    &mail.subject
}

/// Leases while fewer than so many items are leased.
async fn lease(fixture: &Fixture, at_once: usize) -> Vec<OutboxJob> {
    let leased = fixture.store.lease_outbox(OutboxKind::Mail, slots(at_once));
    tokio::time::timeout(TIMEOUT, leased).await.unwrap().unwrap()
}

async fn assert_nothing_due(fixture: &Fixture) {
    assert_nothing_has_a_place(fixture, 99).await;
}

/// Nothing is due, or no slot is free for it.
async fn assert_nothing_has_a_place(fixture: &Fixture, at_once: usize) {
    let leased = fixture.store.lease_outbox(OutboxKind::Mail, slots(at_once));
    assert!(tokio::time::timeout(MOMENT, leased).await.is_err());
}

pub(super) async fn items_leave_once_and_in_order(on: On) {
    let fixture = house_with(on, &["one", "two", "three"]).await;
    let leased = lease(&fixture, 2).await;
    assert_eq!(leased.iter().map(subject).collect::<Vec<_>>(), ["one", "two"]);
    assert_nothing_has_a_place(&fixture, 2).await;
    for job in &leased {
        assert_eq!(job.attempt, 1);
        fixture.store.complete_outbox(job, OutboxResult::Sent).await.unwrap();
    }
    let last = lease(&fixture, 2).await;
    assert_eq!(last.iter().map(subject).collect::<Vec<_>>(), ["three"]);
    fixture.store.complete_outbox(&last[0], OutboxResult::Sent).await.unwrap();
    assert_nothing_due(&fixture).await;
    assert_eq!(fixture.store.stats().await.unwrap().outbox[&OutboxState::Sent], 3);
}

pub(super) async fn who_waits_is_woken_by_a_new_item(on: On) {
    let fixture = house_with(on, &[]).await;
    let store = fixture.store.clone();
    let waiting = tokio::spawn(async move { store.lease_outbox(OutboxKind::Mail, slots(5)).await });
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 1).await.unwrap();
    fixture.accept("one", &[plugin]).await;
    let mut effects = effects(&[]);
    effects.outbox.push(mail("hello"));
    fixture.done(next(&mut lane).await, effects).await;
    let leased = tokio::time::timeout(TIMEOUT, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(leased.iter().map(subject).collect::<Vec<_>>(), ["hello"]);
}

pub(super) async fn one_who_stopped_waiting_takes_nothing_with_him(on: On) {
    let fixture = house_with(on, &[]).await;
    assert_nothing_due(&fixture).await;
    let fixture = house_with(on, &["one"]).await;
    assert_eq!(lease(&fixture, 1).await.len(), 1);
}

pub(super) async fn a_failed_item_waits_is_given_up_and_can_be_sent_again(on: On) {
    let fixture = house_with(on, &["one"]).await;
    let job = lease(&fixture, 1).await.remove(0);
    let due = fixture.now() + Duration::from_secs(10);
    let error = "no route".to_owned();
    fixture.store.complete_outbox(&job, OutboxResult::Retry { due, error: error.clone() }).await.unwrap();
    assert_nothing_due(&fixture).await;
    fixture.clock.advance(Duration::from_secs(10));
    let job = lease(&fixture, 1).await.remove(0);
    assert_eq!(job.attempt, 2);
    fixture.store.complete_outbox(&job, OutboxResult::Dead { error }).await.unwrap();

    let dead = OutboxFilter { state: Some(OutboxState::Dead), ..OutboxFilter::default() };
    let listed = fixture.store.outbox(dead.clone()).await.unwrap();
    assert_eq!((listed.len(), listed[0].attempts, listed[0].error.as_deref()), (1, 2, Some("no route")));
    let shown = listed[0].head.summary();
    assert!(shown.contains("ada@example.com") && !shown.contains("the text"), "{shown}");
    assert_eq!(fixture.store.replay_outbox(vec![job.id]).await.unwrap(), 1);
    assert_eq!(fixture.store.replay_outbox(Vec::new()).await.unwrap(), 0);
    assert!(fixture.store.outbox(dead).await.unwrap().is_empty());
    let again = lease(&fixture, 1).await.remove(0);
    assert_eq!((again.id, again.attempt), (job.id, 1));
    let outbox = fixture.store.stats().await.unwrap().outbox;
    assert_eq!((outbox[&OutboxState::Leased], outbox.values().sum::<u64>()), (1, 1));
}

pub(super) async fn after_a_crash_what_was_being_sent_is_sent_again(on: On) {
    let fixture = house_with(on, &["one", "two"]).await;
    let sent = lease(&fixture, 1).await.remove(0);
    fixture.store.complete_outbox(&sent, OutboxResult::Sent).await.unwrap();
    lease(&fixture, 1).await;
    let found = fixture.crashed();
    assert_eq!(found.store.stats().await.unwrap().outbox[&OutboxState::Ready], 1);
    assert_eq!(lease(&found, 5).await.iter().map(subject).collect::<Vec<_>>(), ["two"]);
}

pub(super) async fn each_kind_has_a_line_of_its_own(on: On) {
    let fixture = house_with(on, &["one", "two"]).await;
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 1).await.unwrap();
    fixture.accept("three", &[plugin]).await;
    let mut effects = effects(&[]);
    effects.outbox.push(OutboxItem::Request(WebRequest {
        key: "dlv_1-1".into(),
        method: "POST".into(),
        url: "https://a.example/hook?token=hunter2".into(),
        headers: vec![("x-api-key".into(), "hunter3".into())],
        body: b"the body".into(),
    }));
    fixture.done(next(&mut lane).await, effects).await;

    let leased = fixture.store.lease_outbox(OutboxKind::Request, slots(5));
    let leased = tokio::time::timeout(TIMEOUT, leased).await.unwrap().unwrap();
    assert_eq!(leased.iter().map(|job| job.item.kind()).collect::<Vec<_>>(), [OutboxKind::Request]);
    let due = fixture.now() + Duration::from_secs(10);
    let late = OutboxResult::Retry { due, error: "503".into() };
    fixture.store.complete_outbox(&leased[0], late).await.unwrap();
    assert_eq!(lease(&fixture, 5).await.iter().map(subject).collect::<Vec<_>>(), ["one", "two"]);

    fixture.clock.advance(Duration::from_secs(10));
    let again = fixture.store.lease_outbox(OutboxKind::Request, slots(5));
    let again = tokio::time::timeout(TIMEOUT, again).await.unwrap().unwrap();
    assert_eq!((again[0].id, again[0].attempt), (leased[0].id, 2));

    let listed = fixture.store.outbox(OutboxFilter::default()).await.unwrap();
    assert_eq!((listed[0].head.kind(), listed[1].head.kind()), ("request", "mail"));
    assert_eq!(listed[0].head.summary(), "POST https://a.example/hook?…");
}

/// A store with so many mails of each of these plugins; the first plugin's are the oldest.
async fn house_of(on: On, counts: &[(&str, usize)]) -> Fixture {
    let fixture = Fixture::new(on);
    for (name, count) in counts {
        let plugin = fixture.plugin(name).await;
        let mut lane = fixture.store.open_lane(plugin, 1).await.unwrap();
        fixture.accept(name, &[plugin]).await;
        let mut effects = effects(&[]);
        effects.outbox.extend((0..*count).map(|n| mail(&format!("{name}{n}"))));
        fixture.done(next(&mut lane).await, effects).await;
    }
    fixture
}

async fn lease_kept(fixture: &Fixture, at_once: usize) -> Vec<OutboxJob> {
    let leased = fixture.store.lease_outbox(OutboxKind::Mail, OutboxSlots { at_once, kept: true });
    tokio::time::timeout(TIMEOUT, leased).await.unwrap().unwrap()
}

pub(super) async fn the_items_of_one_plugin_take_no_place_that_another_will_need(on: On) {
    let fixture = house_of(on, &[("a", 100), ("b", 3)]).await;
    // Those of `a` are due first, and there are many.
    let first = lease_kept(&fixture, 16).await;
    let of =
        |jobs: &[OutboxJob], name: &str| jobs.iter().filter(|job| subject(job).starts_with(name)).count();
    assert!(
        of(&first, "a") <= 8 && of(&first, "b") == 3,
        "{:?}",
        first.iter().map(subject).collect::<Vec<_>>()
    );
    assert!(
        first
            .iter()
            .map(subject)
            .filter(|s| s.starts_with('a'))
            .eq((0..of(&first, "a")).map(|n| format!("a{n}")))
    );
    // None of `a` is sent: its own items wait, and later items of others are sent at once.
    assert!(
        tokio::time::timeout(
            MOMENT,
            fixture.store.lease_outbox(OutboxKind::Mail, OutboxSlots { at_once: 16, kept: true })
        )
        .await
        .is_err()
    );
    let plugin = fixture.plugin("c").await;
    let mut lane = fixture.store.open_lane(plugin, 1).await.unwrap();
    fixture.accept("c", &[plugin]).await;
    let mut later = effects(&[]);
    later.outbox.push(mail("c0"));
    fixture.done(next(&mut lane).await, later).await;
    assert_eq!(lease_kept(&fixture, 16).await.iter().map(subject).collect::<Vec<_>>(), ["c0"]);

    // Slots that remain go to a caller that waits already.
    let sent = async {
        for job in first.iter().filter(|job| subject(job).starts_with('a')).take(2) {
            fixture.store.complete_outbox(job, OutboxResult::Sent).await.unwrap();
        }
    };
    let (waited, ()) = tokio::join!(lease_kept(&fixture, 16), sent);
    assert_eq!(of(&waited, "a"), 1);
}

pub(super) async fn where_no_place_is_left_items_wait_for_one_and_none_is_forgotten(on: On) {
    let fixture = house_of(on, &[("a", 5), ("b", 5)]).await;
    let mut sent = Vec::new();
    let mut leased = lease(&fixture, 4).await;
    while sent.len() < 10 {
        assert!(leased.len() <= 4);
        let job = leased.remove(0);
        fixture.store.complete_outbox(&job, OutboxResult::Sent).await.unwrap();
        sent.push(subject(&job).to_owned());
        if sent.len() + leased.len() < 10 {
            leased.extend(lease(&fixture, 4).await);
        }
    }
    // The plugins alternate, and each plugin's items keep their order.
    for name in ["a", "b"] {
        let own: Vec<_> = sent.iter().filter(|subject| subject.starts_with(name)).collect();
        assert!(own.iter().map(|s| s.as_str()).eq((0..5).map(|n| format!("{name}{n}"))), "{sent:?}");
    }
    assert!(sent[..5].iter().any(|subject| subject.starts_with('b')), "{sent:?}");
    assert_nothing_due(&fixture).await;
}
