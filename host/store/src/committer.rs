//! The committer: one thread that turns queued operations into transactions of the engine.
//!
//! ```text
//!      accept · complete · lanes · outbox · other work          (bounded queue)
//!        │
//!        ▼
//!   ┌─► take all that is queued, or sleep until something is due; rest a little where nobody waits
//!   │    ▼
//!   │   engine.commit: all of it in one transaction, durable when it returns
//!   │    ├─ rolled back ──► answer all with the error; completions wait for a later batch
//!   │    ├─ in doubt ─────► answer all; the store takes nothing more until a restart
//!   │    ▼
//!   │   publish sizes ─► count ended leases ─► jobs into their lanes ─► answer every waiter ─► count
//!   └────┘
//! ```
//!
//! The committer guarantees three things. No caller is answered before the commit. Every caller is answered,
//! or sees its channel close. A completion in a failed batch is retried until it is durable. The
//! engine (`engine.rs`) decides what a transaction does.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use posthouse_model::{Env, Job, OutboxKind, PluginId, Trial};
use tokio::{
    runtime::{self, Runtime},
    sync::{mpsc, oneshot},
};

use super::{
    Accepted, Completed, OutboxJob, OutboxSlots, StoreError, Watcher,
    engine::{Batch, Committed, Engine, Failed, Session},
    first_attempts::Watches,
    lanes::{Lanes, OpenedLane},
    meters::Counting,
    op::{Completion, Op, Outcome},
    shared::Shared,
    time::nanos,
};

/// The capacity of the queue; further callers wait outside.
pub(super) const QUEUE: usize = 4096;

/// The maximum number of operations in one transaction. It bounds how long the first of them waits.
const BATCH: usize = 2048;

/// The longest sleep while something is due, because the wall clock may be set meanwhile.
const NAP: Duration = Duration::from_secs(1);

/// The interval between two looks into the queue while a batch is gathered.
const GLANCE: Duration = Duration::from_micros(100);

/// How long the disk rests if no caller waits for the next commit, in multiples of the last commit's
/// duration.
const REST: u32 = 8;

/// The longest such rest.
const LONGEST_REST: Duration = Duration::from_millis(2);

/// The interval between two log lines about batches that roll back.
const COMPLAIN: Duration = Duration::from_secs(10);

/// The pause between a failed batch and the next one.
const PAUSE: Duration = Duration::from_millis(100);

/// A request of the handle.
pub(super) enum Command {
    /// Applies an operation in the next batch, and answers after its commit.
    Do(Op, Reply),
    OpenLane {
        plugin: PluginId,
        capacity: usize,
        trial: Option<Trial>,
        reply: oneshot::Sender<OpenedLane>,
    },
    CloseLane {
        plugin: PluginId,
        lane: u64,
        jobs: Vec<Job>,
        reply: Option<oneshot::Sender<()>>,
    },
    LeaseOutbox(Waiter),
    /// Lets the engine do its work between two batches.
    Maintain,
    Close(oneshot::Sender<()>),
}

/// The receiver of an operation's outcome.
pub(super) enum Reply {
    Nobody,
    /// The sender of events, which arrived at this time, in nanoseconds since 1970.
    Accepted {
        to: oneshot::Sender<Result<Vec<Accepted>, StoreError>>,
        watcher: Option<Watcher>,
        received_at: i64,
    },
    /// A caller that has committed in another database before.
    Completed(oneshot::Sender<Completed>),
    Outcome(oneshot::Sender<Result<Outcome, StoreError>>),
    /// The caller that closes a lane.
    LaneClosed(oneshot::Sender<()>),
}

impl Reply {
    fn refuse(self, error: &StoreError) {
        match self {
            Self::Accepted { to, .. } => drop(to.send(Err(error.clone()))),
            Self::Outcome(to) => drop(to.send(Err(error.clone()))),
            Self::LaneClosed(to) => drop(to.send(())),
            // The caller that waits for a completion sees the channel close.
            Self::Completed(_) | Self::Nobody => {}
        }
    }
}

