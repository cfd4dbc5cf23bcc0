//! First attempts: the sender of an event may wait for the first attempt of each of its deliveries
//! (`respond = "handled"`).
//!
//! The committer keeps a watch for each such delivery and notifies it after the commit that ends the attempt.
//! A watch lives only in this process: after a crash the deliveries still run, but no sender waits. A sender
//! that stopped waiting leaves watches of deliveries that have not run yet; they are swept whenever the
//! number of watches has doubled.

use std::collections::HashMap;

use posthouse_model::DeliveryId;
use tokio::sync::mpsc;

/// How the first attempt of a delivery ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstAttempt {
    /// Its effects are committed.
    Done,
    /// The plugin rejected the event, with this reason.
    Refused(String),
    /// It failed: the delivery is retried, or its attempts are used up.
    Failed,
}

/// The half that is submitted with an event.
#[derive(Debug, Clone)]
pub struct Watcher(mpsc::UnboundedSender<FirstAttempt>);

/// The half that the sender waits at.
#[derive(Debug)]
pub struct FirstAttempts(mpsc::UnboundedReceiver<FirstAttempt>);

/// A watch, to be submitted with an event.
pub fn watch() -> (Watcher, FirstAttempts) {
    let (watcher, attempts) = mpsc::unbounded_channel();
    (Watcher(watcher), FirstAttempts(attempts))
}

impl Watcher {
    /// Reports how an attempt ended. If the receiver is gone, nothing happens.
    pub fn tell(&self, attempt: FirstAttempt) {
        let _ = self.0.send(attempt);
    }
}

impl FirstAttempts {
    /// The next attempt that ended, in no particular order; none if no more will be reported. Can be
    /// cancelled without losing one.
    pub async fn next(&mut self) -> Option<FirstAttempt> {
        self.0.recv().await
    }
}

/// With fewer entries than this, nothing is swept.
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

    /// Whether a sender waits for this delivery's first attempt.
    pub(super) fn has(&self, delivery: DeliveryId) -> bool {
        !self.by_delivery.is_empty() && self.by_delivery.contains_key(&delivery)
    }

    /// Reports that an attempt of this delivery has ended, on disk. Costs nothing if no sender waits.
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
