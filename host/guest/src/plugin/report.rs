//! Reports how an attempt ended, so that an operator can act on it. The error names the limit or the cause of the
//! trap, and the guest's stack follows.

use std::{
    fmt::{self, Write},
    time::Duration,
};

use posthouse_database::{Transaction, TxAborted};
use posthouse_model::{Decision, Effects, Fetched, LogLine};
use wasmtime::{FrameInfo, PoolConcurrencyLimitError, Trap, WasmBacktrace, component::ResourceTableError};

use super::engine::STACK;

use crate::imports::{Failure, HANDLES, HostState, Stop, cut, last_words, size};

/// The most bytes of a stack trace that are kept.
const TRACE: usize = 16 << 10;

/// A function that is at least this often in a backtrace counts as recursive.
const RECURSION: usize = 4;

/// How an attempt ended, before the store has committed it.
#[derive(Debug)]
pub struct AttemptReport {
    /// Its changes, or why it changed nothing.
    pub result: Result<Finished, AttemptFailure>,
    /// When the instance was requested.
    pub started_at: jiff::Timestamp,
    /// The time from then until the guest returned.
    pub duration: Duration,
    /// The log lines of the guest.
    pub logs: Vec<LogLine>,
    /// A summary of its actions in a few lines; none if there were none.
    pub actions: Option<String>,
    /// The requests that the guest made, if the job has a trace.
    pub fetched: Vec<Fetched>,
}

/// The changes of an attempt, none of which has taken effect yet.
#[derive(Debug)]
pub struct Finished {
    /// The changes that the store is to commit.
    pub effects: Effects,
    /// The changes that the plugin's database is to commit before the store does. None if the plugin has no
    /// database, or did not use it. Dropping it rolls it back.
    pub transaction: Option<Transaction>,
    /// What the guest decided, if it was asked for a decision.
    pub decision: Option<Decision>,
}

/// Why an attempt did not do its work.
#[derive(Debug)]
pub enum AttemptFailure {
    /// The guest returned `retry` or `retry-after`.
    Retry {
        /// The guest's reason.
        reason: String,
        /// The shortest wait that the guest asked for.
        after: Option<Duration>,
    },
    /// The guest returned `reject`.
    Reject {
        /// The guest's reason.
        reason: String,
    },
    /// A trap, a limit (named in the error), or a timeout.
    Stopped {
        /// The error.
        error: String,
        /// The guest's stack, innermost function first.
        trace: Option<String>,
    },
    /// There is no room for the events that it emits, because too much is unfinished.
    NoRoom {
        /// The error.
        error: String,
    },
    /// Another transaction on the plugin's database conflicted. The job runs again at once, and the attempt is
    /// not counted.
    Conflict,
    /// The plugin's database ended the session during the guest's statement or during the commit. Once, the
    /// guest may not be the cause, so the job is released. If it happens again and again, the guest is the
    /// cause.
    Broken {
        /// The error.
        error: String,
    },
    /// The guest is not the cause: the store could not be read, or the plugin has no code any more. The job is
    /// released, and the attempt is not counted.
    NotRun {
        /// The error.
        error: String,
    },
}

/// Reports a failure that the guest returned. At most `most` bytes of its reason are kept.
pub(super) fn failed(failure: Failure, most: usize) -> AttemptFailure {
    match failure {
        Failure::Retry { reason, after } => AttemptFailure::Retry { reason: bounded(reason, most), after },
        Failure::Reject { reason } => AttemptFailure::Reject { reason: bounded(reason, most) },
    }
}

/// Reports an attempt in which the guest did not return.
pub(super) fn stopped(error: &wasmtime::Error, state: &mut HostState, logs: &[LogLine]) -> AttemptFailure {
    let not_run = match error.downcast_ref::<Stop>() {
        Some(Stop::Store(error)) => Some(format!("the store could not be read: {error}")),
        Some(Stop::Database(TxAborted::Conflict)) => return AttemptFailure::Conflict,
        Some(Stop::Database(TxAborted::Broken(error))) => {
            return AttemptFailure::Broken { error: error.to_string() };
        }
        Some(Stop::Database(TxAborted::Unavailable(error))) => Some(error.to_string()),
        _ => error.downcast_ref::<PoolConcurrencyLimitError>().map(ToString::to_string),
    };
    if let Some(error) = not_run {
        return AttemptFailure::NotRun { error };
    }
    let most = state.context().settings.limits.reason;
    AttemptFailure::Stopped { error: bounded(cause(error, state, logs), most), trace: trace(error) }
}