/// A caller that waits for due outbox items.
pub(super) struct Waiter {
    pub(super) kind: OutboxKind,
    pub(super) slots: OutboxSlots,
    pub(super) reply: oneshot::Sender<Result<Vec<OutboxJob>, StoreError>>,
}

/// Wakes the committer from another thread.
#[derive(Clone)]
pub(super) struct Nudge(mpsc::WeakSender<Command>);

impl Nudge {
    /// Asks the engine to do its work between two batches soon. Does nothing if the queue is full.
    pub(super) fn maintain(&self) {
        if let Some(queue) = self.0.upgrade() {
            let _ = queue.try_send(Command::Maintain);
        }
    }
}

/// Operations, and the caller that waits for each.
#[derive(Default)]
struct Work {
    ops: Vec<Op>,
    replies: Vec<Reply>,
}

impl Work {
    fn push(&mut self, op: Op, reply: Reply) {
        self.ops.push(op);
        self.replies.push(reply);
    }

    fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// The committer's state.
pub(super) struct Committer {
    queue: mpsc::Receiver<Command>,
    nudge: Nudge,
    runtime: Runtime,
    shared: Arc<Shared>,
    env: Env,
    lanes: Lanes,
    watches: Watches,
    waiters: VecDeque<Waiter>,
    counting: Counting,
    /// The submissions since the last batch.
    incoming: Work,
    /// Completions of a batch that was rolled back, to be retried.
    carried: Work,
    carried_until: Option<Instant>,
    batch: Batch,
    /// When a lane or a waiter has something to take next; none: not before another batch.
    next: Option<i64>,
    /// Since when batches have been rolled back, if that was logged.
    failing: Option<Instant>,
    /// Operations in the last batch.
    batch_size: usize,
    /// How long the last commit took.
    commit_time: Duration,
    /// When the last commit ended.
    committed: Instant,
    maintain: bool,
    closing: Vec<oneshot::Sender<()>>,
    /// Dropped when the sizes are published: the caller of `Store::open` may ask for them.
    opening: Option<std::sync::mpsc::Sender<()>>,
}

/// Starts the thread. Returns its queue once the engine's session is open.
pub(super) fn start<E: Engine>(
    engine: E,
    shared: Arc<Shared>,
    env: Env,
) -> std::io::Result<mpsc::Sender<Command>> {
    let (sender, queue) = mpsc::channel(QUEUE);
    let (opening, opened) = std::sync::mpsc::channel();
    let committer = Committer {
        queue,
        nudge: Nudge(sender.downgrade()),
        runtime: runtime::Builder::new_current_thread().enable_time().build()?,
        counting: Counting::new(Arc::clone(&shared.meters)),
        shared,
        env,
        lanes: Lanes::default(),
        watches: Watches::default(),
        waiters: VecDeque::new(),
        incoming: Work::default(),
        carried: Work::default(),
        carried_until: None,
        batch: Batch::default(),
        next: None,
        failing: None,
        batch_size: 0,
        commit_time: Duration::ZERO,
        committed: Instant::now(),
        maintain: false,
        closing: Vec::new(),
        opening: Some(opening),
    };
    std::thread::Builder::new().name("store-writer".to_owned()).spawn(move || {
        let _sentinel = Sentinel(Arc::clone(&committer.shared));
        engine.run(committer);
    })?;
    let _ = opened.recv();
    Ok(sender)
}

/// Stops the store if the thread panics.
struct Sentinel(Arc<Shared>);

impl Drop for Sentinel {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison("the writer thread panicked; see the log".to_owned());
        }
    }
}

/// The rest of a shutdown, after an engine has closed. If it is dropped, it answers the callers that wait for
/// the end.
pub(super) struct Ended {
    waiting: Vec<oneshot::Sender<()>>,
    /// Whether everything queued is durable.
    pub(super) well: bool,
}

impl Drop for Ended {
    fn drop(&mut self) {
        for reply in self.waiting.drain(..) {
            let _ = reply.send(());
        }
    }
}

impl Committer {
    /// Wakes this committer.
    pub(super) fn nudge(&self) -> Nudge {
        self.nudge.clone()
    }

