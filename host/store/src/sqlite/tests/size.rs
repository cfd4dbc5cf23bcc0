//! The size of the store: if it is too large, the oldest events are removed as far as they may be, and the
//! file shrinks.

use std::time::Duration;

use posthouse_model::PluginId;

use crate::conformance::support::*;

use crate::{Lane, Verdict};

const MIB: u64 = 1 << 20;
/// Bytes of a large event.
const LARGE: usize = 100_000;

/// A store with a limit of 4 MiB, with a plugin and its lane.
async fn fixture() -> (Fixture, PluginId, Lane) {
    let fixture = Fixture::with(On::Sqlite, |options| options.max_size = Some(4 * MIB));
    let plugin = fixture.plugin("a").await;
    let lane = fixture.store.open_lane(plugin, 8).await.unwrap();
    (fixture, plugin, lane)
}

/// Stores a large event and ends its delivery with this verdict; none: the delivery stays ready.
async fn event(fixture: &Fixture, lane: &mut Lane, plugin: PluginId, n: usize, verdict: Option<Verdict>) {
    let mut event = fixture.event(n);
    event.body = vec![b' '; LARGE].into();
    event.data = 0..1;
    fixture.store.accept(event, vec![plugin]).await.unwrap();
    if let Some(verdict) = verdict {
        fixture.finish(next(lane).await, verdict).await;
        fixture.store.flush().await.unwrap();
    }
}

fn done() -> Option<Verdict> {
    Some(Verdict::Done(effects(&[])))
}

async fn left(fixture: &Fixture) -> Vec<usize> {
    let mut left = Vec::new();
    for n in 0..200 {
        if !fixture.store.event(None, &n.to_string()).await.unwrap().is_empty() {
            left.push(n);
        }
    }
    left
}

#[tokio::test]
async fn the_oldest_finished_leave_first_and_the_file_shrinks() {
    let (fixture, plugin, mut lane) = fixture().await;
    for n in 0..100 {
        event(&fixture, &mut lane, plugin, n, done()).await;
    }
    fixture.clock.advance(Duration::from_secs(1000));
    let before = fixture.store.stats().await.unwrap();
    assert!(before.live_bytes > 8 * MIB && !before.oversize, "{before:?}");
    let removed = fixture.store.prune().await.unwrap();
    let stats = fixture.store.stats().await.unwrap();
    assert!(stats.live_bytes <= 4 * MIB && stats.live_bytes > 3 * MIB, "{stats:?}");
    assert_eq!((stats.max_bytes, stats.oversize), (Some(4 * MIB), false));
    assert_eq!(left(&fixture).await, (removed as usize..100).collect::<Vec<_>>());
    assert_eq!(fixture.store.prune().await.unwrap(), 0, "it is small enough");
    drop(lane);
    fixture.store.close().await.unwrap();
    let bytes = std::fs::metadata(&fixture.options.path).unwrap().len();
    assert!(bytes <= 4 * MIB, "a store of 10 MB, of which 4 MiB may stay, is left with a file of {bytes}");
}

#[tokio::test]
async fn what_is_unfinished_or_dead_stays_and_a_bound_that_can_not_be_kept_is_told() {
    let (fixture, plugin, mut lane) = fixture().await;
    for n in 0..100 {
        let verdict = match n % 2 {
            0 => Some(Verdict::Dead),
            _ => Some(Verdict::Retry(fixture.now() + Duration::from_secs(24 * 3600))),
        };
        event(&fixture, &mut lane, plugin, n, verdict).await;
    }
    event(&fixture, &mut lane, plugin, 100, done()).await;
    fixture.clock.advance(Duration::from_secs(1000));
    assert_eq!(fixture.store.prune().await.unwrap(), 1);
    assert_eq!(left(&fixture).await, (0..100).collect::<Vec<_>>());
    let stats = fixture.store.stats().await.unwrap();
    assert!(stats.oversize && stats.live_bytes > 8 * MIB, "{stats:?}");

    // Replayed and done, they are no longer needed.
    let dead =
        crate::DeliveryFilter { state: Some(posthouse_model::DeliveryState::Dead), ..Default::default() };
    assert_eq!(fixture.store.replay_deliveries(dead, Default::default()).await.unwrap(), 50);
    for _ in 0..50 {
        fixture.finish(next(&mut lane).await, Verdict::Done(effects(&[]))).await;
    }
    fixture.store.flush().await.unwrap();
    let mut removed = 0;
    for _ in 0..61 {
        removed += fixture.store.prune().await.unwrap();
    }
    assert_eq!(removed, 50);
    assert_eq!(left(&fixture).await, (0..100).filter(|n| n % 2 == 1).collect::<Vec<_>>());
    fixture.assert_sum().await;
}

#[tokio::test]
async fn what_has_just_come_stays_however_large_the_store() {
    let (fixture, plugin, mut lane) = fixture().await;
    for n in 0..60 {
        event(&fixture, &mut lane, plugin, n, done()).await;
    }
    fixture.clock.advance(Duration::from_secs(599));
    assert_eq!(fixture.store.prune().await.unwrap(), 0);
    assert!(fixture.store.stats().await.unwrap().oversize);
    fixture.clock.advance(Duration::from_secs(2));
    assert!(fixture.store.prune().await.unwrap() > 0);
    assert!(!fixture.store.stats().await.unwrap().oversize);
}

impl Fixture {
    async fn assert_sum(&self) {
        let stats = self.store.stats().await.unwrap();
        assert_eq!(stats.made, stats.states.values().sum::<u64>(), "{stats:?}");
    }
}
