//! Histograms: numbers counted in buckets, without a lock, by any number of threads.
//!
//! Metrics export them as histograms. Counting a number costs a search among some twenty bounds and two
//! additions. The number itself is not kept, so the memory does not grow.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bounds for times from microseconds to seconds, in nanoseconds.
pub const SHORT_TIMES: &[u64] = &[
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Bounds for times of up to a day, in nanoseconds.
pub const LONG_TIMES: &[u64] = &[
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    1_000_000_000,
    5_000_000_000,
    15_000_000_000,
    60_000_000_000,
    300_000_000_000,
    1_800_000_000_000,
    7_200_000_000_000,
    86_400_000_000_000,
];

/// Bounds for the number of things that are done together.
pub const SIZES: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048];

/// Counts numbers by their bucket.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One for each bound, and one for numbers above the last bound.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// An empty histogram. A bucket counts numbers up to and including its bound; the bounds must ascend.
    pub fn new(bounds: &'static [u64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum: AtomicU64::new(0) }
    }

    /// Counts a number.
    pub fn add(&self, number: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < number);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(number, Ordering::Relaxed);
    }

    /// The counts so far.
    pub fn snapshot(&self) -> HistogramCounts {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        HistogramCounts { bounds: self.bounds, counts, sum: self.sum.load(Ordering::Relaxed) }
    }
}

/// The counts of a [`Histogram`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistogramCounts {
    /// The upper bound of each bucket except the last, which has none.
    pub bounds: &'static [u64],
    /// The count of each bucket, one more than there are bounds.
    pub counts: Vec<u64>,
    /// The sum of all counted numbers.
    pub sum: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_falls_into_the_first_bucket_that_reaches_it() {
        let spread = Histogram::new(SIZES);
        for number in [0, 1, 2, 3, 4, 2048, 2049, 1_000_000] {
            spread.add(number);
        }
        let HistogramCounts { counts, sum, .. } = spread.snapshot();
        assert_eq!(counts, [2, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(sum, 1 + 2 + 3 + 4 + 2048 + 2049 + 1_000_000);
    }

    #[test]
    fn all_bounds_ascend() {
        for bounds in [SHORT_TIMES, LONG_TIMES, SIZES] {
            assert!(bounds.is_sorted_by(|a, b| a < b), "{bounds:?}");
        }
    }
}