    /// The engine could not open its session: the store accepts nothing.
    pub(super) fn fail(self, reason: String) -> Ended {
        self.shared.poison(reason);
        self.shared.close();
        Ended { waiting: Vec::new(), well: false }
    }

    /// Works until the store is closed or its last handle is dropped. Then nothing reads the store any more.
    pub(super) fn serve<S: Session>(mut self, session: &mut S) -> Ended {
        let opened = session.opened();
        self.shared.publish_kv_bytes(opened.kv_bytes);
        self.shared.publish_unfinished(opened.unfinished);
        drop(self.opening.take());
        let mut open = true;
        while open && self.closing.is_empty() {
            open = self.receive();
            if self.carried_until.is_none_or(|until| until <= Instant::now()) && !self.carried.is_empty() {
                let carried = std::mem::take(&mut self.carried);
                self.transact(session, carried);
            }
            let incoming = std::mem::take(&mut self.incoming);
            self.incoming = self.transact(session, incoming);
            if std::mem::take(&mut self.maintain) {
                session.maintain();
            }
        }
        self.queue.close();
        while let Ok(command) = self.queue.try_recv() {
            self.refuse(command, &StoreError::Closed);
        }
        self.shared.close();
        Ended { waiting: std::mem::take(&mut self.closing), well: self.shared.failure().is_none() }
    }

    /// Takes what is queued, and sleeps while there is nothing to do. Returns false at the end.
    fn receive(&mut self) -> bool {
        let nap = if self.incoming.is_empty() { self.nap() } else { Some(Duration::ZERO) };
        if nap.is_none_or(|nap| !nap.is_zero()) {
            let woken = self.runtime.block_on(async {
                match nap {
                    Some(nap) => tokio::time::timeout(nap, self.queue.recv()).await,
                    None => Ok(self.queue.recv().await),
                }
            });
            match woken {
                Ok(Some(command)) => self.take(command),
                Ok(None) => return false,
                Err(_) => {}
            }
        }
        self.drain();
        if !self.incoming.is_empty() {
            self.gather();
            self.rest();
        }
        true
    }

    /// Takes from the queue as much as fits into a batch.
    fn drain(&mut self) {
        while self.incoming.ops.len() < BATCH
            && let Ok(command) = self.queue.try_recv()
        {
            self.take(command);
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Do(op, reply) => self.incoming.push(op, reply),
            Command::OpenLane { plugin, capacity, trial, reply } => {
                self.lanes.open(plugin, capacity, trial, reply);
            }
            Command::CloseLane { plugin, lane, jobs, reply } => {
                self.lanes.close(plugin, lane);
                for job in jobs {
                    self.incoming.push(Op::Complete(Box::new(Completion::release(job))), Reply::Nobody);
                }
                if let Some(reply) = reply {
                    self.incoming.push(Op::Nothing, Reply::LaneClosed(reply));
                }
            }
            Command::LeaseOutbox(waiter) => self.waiters.push_back(waiter),
            Command::Maintain => self.maintain = true,
            Command::Close(reply) => self.closing.push(reply),
        }
    }

    fn refuse(&mut self, command: Command, error: &StoreError) {
        match command {
            Command::Do(_, reply) => reply.refuse(error),
            Command::LeaseOutbox(waiter) => drop(waiter.reply.send(Err(error.clone()))),
            Command::Close(reply) => self.closing.push(reply),
            // The callers that wait for these see the channel close.
            Command::OpenLane { .. } | Command::CloseLane { .. } | Command::Maintain => {}
        }
    }

    /// If all operations have committed in another database, and their permits are in use again, waits for
    /// more of them: each sync that is saved helps the other database. A single attempt finds that the last
    /// commit was long ago, and does not wait.
    fn rest(&mut self) {
        let until = self.committed + (self.commit_time * REST).min(LONGEST_REST);
        let mut seen = 0;
        while self.incoming.ops.len() < BATCH && (seen..self.incoming.ops.len()).all(|at| self.can_wait(at)) {
            seen = self.incoming.ops.len();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            match self.runtime.block_on(async { tokio::time::timeout(left, self.queue.recv()).await }) {
                Ok(Some(command)) => self.take(command),
                Ok(None) | Err(_) => return,
            }
            self.drain();
        }
    }

