//! Computes when a failed attempt is retried: exponential back-off with jitter, and not before the time that
//! the guest or server asked for.
//!
//! A guest or a server may ask for a longer wait, but not for a shorter one. It knows when it can be asked
//! again, but not how many attempts are left.

use std::time::Duration;

use posthouse_model::{Env, config::Retry};

/// Returns the wait between the failed attempt `attempt` (counted from 1) and the next. Returns none if all
/// attempts are used up.
pub(super) fn wait_after(retry: &Retry, attempt: u32, env: &Env) -> Option<Duration> {
    if attempt >= retry.attempts {
        return None;
    }
    let exponent = f64::from(attempt.saturating_sub(1));
    let wait = retry.base.as_secs_f64() * retry.factor.powf(exponent);
    let wait = wait.min(retry.max.as_secs_f64());
    // A number in -1..=1, evenly distributed.
    let spread = env.random_u64() as f64 / u64::MAX as f64 * 2.0 - 1.0;
    Duration::try_from_secs_f64(wait * (1.0 + spread * retry.jitter)).ok().or(Some(retry.max))
}

/// The longest wait that a guest may ask for, unless its back-off is longer.
const LONGEST_ASKED: Duration = Duration::from_hours(24);

/// Returns the wait that a guest asks for, limited to a day or to the longest wait of its back-off, whichever
/// is longer.
pub(super) fn asked_by_guest(retry: &Retry, asked: Option<Duration>) -> Duration {
    asked.unwrap_or_default().min(retry.max.max(LONGEST_ASKED))
}

/// As [`wait_after`], but at least `asked`.
pub(super) fn wait_at_least(retry: &Retry, attempt: u32, asked: Duration, env: &Env) -> Option<Duration> {
    wait_after(retry, attempt, env).map(|wait| wait.max(asked))
}

#[cfg(test)]
mod tests {
    use posthouse_model::testing::{Constant, ManualClock};

    use super::*;

    const PAGE: Retry = Retry {
        attempts: 4,
        base: Duration::from_secs(2),
        factor: 2.0,
        max: Duration::from_secs(3600),
        jitter: 0.2,
    };

    fn waits(retry: Retry, random: u8) -> Vec<Option<f64>> {
        let env = Env::new(ManualClock::epoch(), Constant(random));
        (1..=5).map(|n| wait_after(&retry, n, &env).map(|wait| wait.as_secs_f64())).collect()
    }

    #[test]
    fn the_defaults_are_the_pages_back_off() {
        let none = Retry { jitter: 0.0, ..PAGE };
        assert_eq!(waits(none, 0), [Some(2.0), Some(4.0), Some(8.0), None, None]);
    }

    #[test]
    fn jitter_keeps_to_its_share() {
        let close = |seen: Vec<Option<f64>>, expected: [f64; 3]| {
            for (seen, expected) in seen.into_iter().flatten().zip(expected) {
                assert!((seen - expected).abs() < 1e-6, "{seen} is not {expected}");
            }
        };
        close(waits(PAGE, 0x00), [1.6, 3.2, 6.4]);
        close(waits(PAGE, 0xff), [2.4, 4.8, 9.6]);
    }

    #[test]
    fn no_wait_is_longer_than_the_most_and_none_overflows() {
        let steep = Retry { attempts: u32::MAX, factor: 1e300, jitter: 0.0, ..PAGE };
        assert_eq!(waits(steep, 0)[4], Some(3600.0));
    }
    #[test]
    fn a_wait_that_is_asked_for_is_the_least_within_a_day_and_adds_no_attempt() {
        let none = Retry { jitter: 0.0, ..PAGE };
        let env = Env::new(ManualClock::epoch(), Constant(0));
        let wait = |attempt, asked: Option<u64>| {
            let asked = asked_by_guest(&none, asked.map(Duration::from_secs));
            wait_at_least(&none, attempt, asked, &env).map(|wait| wait.as_secs())
        };
        assert_eq!([wait(1, None), wait(1, Some(0)), wait(1, Some(1))], [Some(2); 3], "never less");
        assert_eq!((wait(3, Some(1)), wait(3, Some(100))), (Some(8), Some(100)));
        assert_eq!([wait(1, Some(u64::from(u32::MAX))), wait(1, Some(u64::MAX))], [Some(86_400); 2]);
        assert_eq!(wait(4, Some(1)), None);
    }
}
