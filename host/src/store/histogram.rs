//! How long attempts took, in logarithmic buckets: a percentile from it is at most a tenth off.

/// Each bucket reaches 1.2 times as far as the one before, so its geometric middle is within 10 %.
const GROWTH: f64 = 1.2;

/// From 1 µs to more than a day.
const BUCKETS: usize = 140;

/// Counts of durations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Histogram([u32; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Histogram {
    pub(super) fn add(&mut self, micros: u64) {
        let bucket = ((micros.max(1) as f64).ln() / GROWTH.ln()) as usize;
        let count = &mut self.0[bucket.min(BUCKETS - 1)];
        *count = count.saturating_add(1);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count = count.saturating_add(more);
        }
    }

    /// The duration in microseconds that the share `of` (0 to 1) does not exceed; 0 where it is empty.
    pub(super) fn percentile(&self, of: f64) -> f64 {
        let total: u64 = self.0.iter().copied().map(u64::from).sum();
        let rank = ((total as f64 * of).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, &count) in self.0.iter().enumerate() {
            seen += u64::from(count);
            if seen >= rank {
                return GROWTH.powf(bucket as f64 + 0.5);
            }
        }
        0.0
    }

    /// As kept in a row: the counts up to the last that is not 0, little-endian.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let used = self.0.iter().rposition(|&count| count != 0).map_or(0, |last| last + 1);
        self.0[..used].iter().flat_map(|count| count.to_le_bytes()).collect()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let mut histogram = Self::default();
        for (count, bytes) in histogram.0.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *count = u32::from_le_bytes(*bytes);
        }
        histogram
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_percentile_is_at_most_a_tenth_off(mut micros in prop::collection::vec(1u64..50_000_000_000, 1..300)) {
            let mut histogram = Histogram::default();
            micros.iter().for_each(|&m| histogram.add(m));
            let histogram = Histogram::from_bytes(&histogram.to_bytes());
            micros.sort_unstable();
            for of in [0.5, 0.9, 0.99, 1.0] {
                let rank = ((micros.len() as f64 * of).ceil() as usize).max(1);
                let (exact, told) = (micros[rank - 1] as f64, histogram.percentile(of));
                prop_assert!((told / exact - 1.0).abs() <= 0.1, "{told} for {exact}");
            }
        }
    }

    #[test]
    fn nothing_counted_is_nothing() {
        assert_eq!(Histogram::default().percentile(0.99), 0.0);
        assert!(Histogram::default().to_bytes().is_empty());
    }
}
