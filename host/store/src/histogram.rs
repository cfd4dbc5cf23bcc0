//! The durations of attempts in logarithmic buckets, and the longest of them. A percentile is off by a tenth
//! at most, and never longer than the longest.

/// Each bucket's bound is 1.2 times that of the bucket before, so its geometric middle is within 10 %.
const GROWTH: f64 = 1.2;

/// From 1 µs to more than a day.
const BUCKETS: usize = 140;

/// Bytes of the longest duration in a row: 2^40 µs are twelve days.
const LONGEST: usize = 5;

/// Counts of durations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DurationHistogram {
    counts: [u32; BUCKETS],
    /// The longest duration, in microseconds; `u64::MAX` if it is not known: the row is of an older version.
    longest: u64,
}

impl Default for DurationHistogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], longest: 0 }
    }
}

impl DurationHistogram {
    pub(super) fn add(&mut self, micros: u64) {
        let bucket = ((micros.max(1) as f64).ln() / GROWTH.ln()) as usize;
        let count = &mut self.counts[bucket.min(BUCKETS - 1)];
        *count = count.saturating_add(1);
        self.longest = self.longest.max(micros.max(1));
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count = count.saturating_add(more);
        }
        self.longest = self.longest.max(other.longest);
    }

    /// The duration, in milliseconds, that a share `of` (0 to 1) of the attempts does not exceed; none if
    /// nothing was counted.
    pub(super) fn percentile(&self, of: f64) -> Option<f64> {
        let total: u64 = self.counts.iter().copied().map(u64::from).sum();
        let rank = ((total as f64 * of).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, &count) in self.counts.iter().enumerate() {
            seen += u64::from(count);
            if seen >= rank {
                return Some(GROWTH.powf(bucket as f64 + 0.5).min(self.longest as f64) / 1000.0);
            }
        }
        None
    }

    /// The mean of the counted durations in milliseconds, whose sum is `micros`; none if nothing was counted.
    pub(super) fn average(&self, micros: f64) -> Option<f64> {
        let total: u64 = self.counts.iter().copied().map(u64::from).sum();
        (total > 0).then(|| micros / 1000.0 / total as f64)
    }

    /// The form in a row, little-endian: the counts up to the last that is not 0, four bytes each, then the
    /// longest duration in five bytes. Rows of older versions lack those five, and are recognised by that.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let used = self.counts.iter().rposition(|&count| count != 0).map_or(0, |last| last + 1);
        let mut bytes: Vec<u8> = self.counts[..used].iter().flat_map(|count| count.to_le_bytes()).collect();
        let longest = self.longest.to_le_bytes();
        if used > 0 && longest[LONGEST..].iter().all(|byte| *byte == 0) {
            bytes.extend_from_slice(&longest[..LONGEST]);
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let mut histogram = Self::default();
        let (bytes, longest) = match bytes.split_last_chunk::<LONGEST>() {
            Some((counts, longest)) if counts.len() % 4 == 0 => (counts, Some(longest)),
            _ => (bytes, None),
        };
        histogram.longest = match longest {
            Some([a, b, c, d, e]) => u64::from_le_bytes([*a, *b, *c, *d, *e, 0, 0, 0]),
            None if bytes.is_empty() => 0,
            None => u64::MAX,
        };
        for (count, bytes) in histogram.counts.iter_mut().zip(bytes.as_chunks::<4>().0) {
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
            let mut histogram = DurationHistogram::default();
            micros.iter().for_each(|&m| histogram.add(m));
            let histogram = DurationHistogram::from_bytes(&histogram.to_bytes());
            micros.sort_unstable();
            for of in [0.5, 0.9, 0.99, 1.0] {
                let rank = ((micros.len() as f64 * of).ceil() as usize).max(1);
                let (exact, told) = (micros[rank - 1] as f64, histogram.percentile(of).unwrap() * 1000.0);
                prop_assert!((told / exact - 1.0).abs() <= 0.1, "{told} for {exact}");
                let longest = micros[micros.len() - 1] as f64;
                prop_assert!(told <= longest * (1.0 + 1e-9), "{told} is longer than the longest, {longest}");
            }
        }
    }

    #[test]
    fn nothing_counted_is_nothing() {
        assert_eq!(DurationHistogram::default().percentile(0.99), None);
        assert!(DurationHistogram::default().to_bytes().is_empty());
        assert_eq!(DurationHistogram::from_bytes(&[]), DurationHistogram::default());
    }

    #[test]
    fn no_percentile_exceeds_the_limit_that_ended_every_attempt() {
        let mut histogram = DurationHistogram::default();
        (0..100).for_each(|_| histogram.add(8_000_000));
        let mut other = DurationHistogram::default();
        other.add(5);
        histogram.merge(&DurationHistogram::from_bytes(&other.to_bytes()));
        for of in [0.5, 0.95, 0.99, 1.0] {
            assert!(histogram.percentile(of).unwrap() <= 8000.0, "{of}");
        }
    }

    #[test]
    fn a_row_of_an_older_version_has_counts_alone() {
        let mut histogram = DurationHistogram::default();
        histogram.add(1000);
        let bytes = histogram.to_bytes();
        let old = DurationHistogram::from_bytes(&bytes[..bytes.len() - LONGEST]);
        assert_eq!(old.counts, histogram.counts);
        assert!(old.percentile(0.5).unwrap() > 0.0);
    }
}
