//! The daemon's health: whether its loops run, and the most important numbers.
//!
//! The loops themselves prove that they run. Before each report to the service manager, the store's writer
//! completes a commit and the loop that accepts connections answers. If one of them hangs, no report follows,
//! and the service manager restarts the daemon. A full disk is no reason for a restart, because a restart
//! would not help. A store that has stopped is one.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use posthouse_guest::plugin::Registry;
use posthouse_model::DeliveryState;
use posthouse_store::{Store, StoreError};
use tokio::time::{interval_at, sleep};
use tracing::warn;

use super::manager;

use crate::ingress::Ingress;

/// How often the status is updated, unless the watchdog needs it more often.
const REFRESH: Duration = Duration::from_secs(5);
/// Reports within the watchdog's timeout, so that one may be late.
const PROOFS: u32 = 3;

/// Reports the daemon's health. Cheap to clone.
#[derive(Clone)]
pub(super) struct Vitals(Arc<Inner>);

struct Inner {
    store: Store,
    ingress: Ingress,
    registry: Registry,
    /// A problem that the operator has to fix, such as a rejected config.toml.
    complaint: Mutex<Option<String>>,
    /// The requests so far, and when they were counted.
    counted: Mutex<(u64, Instant)>,
}

impl Vitals {
    pub(super) fn new(store: Store, ingress: Ingress, registry: Registry) -> Self {
        let counted = Mutex::new((0, Instant::now()));
        Self(Arc::new(Inner { store, ingress, registry, complaint: Mutex::default(), counted }))
    }

    /// Sets the problem that the status begins with, or removes it.
    pub(super) fn complain(&self, complaint: Option<String>) {
        *self.0.complaint.lock() = complaint;
    }

    /// Reports to the service manager that the loops run, while they do. Ends when it is dropped.
    pub(super) async fn tell(self) {
        if !manager::is_there() {
            return;
        }
        let pause = manager::watchdog_interval().map_or(REFRESH, |interval| (interval / PROOFS).min(REFRESH));
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

    /// Returns once each loop has run once. A loop that takes longer than `pause` is named in a warning and
    /// awaited.
    ///
    /// # Errors
    /// The store has stopped.
    pub(super) async fn prove(&self, pause: Duration) -> Result<(), StoreError> {
        match named("the store's writer", pause, self.0.store.flush()).await {
            Err(error @ (StoreError::Poisoned(_) | StoreError::Closed)) => return Err(error),
            // The writer answered, so it runs. Its answer is that it cannot store: the disk or the backlog is
            // full, for example.
            Ok(()) | Err(StoreError::Io(_) | StoreError::Backlog(_) | StoreError::NoSpace { .. }) => {}
        }
        named("the loop that accepts connections", pause, self.0.ingress.turns()).await;
        Ok(())
    }

    /// The status line: the problem to fix, the rate, the backlog, the plugins.
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

    /// Requests per second since the last call.
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

/// Waits for a loop. If that takes longer than `pause`, a warning names the loop.
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
                    warn!("{silent}; the daemon sends no watchdog pulse until it does");
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
