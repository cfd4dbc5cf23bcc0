//! The daemon's vital signs: whether its loops turn, and the numbers that matter.
//!
//! The watchdog is fed by the loops themselves. Before each word to the service manager the store's
//! writer takes a commit through and the loop that takes connections answers; where one of them hangs no
//! word is said, and the service manager starts the daemon anew. A disk that is full is no reason for
//! that, as a new start would not help; a store that has stopped is.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::time::{interval_at, sleep};
use tracing::warn;

use super::manager;
use crate::{
    ingress::Ingress,
    model::DeliveryState,
    plugin::Registry,
    store::{Store, StoreError},
};

/// How often the status is written anew where no watchdog wants it more often.
const REFRESH: Duration = Duration::from_secs(5);
/// Proofs within the patience of the service manager: one may come late.
const PROOFS: u32 = 3;

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Vitals(Arc<Inner>);

struct Inner {
    store: Store,
    ingress: Ingress,
    registry: Registry,
    /// What the operator has to mend, such as a config.toml that was not taken.
    complaint: Mutex<Option<String>>,
    /// Requests so far, and when they were counted.
    counted: Mutex<(u64, Instant)>,
}

impl Vitals {
    pub(super) fn new(store: Store, ingress: Ingress, registry: Registry) -> Self {
        let counted = Mutex::new((0, Instant::now()));
        Self(Arc::new(Inner { store, ingress, registry, complaint: Mutex::default(), counted }))
    }

    /// What stands before the numbers from now on.
    pub(super) fn complain(&self, complaint: Option<String>) {
        *self.0.complaint.lock() = complaint;
    }

    /// Tells the service manager that the loops turn, for as long as they do. Dropped it ends.
    pub(super) async fn tell(self) {
        if !manager::is_there() {
            return;
        }
        let pause = manager::patience().map_or(REFRESH, |patience| (patience / PROOFS).min(REFRESH));
        let pause = pause.max(Duration::from_millis(1));
        let mut ticks = interval_at(tokio::time::Instant::now() + pause, pause);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.prove(pause).await {
                Ok(()) => manager::alive(&self.status().await),
                Err(StoreError::Closed) => return,
                Err(error) => manager::status(&error.to_string()),
            }
        }
    }

    /// Returns when each loop has turned once. One that does not within `pause` is named, and waited for.
    ///
    /// # Errors
    /// Where the store takes nothing more.
    pub(super) async fn prove(&self, pause: Duration) -> Result<(), StoreError> {
        match named("the store's writer", pause, self.0.store.flush()).await {
            Err(error @ (StoreError::Poisoned(_) | StoreError::Closed)) => return Err(error),
            // It answered: it lives, and what it says is that the disk is full.
            Ok(()) | Err(StoreError::Io(_) | StoreError::Backlog(_) | StoreError::NoSpace { .. }) => {}
        }
        named("the loop that takes connections", pause, self.0.ingress.turns()).await;
        Ok(())
    }

    /// One line: what is to be mended, the rate, the backlog, the plugins.
    pub(super) async fn status(&self) -> String {
        let complaint = self.0.complaint.lock().clone();
        let backlog = match self.0.store.states().await {
            Ok(states) => backlog(&states),
            Err(error) => error.to_string(),
        };
        let plugins = self.0.registry.list();
        let held = plugins.iter().filter(|plugin| !plugin.serving()).count();
        let numbers = format!(
            "{:.1} requests/s; {backlog}; plugins: {} serving, {held} held",
            self.rate(),
            plugins.len() - held,
        );
        complaint.into_iter().chain([numbers]).collect::<Vec<_>>().join("; ")
    }

    /// Requests a second since it was asked last.
    fn rate(&self) -> f64 {
        let received: u64 = self.0.ingress.ledger().values().map(|ledger| ledger.snapshot().received).sum();
        let mut counted = self.0.counted.lock();
        let (before, since) = std::mem::replace(&mut *counted, (received, Instant::now()));
        received.saturating_sub(before) as f64 / since.elapsed().as_secs_f64().max(0.001)
    }
}

fn backlog(states: &BTreeMap<DeliveryState, u64>) -> String {
    let of = |state| states.get(&state).copied().unwrap_or(0);
    let unfinished: u64 = states
        .iter()
        .filter(|(state, _)| !matches!(state, DeliveryState::Done | DeliveryState::Dead))
        .map(|(_, count)| count)
        .sum();
    let (waiting, held) = (of(DeliveryState::Waiting), of(DeliveryState::Held));
    let dead = of(DeliveryState::Dead);
    format!("deliveries: {unfinished} unfinished ({waiting} waiting, {held} held), {dead} dead")
}

/// Waits for a loop; one that takes longer than `pause` is named.
async fn named<T>(name: &str, pause: Duration, turn: impl Future<Output = T>) -> T {
    tokio::pin!(turn);
    let began = Instant::now();
    let mut warned = false;
    loop {
        tokio::select! {
            turned = &mut turn => return turned,
            () = sleep(pause) => {
                let silent = format!("{name} has not answered for {:.1} s", began.elapsed().as_secs_f64());
                if !std::mem::replace(&mut warned, true) {
                    warn!("{silent}; the watchdog is not fed until it does");
                }
                manager::status(&silent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backlog_is_what_is_not_finished() {
        let states = DeliveryState::ALL.into_iter().zip(1..).collect();
        let told = backlog(&states);
        let sum: u64 = states.values().sum();
        let finished = states[&DeliveryState::Done] + states[&DeliveryState::Dead];
        assert!(told.contains(&format!("{} unfinished", sum - finished)), "{told}");
        assert!(told.contains(&format!("{} dead", states[&DeliveryState::Dead])), "{told}");
    }
}
