//! A plugin's circuit breaker: whether it has paused the plugin, which deliveries run meanwhile, and until
//! when.
//!
//! Two cases look alike. If the plugin or a service that it calls is down, everything fails, and each attempt
//! is wasted. If some events are poison, only they fail, and all others would succeed. The breaker tells the
//! two apart by deliveries that have never run ("untried"), taken from all over the queue.
//!
//! ```text
//!             `failures` different deliveries failed,
//!             and none succeeded in between
//!   closed ────────────────────────────────────────► open ◄────────────────┐
//!     ▲                                               │                     │ all deliveries of the trial
//!     │                                               │ untried: at once    │ failed: a longer pause
//!     │  any attempt succeeds                         │ others: `until`     │
//!     └──────────────────────────────────────────── trial ──────────────────┘
//! ```
//!
//! - **What counts.** A delivery counts once, however often it fails. If it failed before another one
//!   succeeded, it is known to be bad and no longer counts: it uses up its own attempts with its own back-off
//!   and becomes a dead letter.
//! - **False alarms.** A success may close the breaker within one `pause`. Each time, the number of failures
//!   that opens it doubles, up to 16 times `failures`. The higher number applies for one `pause`.
//! - **The first trial** begins at once. It has as many untried deliveries as the plugin may run at a time,
//!   up to `failures`: the newest, the oldest, and others at random.
//! - **Untried deliveries** run at intervals, up to [`Trip::WIDTH`] at a time. The intervals begin with the
//!   duration of one attempt and double, up to `max_pause`. So a delivery that would succeed waits about as
//!   long as the failures before it have lasted.
//! - **A delivery that failed** runs when `pause` is over: the one with the fewest attempts first, one at a
//!   time, and only if none is untried. These pauses double as well, up to `max_pause`, and do not delay
//!   untried deliveries.
//!
//! An operator's `resume`, a new revision and changed settings close the breaker at once. A start of the
//! daemon begins a trial at once.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::counted;

/// The state of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerState {
    /// Deliveries run.
    Closed,
    /// Deliveries are held until the pause is over, except for a few that have never run.
    Open,
    /// The pause is over: one delivery runs, whether it has failed before or not.
    HalfOpen,
}

impl BreakerState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The name of the state.
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
    /// Different deliveries that had failed since the last success.
    pub failures: u32,
    /// Failed trials, plus one for the failures that opened it.
    pub pauses: u32,
    /// When it opened.
    pub since: Timestamp,
    /// When a delivery that failed before may run.
    pub until: Timestamp,
    /// Whether `until` has passed.
    pub trying: bool,
    /// When untried deliveries may run. None means at once.
    #[serde(default)]
    pub untried_from: Option<Timestamp>,
    /// Whether `untried_from` has passed.
    #[serde(default)]
    pub sifting: bool,
    /// The last pause of untried deliveries, in milliseconds; 0 if none of them has failed in a trial.
    #[serde(default)]
    pub step: u64,
    /// Trials with a delivery that had failed before and failed again.
    #[serde(default)]
    pub retried: u32,
}

/// The deliveries that a trial takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial {
    /// The most deliveries at a time, at least 1.
    pub width: u32,
    /// Whether it takes a delivery that failed before, if none is untried.
    pub any: bool,
}

/// A trial in which everything failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailedTrial {
    /// The longest attempt of an untried delivery. None if the trial had no such delivery.
    pub untried: Option<Duration>,
    /// Whether the trial had a delivery that had failed before.
    pub retried: bool,
}

/// The lengths of a breaker's pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pauses {
    /// The pause before a failed delivery runs for the first time.
    pub first: Duration,
    /// The longest pause.
    pub most: Duration,
}

impl Trip {
    /// The most untried deliveries in a trial, except the first trial.
    pub const WIDTH: u32 = 4;

    /// The shortest pause.
    const SHORTEST: Duration = Duration::from_millis(10);

    /// Opens the breaker after this many failures. Untried deliveries run at once.
    pub fn first(failures: u32, now: Timestamp, pauses: Pauses) -> Self {
        Self {
            failures,
            pauses: 1,
            since: now,
            until: later(now, pauses.first),
            trying: false,
            untried_from: None,
            sifting: true,
            step: 0,
            retried: 0,
        }
    }

