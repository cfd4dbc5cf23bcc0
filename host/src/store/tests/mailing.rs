//! The outbox: what was staged with a commit leaves, in order of due time, until sent or given up.

use std::time::Duration;

use super::support::*;
use crate::{
    model::{OutboxItem, OutboxKind, WebRequest},
    store::{OutboxFilter, OutboxJob, OutboxResult},
};

/// A store with these mails in its outbox, each of a delivery of its own.
async fn house_with(subjects: &[&str]) -> House {
    let house = House::new();
    let plugin = house.plugin("a").await;
    let mut lane = house.store.open_lane(plugin, 1).await.unwrap();
    for subject in subjects {
        house.accept(subject, &[plugin]).await;
        let mut effects = effects(&[]);
        effects.outbox.push(mail(subject));
        house.done(next(&mut lane).await, effects).await;
    }
    house
}

fn subject(job: &OutboxJob) -> &str {
    let OutboxItem::Mail(mail) = &job.item else { panic!("a mail was leased") };
    &mail.subject
}

async fn lease(house: &House, limit: usize) -> Vec<OutboxJob> {
    tokio::time::timeout(PATIENCE, house.store.lease_outbox(OutboxKind::Mail, limit)).await.unwrap().unwrap()
}

async fn assert_nothing_due(house: &House) {
    assert!(tokio::time::timeout(MOMENT, house.store.lease_outbox(OutboxKind::Mail, 1)).await.is_err());
}

#[tokio::test]
async fn items_leave_once_and_in_order() {
    let house = house_with(&["one", "two", "three"]).await;
    let leased = lease(&house, 2).await;
    assert_eq!(leased.iter().map(subject).collect::<Vec<_>>(), ["one", "two"]);
    let last = lease(&house, 2).await;
    assert_eq!(last.iter().map(subject).collect::<Vec<_>>(), ["three"]);
    assert_nothing_due(&house).await;
    for job in leased.iter().chain(&last) {
        assert_eq!(job.attempt, 1);
        house.store.complete_outbox(job, OutboxResult::Sent).await.unwrap();
    }
    assert_eq!(house.store.stats().await.unwrap().outbox["sent"], 3);
}

#[tokio::test]
async fn who_waits_is_woken_by_a_new_item() {
    let house = house_with(&[]).await;
    let store = house.store.clone();
    let waiting = tokio::spawn(async move { store.lease_outbox(OutboxKind::Mail, 5).await });
    let plugin = house.plugin("a").await;
    let mut lane = house.store.open_lane(plugin, 1).await.unwrap();
    house.accept("one", &[plugin]).await;
    let mut effects = effects(&[]);
    effects.outbox.push(mail("hello"));
    house.done(next(&mut lane).await, effects).await;
    let leased = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(leased.iter().map(subject).collect::<Vec<_>>(), ["hello"]);
}

#[tokio::test]
async fn one_who_stopped_waiting_takes_nothing_with_him() {
    let house = house_with(&[]).await;
    assert_nothing_due(&house).await;
    let house = house_with(&["one"]).await;
    assert_eq!(lease(&house, 1).await.len(), 1);
}

#[tokio::test]
async fn a_failed_item_waits_is_given_up_and_can_be_sent_again() {
    let house = house_with(&["one"]).await;
    let job = lease(&house, 1).await.remove(0);
    let due = house.now() + Duration::from_secs(10);
    let error = "no route".to_owned();
    house.store.complete_outbox(&job, OutboxResult::Retry { due, error: error.clone() }).await.unwrap();
    assert_nothing_due(&house).await;
    house.clock.advance(Duration::from_secs(10));
    let job = lease(&house, 1).await.remove(0);
    assert_eq!(job.attempt, 2);
    house.store.complete_outbox(&job, OutboxResult::Dead { error }).await.unwrap();

    let dead = OutboxFilter { state: Some("dead".to_owned()), ..OutboxFilter::default() };
    let listed = house.store.outbox(dead.clone()).await.unwrap();
    assert_eq!((listed.len(), listed[0].attempts, listed[0].error.as_deref()), (1, 2, Some("no route")));
    assert!(listed[0].summary.contains("ada@example.com") && !listed[0].summary.contains("the text"));
    assert_eq!(house.store.replay_outbox(vec![job.id]).await.unwrap(), 1);
    assert_eq!(house.store.replay_outbox(Vec::new()).await.unwrap(), 0);
    assert!(house.store.outbox(dead).await.unwrap().is_empty());
    let again = lease(&house, 1).await.remove(0);
    assert_eq!((again.id, again.attempt), (job.id, 1));
    let outbox = house.store.stats().await.unwrap().outbox;
    assert_eq!((outbox["leased"], outbox.values().sum::<u64>()), (1, 1));
}

#[tokio::test]
async fn after_a_crash_what_was_being_sent_is_sent_again() {
    let house = house_with(&["one", "two"]).await;
    let sent = lease(&house, 1).await.remove(0);
    house.store.complete_outbox(&sent, OutboxResult::Sent).await.unwrap();
    lease(&house, 1).await;
    let found = house.crashed();
    assert_eq!(found.store.stats().await.unwrap().outbox["ready"], 1);
    assert_eq!(lease(&found, 5).await.iter().map(subject).collect::<Vec<_>>(), ["two"]);
}

#[tokio::test]
async fn each_kind_has_a_line_of_its_own() {
    let house = house_with(&["one", "two"]).await;
    let plugin = house.plugin("a").await;
    let mut lane = house.store.open_lane(plugin, 1).await.unwrap();
    house.accept("three", &[plugin]).await;
    let mut effects = effects(&[]);
    effects.outbox.push(OutboxItem::Request(WebRequest {
        key: "dlv_1-1".into(),
        method: "POST".into(),
        url: "https://a.example/hook?token=hunter2".into(),
        headers: vec![("x-api-key".into(), "hunter3".into())],
        body: b"the body".into(),
    }));
    house.done(next(&mut lane).await, effects).await;

    let leased = house.store.lease_outbox(OutboxKind::Request, 5);
    let leased = tokio::time::timeout(PATIENCE, leased).await.unwrap().unwrap();
    assert_eq!(leased.iter().map(|job| job.item.kind()).collect::<Vec<_>>(), [OutboxKind::Request]);
    let due = house.now() + Duration::from_secs(10);
    let late = OutboxResult::Retry { due, error: "503".into() };
    house.store.complete_outbox(&leased[0], late).await.unwrap();
    assert_eq!(lease(&house, 5).await.iter().map(subject).collect::<Vec<_>>(), ["one", "two"]);

    house.clock.advance(Duration::from_secs(10));
    let again = house.store.lease_outbox(OutboxKind::Request, 5);
    let again = tokio::time::timeout(PATIENCE, again).await.unwrap().unwrap();
    assert_eq!((again[0].id, again[0].attempt), (leased[0].id, 2));

    let listed = house.store.outbox(OutboxFilter::default()).await.unwrap();
    assert_eq!((listed[0].kind.as_str(), listed[1].kind.as_str()), ("request", "mail"));
    assert_eq!(listed[0].summary, "POST https://a.example/hook?…");
}
