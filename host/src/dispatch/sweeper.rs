//! The sweeper: from time to time it lets the store drop what is past its retention, and what is
//! too much for its size.

use std::time::Duration;

use tracing::{info, warn};

use crate::store::Store;

/// How often. A slice is small, so a store that was left alone for long takes several rounds.
const EVERY: Duration = Duration::from_secs(60);

/// Sweeps until dropped.
pub async fn sweep(store: Store) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match store.prune().await {
            Ok(0) => {}
            Ok(events) => info!(
                events,
                "finished events were removed, past their retention or for the size of the store"
            ),
            Err(error) => warn!(%error, "the store could not be swept"),
        }
    }
}
