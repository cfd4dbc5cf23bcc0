//! SQLite: a pool of connections to one file, each in its own thread.
//!
//! # Turns
//!
//! SQLite has one writer at a time. A transaction that has read can only go on to write if it has read the
//! latest state. So an attempt whose first statement writes waits for its turn before it begins (`BEGIN
//! IMMEDIATE`), in order of arrival; it cannot conflict. An attempt that reads first begins at once. If it
//! writes later, it waits for its turn then, and it conflicts if another one has written since.
//!
//! After a conflict, the next 256 transactions take the turn before they begin, and so does an attempt that
//! runs again. So a conflict costs one run, and no attempt starves. The holder of the turn waits for nothing,
//! so there is no deadlock.
//!
//! A writer sees every commit before its first write, and a reader sees one committed state. So the result is
//! the same as if they had run one after the other.
//!
//! A turn passes on before its commit is on disk ([`syncer`]): a commit returns when it is on disk, and the
//! next writer writes meanwhile. With its turn, a writer gets the connection that wrote last, since that one's
//! cached pages are the latest.

mod authorizer;
mod connection;
mod control;
mod dropping;
#[cfg(test)]
mod full;
mod functions;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzz;
mod inspect;
mod nesting;
mod program;
mod room;
mod session;
mod sqlstate;
mod statement;
mod stuck;
mod syncer;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod time_tests;
mod values;
mod vfs;
mod worker;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

pub use self::inspect::{Integrity, inspect};
use posthouse_model::{DeliveryId, Usage, config::DatabaseSettings};

use self::{
    connection::GuestConnection,
    room::Room,
    syncer::{Asker, Syncer},
    worker::Worker,
};
use super::{
    Bounds, CommitError, Committed, Rows, SqlError, TxAborted, Unavailable, Value, Waiting,
    guard::{self, Dialect},
    kv::Written,
    waiting::MAX_WAIT,
};

/// The time between two attempts to truncate a log that readers hold back.
const FOLD_PAUSE: Duration = Duration::from_secs(1);

/// How many transactions take the turn before they begin, after a conflict.
const IN_LINE: u32 = 256;

/// One file, and the threads that have it open.
pub(super) struct Pool {
    name: String,
    path: PathBuf,
    room: Arc<Room>,
    statement_timeout: Duration,
    /// The right to a connection; `all` is their number.
    places: Arc<Semaphore>,
    all: usize,
    /// The right to write.
    turn: Arc<Semaphore>,
    /// The attempt that got the turn last, and when.
    writer: Mutex<Option<(String, Instant)>>,
    /// Idle connections. The last one that worked is used next.
    idle: Mutex<Vec<Worker>>,
    in_line: AtomicU32,
    /// Whether the log is being truncated.
    folding: AtomicBool,
    syncer: Syncer,
}

impl Pool {
    pub(super) fn new(name: &str, path: &Path, settings: &DatabaseSettings, min_free: u64) -> Arc<Self> {
        let room = Room::new(name, path, settings.max_size.unwrap_or(u64::MAX), min_free);
        let sync = syncer::log_of(Arc::clone(&room));
        Self::with(name, settings, room, sync)
    }

