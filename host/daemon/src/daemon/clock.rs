//! The daemon's time of day: the system's clock, but never set back.
//!
//! A second clock only counts. If the system's clock falls behind it, the system's clock was set back. One of
//! the two is wrong, and the daemon cannot tell which. So time continues as it was counted: retries run when
//! they were due, and no later record gets an earlier time. The daemon reports this (log, dashboard,
//! `/metrics`, `posthouse doctor`), and accepts a signature whose timestamp is valid by either clock. Once the
//! system's clock has caught up, the daemon follows it again. After a day it follows the system's clock in any
//! case.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use posthouse_model::{Clock, Env, fault};
use tracing::{error, info};

/// How far the system's clock may fall behind unnoticed, in nanoseconds. Small corrections are normal.
const SLACK: i64 = 1_000_000_000;
/// If the system's clock is behind for this long, the daemon adopts it. In nanoseconds.
const BELIEVED: i64 = 24 * 3600 * 1_000_000_000;
/// The time between two checks.
const LOOK: Duration = Duration::from_secs(1);

/// The system's clock, never set back. Cheap to clone.
#[derive(Clone)]
pub(super) struct Steady(Arc<Inner>);

struct Inner {
    origin: Instant,
    /// The time of day at the origin, by the latest time that the system's clock has shown, in nanoseconds.
    offset: AtomicI64,
    /// When the system's clock was first seen behind, in nanoseconds since the origin; 0 if it is not behind.
    behind_since: AtomicI64,
}

impl Steady {
    pub(super) fn new() -> Self {
        let inner = Inner {
            origin: Instant::now(),
            offset: AtomicI64::new(nanos(system())),
            behind_since: AtomicI64::new(0),
        };
        Self(Arc::new(inner))
    }

    /// Takes over a time that was recorded before the daemon started: the clock had reached it then. A time
    /// more than a day ahead is ignored, because the clock was wrong when it was recorded.
    pub(super) fn has_been(&self, moment: Timestamp) {
        let ahead = nanos(moment).saturating_sub(nanos(system()));
        if (SLACK..=BELIEVED).contains(&ahead) {
            self.0.offset.fetch_max(nanos(moment).saturating_sub(self.counted()), Ordering::Relaxed);
        }
    }

    /// Nanoseconds since the origin.
    fn counted(&self) -> i64 {
        i64::try_from(self.0.origin.elapsed().as_nanos()).unwrap_or(i64::MAX)
    }

    fn at(&self, wall: i64, counted: i64) -> i64 {
        let Inner { offset, behind_since, .. } = &*self.0;
        let expected = offset.load(Ordering::Relaxed).saturating_add(counted);
        if wall >= expected.saturating_sub(SLACK) {
            if wall > expected {
                offset.fetch_max(wall - counted, Ordering::Relaxed);
            }
            if behind_since.load(Ordering::Relaxed) != 0 {
                behind_since.store(0, Ordering::Relaxed);
            }
            return wall;
        }
        let since =
            match behind_since.compare_exchange(0, counted.max(1), Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => counted,
                Err(since) => since,
            };
        if counted.saturating_sub(since) < BELIEVED {
            return expected;
        }
        offset.store(wall - counted, Ordering::Relaxed);
        behind_since.store(0, Ordering::Relaxed);
        wall
    }
}

impl Clock for Steady {
    fn now(&self) -> Timestamp {
        let wall = system();
        let now = self.at(nanos(wall), self.counted());
        if now == nanos(wall) { wall } else { Timestamp::from_nanosecond(now.into()).unwrap_or(wall) }
    }

    fn wall(&self) -> Timestamp {
        system()
    }
}

#[allow(clippy::disallowed_methods, reason = "this is where the system's clock comes in")]
fn system() -> Timestamp {
    let now = Timestamp::now();
    if !fault::COMPILED_IN {
        return now;
    }
    now.saturating_add(fault::clock_is_off_by()).unwrap_or(now)
}

fn nanos(moment: Timestamp) -> i64 {
    i64::try_from(moment.as_nanosecond()).unwrap_or(i64::MAX)
}

/// Logs when the system's clock was set back, and when it is right again.
pub(super) async fn watch(env: Env) {
    let mut behind = false;
    loop {
        match (env.set_back(), behind) {
            (Some(by), false) => {
                behind = true;
                error!(
                    seconds = by.as_secs(),
                    "the system clock was set back; the daemon counts the time itself until the clock is right \
                     again; check it with timedatectl"
                );
            }
            (None, true) => {
                behind = false;
                info!("the system clock is right again");
            }
            _ => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn at(offset: i64) -> Steady {
        let inner =
            Inner { origin: Instant::now(), offset: AtomicI64::new(offset), behind_since: AtomicI64::new(0) };
        Steady(Arc::new(inner))
    }

    #[test]
    fn a_clock_that_is_set_back_is_not_followed_until_it_is_right_or_a_day_has_gone() {
        let clock = at(1000 * SECOND);
        assert_eq!(clock.at(1010 * SECOND, 10 * SECOND), 1010 * SECOND);
        // A small correction, which is normal.
        assert_eq!(clock.at(1019 * SECOND, 20 * SECOND), 1019 * SECOND);
        // The daemon follows a clock that is set forward at once, and not one that is set back.
        assert_eq!(clock.at(5030 * SECOND, 30 * SECOND), 5030 * SECOND);
        assert_eq!(clock.at(1040 * SECOND, 40 * SECOND), 5040 * SECOND);
        assert_eq!(clock.at(1050 * SECOND, 50 * SECOND), 5050 * SECOND);
        // Right again.
        assert_eq!(clock.at(5060 * SECOND, 60 * SECOND), 5060 * SECOND);
        assert_eq!(clock.at(1070 * SECOND, 70 * SECOND), 5070 * SECOND);
        let day = BELIEVED + 71 * SECOND;
        assert_eq!(clock.at(1000 * SECOND + day, day), 1000 * SECOND + day);
        assert_eq!(clock.at(1001 * SECOND + day, day + SECOND), 1001 * SECOND + day);
    }
}
