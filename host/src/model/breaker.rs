//! A plugin's circuit breaker: whether it was paused on its own, and until when.
//!
//! ```text
//!             so many attempts in a row failed
//!   closed ─────────────────────────────────────► open ◄────────────┐
//!     ▲                                             │ pause is over │ it fails: a longer pause
//!     │  it does not fail                           ▼               │
//!     └───────────────────────────────────────── half-open ─────────┘
//!                                                one delivery is tried
//! ```
//!
//! An operator's `resume`, a new revision and other settings close it at once.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerState {
    /// Deliveries run.
    Closed,
    /// They are held until the pause is over.
    Open,
    /// They are held but for one, which is tried.
    HalfOpen,
}

impl BreakerState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// A breaker that is not closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trip {
    /// Attempts in a row that had failed.
    pub failures: u32,
    /// Pauses since, this one included.
    pub pauses: u32,
    /// When the first of them began.
    pub since: Timestamp,
    /// When this one ends.
    pub until: Timestamp,
    /// Whether it has ended, and one delivery is tried.
    pub trying: bool,
}

impl Trip {
    /// The first pause, after so many failures.
    pub fn first(failures: u32, now: Timestamp, pause: Duration) -> Self {
        Self { failures, pauses: 1, since: now, until: later(now, pause), trying: false }
    }

    /// The next one: what was tried failed. Each is twice as long as the one before, up to `most`.
    #[must_use]
    pub fn again(self, now: Timestamp, pause: Duration, most: Duration) -> Self {
        let times = 1_u32.checked_shl(self.pauses).unwrap_or(u32::MAX);
        let pause = pause.saturating_mul(times).min(most);
        Self { pauses: self.pauses.saturating_add(1), until: later(now, pause), trying: false, ..self }
    }

    /// Where it stands.
    pub fn state(&self) -> BreakerState {
        if self.trying { BreakerState::HalfOpen } else { BreakerState::Open }
    }

    /// How much of the pause is left; nothing, too, where that is more than a pause can be: the clock was
    /// set back.
    pub fn left(&self, now: Timestamp, most: Duration) -> Duration {
        let left = Duration::try_from(self.until.duration_since(now)).unwrap_or_default();
        if left > most { Duration::ZERO } else { left }
    }
}

fn later(now: Timestamp, pause: Duration) -> Timestamp {
    now.saturating_add(pause).unwrap_or(Timestamp::MAX)
}

impl fmt::Display for Trip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tripped, as {} attempts in a row failed", self.failures)?;
        if self.pauses > 1 {
            let more = self.pauses - 1;
            write!(f, ", and {more} more that {} tried since", if more == 1 { "was" } else { "were" })?;
        }
        if self.trying {
            f.write_str("; one delivery is tried")
        } else {
            write!(f, "; the next is tried at {:.0}", self.until)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn each_pause_is_twice_as_long_up_to_the_most() {
        let mut trip = Trip::first(20, at(0), SECOND);
        let mut pauses = vec![trip.until.as_second()];
        for _ in 0..40 {
            let now = trip.until;
            trip = Trip { trying: true, ..trip }.again(now, SECOND, 10 * SECOND);
            pauses.push(trip.until.as_second() - now.as_second());
        }
        assert_eq!(pauses[..6], [1, 2, 4, 8, 10, 10]);
        assert!(pauses[6..].iter().all(|pause| *pause == 10), "{pauses:?}");
        assert_eq!((trip.failures, trip.pauses, trip.since), (20, 41, at(0)));
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_pause_longer() {
        let trip = Trip::first(3, at(7200), 60 * SECOND);
        assert_eq!(trip.left(at(7200), 600 * SECOND), 60 * SECOND);
        assert_eq!(trip.left(at(7261), 600 * SECOND), Duration::ZERO);
        assert_eq!(trip.left(at(3600), 600 * SECOND), Duration::ZERO);
    }

    #[test]
    fn it_says_what_happened_and_what_comes() {
        let trip = Trip::first(3, at(0), SECOND);
        assert_eq!(
            trip.to_string(),
            "tripped, as 3 attempts in a row failed; the next is tried at 1970-01-01T00:00:01Z"
        );
        let again = Trip { trying: true, ..trip.again(at(1), SECOND, 9 * SECOND) };
        assert_eq!(
            again.to_string(),
            "tripped, as 3 attempts in a row failed, and 1 more that was tried since; one delivery is tried"
        );
    }
}