    /// The state after a trial in which everything failed.
    #[must_use]
    pub fn again(self, now: Timestamp, failed: FailedTrial, pauses: Pauses) -> Self {
        let mut next = Self { pauses: self.pauses.saturating_add(1), trying: false, ..self };
        if let Some(took) = failed.untried {
            let step = match self.step {
                0 => took.min(pauses.first).max(Self::SHORTEST),
                step => Duration::from_millis(step).saturating_mul(2),
            };
            let step = step.min(pauses.most);
            next.step = u64::try_from(step.as_millis()).unwrap_or(u64::MAX);
            next.untried_from = Some(later(now, step));
            next.sifting = false;
        }
        if failed.retried {
            next.retried = self.retried.saturating_add(1);
        }
        let times = 1_u32.checked_shl(next.retried).unwrap_or(u32::MAX);
        let until = later(now, pauses.first.saturating_mul(times).min(pauses.most));
        next.until = next.untried_from.map_or(until, |from| from.max(until));
        next
    }

    /// The state at this time, which is unchanged if no pause has ended.
    #[must_use]
    pub fn at(self, now: Timestamp, pauses: Pauses) -> Self {
        let over = self.left(self.until, now, pauses).is_zero();
        let sifts = self.untried_from.is_none_or(|from| self.left(from, now, pauses).is_zero());
        Self { trying: self.trying || over, sifting: self.sifting || sifts || over, ..self }
    }

    /// The state in a daemon that has just started: a trial begins at once.
    #[must_use]
    pub fn at_start(self) -> Self {
        Self { trying: true, sifting: true, ..self }
    }

    /// The time until [`Self::at`] returns another state. None if it will not change.
    pub fn next(&self, now: Timestamp, pauses: Pauses) -> Option<Duration> {
        let until = (!self.trying).then_some(self.until);
        let from = self.untried_from.filter(|_| !self.sifting && !self.trying);
        [until, from].into_iter().flatten().map(|time| self.left(time, now, pauses)).min()
    }

    /// The deliveries that may run now. None if none may. The plugin runs `at_once` deliveries at a time, and
    /// each of them has `attempts` in all.
    pub fn trial(&self, at_once: u32, attempts: u32) -> Option<Trial> {
        let width = match (self.step, attempts) {
            // With a single attempt, a delivery that fails in a trial is lost.
            (_, 0 | 1) => 1,
            (0, _) => self.failures,
            _ => Self::WIDTH,
        };
        let width = width.min(at_once).max(1);
        (self.trying || self.sifting).then_some(Trial { width, any: self.trying })
    }

    /// The name of its state.
    pub fn state(&self) -> BreakerState {
        if self.trying { BreakerState::HalfOpen } else { BreakerState::Open }
    }

    /// The time left until `time`. Zero if that is more than the longest pause: then the clock was set back.
    fn left(&self, time: Timestamp, now: Timestamp, pauses: Pauses) -> Duration {
        let left = Duration::try_from(time.duration_since(now)).unwrap_or_default();
        if left > pauses.most { Duration::ZERO } else { left }
    }
}

fn later(now: Timestamp, pause: Duration) -> Timestamp {
    now.saturating_add(pause).unwrap_or(Timestamp::MAX)
}

