//! The numbers of one scrape, and their text format.
//!
//! Each scrape fills a new [`Sheet`], which `prometheus-client` encodes as a collector. So a series ends with its
//! subject: a plugin that was forgotten leaves none behind. Its `Histogram` is not used, because each observation
//! would take a lock on the path of an event; [`posthouse_model::Histogram`] counts without one.

use std::{collections::BTreeMap, fmt};

use posthouse_model::HistogramCounts;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text},
    metrics::MetricType,
    registry::Registry,
};

use super::names::Metric;

/// Nanoseconds of a second.
const SECOND: f64 = 1e9;

/// Below this, every whole number has an exact float: 2^53.
const WHOLE: f64 = 9_007_199_254_740_992.0;

/// The suffix that the format appends to the name of a counter. Our names include it.
const TOTAL: &str = "_total";

/// The numbers of one scrape.
#[derive(Debug, Default)]
pub(super) struct Sheet(BTreeMap<&'static str, Family>);

/// A metric and its series.
#[derive(Debug)]
struct Family {
    help: &'static str,
    kind: MetricType,
    series: Vec<(Vec<(&'static str, String)>, Sample)>,
}

/// The value of one series.
#[derive(Debug)]
enum Sample {
    Counter(u64),
    Gauge(f64),
    /// A count, and how many of its units make one unit of the metric.
    Histogram(HistogramCounts, f64),
}

impl Sheet {
    /// A number that never decreases.
    pub(super) fn count<const N: usize>(&mut self, metric: &Metric<N>, labels: [&str; N], count: u64) {
        self.add(metric, labels, MetricType::Counter, Sample::Counter(count));
    }

    /// A number that may decrease.
    pub(super) fn level<const N: usize>(&mut self, metric: &Metric<N>, labels: [&str; N], level: f64) {
        self.add(metric, labels, MetricType::Gauge, Sample::Gauge(level));
    }

    /// Times, counted in nanoseconds and exported in seconds.
    pub(super) fn times<const N: usize>(
        &mut self,
        metric: &Metric<N>,
        labels: [&str; N],
        counts: HistogramCounts,
    ) {
        self.add(metric, labels, MetricType::Histogram, Sample::Histogram(counts, SECOND));
    }

    /// Numbers of things.
    pub(super) fn sizes<const N: usize>(
        &mut self,
        metric: &Metric<N>,
        labels: [&str; N],
        counts: HistogramCounts,
    ) {
        self.add(metric, labels, MetricType::Histogram, Sample::Histogram(counts, 1.0));
    }

    fn add<const N: usize>(
        &mut self,
        metric: &Metric<N>,
        values: [&str; N],
        kind: MetricType,
        sample: Sample,
    ) {
        let labels = metric.labels.into_iter().zip(values.map(str::to_owned)).collect();
        let family = self.0.entry(metric.name).or_insert_with(|| Family {
            help: metric.help,
            kind,
            series: Vec::new(),
        });
        family.series.push((labels, sample));
    }

    /// All metrics in Prometheus's text format, version 0.0.4.
    ///
    /// # Errors
    /// None in practice: writing to a `String` cannot fail.
    pub(super) fn render(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        prometheus_text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl Collector for Sheet {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, Family { help, kind, series }) in &self.0 {
            let name = match kind {
                MetricType::Counter => name.strip_suffix(TOTAL).unwrap_or(name),
                _ => name,
            };
            let mut family = encoder.encode_descriptor(name, help, None, *kind)?;
            for (labels, sample) in series {
                sample.encode(family.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}

impl Sample {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        match self {
            Self::Counter(count) => encoder.encode_counter::<NoLabelSet, _, f64>(count, None),
            // Whole numbers have no fraction in the text, as people and scripts expect of counts and flags.
            Self::Gauge(level) if level.fract() == 0.0 && level.abs() < WHOLE => {
                encoder.encode_gauge(&(*level as i64))
            }
            Self::Gauge(level) => encoder.encode_gauge(level),
            Self::Histogram(HistogramCounts { bounds, counts, sum }, unit) => {
                let bounds = bounds.iter().map(|bound| *bound as f64 / unit).chain([f64::INFINITY]);
                let buckets: Vec<_> = bounds.zip(counts.iter().copied()).collect();
                let total = counts.iter().sum();
                encoder.encode_histogram::<NoLabelSet>(*sum as f64 / unit, total, &buckets, None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use posthouse_model::{Histogram, SIZES};

    use super::*;

    #[test]
    fn a_histogram_adds_up_and_texts_are_escaped() {
        const STRAYS: Metric<1> =
            Metric { name: "posthouse_strays_total", labels: ["who"], help: "Who strayed." };
        const HEAP: Metric<1> = Metric { name: "posthouse_heap", labels: ["who"], help: "What lies there." };
        let spread = Histogram::new(SIZES);
        [1, 3, 5000].into_iter().for_each(|number| spread.add(number));
        const LEVEL: Metric<1> = Metric { name: "posthouse_level", labels: ["who"], help: "A level." };
        let mut sheet = Sheet::default();
        sheet.level(&LEVEL, ["whole"], 3.0);
        sheet.level(&LEVEL, ["part"], 0.5);
        sheet.count(&STRAYS, ["a\"b\nc"], 3);
        sheet.sizes(&HEAP, ["x"], spread.snapshot());
        let text = sheet.render().unwrap();
        for line in [
            "# HELP posthouse_strays_total Who strayed.",
            "# TYPE posthouse_strays_total counter",
            "posthouse_strays_total{who=\"a\\\"b\\nc\"} 3",
            "posthouse_level{who=\"whole\"} 3",
            "posthouse_level{who=\"part\"} 0.5",
            "# TYPE posthouse_heap histogram",
            "posthouse_heap_bucket{who=\"x\",le=\"1\"} 1",
            "posthouse_heap_bucket{who=\"x\",le=\"2\"} 1",
            "posthouse_heap_bucket{who=\"x\",le=\"2048\"} 2",
            "posthouse_heap_bucket{who=\"x\",le=\"+Inf\"} 3",
            "posthouse_heap_sum{who=\"x\"} 5004.0",
            "posthouse_heap_count{who=\"x\"} 3",
        ] {
            assert!(text.lines().any(|told| told == line), "no {line} in\n{text}");
        }
    }
}
