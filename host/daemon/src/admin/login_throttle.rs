//! Slows down guesses of the token.
//!
//! After a few wrong tokens, each further one is answered later and later, up to five seconds. A guesser that
//! reads the answers makes a few guesses a second on all connections together. A guesser that does not wait
//! for them makes more; the token's length protects against it. The right token never waits. A guesser can't
//! lock an operator out, because its connection is closed for any other.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Wrong tokens without a delay: people mistype.
const FREE: u32 = 5;
/// The delay of the first wrong token after these. It doubles with each further one.
const FIRST: Duration = Duration::from_millis(100);
/// The longest delay.
const MOST: Duration = Duration::from_secs(5);
/// One wrong token is forgotten after this time.
const FORGOTTEN: Duration = Duration::from_secs(10);

/// Counts wrong tokens.
#[derive(Default)]
pub(super) struct LoginThrottle(Mutex<Option<(u32, Instant)>>);

impl LoginThrottle {
    /// Counts a wrong token, and returns the delay of its answer.
    pub(super) fn wrong(&self, now: Instant) -> Duration {
        let mut state = self.0.lock();
        let level = match *state {
            None => 0,
            Some((level, then)) => {
                let forgotten = now.saturating_duration_since(then).as_secs() / FORGOTTEN.as_secs();
                level.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
            }
        };
        let level = (level + 1).min(FREE + 16);
        *state = Some((level, now));
        match level.saturating_sub(FREE) {
            0 => Duration::ZERO,
            over => FIRST.saturating_mul(1 << (over - 1).min(10)).min(MOST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_few_are_free_then_each_waits_longer_up_to_a_bound() {
        let (login_throttle, start) = (LoginThrottle::default(), Instant::now());
        let waits: Vec<_> = (0..20).map(|_| login_throttle.wrong(start)).collect();
        assert!(waits[..5].iter().all(Duration::is_zero), "{waits:?}");
        assert_eq!(waits[5], FIRST);
        assert!(waits.is_sorted() && waits[19] == MOST, "{waits:?}");
        assert!(login_throttle.wrong(start + 30 * FORGOTTEN).is_zero(), "what was long ago still counts");
    }
}
