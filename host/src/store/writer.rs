//! The one writer: a thread that turns what is queued into transactions.
//!
//! ```text
//!      accept · complete · lanes · outbox · other work          (bounded queue)
//!        │
//!        ▼
//!   ┌─► take all that is queued, or sleep until something is due; rest a little where nobody waits
//!   │    ▼
//!   │   BEGIN ─► each in turn: check, then write ─► fill lanes that are behind
//!   │    ▼
//!   │   write what was collected: kv values, counters, next numbers
//!   │    ▼
//!   │   COMMIT (fsync) ──failed──► ROLLBACK, read the memory again, answer all with the error;
//!   │    ▼                         completions wait for a later batch; if the disk is in doubt: poisoned
//!   │   publish kv sizes ─► give capacity back ─► jobs into their lanes ─► answer every waiter
//!   └────┘
//! ```
//!
//! Nobody is answered before the commit. Within one operation every check comes before the first
//! write, so that one which is refused leaves nothing in the transaction of the others. A batch fails
//! as a whole or not at all.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use rusqlite::{Connection, Result, Statement, config::DbConfig};
use tokio::{
    runtime::{self, Runtime},
    sync::{mpsc, oneshot},
};

use super::{
    Accepted, StoreError, Watcher,
    checkpoint::Checkpointer,
    complete::Completion,
    error::passes,
    kv::KvCache,
    memory::Memory,
    meters::Counting,
    outbox::OutboxQueue,
    present::is_moved,
    queue::{LaneEnds, OpenedLane},
    schema::Opened,
    shared::Shared,
    time::nanos,
    watch::Watches,
};
use crate::{
    fault::{self, FaultPoint},
    model::{Ambient, Job, NewEvent, PluginId, Subscriber, Trial},
};

/// Operations that may wait; who comes then waits outside.
pub(super) const QUEUE: usize = 4096;

/// The most operations in one transaction: bounds how long the first of them waits for its answer.
const BATCH: usize = 2048;

/// The longest sleep while something is due later: the wall clock may have been set meanwhile.
const NAP: Duration = Duration::from_secs(1);

/// Between two looks into the queue while a batch is gathered.
const GLANCE: Duration = Duration::from_micros(100);

/// For how many times what the last commit took the disk is left alone, where nobody waits for the next one.
const REST: u32 = 8;

/// The longest that the disk is left alone for that.
const LONGEST_REST: Duration = Duration::from_millis(2);

/// Between two lines about a disk that is full.
const COMPLAIN: Duration = Duration::from_secs(10);

/// How long completions that found the disk full wait before they are tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// Something to be written.
pub(super) enum Op {
    Accept {
        event: NewEvent,
        subscribers: Vec<Subscriber>,
        watcher: Option<Watcher>,
        reply: oneshot::Sender<Result<Accepted, StoreError>>,
    },
    Complete(Box<Completion>),
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
    LeaseOutbox(super::outbox::Waiter),
    /// Anything that is not on the way of an event.
    Work(Work),
    /// Fold the write-ahead log into the file.
    Fold,
    Close(oneshot::Sender<()>),
}

/// Runs within a batch; it brings its answer along in [`Staged::answers`].
pub(super) type Work = Box<dyn FnOnce(&mut Writer<'_>) -> Result<()> + Send>;

/// Told how the batch ended.
pub(super) type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// The writer's state. The operations are methods of it, each in the file of its subject.
pub(super) struct Writer<'c> {
    pub(super) connection: &'c Connection,
    pub(super) sql: Statements<'c>,
    /// When this batch began.
    pub(super) now: i64,
    pub(super) max_backlog: u64,
    pub(super) memory: Memory,
    pub(super) kv: KvCache,
    pub(super) lanes: LaneEnds,
    pub(super) outbox: OutboxQueue,
    pub(super) watches: Watches,
    pub(super) staged: Staged,
    pub(super) shared: Arc<Shared>,
    counting: Counting,
    pub(super) ambient: Ambient,
    /// Completions of a batch that was rolled back: their attempts have run and must not be forgotten.
    carried: VecDeque<Op>,
    carried_until: Option<Instant>,
    /// Since when batches have been taken back for want of room, as last logged.
    full: Option<Instant>,
    /// Whether the last batch changed anything: one that did not says nothing of the disk.
    wrote: bool,
    /// Operations in the last batch.
    batch_size: usize,
    /// What the last commit took.
    commit_time: Duration,
    /// When it had ended.
    committed: Instant,
    /// When that was, by the time of day.
    committed_at: i64,
    fold: bool,
    closing: Vec<oneshot::Sender<()>>,
}

