//! First attempts: the sender of an event may wait for the first attempt of each of its deliveries
//! (`respond = "handled"`).
//!
//! The committer keeps a watch for each such delivery and tells it after the commit that ends the attempt. A
//! watch lasts as long as the process: after a crash nobody waits any more, and the deliveries run all the same.
//! A sender that gave up leaves watches of deliveries that have not been tried yet; they are swept whenever the
//! watches have doubled.

use std::collections::HashMap;

use posthouse_model::DeliveryId;
use tokio::sync::mpsc;

/// How the first attempt of a delivery ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstAttempt {
    /// Its effects are committed.
    Done,
    /// The plugin refused the event for good, in these words.
    Refused(String),
    /// It failed: it is tried again, or its plugin's attempts are used up.
    Failed,
}

/// The end that is handed in with an event.
#[derive(Debug, Clone)]
pub struct Watcher(mpsc::UnboundedSender<FirstAttempt>);

/// The end that is waited at.
#[derive(Debug)]
pub struct FirstAttempts(mpsc::UnboundedReceiver<FirstAttempt>);

/// A watch to be handed in with an event.
pub fn watch() -> (Watcher, FirstAttempts) {
    let (watcher, attempts) = mpsc::unbounded_channel();
    (Watcher(watcher), FirstAttempts(attempts))
}

impl Watcher {
    /// Says how an attempt ended; who has gone away meanwhile does not hear it.
    pub fn tell(&self, attempt: FirstAttempt) {
        let _ = self.0.send(attempt);
    }
}

impl FirstAttempts {
    /// The next that ended, in no order; none when no more will be told. May be cancelled without losing
    /// one.
    pub async fn next(&mut self) -> Option<FirstAttempt> {
        self.0.recv().await
    }
}

/// Entries below which nothing is swept.
const FEW: usize = 1024;

/// The committer's ends of the watches.
#[derive(Default)]
pub(super) struct Watches {
    by_delivery: HashMap<DeliveryId, Watcher>,
    sweep_at: usize,
}

impl Watches {
    /// Watches deliveries that are on disk.
    pub(super) fn add(&mut self, deliveries: &[DeliveryId], watcher: &Watcher) {
        self.by_delivery.extend(deliveries.iter().map(|delivery| (*delivery, watcher.clone())));
        if self.by_delivery.len() > self.sweep_at.max(FEW) {
            self.by_delivery.retain(|_, watcher| !watcher.0.is_closed());
            self.sweep_at = 2 * self.by_delivery.len();
        }
    }

    /// Whether somebody waits for this delivery's first attempt.
    pub(super) fn has(&self, delivery: DeliveryId) -> bool {
        !self.by_delivery.is_empty() && self.by_delivery.contains_key(&delivery)
    }

    /// An attempt at this delivery has ended, on disk. Costs nothing where nobody waits.
    pub(super) fn ended(&mut self, delivery: DeliveryId, attempt: impl FnOnce() -> Option<FirstAttempt>) {
        if self.has(delivery)
            && let Some(attempt) = attempt()
            && let Some(watcher) = self.by_delivery.remove(&delivery)
        {
            watcher.tell(attempt);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_swept() {
        let mut watches = Watches::default();
        let (watcher, mut kept) = watch();
        watches.add(&[DeliveryId(0)], &watcher);
        for delivery in 1..10_000 {
            watches.add(&[DeliveryId(delivery)], &watch().0);
            assert!(watches.by_delivery.len() <= 2 * FEW, "{}", watches.by_delivery.len());
        }
        watches.ended(DeliveryId(0), || None);
        watches.ended(DeliveryId(0), || Some(FirstAttempt::Failed));
        drop(watcher);
        assert_eq!(kept.next().await, Some(FirstAttempt::Failed));
        assert_eq!(kept.next().await, None);
    }
}
