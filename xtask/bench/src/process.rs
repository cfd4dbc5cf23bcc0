//! The CPU time and memory that a process used, from `/proc`.

use std::{fs, ops::Sub, time::Duration};

/// CPU time so far, user and system.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu(Duration);

impl Cpu {
    /// The CPU time that this process has used.
    pub(crate) fn of(pid: u32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process that runs");
        // The second field is the name in parentheses and may contain anything. The 14th and 15th are utime
        // and stime, in ticks; Linux has 100 ticks a second on every machine.
        let after = stat.rsplit(')').next().expect("the fields after the name");
        let mut fields = after.split_whitespace().skip(11);
        let mut ticks =
            || fields.next().and_then(|field| field.parse::<u64>().ok()).expect("a number of ticks");
        Self(Duration::from_millis(10 * (ticks() + ticks())))
    }

    /// The time divided by `count`, in microseconds.
    pub(crate) fn micros_each(self, count: u64) -> f64 {
        self.0.as_secs_f64() * 1e6 / count.max(1) as f64
    }

    /// The time as a share of one core over this duration.
    pub(crate) fn of_one_core(self, over: Duration) -> f64 {
        self.0.as_secs_f64() / over.as_secs_f64()
    }
}

impl Sub for Cpu {
    type Output = Self;
    fn sub(self, before: Self) -> Self {
        Self(self.0.saturating_sub(before.0))
    }
}

/// Resident memory of a process, in bytes.
pub(crate) fn resident(pid: u32) -> u64 {
    field_of_status(pid, "VmRSS:")
}

/// The most memory that was resident at any time, in bytes.
pub(crate) fn most_resident(pid: u32) -> u64 {
    field_of_status(pid, "VmHWM:")
}

fn field_of_status(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process that runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field of the status");
    1024 * line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of kB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let before = Cpu::of(std::process::id());
        let mut sum = 0_u64;
        while (Cpu::of(std::process::id()) - before).0 < Duration::from_millis(20) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(resident(std::process::id()) > 1 << 20);
        assert!(most_resident(std::process::id()) >= resident(std::process::id()));
    }
}