    /// A pool on the file of `room`. `sync` puts the log on disk.
    fn with(name: &str, settings: &DatabaseSettings, room: Arc<Room>, sync: syncer::Sync) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            path: room.path().to_owned(),
            room,
            folding: AtomicBool::new(false),
            syncer: Syncer::new(name, sync),
            statement_timeout: settings.statement_timeout,
            places: Arc::new(Semaphore::new(settings.pool)),
            all: settings.pool,
            turn: Arc::new(Semaphore::new(1)),
            writer: Mutex::new(None),
            idle: Mutex::default(),
            in_line: AtomicU32::new(0),
        })
    }

    /// The active transactions.
    pub(super) fn usage(&self) -> Usage {
        Usage::of(self.all, self.places.available_permits())
    }

    /// Waits for a place. `alone` means that the attempt has met conflicts.
    pub(super) async fn begin(
        self: &Arc<Self>,
        alone: bool,
        waiting: &Waiting,
    ) -> Result<Transaction, Unavailable> {
        self.syncer.check()?;
        let place = self.permit(&self.places, waiting).await?;
        let in_line = alone
            || self
                .in_line
                .try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok();
        Ok(Transaction {
            pool: Arc::clone(self),
            worker: None,
            place: Some((place, self.syncer.open())),
            turn: None,
            in_line,
            state: State::Fresh,
            waiting: waiting.clone(),
        })
    }

    /// Runs `work` outside of any attempt. If `writes`, it takes the turn to write.
    async fn apart<T: Send + 'static>(
        self: &Arc<Self>,
        writes: bool,
        work: impl FnOnce(&mut GuestConnection) -> Result<T, TxAborted> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let turn = if writes { Some(self.permit(&self.turn, &Waiting::default()).await?) } else { None };
        if writes {
            *self.writer.lock() = None;
        }
        let worker = self.worker().await?;
        let answer = worker
            .run(move |guest| {
                let answer = work(guest);
                drop(turn);
                answer
            })
            .await;
        let answer = answer.map_err(|()| self.unavailable("its thread has ended"))?;
        self.idle.lock().push(worker);
        answer.map_err(|over| match over {
            TxAborted::Unavailable(unavailable) => unavailable,
            over => self.unavailable(&over.to_string()),
        })
    }

    pub(super) async fn find_marker(
        self: &Arc<Self>,
        delivery: DeliveryId,
    ) -> Result<Option<Vec<u8>>, Unavailable> {
        self.syncer.check()?;
        let find = move |guest: &mut GuestConnection| {
            statement::find_marker(guest, delivery).map(|found| (found, guest.syncs_itself))
        };
        let (found, on_disk) = self.apart(false, find).await?;
        // The committing daemon may have been killed before it synced. Nothing may finish from a marker that
        // can be lost.
        if found.is_some() && !on_disk {
            self.syncer.sync().await?;
        }
        Ok(found)
    }

    /// Returns when all commits made here are on disk.
    pub(super) async fn settle(&self) -> Result<(), Unavailable> {
        self.syncer.settle().await
    }

    pub(super) async fn markers(
        self: &Arc<Self>,
        after: i64,
        limit: usize,
    ) -> Result<Vec<DeliveryId>, Unavailable> {
        self.apart(false, move |guest| statement::markers(guest, after, limit)).await
    }

    pub(super) async fn remove_markers(
        self: &Arc<Self>,
        deliveries: Vec<DeliveryId>,
    ) -> Result<(), Unavailable> {
        self.apart(true, move |guest| statement::remove_markers(guest, &deliveries)).await
    }

    pub(super) async fn kv_bytes(self: &Arc<Self>, plugin: &str) -> Result<i64, Unavailable> {
        let plugin = plugin.to_owned();
        self.apart(false, move |guest| statement::kv_bytes(guest, &plugin)).await
    }

    async fn permit(
        &self,
        of: &Arc<Semaphore>,
        waiting: &Waiting,
    ) -> Result<OwnedSemaphorePermit, Unavailable> {
        match waiting.wait_for(Arc::clone(of).acquire_owned()).await {
            Some(permit) => permit.map_err(|_| self.unavailable("it is closing")),
            None => Err(self.unavailable(&format!(
                "its turn to write did not come within {MAX_WAIT:?}{}",
                self.writer().unwrap_or_default()
            ))),
        }
    }

    /// The attempt that has the turn, if one has.
    fn writer(&self) -> Option<String> {
        let writer = self.writer.lock();
        let (who, since) = writer.as_ref().filter(|_| self.turn.available_permits() == 0)?;
        Some(format!(": {who} has been writing for {} s", since.elapsed().as_secs()))
    }

    async fn worker(&self) -> Result<Worker, Unavailable> {
        // A separate statement, so that the lock is not held over the await.
        let idle = self.idle.lock().pop();
        match idle {
            Some(worker) => Ok(worker),
            None => {
                let (name, path, room) = (self.name.clone(), self.path.clone(), Arc::clone(&self.room));
                Worker::start(name, path, self.statement_timeout, room).await
            }
        }
    }

    /// Keeps a connection for the next transaction. Returns it if no other attempt may use it.
    fn take_back(&self, worker: Worker, guest: &mut GuestConnection) -> Option<Worker> {
        if !guest.may_return() {
            return Some(worker);
        }
        self.idle.lock().push(worker);
        None
    }

    /// Truncates a log that a succession of readers keeps from starting over. New transactions wait until the
    /// active ones have ended.
    fn fold_where_held_back(self: &Arc<Self>) {
        if !self.room.has_held_back_log() || self.folding.swap(true, Ordering::Relaxed) {
            return;
        }
        let pool = Arc::clone(self);
        tokio::spawn(async move {
            let all = u32::try_from(pool.all).unwrap_or(u32::MAX);
            if let Ok(Ok(_all)) = tokio::time::timeout(MAX_WAIT, pool.places.acquire_many(all)).await {
                // A failure is retried after the next commit.
                let _ = pool
                    .apart(true, |guest| {
                        guest.truncate_log();
                        Ok(())
                    })
                    .await;
            }
            tokio::time::sleep(FOLD_PAUSE).await;
            pool.folding.store(false, Ordering::Relaxed);
        });
    }

    /// After a conflict, makes the next transactions take the turn before they begin.
    fn note<T, E: ConflictOrNot>(&self, answer: &Result<T, E>) {
        if answer.as_ref().is_err_and(ConflictOrNot::is_conflict) {
            self.in_line.store(IN_LINE, Ordering::Relaxed);
        }
    }

    fn unavailable(&self, reason: &str) -> Unavailable {
        Unavailable { name: self.name.clone(), reason: reason.to_owned() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing has run.
    Fresh,
    /// The transaction has read, and not written.
    Reads,
    /// The transaction has the turn.
    Writes,
}

/// A transaction. If it is dropped, it is rolled back.
pub(super) struct Transaction {
    pool: Arc<Pool>,
    /// Set from its first statement on.
    worker: Option<Worker>,
    place: Option<(OwnedSemaphorePermit, syncer::Open)>,
    turn: Option<OwnedSemaphorePermit>,
    in_line: bool,
    state: State,
    waiting: Waiting,
}

impl Transaction {
    pub(super) async fn statement(
        &mut self,
        text: &str,
        parameters: Vec<Value>,
        bounds: Bounds,
    ) -> Result<(Rows, u64), SqlError> {
        let checked = guard::check(Dialect::Sqlite, text).map_err(SqlError::Refused)?;
        bounds.check_parameters(&parameters).map_err(SqlError::Limit)?;
        self.run(!checked.reads, move |guest| statement::run(guest, &checked, &parameters, bounds)).await
    }

    /// Runs `work` within the transaction, and begins the transaction if necessary.
    pub(super) async fn run<T: Send + 'static, E: From<TxAborted> + ConflictOrNot + Send + 'static>(
        &mut self,
        writes: bool,
        work: impl FnOnce(&mut GuestConnection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let begin = self.prepare(writes).await?;
        let worker = self.worker.as_ref().ok_or_else(|| self.ended())?;
        let answer = worker
            .watched(move |guest| {
                begin.map_or(Ok(()), |begin| guest.host(begin))?;
                work(guest)
            })
            .await
            .unwrap_or_else(|()| Err(self.ended().into()));
        self.pool.note(&answer);
        answer
    }

    /// Waits for the turn if it is needed, and takes a connection if there is none yet. Returns the statement
    /// to run first.
    async fn prepare(&mut self, writes: bool) -> Result<Option<&'static str>, TxAborted> {
        let writes = writes || (self.in_line && self.state == State::Fresh);
        if writes && self.state != State::Writes {
            self.turn = Some(self.pool.permit(&self.pool.turn, &self.waiting).await?);
            self.pool.room.may_write().map_err(TxAborted::Full)?;
            *self.pool.writer.lock() = Some((self.waiting.who(), Instant::now()));
        }
        if self.worker.is_none() {
            self.worker = Some(self.pool.worker().await?);
        }
        let begin = match (self.state, writes) {
            (State::Fresh, true) => Some("BEGIN IMMEDIATE"),
            (State::Fresh, false) => Some("BEGIN"),
            _ => None,
        };
        if writes {
            self.state = State::Writes;
        } else if self.state == State::Fresh {
            self.state = State::Reads;
        }
        Ok(begin)
    }

    fn ended(&self) -> TxAborted {
        self.pool.unavailable("its thread has ended").into()
    }

    pub(super) async fn kv_get(&mut self, plugin: &str, key: &str) -> Result<Option<Vec<u8>>, TxAborted> {
        let (plugin, key) = (plugin.to_owned(), key.to_owned());
        self.run(false, move |guest| statement::kv_get(guest, &plugin, &key)).await
    }

    pub(super) async fn kv_list(
        &mut self,
        plugin: &str,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, TxAborted> {
        let [plugin, prefix, after] = [plugin, prefix, after].map(str::to_owned);
        self.run(false, move |guest| statement::kv_list(guest, &plugin, &prefix, &after, limit)).await
    }

    /// Makes the staged writes, writes the marker, and commits. Returns when that is on disk. `holding` is
    /// dropped as soon as the commit has succeeded or failed.
    pub(super) async fn commit(
        mut self,
        delivery: DeliveryId,
        carried: Vec<u8>,
        written: Written,
        holding: impl Send + 'static,
    ) -> Result<Committed, CommitError> {
        if written.is_empty() && self.state != State::Writes {
            let pool = Arc::clone(&self.pool);
            // It only ends reading.
            drop((self, holding));
            pool.settle().await?;
            return Ok(Committed::NothingWritten);
        }
        let begin = self.prepare(true).await?;
        let worker = self.worker.take().ok_or_else(|| self.ended())?;
        let (pool, turn, place) = (Arc::clone(&self.pool), self.turn.take(), self.place.take());
        let (asker, answered) = oneshot::channel();
        worker.hand_over(move |worker, guest| {
            let begun = begin.map_or(Ok(()), |begin| guest.host(begin)).map_err(CommitError::from);
            let committed =
                begun.and_then(|()| statement::commit(guest, delivery, &carried, &written, &pool.syncer));
            if committed.is_ok() {
                guest.truncate_log();
            }
            // If the commit failed, nothing of it remains. The connection returns to the pool before the turn
            // passes on, so that the next writer gets this connection.
            let retired = pool.take_back(worker, guest);
            drop((turn, place, holding));
            match committed {
                Ok(Some(written)) => pool.syncer.answer(written, Asker::Commit(asker)),
                // If the attempt is gone by now, the marker shows the result.
                Ok(None) => drop(asker.send(Ok(()))),
                Err(error) => drop(asker.send(Err(error))),
            }
            if let Some(worker) = retired {
                pool.syncer.retire(worker);
            }
        });
        let answer = answered.await.unwrap_or_else(|_| Err(self.ended().into()));
        self.pool.note(&answer);
        self.pool.fold_where_held_back();
        answer.map(|()| Committed::Marked)
    }
}

/// Whether an error is a conflict.
pub(super) trait ConflictOrNot {
    fn is_conflict(&self) -> bool;
}

impl ConflictOrNot for TxAborted {
    fn is_conflict(&self) -> bool {
        *self == Self::Conflict
    }
}

impl ConflictOrNot for SqlError {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::TxAborted(TxAborted::Conflict))
    }
}

impl ConflictOrNot for CommitError {
    fn is_conflict(&self) -> bool {
        *self == Self::Conflict
    }
}

impl Drop for Transaction {
    /// Stops the running statement. Releases place and turn once the rollback is complete.
    fn drop(&mut self) {
        let (place, turn) = (self.place.take(), self.turn.take());
        let Some(worker) = self.worker.take() else { return };
        let pool = Arc::clone(&self.pool);
        worker.end(move |worker, guest| {
            let retired = pool.take_back(worker, guest);
            drop((turn, place));
            if let Some(worker) = retired {
                pool.syncer.retire(worker);
            }
        });
    }
}
