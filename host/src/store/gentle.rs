//! Long reads, on a thread of their own that gives way: an operator who searches a store of a million
//! events must not cost the senders their answers.
//!
//! The kernel weighs this thread as it weighs `nice 19`: it has what the others leave, and all of an idle
//! core. Its reads are steps of some milliseconds, and those of several people take turns.

use std::{io, sync::mpsc, thread};

use rustix::process::setpriority_process;
use tokio::sync::oneshot;
use tracing::debug;

/// The least that the kernel knows.
const NICE: i32 = 19;

type Step = Box<dyn FnOnce() + Send>;

/// The thread's queue; the thread ends when this is dropped and what was queued is done.
pub(super) struct Gentle(mpsc::Sender<Step>);

impl Gentle {
    pub(super) fn start() -> io::Result<Self> {
        let (steps, queue) = mpsc::channel::<Step>();
        thread::Builder::new().name("long reads".into()).spawn(move || {
            // Of the thread that asks, and no other: Linux keeps it for each.
            if let Err(error) = setpriority_process(None, NICE) {
                debug!(%error, "searches do not give way to others");
            }
            queue.into_iter().for_each(|step| step());
        })?;
        Ok(Self(steps))
    }

    /// Runs a step when those before it are done; none where the thread is gone.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        step: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let step = move || {
            // Nobody wants it any more where the one who asked has gone.
            if !reply.is_closed() {
                let _ = reply.send(step());
            }
        };
        self.0.send(Box::new(step)).ok()?;
        answer.await.ok()
    }
}
