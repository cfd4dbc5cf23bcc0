//! Replay, forgetting and retention: old deliveries.

use std::time::Duration;

use posthouse_model::{DeliveryState, EventSeq, Orders, OutboxKind, OutboxState, PluginId};

use super::support::*;

use crate::{Accepted, DeliveryFilter, OutboxResult, OutboxSlots, StoreError, Verdict};

fn dead() -> DeliveryFilter {
    DeliveryFilter { state: Some(DeliveryState::Dead), ..DeliveryFilter::default() }
}

/// A store with so many dead letters of plugin `a`.
async fn house_with(on: On, count: usize) -> (Fixture, PluginId) {
    let fixture = Fixture::with(on, |options| options.max_backlog = 1000);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 64).await.unwrap();
    for n in 0..count {
        fixture.accept(n, &[plugin]).await;
        fixture.finish(next(&mut lane).await, Verdict::Dead).await;
    }
    lane.close().await;
    (fixture, plugin)
}

pub(super) async fn dead_letters_are_replayed_once_and_the_count_agrees(on: On) {
    let (fixture, plugin) = house_with(on, 300).await;
    let first = DeliveryFilter { limit: 10, ..dead() };
    assert_eq!(fixture.store.count_deliveries(first.clone()).await.unwrap(), 10);
    assert_eq!(fixture.store.replay_deliveries(first, Orders::new()).await.unwrap(), 10);
    assert_eq!(fixture.store.count_deliveries(dead()).await.unwrap(), 290);
    assert_eq!(fixture.store.replay_deliveries(dead(), Orders::new()).await.unwrap(), 290);
    assert_eq!(fixture.store.count_deliveries(dead()).await.unwrap(), 0);
    assert_eq!(fixture.store.replay_deliveries(dead(), Orders::new()).await.unwrap(), 0);
    let newest = fixture.store.deliveries(DeliveryFilter::default()).await.unwrap().remove(0);
    assert_eq!(newest.state, DeliveryState::Waiting, "it waits for its turn, until there is a lane");
    assert!(newest.replay_of.is_some());
    assert_eq!(fixture.store.stats().await.unwrap().made, 600);
    fixture.assert_balanced().await;

    // A replay that died can be replayed as well.
    let mut lane = fixture.store.open_lane(plugin, 1).await.unwrap();
    fixture.finish(next(&mut lane).await, Verdict::Dead).await;
    fixture.store.flush().await.unwrap();
    assert_eq!(fixture.store.count_deliveries(dead()).await.unwrap(), 1);
}

pub(super) async fn a_replay_keeps_the_bound_of_the_backlog_and_can_be_continued(on: On) {
    let (fixture, plugin) = house_with(on, 3).await;
    for n in 10..1008 {
        fixture.accept(n, &[plugin]).await;
    }
    let (mut made, mut refused) = (0, false);
    match fixture.store.replay_deliveries(dead(), Orders::new()).await {
        Ok(count) => made = count,
        Err(error) => refused = matches!(error, StoreError::Backlog(_)),
    }
    assert!(made == 2 || refused);
    assert_eq!(fixture.store.count_deliveries(dead()).await.unwrap(), 1);
    assert!(matches!(
        fixture.store.replay_deliveries(dead(), Orders::new()).await,
        Err(StoreError::Backlog(1000))
    ));
}

pub(super) async fn an_event_is_replayed_for_the_plugins_named(on: On) {
    let (fixture, plugin) = house_with(on, 1).await;
    let other = fixture.plugin("b").await;
    let event = fixture.store.event(None, "0").await.unwrap().remove(0);
    let made =
        fixture.store.replay_event(event.summary.seq, vec![plugin, other], Orders::new()).await.unwrap();
    assert_eq!(made.len(), 2);
    let history = fixture.store.event(None, "0").await.unwrap().remove(0).history;
    let links: Vec<_> = history.iter().map(|delivery| delivery.summary.replay_of).collect();
    assert_eq!(links, [None, Some(history[0].summary.id), None]);
    // Again: linked to the latest.
    fixture.store.replay_event(event.summary.seq, vec![other], Orders::new()).await.unwrap();
    let history = fixture.store.event(None, "0").await.unwrap().remove(0).history;
    assert_eq!(history[3].summary.replay_of, Some(history[2].summary.id));
    assert!(fixture.store.replay_event(EventSeq(999), vec![other], Orders::new()).await.unwrap().is_empty());
    fixture.assert_balanced().await;
}

