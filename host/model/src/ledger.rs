//! The ledger of requests: every request ends in exactly one outcome, and the sums agree.
//!
//! received = accepted + duplicate + filtered + rejected + failed, once no request is active.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestOutcome {
    /// The event is on disk.
    Accepted,
    /// The event is stored already.
    Duplicate,
    /// The source does not accept the event's type.
    Filtered,
    /// The request is at fault; the reason is one of a fixed set.
    Rejected(&'static str),
    /// posthouse could not store the event; the reason is one of a fixed set.
    Failed(&'static str),
}

/// Counts the requests of one source since the daemon started.
#[derive(Debug, Default)]
pub struct RequestLedger {
    received: AtomicU64,
    accepted: AtomicU64,
    duplicate: AtomicU64,
    filtered: AtomicU64,
    rejected: Mutex<BTreeMap<&'static str, u64>>,
    failed: Mutex<BTreeMap<&'static str, u64>>,
    refusal: Mutex<Option<LastRefusal>>,
}

/// Why a signature was refused, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastRefusal {
    /// When.
    pub at: Timestamp,
    /// The reason, as a sentence without anything secret.
    pub why: String,
}

/// An active request. If it is dropped without an outcome, it counts as failed (`aborted`).
#[derive(Debug)]
pub struct Receipt {
    ledger: Arc<RequestLedger>,
    settled: bool,
}

impl RequestLedger {
    /// Counts the start of a request.
    pub fn receive(self: &Arc<Self>) -> Receipt {
        self.received.fetch_add(1, Ordering::Relaxed);
        Receipt { ledger: Arc::clone(self), settled: false }
    }

    /// Keeps the reason why a signature was refused, until the next one.
    pub fn refused(&self, refusal: LastRefusal) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
    }

    /// The last refusal that was logged. None if there was none.
    pub fn last_refusal(&self) -> Option<LastRefusal> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The counts so far.
    pub fn snapshot(&self) -> RequestCounts {
        let by_reason = |map: &Mutex<BTreeMap<&'static str, u64>>| {
            map.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .iter()
                .map(|(reason, count)| ((*reason).to_owned(), *count))
                .collect()
        };
        RequestCounts {
            accepted: self.accepted.load(Ordering::Acquire),
            duplicate: self.duplicate.load(Ordering::Acquire),
            filtered: self.filtered.load(Ordering::Acquire),
            rejected: by_reason(&self.rejected),
            failed: by_reason(&self.failed),
            // Read last. Each end releases its beginning, so a request that ends meanwhile counts as active,
            // and the sum of the ends is never too large.
            received: self.received.load(Ordering::Relaxed),
        }
    }

    fn settle(&self, outcome: RequestOutcome) {
        let tally = |map: &Mutex<BTreeMap<&'static str, u64>>, reason| {
            *map.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
        };
        match outcome {
            RequestOutcome::Accepted => drop(self.accepted.fetch_add(1, Ordering::Release)),
            RequestOutcome::Duplicate => drop(self.duplicate.fetch_add(1, Ordering::Release)),
            RequestOutcome::Filtered => drop(self.filtered.fetch_add(1, Ordering::Release)),
            RequestOutcome::Rejected(reason) => tally(&self.rejected, reason),
            RequestOutcome::Failed(reason) => tally(&self.failed, reason),
        }
    }
}

impl Receipt {
    /// Counts the end of the request.
    pub fn settle(mut self, outcome: RequestOutcome) {
        self.settled = true;
        self.ledger.settle(outcome);
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if !self.settled {
            self.ledger.settle(RequestOutcome::Failed("aborted"));
        }
    }
}

/// The counts of one source, or of all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestCounts {
    /// Requests that were received.
    pub received: u64,
    /// New events.
    pub accepted: u64,
    /// Events that were stored already.
    pub duplicate: u64,
    /// Events of a type that the source does not accept.
    pub filtered: u64,
    /// Requests at fault, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Requests whose event posthouse could not store, by reason.
    pub failed: BTreeMap<String, u64>,
}

impl RequestCounts {
    /// Requests that were received and have not ended. Negative only if the ledger is wrong.
    pub fn under_way(&self) -> i128 {
        let ended = self.accepted
            + self.duplicate
            + self.filtered
            + self.rejected.values().sum::<u64>()
            + self.failed.values().sum::<u64>();
        i128::from(self.received) - i128::from(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_counted_once_however_it_ends() {
        let ledger = Arc::new(RequestLedger::default());
        for outcome in [
            RequestOutcome::Accepted,
            RequestOutcome::Duplicate,
            RequestOutcome::Filtered,
            RequestOutcome::Rejected("stale-timestamp"),
            RequestOutcome::Rejected("stale-timestamp"),
            RequestOutcome::Failed("backlog"),
        ] {
            ledger.receive().settle(outcome);
        }
        let under_way = ledger.receive();
        assert_eq!(ledger.snapshot().under_way(), 1);
        drop(under_way);

        let counts = ledger.snapshot();
        assert_eq!((counts.received, counts.accepted, counts.duplicate, counts.filtered), (7, 1, 1, 1));
        assert_eq!(counts.rejected, BTreeMap::from([("stale-timestamp".to_owned(), 2)]));
        let failed = [("aborted".to_owned(), 1), ("backlog".to_owned(), 1)];
        assert_eq!(counts.failed, BTreeMap::from(failed));
        assert_eq!(counts.under_way(), 0);
    }

    #[test]
    fn a_snapshot_never_shows_more_ends_than_beginnings() {
        let ledger = Arc::new(RequestLedger::default());
        std::thread::scope(|scope| {
            let busy: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        for turn in 0..20_000 {
                            let outcome = match turn % 3 {
                                0 => RequestOutcome::Accepted,
                                1 => RequestOutcome::Duplicate,
                                _ => RequestOutcome::Rejected("unsigned"),
                            };
                            ledger.receive().settle(outcome);
                        }
                    })
                })
                .collect();
            while !busy.iter().all(|thread| thread.is_finished()) {
                let counts = ledger.snapshot();
                assert!(counts.under_way() >= 0, "{counts:?}");
            }
        });
        assert_eq!(ledger.snapshot().received, 40_000);
        assert_eq!(ledger.snapshot().under_way(), 0);
    }
}
