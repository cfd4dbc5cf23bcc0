//! The time that an attempt waits for its place or its turn: others take it, so it is not the guest's.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// The longest that an attempt waits at once; then it is given back, and runs again later.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// How long an attempt has waited, and whether it does.
#[derive(Debug, Clone, Default)]
pub struct Waiting(Arc<Mutex<Waits>>);

#[derive(Debug, Default)]
struct Waits {
    who: String,
    before: Duration,
    since: Option<Instant>,
}

impl Waiting {
    /// Of the attempt that errors name so.
    pub fn of(who: String) -> Self {
        Self(Arc::new(Mutex::new(Waits { who, ..Waits::default() })))
    }

    /// Whose attempt it is; empty where that is not known.
    pub(super) fn who(&self) -> String {
        self.0.lock().who.clone()
    }

    /// So long until now.
    pub fn so_far(&self) -> Duration {
        let waits = self.0.lock();
        waits.before + waits.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Waits for something; none where patience ends first.
    pub(super) async fn wait_for<T>(&self, what: impl Future<Output = T>) -> Option<T> {
        self.0.lock().since = Some(Instant::now());
        let _waited = Waited(self);
        tokio::time::timeout(PATIENCE, what).await.ok()
    }
}

/// Counts the wait when it ends, however it ends.
struct Waited<'a>(&'a Waiting);

impl Drop for Waited<'_> {
    fn drop(&mut self) {
        let mut waits = self.0.0.lock();
        if let Some(since) = waits.since.take() {
            waits.before += since.elapsed();
        }
    }
}
