//! Watches: who takes an event in may wait for the first attempt of each of its deliveries.
//!
//! A watch is known to the writer alone, by delivery, and told after the commit of the completion that
//! ends the attempt. It lasts as long as the process: after a crash nobody waits any more, and the
//! deliveries run all the same. Who gave up waiting leaves entries behind, of deliveries that have not
//! been tried yet; these are swept whenever they have doubled.

use std::collections::HashMap;

use tokio::sync::mpsc;

use crate::model::DeliveryId;

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

/// The writer's ends of the watches.
#[derive(Default)]
pub(super) struct Watches {
    by_delivery: HashMap<i64, Watcher>,
    /// Of deliveries that this batch makes.
    added: Vec<(i64, Watcher)>,
    /// First attempts that this batch ends.
    ended: Vec<(i64, FirstAttempt)>,
    sweep_at: usize,
}

impl Watches {
    /// Watches a delivery that this batch makes.
    pub(super) fn add(&mut self, delivery: i64, watcher: &Watcher) {
        self.added.push((delivery, watcher.clone()));
    }

    /// Whether somebody waits for this delivery's first attempt.
    pub(super) fn has(&self, delivery: DeliveryId) -> bool {
        !self.by_delivery.is_empty() && self.by_delivery.contains_key(&delivery.0)
    }

    /// An attempt at this delivery has ended, within this batch. Costs nothing where nobody waits.
    pub(super) fn ended(&mut self, delivery: i64, attempt: impl FnOnce() -> FirstAttempt) {
        if !self.by_delivery.is_empty() && self.by_delivery.contains_key(&delivery) {
            self.ended.push((delivery, attempt()));
        }
    }

    /// After the commit.
    pub(super) fn settle(&mut self) {
        self.by_delivery.extend(self.added.drain(..));
        for (delivery, attempt) in self.ended.drain(..) {
            if let Some(watcher) = self.by_delivery.remove(&delivery) {
                watcher.tell(attempt);
            }
        }
        if self.by_delivery.len() > self.sweep_at.max(FEW) {
            self.by_delivery.retain(|_, watcher| !watcher.0.is_closed());
            self.sweep_at = 2 * self.by_delivery.len();
        }
    }

    /// After a rollback: what was made is not there, and what has ended is to end again.
    pub(super) fn undo(&mut self) {
        self.added.clear();
        self.ended.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_swept() {
        let mut watches = Watches::default();
        let (watcher, mut kept) = watch();
        watches.add(0, &watcher);
        for delivery in 1..10_000 {
            watches.add(delivery, &watch().0);
            watches.settle();
            assert!(watches.by_delivery.len() <= 2 * FEW, "{}", watches.by_delivery.len());
        }
        watches.ended(0, || FirstAttempt::Done);
        watches.undo();
        watches.ended(0, || FirstAttempt::Failed);
        watches.settle();
        drop(watcher);
        assert_eq!(kept.next().await, Some(FirstAttempt::Failed));
        assert_eq!(kept.next().await, None);
    }
}
