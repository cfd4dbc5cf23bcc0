//! Keeps floods of bad requests or dead letters out of the log: a few lines per second pass, the rest are
//! counted.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lines that pass within one [`WINDOW`].
const LINES: u32 = 5;
const WINDOW: Duration = Duration::from_secs(1);

/// Limits one subject of the log, such as the bad requests of a source.
#[derive(Debug, Default)]
pub(crate) struct LogLimiter(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    opened: Option<Instant>,
    passed: u32,
    held_back: u64,
}

impl LogLimiter {
    /// Whether a line may be written now. If so, returns how many lines were held back since the last one.
    pub(crate) fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        if state.opened.is_none_or(|opened| now.saturating_duration_since(opened) >= WINDOW) {
            state.opened = Some(now);
            state.passed = 0;
        }
        if state.passed == LINES {
            state.held_back += 1;
            return None;
        }
        state.passed += 1;
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_lines_pass_and_the_rest_are_counted() {
        let gate = LogLimiter::default();
        let start = Instant::now();
        let admitted: Vec<_> = (0..100).filter_map(|_| gate.admit_at(start)).collect();
        assert_eq!(admitted, [0; LINES as usize]);
        let later = start + WINDOW;
        assert_eq!(gate.admit_at(later), Some(100 - u64::from(LINES)));
        assert_eq!(gate.admit_at(later), Some(0));
    }
}
