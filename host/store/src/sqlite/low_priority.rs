//! Runs slow admin queries on one `SCHED_IDLE` thread, so that a search over a million events cannot delay webhook
//! responses.
//!
//! The kernel runs this thread only if no other thread wants the core, so it can use all of an idle core. Its
//! reads are steps of a few milliseconds, and the steps of several callers alternate.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread,
};

use thread_priority::{
    NormalThreadSchedulePolicy::Idle, ThreadPriority, ThreadSchedulePolicy::Normal,
    set_thread_priority_and_policy, thread_native_id,
};
use tokio::sync::oneshot;
use tracing::debug;

type Step = Box<dyn FnOnce() + Send>;

/// The thread's queue. When this is dropped, the thread ends after the queued steps.
pub(super) struct LowPriorityReads(mpsc::Sender<Step>);

impl LowPriorityReads {
    pub(super) fn start() -> io::Result<Self> {
        let (steps, queue) = mpsc::channel::<Step>();
        thread::Builder::new().name("long reads".into()).spawn(move || {
            let own = thread_native_id();
            if let Err(error) = set_thread_priority_and_policy(own, ThreadPriority::Min, Normal(Idle)) {
                debug!(%error, "could not lower the priority of slow queries");
            }
            for step in queue {
                // A step that panics has been logged, and its caller gets no answer; the other callers still
                // get theirs.
                drop(catch_unwind(AssertUnwindSafe(step)));
            }
        })?;
        Ok(Self(steps))
    }

    /// Runs a step after those queued before it; none if it panicked.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        step: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let step = move || {
            // If the caller is gone, the answer is dropped.
            if !reply.is_closed() {
                let _ = reply.send(step());
            }
        };
        self.0.send(Box::new(step)).ok()?;
        answer.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `SCHED_IDLE` in `sched.h`.
    const SCHED_IDLE: &str = "5";

    #[tokio::test]
    async fn a_step_that_panics_has_no_answer_and_the_next_has_its_own() {
        let reads = LowPriorityReads::start().expect("a thread");
        assert_eq!(reads.run(|| -> u8 { panic!("on purpose") }).await, None);
        assert_eq!(reads.run(|| 7).await, Some(7));
    }

    #[tokio::test]
    async fn its_thread_runs_where_nobody_else_wants_the_core() {
        let reads = LowPriorityReads::start().expect("a thread");
        let stat = reads.run(|| std::fs::read_to_string("/proc/thread-self/stat")).await;
        let stat = stat.expect("an answer").expect("what the kernel knows of the thread");
        // proc(5): the policy is the 41st, and the name, the 2nd, ends with the last parenthesis.
        let (_, behind_the_name) = stat.rsplit_once(')').expect("a name");
        assert_eq!(behind_the_name.split_whitespace().nth(41 - 3), Some(SCHED_IDLE), "{stat}");
    }
}