    /// Whether no caller waits for the commit of this operation: no sender for its answer, no later delivery
    /// of its key.
    fn can_wait(&self, at: usize) -> bool {
        let (Some(Op::Complete(completion)), Some(Reply::Completed(_))) =
            (self.incoming.ops.get(at), self.incoming.replies.get(at))
        else {
            return false;
        };
        !completion.job.ordered && !self.watches.has(completion.job.delivery)
    }

    /// Waits briefly for as many operations as the last batch had. The senders that it answered send again at
    /// the same time, and one sync for all of them takes as long as one for the first few. The wait is at
    /// most an eighth of the duration of a sync, so there is none on a fast disk.
    fn gather(&mut self) {
        let limit = self.commit_time / 8;
        let began = Instant::now();
        while self.incoming.ops.len() < self.batch_size && began.elapsed() + GLANCE <= limit {
            std::thread::sleep(GLANCE);
            self.drain();
        }
    }

    /// How long to sleep if nothing arrives: zero if there is work already, none if nothing is due.
    fn nap(&self) -> Option<Duration> {
        let carried = (!self.carried.is_empty()).then(|| {
            self.carried_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
        });
        let now = nanos(self.env.now());
        let due =
            self.next.map(|due| Duration::from_nanos(due.saturating_sub(now).max(0).unsigned_abs()).min(NAP));
        carried.into_iter().chain(due).min()
    }

    /// Commits the work in one transaction. Returns its emptied lists for reuse.
    fn transact<S: Session>(&mut self, session: &mut S, mut work: Work) -> Work {
        if let Some(reason) = self.shared.failure() {
            let error = StoreError::Poisoned(reason);
            work.ops.clear();
            work.replies.drain(..).for_each(|reply| reply.refuse(&error));
            return work;
        }
        self.waiters.retain(|waiter| !waiter.reply.is_closed());
        self.batch.now = nanos(self.env.now());
        self.batch.ops = work.ops;
        self.lanes.rooms(&mut self.batch.rooms);
        self.batch.waiters.clear();
        self.batch.waiters.extend(self.waiters.iter().map(|waiter| (waiter.kind, waiter.slots)));
        self.batch_size = self.batch.ops.len();
        let committed = self.runtime.block_on(session.commit(&mut self.batch));
        work.ops = std::mem::take(&mut self.batch.ops);
        match committed {
            Ok(committed) => self.settle(committed, &mut work),
            Err(failed) => self.undo(failed, &mut work),
        }
        work.ops.clear();
        work
    }

    /// Publishes the results of a commit.
    fn settle(&mut self, mut committed: Committed, work: &mut Work) {
        self.shared.commits.send_modify(|count| *count = count.wrapping_add(1));
        self.shared.publish_kv_bytes(committed.kv_bytes.drain(..));
        self.shared.publish_unfinished(committed.unfinished);
        self.next = committed.next;
        for job in self.lanes.settle(&mut committed) {
            self.carried.push(Op::Complete(Box::new(Completion::release(job))), Reply::Nobody);
        }
        self.give_out(&mut committed);
        let took = i64::try_from(committed.took.as_nanos()).unwrap_or(i64::MAX);
        let at = self.batch.now.saturating_add(took);
        for ((op, reply), outcome) in work.ops.iter().zip(work.replies.drain(..)).zip(committed.outcomes) {
            self.answer(op, reply, outcome, at);
        }
        self.commit_time = committed.commit_time;
        self.committed = Instant::now();
        if committed.wrote {
            self.counting.committed(self.commit_time, self.batch_size);
            // A small write may find space between two larger ones that do not, so the first success is not
            // enough.
            if self.failing.is_some_and(|since| since.elapsed() > NAP) {
                self.failing = None;
                self.shared.publish_trouble(None);
                tracing::info!("the store can write again");
            }
        }
        self.carried_until = None;
    }