fn cause(error: &wasmtime::Error, state: &mut HostState, logs: &[LogLine]) -> String {
    let root = error.root_cause();
    let limit = if let Some(stop) = error.downcast_ref::<Stop>() {
        return match stop {
            Stop::Exited(_) | Stop::Wasi(_) => explained(logs, &stop.to_string()),
            stop => stop.to_string(),
        };
    } else if let Some(Trap::StackOverflow) = error.downcast_ref() {
        Some(Stop::bytes("stack", STACK))
    } else if own_stack_ran_out(error) {
        return format!("limit `stack` (the guest's own) reached: {root}");
    } else if let Some(ResourceTableError::Full) = error.downcast_ref() {
        Some(Stop::count("handles", HANDLES))
    } else if root.to_string().contains("fuel allocated for hostcalls") {
        // wasmtime has no public type for this error.
        return Stop::bytes("hostcall", state.context().settings.limits.hostcall).to_string();
    } else {
        state.meter().hit()
    };
    match limit {
        Some(limit) => format!("{limit}: {root}"),
        None => explained(logs, &root.to_string()),
    }
}

/// Explains a trap by the guest's panic or exception, if it logged one. `unreachable` alone does not
/// distinguish causes.
fn explained(logs: &[LogLine], trap: &str) -> String {
    match last_words(logs) {
        Some(words) => format!("{words} ({trap})"),
        None => trap.to_owned(),
    }
}

/// Whether the guest recursed until its own stack ran out, the one that languages keep in linear memory.
/// Linkers put that stack lowest, so it runs below address zero. The fault is then just under 4 GiB, and one
/// function repeats in the backtrace.
fn own_stack_ran_out(error: &wasmtime::Error) -> bool {
    let below_zero = |address| (0xff00_0000..0x1_0100_0000_u64).contains(&address);
    matches!(error.downcast_ref(), Some(Trap::MemoryOutOfBounds))
        && error.chain().filter_map(|cause| faulting_address(&cause.to_string())).any(below_zero)
        && error.downcast_ref::<WasmBacktrace>().is_some_and(|backtrace| {
            let mut functions: Vec<_> = backtrace.frames().iter().map(FrameInfo::func_index).collect();
            functions.sort_unstable();
            functions.chunk_by(|a, b| a == b).any(|same| same.len() >= RECURSION)
        })
}

/// Parses the address from wasmtime's message for a fault, which has no public type.
fn faulting_address(words: &str) -> Option<u64> {
    let (_, after) = words.split_once("memory fault at wasm address 0x")?;
    let digits = after.split(' ').next()?;
    u64::from_str_radix(digits, 16).ok()
}

/// Returns the guest's stack, one function a line.
fn trace(error: &wasmtime::Error) -> Option<String> {
    let backtrace = error.downcast_ref::<WasmBacktrace>()?;
    let mut text = Bounded(String::new());
    // An error only means that the text has reached its limit.
    let _ = write!(text, "{backtrace}");
    let frames = text.0.lines().skip(1).map(str::trim).collect::<Vec<_>>().join("\n");
    (!frames.is_empty()).then_some(frames)
}

fn bounded(mut reason: String, most: usize) -> String {
    if cut(&mut reason, most) {
        reason.push_str(&format!(" … [limit `reason` ({}) reached: reason cut]", size(most)));
        reason.shrink_to_fit();
    }
    reason
}

/// A text of at most [`TRACE`] bytes, because a guest's function names may be of any length.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut text = text.to_owned();
        let over = cut(&mut text, TRACE - self.0.len());
        self.0.push_str(&text);
        if over { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_and_says_so() {
        let reason = "r".repeat(5000);
        let AttemptFailure::Reject { reason } = failed(Failure::Reject { reason }, 4 << 10) else { panic!() };
        assert!(reason.ends_with("rr … [limit `reason` (4 KiB) reached: reason cut]"), "{reason}");
        let AttemptFailure::Retry { reason, after } =
            failed(Failure::Retry { reason: "short".into(), after: None }, 4 << 10)
        else {
            panic!()
        };
        assert_eq!((reason.as_str(), after), ("short", None));
    }

    #[test]
    fn a_trace_is_bounded() {
        let mut text = Bounded(String::new());
        assert!(write!(text, "{}", "é".repeat(TRACE)).is_err());
        assert_eq!(text.0.len(), TRACE);
        assert!(text.write_str("more").is_err());
    }
}
