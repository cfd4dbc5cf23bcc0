//! What became of an attempt, in words that a person can act on: the limit by name, the trap's root, the
//! guest's own stack.

use std::{
    fmt::{self, Write},
    time::Duration,
};

use wasmtime::{FrameInfo, PoolConcurrencyLimitError, Trap, WasmBacktrace, component::ResourceTableError};
use wasmtime_wasi::I32Exit;

use super::engine::STACK;
use crate::{
    database::{Over, Transaction},
    imports::{Door, HANDLES, Stop, cut, last_words, size, v0_1::Failure},
    model::{Effects, Fetched, LogLine},
};

/// Bytes of a stack trace that are kept.
const TRACE: usize = 16 << 10;

/// As often must one function stand in a backtrace for it to be called recursion.
const RECURSION: usize = 4;

/// How an attempt ended, before the store has committed it.
#[derive(Debug)]
pub struct AttemptReport {
    /// What it changed, or why it changed nothing.
    pub result: Result<Finished, AttemptFailure>,
    /// When the instance was asked for.
    pub started_at: jiff::Timestamp,
    /// From then until the guest returned.
    pub duration: Duration,
    /// What the guest logged.
    pub logs: Vec<LogLine>,
    /// What it did, in a few lines; none where that is nothing.
    pub did: Option<String>,
    /// What the guest fetched, where the job has a trace.
    pub fetched: Vec<Fetched>,
}

/// What an attempt changed, of which nothing has taken effect yet.
#[derive(Debug)]
pub struct Finished {
    /// What the store is to commit.
    pub effects: Effects,
    /// What the plugin's database is to commit, and before the store does; none where the plugin has no
    /// database, or did not use it. Dropped, it is rolled back.
    pub transaction: Option<Transaction>,
}

/// Why an attempt did not do its work.
#[derive(Debug)]
pub enum AttemptFailure {
    /// The guest said `retry` or `retry-after`.
    Retry {
        /// In its words.
        reason: String,
        /// Not before so long.
        after: Option<Duration>,
    },
    /// The guest said `reject`.
    Reject {
        /// In its words.
        reason: String,
    },
    /// A trap, a limit (named in the error), a time-out.
    Stopped {
        /// What happened.
        error: String,
        /// The guest's stack, innermost function first.
        trace: Option<String>,
    },
    /// What it wants to emit has no room: too much is unfinished.
    NoRoom {
        /// What is full.
        error: String,
    },
    /// Another transaction on the plugin's database was in the way: the job is to run again at once, which
    /// is not counted.
    Conflict,
    /// The plugin's database ended the session under what the guest had asked for, or under the commit: once
    /// that may be anybody's doing, and the job is to be released; again and again it is the guest's.
    Broken {
        /// What happened.
        error: String,
    },
    /// Not the guest's doing (the store could not be read, the plugin has no code any more): the job is
    /// to be released, not counted.
    NotRun {
        /// What happened.
        error: String,
    },
}

/// The guest returned a failure; its reason is kept up to `most` bytes.
pub(super) fn failed(failure: Failure, most: usize) -> AttemptFailure {
    match failure {
        Failure::Retry { reason, after } => AttemptFailure::Retry { reason: bounded(reason, most), after },
        Failure::Reject { reason } => AttemptFailure::Reject { reason: bounded(reason, most) },
    }
}

/// The guest did not return.
pub(super) fn stopped(error: &wasmtime::Error, door: &mut Door, logs: &[LogLine]) -> AttemptFailure {
    let not_run = match error.downcast_ref::<Stop>() {
        Some(Stop::Store(error)) => Some(format!("the store could not be read: {error}")),
        Some(Stop::Database(Over::Conflict)) => return AttemptFailure::Conflict,
        Some(Stop::Database(Over::Broken(error))) => {
            return AttemptFailure::Broken { error: error.to_string() };
        }
        Some(Stop::Database(Over::Unavailable(error))) => Some(error.to_string()),
        _ => error.downcast_ref::<PoolConcurrencyLimitError>().map(ToString::to_string),
    };
    if let Some(error) = not_run {
        return AttemptFailure::NotRun { error };
    }
    let most = door.terms().settings.limits.reason;
    AttemptFailure::Stopped { error: bounded(cause(error, door, logs), most), trace: trace(error) }
}

fn cause(error: &wasmtime::Error, door: &mut Door, logs: &[LogLine]) -> String {
    let root = error.root_cause();
    let limit = if let Some(stop) = error.downcast_ref::<Stop>() {
        return stop.to_string();
    } else if let Some(Trap::StackOverflow) = error.downcast_ref() {
        Some(Stop::bytes("stack", STACK))
    } else if own_stack_ran_out(error) {
        return format!("limit `stack` (the guest's own) reached: {root}");
    } else if let Some(exit) = error.downcast_ref::<I32Exit>() {
        let exited = format!("the guest exited with status {} in place of returning", exit.0);
        return explained(logs, &exited);
    } else if let Some(ResourceTableError::Full) = error.downcast_ref() {
        Some(Stop::count("handles", HANDLES))
    } else if root.to_string().contains("fuel allocated for hostcalls") {
        // The error has no type of its own that can be named.
        return Stop::bytes("hostcall", door.terms().settings.limits.hostcall).to_string();
    } else {
        door.meter().hit()
    };
    match limit {
        Some(limit) => format!("{limit}: {root}"),
        None => explained(logs, &root.to_string()),
    }
}

/// A trap in the words of the guest's panic or exception, where it logged one: they tell one from another, and
/// `unreachable` does not.
fn explained(logs: &[LogLine], trap: &str) -> String {
    match last_words(logs) {
        Some(words) => format!("{words} ({trap})"),
        None => trap.to_owned(),
    }
}

/// Whether the guest recursed until its own stack was used up, the one that languages keep in linear
/// memory. Linkers lay it lowest, so that it runs below address zero; the fault then lies just under
/// 4 GiB, and one function stands in the backtrace again and again.
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

/// The address in wasmtime's words for a fault, which have no type that can be named.
fn faulting_address(words: &str) -> Option<u64> {
    let (_, after) = words.split_once("memory fault at wasm address 0x")?;
    let digits = after.split(' ').next()?;
    u64::from_str_radix(digits, 16).ok()
}

/// The guest's stack, a function a line.
fn trace(error: &wasmtime::Error) -> Option<String> {
    let backtrace = error.downcast_ref::<WasmBacktrace>()?;
    let mut text = Bounded(String::new());
    // Past its bound the text is as long as it gets.
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

/// A text that stops growing at [`TRACE`]: a guest names its functions as long as it likes.
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
