//! Leases that expire: a runner that holds one for too long loses it, and another runs the delivery.

use std::time::Duration;

use super::support::*;
use crate::{Completed, Verdict};

pub(super) async fn an_expired_lease_is_lost_and_its_delivery_runs_again(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 1).await.unwrap();
    fixture.accept("one", &[plugin]).await;
    fixture.accept("two", &[plugin]).await;
    let slow = next(&mut lane).await;
    assert_eq!(slow.expires, Some(fixture.now() + LEASE));
    fixture.clock.advance(LEASE - Duration::from_secs(1));
    assert_quiet(&mut lane).await;
    fixture.clock.advance(Duration::from_secs(1));
    let again = next(&mut lane).await;
    assert_eq!((again.delivery, again.attempt, again.may_have_run), (slow.delivery, 1, true));
    assert_eq!(lane.outstanding(), 1, "the expired lease holds no place any more");

    let verdict = || Verdict::Done(effects(&[("k", set("v"))]));
    let late = fixture.store.complete_durably(slow.clone(), fixture.attempt(&slow, &verdict()), verdict());
    assert_eq!(late.await, Ok(Completed::LostLease));
    assert_eq!(fixture.store.kv_get(plugin, "k").await.unwrap(), None);
    let done = fixture.store.complete_durably(again.clone(), fixture.attempt(&again, &verdict()), verdict());
    assert_eq!(done.await, Ok(Completed::Written));
    fixture.done(next(&mut lane).await, effects(&[])).await;
    assert_eq!(fixture.states().await, ["done", "done"]);
    fixture.assert_balanced().await;
}
