//! A sheet: the numbers of one scrape, and the text that they become.
//!
//! Counters and gauges go through a recorder of `metrics-exporter-prometheus`, made anew for each scrape: what
//! is no more, such as a plugin that was forgotten, leaves no series behind. Its histograms are not used: they
//! keep every number with the time until somebody asks, which on the way of an event costs a look at the clock
//! and memory without bound. Ours are counted already, and written out here with the exporter's own functions.

use std::collections::BTreeMap;

use metrics::{Key, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{
    LabelSet, PrometheusBuilder, PrometheusRecorder,
    formatting::{write_help_line, write_metric_line, write_type_line},
};

use super::names::Metric;
use crate::model::SpreadCounts;

/// Nanoseconds of a second.
const SECOND: f64 = 1e9;

/// What the exporter wants to know of who counts.
const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// The numbers of one scrape.
pub(super) struct Sheet {
    recorder: PrometheusRecorder,
    /// By name: what it tells, and its series.
    spreads: BTreeMap<&'static str, (&'static str, Vec<Series>)>,
}

/// The labels of a histogram, what was counted, and how many of its units make one of the metric's.
type Series = (Key, SpreadCounts, f64);

impl Sheet {
    pub(super) fn new() -> Self {
        Self { recorder: PrometheusBuilder::new().build_recorder(), spreads: BTreeMap::new() }
    }

    /// A number that only grows.
    pub(super) fn count<const N: usize>(&self, metric: &Metric<N>, labels: [&str; N], count: u64) {
        self.recorder.describe_counter(metric.name.into(), None, metric.help.into());
        self.recorder.register_counter(&key(metric, labels), &METADATA).absolute(count);
    }

    /// A number as it stands.
    pub(super) fn level<const N: usize>(&self, metric: &Metric<N>, labels: [&str; N], level: f64) {
        self.recorder.describe_gauge(metric.name.into(), None, metric.help.into());
        self.recorder.register_gauge(&key(metric, labels), &METADATA).set(level);
    }

    /// Times, counted in nanoseconds.
    pub(super) fn times<const N: usize>(
        &mut self,
        metric: &Metric<N>,
        labels: [&str; N],
        counts: SpreadCounts,
    ) {
        self.spread(metric, labels, counts, SECOND);
    }

    /// Numbers of things.
    pub(super) fn sizes<const N: usize>(
        &mut self,
        metric: &Metric<N>,
        labels: [&str; N],
        counts: SpreadCounts,
    ) {
        self.spread(metric, labels, counts, 1.0);
    }

    fn spread<const N: usize>(
        &mut self,
        metric: &Metric<N>,
        labels: [&str; N],
        counts: SpreadCounts,
        unit: f64,
    ) {
        let (_, series) = self.spreads.entry(metric.name).or_insert_with(|| (metric.help, Vec::new()));
        series.push((key(metric, labels), counts, unit));
    }

    /// All of it as text.
    pub(super) fn render(self) -> String {
        let mut text = self.recorder.handle().render();
        for (name, (help, series)) in self.spreads {
            write_help_line(&mut text, name, None, None, help);
            write_type_line(&mut text, name, None, None, "histogram");
            for (key, counts, unit) in series {
                histogram(
                    &mut text,
                    name,
                    &LabelSet::from_key_and_global(&key, &Default::default()),
                    &counts,
                    unit,
                );
            }
            text.push('\n');
        }
        text
    }
}

fn key<const N: usize>(metric: &Metric<N>, values: [&str; N]) -> Key {
    let labels =
        metric.labels.into_iter().zip(values).map(|(label, value)| Label::new(label, value.to_owned()));
    Key::from_parts(metric.name, labels.collect::<Vec<_>>())
}

/// One histogram: each bucket holds those before it, as the format has it.
fn histogram(text: &mut String, name: &str, labels: &LabelSet, counts: &SpreadCounts, unit: f64) {
    let mut so_far = 0;
    let bounds = counts.bounds.iter().map(|bound| (*bound as f64 / unit).to_string());
    for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(&counts.counts) {
        so_far += count;
        write_metric_line(text, name, Some("bucket"), labels, Some(("le", bound)), so_far, None);
    }
    write_metric_line::<&str, f64>(text, name, Some("sum"), labels, None, counts.sum as f64 / unit, None);
    write_metric_line::<&str, u64>(text, name, Some("count"), labels, None, so_far, None);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{SIZES, Spread};

    #[test]
    fn a_histogram_adds_up_and_texts_are_escaped() {
        const STRAYS: Metric<1> =
            Metric { name: "posthouse_strays_total", labels: ["who"], help: "Who strayed." };
        const HEAP: Metric<1> = Metric { name: "posthouse_heap", labels: ["who"], help: "What lies there." };
        let spread = Spread::new(SIZES);
        [1, 3, 5000].into_iter().for_each(|number| spread.add(number));
        let mut sheet = Sheet::new();
        sheet.count(&STRAYS, ["a\"b\nc"], 3);
        sheet.sizes(&HEAP, ["x"], spread.snapshot());
        let text = sheet.render();
        for line in [
            "# HELP posthouse_strays_total Who strayed.",
            "# TYPE posthouse_strays_total counter",
            "posthouse_strays_total{who=\"a\\\"b\\nc\"} 3",
            "# TYPE posthouse_heap histogram",
            "posthouse_heap_bucket{who=\"x\",le=\"1\"} 1",
            "posthouse_heap_bucket{who=\"x\",le=\"2\"} 1",
            "posthouse_heap_bucket{who=\"x\",le=\"2048\"} 2",
            "posthouse_heap_bucket{who=\"x\",le=\"+Inf\"} 3",
            "posthouse_heap_sum{who=\"x\"} 5004",
            "posthouse_heap_count{who=\"x\"} 3",
        ] {
            assert!(text.lines().any(|told| told == line), "no {line} in\n{text}");
        }
    }
}