pub(super) async fn a_forgotten_plugin_leaves_dead_letters_and_no_keys(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 3).await.unwrap();
    for n in 0..700 {
        fixture.accept(n, &[plugin]).await;
    }
    fixture.done(next(&mut lane).await, effects(&[("k", set("v")), ("l", set("w"))])).await;
    let (running, retried) = (next(&mut lane).await, next(&mut lane).await);
    fixture.finish(retried, Verdict::Retry(fixture.now() + Duration::from_secs(60))).await;
    fixture.store.forget_plugin(plugin).await.unwrap();

    assert!(fixture.store.plugins().await.unwrap().is_empty());
    assert_eq!((fixture.store.kv_get(plugin, "k").await.unwrap(), fixture.store.kv_bytes(plugin)), (None, 0));
    fixture.done(running, effects(&[("k", set("late"))])).await;
    assert_eq!(fixture.store.kv_get(plugin, "k").await.unwrap(), None);
    let stats = fixture.store.stats().await.unwrap();
    assert_eq!((stats.states[&DeliveryState::Dead], stats.states[&DeliveryState::Done]), (699, 1));
    let listed = fixture.store.deliveries(dead()).await.unwrap();
    assert!(listed.iter().all(|delivery| delivery.error.as_deref() == Some("plugin forgotten")));
    fixture.assert_balanced().await;
    assert_eq!(fixture.plugin("a").await, plugin, "the name keeps its number");
}

pub(super) async fn old_events_leave_when_all_of_them_is_finished(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 8).await.unwrap();
    for id in ["done", "mailing", "waiting", "replayed", "unwanted"] {
        fixture.accept(id, if id == "unwanted" { &[] } else { std::slice::from_ref(&plugin) }).await;
    }
    let mut mailing = effects(&[]);
    mailing.outbox.push(mail("hello"));
    fixture.done(next(&mut lane).await, effects(&[("k", set("v"))])).await;
    fixture.done(next(&mut lane).await, mailing).await;
    fixture
        .finish(next(&mut lane).await, Verdict::Retry(fixture.now() + Duration::from_secs(365 * 24 * 3600)))
        .await;
    fixture.done(next(&mut lane).await, effects(&[])).await;
    lane.close().await;
    let replayed = fixture.store.event(None, "replayed").await.unwrap()[0].summary.seq;
    fixture.store.replay_event(replayed, vec![plugin], Orders::new()).await.unwrap();

    assert_eq!(fixture.store.prune().await.unwrap(), 0, "all is young");
    fixture.clock.advance(Duration::from_secs(25 * 3600));
    fixture.accept("young", &[]).await;
    assert_eq!(fixture.store.prune().await.unwrap(), 2);
    let left = |id: &'static str| {
        let store = fixture.store.clone();
        async move { store.event(None, id).await.unwrap().len() }
    };
    for (id, count) in
        [("done", 0), ("unwanted", 0), ("mailing", 1), ("waiting", 1), ("replayed", 1), ("young", 1)]
    {
        assert_eq!(left(id).await, count, "{id}");
    }
    assert_eq!(fixture.store.kv_get(plugin, "k").await.unwrap().unwrap().0, b"v");

    // The mail is sent and the replay runs, so both events can be pruned.
    let item = fixture
        .store
        .lease_outbox(OutboxKind::Mail, OutboxSlots { at_once: 1, kept: false })
        .await
        .unwrap()
        .remove(0);
    fixture.store.complete_outbox(&item, OutboxResult::Sent).await.unwrap();
    let mut lane = fixture.store.open_lane(plugin, 8).await.unwrap();
    fixture.done(next(&mut lane).await, effects(&[])).await;
    let mut pruned = 0;
    for _ in 0..61 {
        pruned += fixture.store.prune().await.unwrap();
    }
    assert_eq!(pruned, 2, "what was passed over is looked at again");
    assert_eq!((left("mailing").await, left("replayed").await, left("waiting").await), (0, 0, 1));

    let stats = fixture.store.stats().await.unwrap();
    assert_eq!((stats.made, stats.states[&DeliveryState::Done], stats.outbox[&OutboxState::Sent]), (5, 4, 1));
    assert_eq!(stats.made, stats.states.values().sum::<u64>(), "what has left still counts");
    // Its id is free again.
    let again = fixture.store.accept(fixture.event("done"), vec![plugin]).await.unwrap();
    assert!(matches!(again, Accepted::Stored(_)));
}
