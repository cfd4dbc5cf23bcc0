//! Rates, by the generic cell rate algorithm: how many signed requests a source may send, and how many attempts a plugin
//! may begin.
//!
//! Of a source, only requests with a valid signature count. A stranger cannot use up the sender's rate, and costs one
//! signature check at most. A valid request counts whatever its outcome. A duplicate counts too, since detecting it costs
//! as much as storing an event.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};
use posthouse_model::config::Rate;

/// What may still happen now: the requests of a source, or the attempts of a plugin.
pub(crate) struct Allowance {
    rate: Rate,
    limiter: DefaultDirectRateLimiter,
}

impl Allowance {
    /// An unused allowance.
    pub(crate) fn new(rate: Rate) -> Self {
        let burst = NonZeroU32::new(rate.burst).unwrap_or(NonZeroU32::MIN);
        // config.toml restricts the rate, so neither fallback is reached with a valid one.
        let period = Duration::from_secs_f64(1.0 / rate.per_second.max(0.01)).max(Duration::from_nanos(1));
        let quota = Quota::with_period(period).unwrap_or_else(|| Quota::per_second(burst));
        Self { rate, limiter: RateLimiter::direct(quota.allow_burst(burst)) }
    }

    /// The rate that this allowance enforces.
    pub(crate) fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes one off the allowance, and waits until one is left.
    pub(crate) async fn turn(&self) {
        while let Err(not_yet) = self.limiter.check() {
            tokio::time::sleep(not_yet.wait_time_from(DefaultClock::default().now())).await;
        }
    }

    /// Takes one request off the allowance.
    ///
    /// # Errors
    /// If none is left: the seconds until one is, at least 1.
    pub(crate) fn take(&self) -> Result<(), u64> {
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

    #[tokio::test]
    async fn a_turn_comes_when_the_rate_allows_it() {
        let allowance = Allowance::new(Rate { per_second: 1000.0, burst: 2 });
        for _ in 0..5 {
            allowance.turn().await;
        }
        let slow = Allowance::new(Rate { per_second: 0.01, burst: 1 });
        slow.turn().await;
        assert!(futures_util::FutureExt::now_or_never(slow.turn()).is_none(), "the burst is used up");
    }
}