type AcceptResult = Result<Accepted, StoreError>;

/// What happens once the batch has been committed, or has not.
#[derive(Default)]
pub(super) struct Staged {
    /// Who waits, for what, and when the event had come.
    accepted: Vec<(oneshot::Sender<AcceptResult>, AcceptResult, i64)>,
    #[allow(clippy::vec_box, reason = "they come boxed, and go on boxed if the batch is rolled back")]
    completions: Vec<Box<Completion>>,
    pub(super) answers: Vec<Answer>,
}

/// The statements on the way of every event, prepared once.
pub(super) struct Statements<'c> {
    begin: Statement<'c>,
    commit: Statement<'c>,
    pub(super) insert_event: Statement<'c>,
    pub(super) insert_delivery: Statement<'c>,
    pub(super) is_busy: Statement<'c>,
    pub(super) finish_delivery: Statement<'c>,
    pub(super) insert_attempt: Statement<'c>,
    pub(super) get_kv: Statement<'c>,
    pub(super) put_kv: Statement<'c>,
}

impl<'c> Statements<'c> {
    fn prepare(connection: &'c Connection) -> Result<Self> {
        Ok(Self {
            begin: connection.prepare("BEGIN")?,
            commit: connection.prepare("COMMIT")?,
            insert_event: connection.prepare(super::inbox::INSERT_EVENT)?,
            insert_delivery: connection.prepare(super::inbox::INSERT_DELIVERY)?,
            is_busy: connection.prepare(super::order::IS_BUSY)?,
            finish_delivery: connection.prepare(super::complete::FINISH_DELIVERY)?,
            insert_attempt: connection.prepare(super::complete::INSERT_ATTEMPT)?,
            get_kv: connection.prepare(super::kv::GET)?,
            put_kv: connection.prepare(super::kv::PUT)?,
        })
    }
}

/// Starts the thread.
pub(super) fn start(
    opened: Opened,
    path: PathBuf,
    max_backlog: u64,
    ambient: Ambient,
    shared: Arc<Shared>,
) -> std::io::Result<mpsc::Sender<Op>> {
    let (sender, queue) = mpsc::channel(QUEUE);
    let runtime = runtime::Builder::new_current_thread().enable_time().build()?;
    let checkpointer = Checkpointer::start(path, Arc::clone(&shared), sender.downgrade())?;
    // Dropped once the sizes of keys have been read, or could not be: who opens a store may ask for them.
    let (loading, loaded) = std::sync::mpsc::channel::<()>();
    std::thread::Builder::new().name("store-writer".to_owned()).spawn(move || {
        let Opened { writer: connection, lock } = opened;
        let _sentinel = Sentinel(Arc::clone(&shared));
        let waiting = match Writer::new(&connection, max_backlog, ambient, Arc::clone(&shared)) {
            Ok(mut writer) => {
                drop(loading);
                writer.run(&runtime, queue)
            }
            Err(error) => {
                drop(loading);
                shared.poison(error.to_string());
                Vec::new()
            }
        };
        shared.close();
        checkpointer.stop();
        let folded = if shared.failure().is_none() {
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        } else {
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(drop)
        };
        if let Err(error) = folded {
            tracing::warn!(%error, "the store's write-ahead log could not be folded in; the next start reads it");
        }
        drop(connection);
        drop(lock);
        for reply in waiting {
            let _ = reply.send(());
        }
    })?;
    let _ = loaded.recv();
    Ok(sender)
}

/// Says so when the writer dies of a defect.
struct Sentinel(Arc<Shared>);

impl Drop for Sentinel {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison("the writer thread died of a defect; see the log".to_owned());
        }
    }
}

