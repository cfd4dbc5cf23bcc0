//! The sweeper regularly lets the store remove events that are past their retention, or that exceed its maximum
//! size.

use std::time::Duration;

use posthouse_store::Store;
use tracing::{info, warn};

/// The time between two sweeps. Each removes a small slice, so a large excess takes several sweeps.
const EVERY: Duration = Duration::from_secs(60);

/// Sweeps until dropped.
pub async fn sweep(store: Store) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match store.prune().await {
            Ok(0) => {}
            Ok(events) => info!(events, "removed finished events by retention or `max_size`"),
            Err(error) => warn!(%error, "could not sweep the store"),
        }
    }
}
