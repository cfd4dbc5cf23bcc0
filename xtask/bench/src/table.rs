//! The table that comes out, in markdown.

use std::fmt;

/// One line of it. What does not apply is left empty.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) name: String,
    /// What came out, with its unit.
    pub(crate) value: String,
    /// The no-op's in the same run, likewise.
    pub(crate) noop: String,
    /// The one by the other.
    pub(crate) ratio: Option<f64>,
    /// CPU time of who is measured, in µs a request.
    pub(crate) subject_cpu: Option<f64>,
    /// CPU time of the load generator, in µs a request.
    pub(crate) generator_cpu: Option<f64>,
    /// What else is to be known.
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

/// A rate as people read it.
pub(crate) fn per_second(rate: f64) -> String {
    format!("{}/s", thousands(rate.round() as u64))
}

/// Bytes as people read them.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// A number with a comma at every third digit.
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

/// The middle one of these; of an even number the lower.
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