impl<'c> Writer<'c> {
    fn new(
        connection: &'c Connection,
        max_backlog: u64,
        ambient: Ambient,
        shared: Arc<Shared>,
    ) -> Result<Self> {
        let memory = Memory::load(connection)?;
        shared.publish_kv_bytes(memory.all_kv_bytes());
        shared.publish_unfinished(memory.unfinished());
        Ok(Self {
            connection,
            sql: Statements::prepare(connection)?,
            now: nanos(ambient.now()),
            max_backlog,
            memory,
            kv: KvCache::default(),
            lanes: LaneEnds::default(),
            outbox: OutboxQueue::default(),
            watches: Watches::default(),
            staged: Staged::default(),
            counting: Counting::new(Arc::clone(&shared.meters)),
            shared,
            ambient,
            carried: VecDeque::new(),
            carried_until: None,
            full: None,
            wrote: false,
            batch_size: 0,
            commit_time: Duration::ZERO,
            committed: Instant::now(),
            committed_at: 0,
            fold: false,
            closing: Vec::new(),
        })
    }

    /// Works until the store is closed, or its last handle is dropped. Returns who waits for the end.
    fn run(&mut self, runtime: &Runtime, mut queue: mpsc::Receiver<Op>) -> Vec<oneshot::Sender<()>> {
        let mut ops = VecDeque::with_capacity(BATCH);
        let mut open = true;
        while open && self.closing.is_empty() {
            open = self.receive(runtime, &mut queue, &mut ops);
            if self.carried_until.is_none_or(|until| until <= Instant::now()) && !self.carried.is_empty() {
                let mut carried = std::mem::take(&mut self.carried);
                self.batch(&mut carried);
                self.carried.append(&mut carried);
            }
            self.batch(&mut ops);
            if std::mem::take(&mut self.fold) {
                super::checkpoint::fold(self.connection);
            }
        }
        queue.close();
        while let Ok(op) = queue.try_recv() {
            self.refuse(op, &StoreError::Closed);
        }
        std::mem::take(&mut self.closing)
    }

    /// Takes what is queued into `ops`, sleeping while there is nothing to do; false at the end.
    fn receive(&mut self, runtime: &Runtime, queue: &mut mpsc::Receiver<Op>, ops: &mut VecDeque<Op>) -> bool {
        let nap = if ops.is_empty() { self.nap() } else { Some(Duration::ZERO) };
        if nap.is_none_or(|nap| !nap.is_zero()) {
            let woken = runtime.block_on(async {
                match nap {
                    Some(nap) => tokio::time::timeout(nap, queue.recv()).await,
                    None => Ok(queue.recv().await),
                }
            });
            match woken {
                Ok(Some(op)) => ops.push_back(op),
                Ok(None) => return false,
                Err(_) => {}
            }
        }
        drain(queue, ops);
        if !ops.is_empty() {
            self.gather(queue, ops);
            self.rest(runtime, queue, ops);
        }
        true
    }

    /// While nothing has come but attempts that have committed elsewhere, and whose permits others have by
    /// now, waits for more of them: each sync that is saved is the other database's. Who is alone finds that
    /// the last commit was long ago.
    fn rest(&self, runtime: &Runtime, queue: &mut mpsc::Receiver<Op>, ops: &mut VecDeque<Op>) {
        let until = self.committed + (self.commit_time * REST).min(LONGEST_REST);
        let mut seen = 0;
        while ops.len() < BATCH && ops.range(seen..).all(|op| self.can_wait(op)) {
            seen = ops.len();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            match runtime.block_on(async { tokio::time::timeout(left, queue.recv()).await }) {
                Ok(Some(op)) => ops.push_back(op),
                Ok(None) | Err(_) => return,
            }
            drain(queue, ops);
        }
    }

    /// Whether nobody waits for the commit of this: no sender for its answer, no later delivery of its key.
    fn can_wait(&self, op: &Op) -> bool {
        let Op::Complete(completion) = op else { return false };
        let delivery = completion.delivery();
        completion.is_durable() && !self.lanes.has_key(delivery) && !self.watches.has(delivery)
    }

    /// Waits a little for as much as the last batch had: who was answered by it comes again at the
    /// same time, and one sync for all of them takes as long as one for the first few. Costs at most an
    /// eighth of what a sync takes, so on a fast disk there is no waiting.
    fn gather(&self, queue: &mut mpsc::Receiver<Op>, ops: &mut VecDeque<Op>) {
        let patience = self.commit_time / 8;
        let began = Instant::now();
        while ops.len() < self.batch_size && began.elapsed() + GLANCE <= patience {
            std::thread::sleep(GLANCE);
            drain(queue, ops);
        }
    }

