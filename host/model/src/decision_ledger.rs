//! The ledger of decisions: how each request of an interceptor was answered since the daemon started, and how long that
//! took.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;

use super::{Fallback, Histogram, HistogramCounts, SHORT_TIMES};

/// Counts the answers of all interceptors.
#[derive(Debug, Default)]
pub struct DecisionLedger(Mutex<BTreeMap<String, Arc<Tally>>>);

/// The counts of one interceptor.
#[derive(Debug)]
struct Tally {
    counts: Mutex<DecisionCounts>,
    latency: Histogram,
}

/// What an interceptor answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DecisionCounts {
    /// Decisions of the plugin that allow.
    pub allowed: u64,
    /// Decisions of the plugin that deny.
    pub denied: u64,
    /// Answers without a decision, by cause.
    pub fallbacks: BTreeMap<Fallback, u64>,
    /// Requests with a known id, which got the recorded answer.
    pub repeated: u64,
    /// Decisions that committed after another answer had been sent.
    pub late: u64,
    /// Decisions that denied, and were answered with ALLOW because of `enforce = false`.
    pub overruled: u64,
}

/// An answer, for the count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// The plugin decided.
    Decided {
        /// Whether it allows.
        allows: bool,
        /// Whether the sender got another answer because of `enforce = false`.
        overruled: bool,
    },
    /// posthouse answered in its place.
    Fallback(Fallback),
    /// The id was known.
    Repeated,
}

impl DecisionLedger {
    /// Counts an answer, and the time from the request to the answer.
    pub fn answered(&self, interceptor: &str, answered: Answered, after: Duration) {
        let tally = self.tally(interceptor);
        tally.latency.add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX));
        let mut counts = tally.counts.lock();
        match answered {
            Answered::Decided { allows, overruled } => {
                *(if allows { &mut counts.allowed } else { &mut counts.denied }) += 1;
                counts.overruled += u64::from(overruled);
            }
            Answered::Fallback(cause) => *counts.fallbacks.entry(cause).or_default() += 1,
            Answered::Repeated => counts.repeated += 1,
        }
    }

    /// Counts a decision that committed late.
    pub fn late(&self, interceptor: &str) {
        self.tally(interceptor).counts.lock().late += 1;
    }

    /// The counts so far, by the interceptor's name, with the times.
    pub fn snapshot(&self) -> BTreeMap<String, (DecisionCounts, HistogramCounts)> {
        let tallies = self.0.lock();
        let counts = |tally: &Tally| (tally.counts.lock().clone(), tally.latency.snapshot());
        tallies.iter().map(|(name, tally)| (name.clone(), counts(tally))).collect()
    }

    fn tally(&self, interceptor: &str) -> Arc<Tally> {
        let mut tallies = self.0.lock();
        if let Some(tally) = tallies.get(interceptor) {
            return Arc::clone(tally);
        }
        let tally = Arc::new(Tally { counts: Mutex::default(), latency: Histogram::new(SHORT_TIMES) });
        tallies.insert(interceptor.to_owned(), Arc::clone(&tally));
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_is_counted_once_under_its_interceptor() {
        let ledger = DecisionLedger::default();
        let after = Duration::from_millis(3);
        ledger.answered("a", Answered::Decided { allows: true, overruled: false }, after);
        ledger.answered("a", Answered::Decided { allows: false, overruled: true }, after);
        ledger.answered("a", Answered::Fallback(Fallback::Timeout), after);
        ledger.answered("a", Answered::Repeated, after);
        ledger.answered("b", Answered::Repeated, after);
        ledger.late("a");
        let snapshot = ledger.snapshot();
        let expected = DecisionCounts {
            allowed: 1,
            denied: 1,
            fallbacks: [(Fallback::Timeout, 1)].into(),
            repeated: 1,
            late: 1,
            overruled: 1,
        };
        let (counts, times) = &snapshot["a"];
        assert_eq!((counts, times.counts.iter().sum::<u64>()), (&expected, 4));
        assert_eq!(snapshot["b"].0.repeated, 1);
    }
}
