//! Measures how long an attempt waits for its place or its turn. Others cause that wait, so it does not count
//! as the guest's time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// The longest single wait. After that the attempt is released, and runs again later.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(30);

/// How long an attempt has waited, and whether it waits now.
#[derive(Debug, Clone, Default)]
pub struct Waiting(Arc<Mutex<Waits>>);

#[derive(Debug, Default)]
struct Waits {
    who: String,
    before: Duration,
    since: Option<Instant>,
}

impl Waiting {
    /// The waiting of an attempt; errors name it by `who`.
    pub fn of(who: String) -> Self {
        Self(Arc::new(Mutex::new(Waits { who, ..Waits::default() })))
    }

    /// The name of the attempt; empty if it is unknown.
    pub(super) fn who(&self) -> String {
        self.0.lock().who.clone()
    }

    /// The time waited until now.
    pub fn so_far(&self) -> Duration {
        let waits = self.0.lock();
        waits.before + waits.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Waits for a future; none if that takes longer than [`MAX_WAIT`].
    pub(super) async fn wait_for<T>(&self, what: impl Future<Output = T>) -> Option<T> {
        self.0.lock().since = Some(Instant::now());
        let _waited = Waited(self);
        tokio::time::timeout(MAX_WAIT, what).await.ok()
    }
}

/// Adds the wait when it ends for any reason.
struct Waited<'a>(&'a Waiting);

impl Drop for Waited<'_> {
    fn drop(&mut self) {
        let mut waits = self.0.0.lock();
        if let Some(since) = waits.since.take() {
            waits.before += since.elapsed();
        }
    }
}
