//! The resulting table, in markdown.

use std::fmt;

/// One line of the table. Values that do not apply are empty.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    /// The name of the measurement.
    pub(crate) name: String,
    /// The result, with its unit.
    pub(crate) value: String,
    /// The no-op's result in the same run.
    pub(crate) noop: String,
    /// The result divided by the no-op's.
    pub(crate) ratio: Option<f64>,
    /// CPU time of the measured server, in µs per request.
    pub(crate) subject_cpu: Option<f64>,
    /// CPU time of the load generator, in µs per request.
    pub(crate) generator_cpu: Option<f64>,
    /// Further facts.
    pub(crate) note: String,
}

/// The rows so far.
#[derive(Debug, Default)]
pub(crate) struct Table(pub(crate) Vec<Row>);

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | posthouse | axum no-op | ratio | CPU µs | generator CPU µs | |")?;
        writeln!(f, "| --- | ---: | ---: | ---: | ---: | ---: | --- |")?;
        for row in &self.0 {
            let number =
                |number: Option<f64>| number.map(|number| format!("{number:.1}")).unwrap_or_default();
            let ratio = row.ratio.map(|ratio| format!("{ratio:.3}")).unwrap_or_default();
            let (subject, generator) = (number(row.subject_cpu), number(row.generator_cpu));
            let Row { name, value, noop, note, .. } = row;
            writeln!(f, "| {name} | {value} | {noop} | {ratio} | {subject} | {generator} | {note} |")?;
        }
        Ok(())
    }
}

/// A rate for people.
pub(crate) fn per_second(rate: f64) -> String {
    format!("{}/s", thousands(rate.round() as u64))
}

/// A number of bytes for people.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// A number with thousands separators.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The median; of an even number of values, the lower one of the middle.
pub(crate) fn median<T: Copy>(of: &[T], by: impl Fn(&T) -> f64) -> T {
    let mut sorted = of.to_vec();
    sorted.sort_by(|a, b| by(a).total_cmp(&by(b)));
    sorted[(sorted.len() - 1) / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        assert_eq!([thousands(7), thousands(1234), thousands(1_234_567)], ["7", "1,234", "1,234,567"]);
        assert_eq!(median(&[3.0, 1.0, 2.0], |number| *number), 2.0);
    }
}
