//! The ledger adds up: after anything, and after a crash at any moment.

use std::{collections::VecDeque, time::Duration};

use posthouse_model::{
    DeliveryState, HeldReason, Job, KvWrite, OrderBy, OrderKey, Orders, PluginId, Subscriber,
};

use super::support::*;

use crate::{DeliveryFilter, Lane, PluginChange, PluginUpdate, Verdict};

pub(super) async fn plugins_are_counted_by_themselves(on: On) {
    let fixture = Fixture::new(on);
    let (a, b) = (fixture.plugin("a").await, fixture.plugin("b").await);
    fixture.accept("one", &[a, b]).await;
    fixture.clock.advance(Duration::from_secs(5));
    fixture.accept("two", &[a]).await;
    let stats = fixture.store.stats().await.unwrap();
    let [of_a, of_b] = &stats.plugins[..] else { panic!("{stats:?}") };
    assert_eq!((of_a.made, of_a.states[&DeliveryState::Ready]), (2, 2));
    assert_eq!((of_b.made, of_b.plugin.as_str()), (1, "b"));
    assert_eq!(of_a.oldest_open, Some(fixture.now() - Duration::from_secs(5)));
    if fixture.store.features().backup {
        assert!(stats.store_bytes > Some(0) && stats.wal_bytes > Some(0));
    }
}

/// Anything that can happen, at random; in between, crashes.
pub(super) async fn the_ledger_adds_up_whatever_happens(on: On) {
    let random = Seeded::new(seed());
    let mut fixture = Fixture::new(on);
    let mut next_event = 0;
    let mut lanes: Vec<Option<Lane>> = Vec::new();
    let mut running: VecDeque<Job> = VecDeque::new();
    let mut plugins = Vec::new();
    for name in ["a", "b", "c"] {
        plugins.push(fixture.plugin(name).await);
        lanes.push(None);
    }
    let orders = Orders::from([(plugins[1], OrderBy::Organization)]);
    for step in 0..600 {
        let which = random.below(3) as usize;
        match random.below(14) {
            0..=3 => {
                // Some keep to an order, of few keys.
                let subscriber = |plugin: PluginId| Subscriber {
                    order_key: (plugin.0 % 3 > 0)
                        .then(|| random.below(4).to_string())
                        .as_deref()
                        .and_then(OrderKey::new),
                    ..plugin.into()
                };
                let wanted: Vec<_> =
                    plugins.iter().copied().filter(|_| random.below(3) > 0).map(subscriber).collect();
                // One in four ids has been seen.
                let id = if random.below(4) == 0 { random.below(next_event + 1) } else { next_event };
                next_event = next_event.max(id + 1);
                fixture.store.accept(fixture.event(id), wanted).await.unwrap();
            }
            4 => {
                let capacity = 1 + random.below(6) as usize;
                lanes[which] = Some(fixture.store.open_lane(plugins[which], capacity).await.unwrap());
            }
            5 => lanes[which] = None,
            6..=8 => {
                fixture.store.flush().await.unwrap();
                if let Some(lane) = &mut lanes[which]
                    && let Ok(Some(job)) = tokio::time::timeout(Duration::from_millis(1), lane.next()).await
                {
                    running.push_back(job);
                }
            }
            9..=10 => {
                if let Some(job) = running.pop_front() {
                    match random.below(6) {
                        0 => fixture.store.release(job).await.unwrap(),
                        1 => fixture.finish(job, Verdict::Dead).await,
                        2 => {
                            let due = fixture.now() + Duration::from_secs(random.below(60));
                            fixture.finish(job, Verdict::Retry(due)).await;
                        }
                        3 => {
                            let wrong =
                                saw(effects(&[("k", set("x"))]), "k", Some(posthouse_model::KvVersion(-1)));
                            fixture.finish(job, Verdict::Done(wrong)).await;
                        }
                        _ => fixture.finish(job, Verdict::Done(effects(&[("n", KvWrite::Add(1))]))).await,
                    }
                }
            }
            11 => fixture.clock.advance(Duration::from_secs(random.below(40))),
            12 if random.below(3) == 0 => {
                let filter = DeliveryFilter { limit: 5, ..DeliveryFilter::default() };
                fixture.store.replay_deliveries(filter, orders.clone()).await.unwrap();
            }
            12 => {
                let records = fixture.store.plugins().await.unwrap();
                if let Some(record) = records.into_iter().nth(which) {
                    let held = (random.below(2) == 0).then_some(HeldReason::Gone);
                    let update = PluginUpdate { held, change: PluginChange::Held };
                    fixture.store.update_plugin(record.id, update).await.unwrap();
                }
            }
            _ if random.below(5) == 0 => fixture.store.forget_plugin(plugins[which]).await.unwrap(),
            _ if random.below(3) == 0 => {
                fixture.store.flush().await.unwrap();
                let found = fixture.crashed();
                lanes.iter_mut().for_each(|lane| *lane = None);
                running.clear();
                fixture = found;
            }
            _ => {}
        }
        if step % 20 == 0 {
            fixture.assert_balanced().await;
        }
    }
    fixture.assert_balanced().await;
    let stats = fixture.store.stats().await.unwrap();
    let running = stats.states[&DeliveryState::Leased] as usize;
    let outstanding: usize = lanes.iter().flatten().map(Lane::outstanding).sum();
    assert!(outstanding <= running, "{outstanding} in the lanes, {running} leased");
}
