//! Every delivery is in exactly one state, and the counters say the same as the rows.

use std::time::Duration;

use super::support::*;
use crate::store::Verdict;

#[tokio::test]
async fn the_ledger_adds_up_after_whatever_was_done() {
    let random = TestRandom::new(seed());
    let mut house = House::new();
    let plugins = [house.plugin("a").await, house.plugin("b").await];
    let mut accepted = 0;
    for _ in 0..4 {
        let mut lane = house.store.open_lane(plugins[0], 4).await.unwrap();
        for _ in 0..30 {
            match random.below(6) {
                0 | 1 => {
                    let wanted = &plugins[..random.below(3) as usize];
                    house.accept(accepted, wanted).await;
                    accepted += 1;
                }
                2 => house.clock.advance(Duration::from_secs(random.below(10))),
                _ => {
                    let Ok(Some(job)) = tokio::time::timeout(MOMENT, lane.next()).await else { continue };
                    let verdict = match random.below(4) {
                        0 => Verdict::Retry(house.now() + Duration::from_secs(random.below(20))),
                        1 => Verdict::Dead,
                        _ => Verdict::Done(effects(&[("k", set("v"))])),
                    };
                    house.finish(job, verdict).await;
                }
            }
            house.assert_balanced().await;
        }
        lane.close().await;
        house.assert_balanced().await;
        house = if random.below(2) == 0 { house.crashed() } else { house.reopened().await };
        house.assert_balanced().await;
    }
}
