//! Waiting with a limit, and repeatable randomness.

use std::{
    thread,
    time::{Duration, Instant, UNIX_EPOCH},
};

/// The longest time of a wait: `POSTHOUSE_TIMEOUT` in seconds, 60 by default. A test that passes does not
/// wait this long; only a slow machine needs more.
pub fn timeout() -> Duration {
    let seconds = std::env::var("POSTHOUSE_TIMEOUT").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    Duration::from_secs(seconds)
}

/// Waits until `condition` holds.
///
/// # Panics
/// After [`timeout`], with `what` it waited for.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    eventually(what, || condition().then_some(()));
}

/// Waits until `look` returns something, and returns that.
///
/// # Panics
/// After [`timeout`], with `what` it waited for.
#[track_caller]
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(timeout(), what, look)
}

/// Waits until `look` returns something, for at most `limit`.
#[track_caller]
pub(crate) fn within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < limit, "gave up after {:?}, waiting for: {what}", began.elapsed());
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// The seed of a randomised test. It is printed, so that `POSTHOUSE_SEED` can repeat the test.
///
/// # Panics
/// If `POSTHOUSE_SEED` is not a number.
pub fn seed() -> u64 {
    let seed = match std::env::var("POSTHOUSE_SEED") {
        Ok(text) => text.parse().expect("POSTHOUSE_SEED is a number"),
        Err(_) => UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64),
    };
    eprintln!("POSTHOUSE_SEED={seed} repeats this run");
    seed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_when_its_condition_holds() {
        let mut looks = 0;
        let found = eventually("three looks", || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found, 3);
    }
}
