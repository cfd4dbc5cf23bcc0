//! Time and randomness. Code that needs them takes an [`Env`].
//!
//! So a test sets the clock, a seed fixes the jitter, and an attempt can run again with the same answers.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

/// The wall clock.
pub trait Clock: Send + Sync {
    /// The current time. It may jump in either direction between two calls.
    fn now(&self) -> Timestamp;

    /// The time of the system clock, whether it is believed or not.
    fn wall(&self) -> Timestamp {
        self.now()
    }
}

/// If the system clock is behind by less than this, it counts as corrected and not as set back.
const CORRECTED: SignedDuration = SignedDuration::from_secs(1);

/// A source of random bytes, fit for secrets.
pub trait Random: Send + Sync {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// The clock and the randomness of this process, cheap to clone.
#[derive(Clone)]
pub struct Env {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl Env {
    /// Combines this clock and this randomness.
    pub fn new(clock: impl Clock + 'static, random: impl Random + 'static) -> Self {
        Self { clock: Arc::new(clock), random: Arc::new(random) }
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The time of the system clock, whether it is believed or not.
    pub fn wall(&self) -> Timestamp {
        self.clock.wall()
    }

    /// How far the system clock is behind [`Self::now`]. None if it was not set back.
    pub fn set_back(&self) -> Option<SignedDuration> {
        let by = self.now().duration_since(self.wall());
        (by > CORRECTED).then_some(by)
    }

    /// Fills `bytes` at random.
    pub fn fill(&self, bytes: &mut [u8]) {
        self.random.fill(bytes);
    }

    /// A random number.
    pub fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Env")
    }
}