    /// How long to sleep if nothing comes: zero when there is work already, none when nothing is due.
    fn nap(&self) -> Option<Duration> {
        let carried = (!self.carried.is_empty()).then(|| {
            self.carried_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
        });
        let now = nanos(self.ambient.now());
        let due = [self.lanes.next_due(&self.memory), self.outbox.next_due()]
            .into_iter()
            .flatten()
            .min()
            .map(|due| Duration::from_nanos(due.saturating_sub(now).max(0).unsigned_abs()).min(NAP));
        carried.into_iter().chain(due).min()
    }

    /// Takes `ops` through one transaction. After a failure what is to be tried again is in `ops` or
    /// is carried.
    fn batch(&mut self, ops: &mut VecDeque<Op>) {
        if let Some(reason) = self.shared.failure() {
            let error = StoreError::Poisoned(reason);
            ops.drain(..).for_each(|op| self.refuse(op, &error));
            return;
        }
        self.now = nanos(self.ambient.now());
        self.batch_size = ops.len();
        match self.transact(ops) {
            Ok(()) => self.settle(),
            Err(error) => self.undo(&error),
        }
    }

    fn transact(&mut self, ops: &mut VecDeque<Op>) -> Result<()> {
        let begun = Instant::now();
        self.shared.present.check_log(self.connection)?;
        self.sql.begin.execute([])?;
        let changes = self.connection.total_changes();
        while let Some(op) = ops.pop_front() {
            self.apply(op)?;
        }
        self.refill()?;
        self.lease_outbox()?;
        self.kv.write(&mut self.sql, self.connection)?;
        self.memory.sequence().lease_floor = self.lanes.lowest_lease();
        self.memory.write(self.connection)?;
        #[cfg(test)]
        if let Some(error) = self.shared.injected() {
            return Err(error);
        }
        let effects = fault::COMPILED_IN && self.staged.completions.iter().any(|c| c.has_effects());
        if effects {
            fault::reached(FaultPoint::StoreWritten);
        }
        let committing = Instant::now();
        self.sql.commit.execute([])?;
        self.committed = Instant::now();
        self.commit_time = self.committed - committing;
        let took = i64::try_from((self.committed - begun).as_nanos()).unwrap_or(i64::MAX);
        self.committed_at = self.now.saturating_add(took);
        self.wrote = self.connection.total_changes() > changes;
        self.shared.present.check()?;
        self.shared.present.committed();
        if effects {
            fault::reached(FaultPoint::StoreCommitted);
        }
        Ok(())
    }

    fn apply(&mut self, op: Op) -> Result<()> {
        match op {
            Op::Accept { event, subscribers, watcher, reply } => {
                let received_at = nanos(event.received_at);
                let accepted = self.accept(event, &subscribers, watcher.as_ref());
                let (answer, result) = match accepted {
                    Ok(answer) => (answer, Ok(())),
                    Err(error) => (Err(StoreError::Closed), Err(error)),
                };
                self.staged.accepted.push((reply, answer, received_at));
                result
            }
            Op::Complete(mut completion) => {
                let result = self.complete(&completion).map(|came_to| completion.came_to = came_to);
                self.staged.completions.push(completion);
                result
            }
            Op::OpenLane { plugin, capacity, trial, reply } => {
                self.lanes.open(plugin, capacity, trial, reply);
                Ok(())
            }
            Op::CloseLane { plugin, lane, jobs, reply } => {
                self.lanes.close(plugin, lane);
                if let Some(reply) = reply {
                    self.staged.answers.push(Box::new(move |_| {
                        let _ = reply.send(());
                    }));
                }
                jobs.into_iter()
                    .try_for_each(|job| self.apply(Op::Complete(Box::new(Completion::release(job)))))
            }
            Op::LeaseOutbox(waiter) => {
                self.outbox.wait(waiter);
                Ok(())
            }
            Op::Work(work) => work(self),
            Op::Fold => {
                self.fold = true;
                Ok(())
            }
            Op::Close(reply) => {
                self.closing.push(reply);
                Ok(())
            }
        }
    }

