//! The results of the steps of a long command, with their durations.

use std::time::{Duration, Instant};

use crate::shell::{Error, Result, say};

/// The steps so far: name, duration, whether it passed.
#[derive(Default)]
pub struct Report(Vec<(&'static str, Duration, bool)>);

impl Report {
    /// Runs a step that later steps need.
    pub fn step(&mut self, name: &'static str, work: impl FnOnce() -> Result) -> Result {
        say(format_args!("{name} …"));
        let started = Instant::now();
        let result = work();
        self.0.push((name, started.elapsed(), result.is_ok()));
        result
    }

    /// Runs a step that no other needs: its failure stops nothing. Returns whether it passed.
    pub fn check(&mut self, name: &'static str, work: impl FnOnce() -> Result) -> bool {
        let result = self.step(name, work);
        if let Err(error) = &result {
            say(format_args!("{name}: {error}"));
        }
        result.is_ok()
    }

    /// Prints the duration and result of each step. Returns an error if any failed.
    pub fn end(&self) -> Result {
        eprintln!();
        for (name, took, passed) in &self.0 {
            let outcome = if *passed { "ok" } else { "FAILED" };
            say(format_args!("{name:<32} {:>6.1} s  {outcome}", took.as_secs_f64()));
        }
        let total: Duration = self.0.iter().map(|(_, took, _)| took).sum();
        let failed: Vec<_> = self.0.iter().filter(|(_, _, passed)| !passed).map(|(name, ..)| *name).collect();
        if failed.is_empty() {
            say(format_args!("all passed, in {:.0} s", total.as_secs_f64()));
            return Ok(());
        }
        Err(Error::new(format!("failed, after {:.0} s: {}", total.as_secs_f64(), failed.join(", "))))
    }
}