    /// Answers the caller that waits for an operation, and counts the operation.
    fn answer(&mut self, op: &Op, reply: Reply, outcome: Outcome, at: i64) {
        if let (Op::Complete(completion), Outcome::Completed(completed)) = (op, &outcome) {
            if *completed == Completed::Written {
                self.watches.ended(completion.job.delivery, || completion.attempt());
            }
            if let Reply::Completed(to) = reply {
                // If the caller has gone away, the result is on disk anyway.
                let _ = to.send(*completed);
            }
            if *completed == Completed::Written
                && let Some(ended) = completion.ended()
            {
                self.counting.ended(&ended);
            }
            return;
        }
        match (reply, outcome) {
            (Reply::Accepted { to, watcher, received_at }, Outcome::Accepted(accepted, deliveries)) => {
                if let Some(watcher) = &watcher {
                    self.watches.add(&deliveries, watcher);
                }
                for _ in accepted.iter().filter(|accepted| matches!(accepted, Accepted::Stored(_))) {
                    self.counting.accepted(at.saturating_sub(received_at));
                }
                let _ = to.send(Ok(accepted));
            }
            (Reply::Accepted { to, .. }, Outcome::Refused(error)) => drop(to.send(Err(error))),
            (Reply::Outcome(to), Outcome::Refused(error)) => drop(to.send(Err(error))),
            (Reply::Outcome(to), outcome) => drop(to.send(Ok(outcome))),
            (Reply::LaneClosed(to), _) => drop(to.send(())),
            // The waiting caller sees the channel close.
            (Reply::Accepted { .. } | Reply::Completed(_) | Reply::Nobody, _) => {}
        }
    }

    /// Hands leased outbox items to the callers that wait. Items that no caller takes are released.
    fn give_out(&mut self, committed: &mut Committed) {
        let mut waiting = VecDeque::with_capacity(self.waiters.len());
        let mut unheard = Vec::new();
        let leased = committed.outbox.drain(..).chain(std::iter::repeat_with(Vec::new));
        for (waiter, jobs) in self.waiters.drain(..).zip(leased) {
            if jobs.is_empty() {
                waiting.push_back(waiter);
            } else if let Err(Ok(jobs)) = waiter.reply.send(Ok(jobs)) {
                unheard.extend(jobs.into_iter().map(|job| (job.id, job.item.kind())));
            }
        }
        self.waiters = waiting;
        if !unheard.is_empty() {
            self.carried.push(Op::ReleaseOutbox(unheard), Reply::Nobody);
        }
    }

    /// Handles a batch that did not commit.
    fn undo(&mut self, failed: Failed, work: &mut Work) {
        self.counting.failed();
        let answer = match failed {
            Failed::RolledBack(reason) => {
                self.complain(&reason);
                StoreError::Io(reason)
            }
            Failed::InDoubt(reason) => {
                tracing::error!(
                    error = reason,
                    "a failed write left the state of the disk unknown; the store accepts nothing until the daemon restarts"
                );
                StoreError::Poisoned(self.shared.poison(reason))
            }
        };
        for (op, reply) in work.ops.drain(..).zip(work.replies.drain(..)) {
            match op {
                Op::Complete(_) | Op::ReleaseOutbox(_) => self.carried.push(op, reply),
                _ => reply.refuse(&answer),
            }
        }
        self.carried_until = Some(Instant::now() + PAUSE);
        self.next = Some(self.batch.now.saturating_add(i64::try_from(PAUSE.as_nanos()).unwrap_or(0)));
        if self.shared.failure().is_some() {
            self.carried = Work::default();
            self.next = None;
            self.lanes.close_all();
            for waiter in self.waiters.drain(..) {
                let _ = waiter.reply.send(Err(answer.clone()));
            }
        }
    }

    /// Logs a failure once, and again at intervals while it lasts: senders and completions keep retrying.
    fn complain(&mut self, error: &str) {
        if self.failing.is_none_or(|last| last.elapsed() > COMPLAIN) {
            self.failing = Some(Instant::now());
            self.shared.publish_trouble(Some(error.to_owned()));
            tracing::error!(error, "the store can't write; new events are refused, and completions wait");
        }
    }
}