    /// After the commit.
    fn settle(&mut self) {
        self.shared.commits.send_modify(|count| *count = count.wrapping_add(1));
        self.shared.publish_kv_bytes(self.kv.sizes(&self.memory));
        self.shared.publish_unfinished(self.memory.unfinished());
        let mut unheard = self.lanes.settle();
        self.carried.extend(unheard.drain(..).map(|job| Op::Complete(Box::new(Completion::release(job)))));
        self.watches.settle();
        if let Some(give_back) = self.outbox.settle() {
            self.carried.push_back(Op::Work(give_back));
        }
        for (reply, answer, received_at) in self.staged.accepted.drain(..) {
            if let Ok(Accepted::Stored(_)) = answer {
                self.counting.accepted(self.committed_at.saturating_sub(received_at));
            }
            let _ = reply.send(answer);
        }
        self.staged.answers.drain(..).for_each(|answer| answer(Ok(())));
        for completion in self.staged.completions.drain(..) {
            if let Some(attempt) = completion.ended() {
                self.counting.ended(&attempt);
            }
            completion.tell();
        }
        if self.wrote {
            self.counting.committed(self.commit_time, self.batch_size);
        }
        self.carried_until = None;
        // Not at the first small write that finds room between two that don't.
        if self.wrote && self.full.is_some_and(|since| since.elapsed() > NAP) {
            self.full = None;
            self.shared.publish_trouble(None);
            tracing::info!("the store writes again");
        }
    }

    /// After a failure: the transaction is taken back, and so is what was remembered of it.
    fn undo(&mut self, error: &rusqlite::Error) {
        if is_moved(error) {
            self.shared.present.save(self.connection);
        }
        let rolled_back =
            if self.connection.is_autocommit() { Ok(()) } else { self.connection.execute_batch("ROLLBACK") };
        let answer = match rolled_back.and_then(|()| Memory::load(self.connection)) {
            Ok(memory) if passes(error) => {
                self.complain(error);
                self.memory = memory;
                StoreError::Io(error.to_string())
            }
            Ok(_) => self.poison(error),
            Err(second) => self.poison(&second),
        };
        self.kv.clear();
        self.lanes.undo();
        self.outbox.undo(&answer);
        self.watches.undo();
        self.counting.failed();
        for (reply, ..) in self.staged.accepted.drain(..) {
            let _ = reply.send(Err(answer.clone()));
        }
        self.staged.answers.drain(..).for_each(|tell| tell(Err(answer.clone())));
        self.carried.extend(self.staged.completions.drain(..).map(Op::Complete));
        self.carried_until = Some(Instant::now() + PAUSE);
        if self.shared.failure().is_some() {
            self.carried.clear();
            self.lanes.close_all();
        }
    }

    /// Says so once, and from time to time while it lasts: senders and completions try again and again.
    fn complain(&mut self, error: &rusqlite::Error) {
        if self.full.is_none_or(|last| last.elapsed() > COMPLAIN) {
            self.full = Some(Instant::now());
            self.shared.publish_trouble(Some(error.to_string()));
            tracing::error!(%error, "the store can't write; what it is asked for is refused or waits");
        }
    }

    fn poison(&self, error: &rusqlite::Error) -> StoreError {
        tracing::error!(%error, "the store failed in a way that leaves the disk in doubt; it takes nothing more");
        StoreError::Poisoned(self.shared.poison(error.to_string()))
    }

    fn refuse(&mut self, op: Op, error: &StoreError) {
        match op {
            Op::Accept { reply, .. } => drop(reply.send(Err(error.clone()))),
            Op::LeaseOutbox(waiter) => waiter.refuse(error.clone()),
            Op::Close(reply) => self.closing.push(reply),
            // Who waits for one of these is told by its channel's end.
            Op::Complete(_) | Op::OpenLane { .. } | Op::CloseLane { .. } | Op::Work(_) | Op::Fold => {}
        }
    }
}

/// Takes what is queued, as much as fits into a batch.
fn drain(queue: &mut mpsc::Receiver<Op>, ops: &mut VecDeque<Op>) {
    while ops.len() < BATCH
        && let Ok(op) = queue.try_recv()
    {
        ops.push_back(op);
    }
}
