//! The rate of a source: how many signed requests it may send, by the generic cell rate algorithm.
//!
//! It counts requests whose signature is valid, and nothing else: who can't sign uses up nothing of what
//! the sender has, and costs a check of a signature at most. What counts then counts whatever becomes of it;
//! a duplicate, too, as to find out costs what it costs to take an event in.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};

use crate::config::Rate;

/// What a source may still send. A reload that leaves the rate as it is keeps it.
pub(super) struct Allowance {
    rate: Rate,
    limiter: DefaultDirectRateLimiter,
}

impl Allowance {
    /// A full one.
    pub(super) fn new(rate: Rate) -> Self {
        let burst = NonZeroU32::new(rate.burst).unwrap_or(NonZeroU32::MIN);
        // The range of the rate in config.toml leaves each of them more than nothing.
        let period = Duration::from_secs_f64(1.0 / rate.per_second.max(0.01)).max(Duration::from_nanos(1));
        let quota = Quota::with_period(period).unwrap_or_else(|| Quota::per_second(burst));
        Self { rate, limiter: RateLimiter::direct(quota.allow_burst(burst)) }
    }

    /// The rate that it was made for.
    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes one request off it.
    ///
    /// # Errors
    /// Where nothing is left: in how many seconds there is, at least 1.
    pub(super) fn take(&self) -> Result<(), u64> {
        self.limiter.check().map_err(|not_yet| {
            let wait = not_yet.wait_time_from(DefaultClock::default().now());
            wait.as_secs() + u64::from(wait.subsec_nanos() > 0 || wait.is_zero())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_what_the_rate_allows() {
        let slow = Allowance::new(Rate { per_second: 0.01, burst: 3 });
        let taken: Vec<_> = (0..5).map(|_| slow.take()).collect();
        assert_eq!(taken[..3], [Ok(()); 3]);
        for refused in &taken[3..] {
            let wait = refused.unwrap_err();
            assert!((98..=100).contains(&wait), "one comes back every 100 s, and not after {wait} s");
        }
        let fast = Allowance::new(Rate { per_second: 1_000_000.0, burst: 1 });
        let refused = (0..10_000).find_map(|_| fast.take().err());
        assert_eq!(refused.unwrap_or(1), 1, "a wait is never told as no wait");
    }
}