impl fmt::Display for Trip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tripped: {} failed in a row", counted(self.failures.into(), "different delivery"))?;
        if self.pauses > 1 {
            let more = self.pauses - 1;
            write!(f, ", and {more} {} since", if more == 1 { "trial" } else { "trials" })?;
        }
        match (self.trying, self.sifting, self.untried_from) {
            (true, ..) => f.write_str("; the next delivery is tried"),
            (false, false, Some(from)) => write!(f, "; new ones are tried at {from:.0}"),
            (false, false, None) => Ok(()),
            (false, true, _) => f.write_str("; new ones are tried at once"),
        }?;
        if self.trying { Ok(()) } else { write!(f, "; those that failed at {:.0}", self.until) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const PAUSES: Pauses = Pauses { first: SECOND, most: Duration::from_secs(10) };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn seconds(from: Timestamp, to: Timestamp) -> f64 {
        to.duration_since(from).as_secs_f64()
    }

    #[test]
    fn each_pause_of_what_failed_is_twice_as_long_up_to_the_most() {
        let mut trip = Trip::first(20, at(0), PAUSES);
        let mut pauses = vec![seconds(at(0), trip.until)];
        for _ in 0..40 {
            let now = trip.until;
            trip = trip.at(now, PAUSES);
            assert_eq!(trip.trial(8, 4), Some(Trial { width: 8, any: true }));
            trip = trip.again(now, FailedTrial { untried: None, retried: true }, PAUSES);
            assert_eq!(
                trip.trial(8, 4),
                Some(Trial { width: 8, any: false }),
                "one that never ran need not wait"
            );
            pauses.push(seconds(now, trip.until));
        }
        assert_eq!(pauses[..6], [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]);
        assert!(pauses[6..].iter().all(|pause| *pause == 10.0), "{pauses:?}");
        assert_eq!((trip.failures, trip.pauses, trip.since), (20, 41, at(0)));
    }

    #[test]
    fn the_pauses_of_what_never_ran_begin_with_the_time_of_an_attempt() {
        let mut trip = Trip::first(20, at(0), PAUSES);
        let (mut now, mut pauses) = (at(0), Vec::new());
        for _ in 0..12 {
            assert!(trip.trial(8, 4).is_some());
            trip = trip.again(now, FailedTrial { untried: Some(SECOND / 20), retried: false }, PAUSES);
            assert_eq!(trip.trial(8, 4), None);
            let from = trip.untried_from.unwrap();
            assert!(trip.until >= from, "what failed never goes before");
            assert_eq!(trip.next(now, PAUSES), Some(Duration::try_from(from.duration_since(now)).unwrap()));
            pauses.push(seconds(now, from));
            now = from;
            trip = trip.at(now, PAUSES);
        }
        assert_eq!(pauses[..4], [0.05, 0.1, 0.2, 0.4]);
        assert_eq!(pauses[8..], [10.0; 4]);
        assert_eq!(trip.trial(8, 4).unwrap().width, Trip::WIDTH);
        assert_eq!(trip.trial(2, 4).unwrap().width, 2);
        assert_eq!(trip.trial(8, 1).unwrap().width, 1, "a delivery with one attempt is lost by it");
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_pause_longer() {
        let trip = Trip::first(3, at(7200), PAUSES);
        let tried = |second| trip.at(at(second), PAUSES).trying;
        assert_eq!([tried(7200), tried(7201), tried(3600)], [false, true, true]);
        let failed = trip.again(at(7200), FailedTrial { untried: Some(SECOND), retried: false }, PAUSES);
        let sifts = |second| failed.at(at(second), PAUSES).sifting;
        assert_eq!([sifts(7200), sifts(7201), sifts(3600)], [false, true, true]);
    }

    #[test]
    fn what_an_earlier_version_wrote_is_read() {
        let text = r#"{"failures":20,"pauses":3,"since":"1970-01-01T00:00:00Z","until":"1970-01-01T00:02:00Z",
                       "trying":false}"#;
        let trip: Trip = serde_json::from_str(text).unwrap();
        assert_eq!((trip.pauses, trip.until, trip.step), (3, at(120), 0));
        assert!(trip.at_start().trial(8, 4).unwrap().any);
    }

    #[test]
    fn it_says_what_happened_and_what_comes() {
        let trip = Trip::first(3, at(0), PAUSES);
        assert_eq!(
            trip.to_string(),
            "tripped: 3 different deliveries failed in a row; new ones are tried at once; those that failed at \
             1970-01-01T00:00:01Z"
        );
        let failed = FailedTrial { untried: Some(SECOND), retried: false };
        assert_eq!(
            trip.again(at(1), failed, Pauses { first: 9 * SECOND, most: 9 * SECOND }).to_string(),
            "tripped: 3 different deliveries failed in a row, and 1 trial since; new ones are tried at \
             1970-01-01T00:00:02Z; those that failed at 1970-01-01T00:00:10Z"
        );
        assert!(trip.at_start().to_string().ends_with("in a row; the next delivery is tried"), "{trip}");
    }
}
