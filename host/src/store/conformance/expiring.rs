//! Leases that expire: a runner that holds one for too long loses it, and another runs the delivery.

use std::time::Duration;

use super::support::*;
use crate::store::{Completed, Verdict};

pub(super) async fn an_expired_lease_is_lost_and_its_delivery_runs_again(on: On) {
    let house = House::new(on);
    let plugin = house.plugin("a").await;
    let mut lane = house.store.open_lane(plugin, 1).await.unwrap();
    house.accept("one", &[plugin]).await;
    house.accept("two", &[plugin]).await;
    let slow = next(&mut lane).await;
    assert_eq!(slow.expires, Some(house.now() + LEASE));
    house.clock.advance(LEASE - Duration::from_secs(1));
    assert_quiet(&mut lane).await;
    house.clock.advance(Duration::from_secs(1));
    let again = next(&mut lane).await;
    assert_eq!((again.delivery, again.attempt, again.may_have_run), (slow.delivery, 1, true));
    assert_eq!(lane.outstanding(), 1, "the expired lease holds no place any more");

    let verdict = || Verdict::Done(effects(&[("k", set("v"))]));
    let late = house.store.complete_durably(slow.clone(), house.attempt(&slow, &verdict()), verdict());
    assert_eq!(late.await, Ok(Completed::LostLease));
    assert_eq!(house.store.kv_get(plugin, "k").await.unwrap(), None);
    let done = house.store.complete_durably(again.clone(), house.attempt(&again, &verdict()), verdict());
    assert_eq!(done.await, Ok(Completed::Written));
    house.done(next(&mut lane).await, effects(&[])).await;
    assert_eq!(house.states().await, ["done", "done"]);
    house.assert_balanced().await;
}
