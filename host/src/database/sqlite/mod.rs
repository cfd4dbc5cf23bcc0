//! SQLite: a pool of connections to one file, each with a thread of its own.
//!
//! # Turns
//!
//! SQLite has one writer at a time, and a transaction that has read can go on to write only while what it
//! read is the newest there is. So an attempt whose first statement writes waits for its turn, in order of
//! arrival, before it begins (`BEGIN IMMEDIATE`): it can't conflict. One that reads first begins at once,
//! beside others; where it then writes, it waits for its turn, and it is a conflict if somebody has written
//! meanwhile. After a conflict everybody stands in line from the start for a while, as does an attempt that
//! begins anew after one. So a conflict costs one run, nobody starves, and nobody waits for who waits for
//! him: who has the turn needs nothing else.
//!
//! A writer sees all that was committed before it began to write, and a reader one committed state: they
//! end as if one had come after the other.
//!
//! Turns pass on before the disk has what was committed ([`syncer`]): a commit returns when it is on disk, and
//! the next writer writes meanwhile. Who waits for a turn gets a connection with it, the one that wrote last,
//! whose pages in memory are the newest.

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
use self::{connection::Seat, room::Room, syncer::Syncer, worker::Worker};
use super::{
    Bounds, CommitError, Committed, Over, Rows, SqlError, Unavailable, Value, Waiting,
    guard::{self, Dialect},
    kv::Written,
    waiting::PATIENCE,
};
use crate::{
    config::DatabaseSettings,
    model::{DeliveryId, Usage},
};

/// Between two tries to truncate a log that readers hold back.
const FOLD_PAUSE: Duration = Duration::from_secs(1);

/// Transactions that stand in line from the start after a conflict.
const IN_LINE: u32 = 256;

/// One file, and the threads that hold it open.
pub(super) struct Pool {
    name: String,
    path: PathBuf,
    room: Arc<Room>,
    statement_timeout: Duration,
    /// The right to a connection, and how many there are.
    places: Arc<Semaphore>,
    all: usize,
    /// The right to write.
    turn: Arc<Semaphore>,
    /// Whose attempt got it last, and when.
    writer: Mutex<Option<(String, Instant)>>,
    /// The last one that worked is the next one that does.
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

    /// A pool on the file of `room`, whose log is put on disk by `sync`.
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

    /// Transactions under way.
    pub(super) fn usage(&self) -> Usage {
        Usage::of(self.all, self.places.available_permits())
    }

    /// A place; `alone` says that the attempt met conflicts before.
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

    /// Runs `work` outside of any attempt, with the right to write where `writes`.
    async fn apart<T: Send + 'static>(
        self: &Arc<Self>,
        writes: bool,
        work: impl FnOnce(&mut Seat) -> Result<T, Over> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let turn = if writes { Some(self.permit(&self.turn, &Waiting::default()).await?) } else { None };
        if writes {
            *self.writer.lock() = None;
        }
        let worker = self.worker().await?;
        let answer = worker
            .run(move |seat| {
                let answer = work(seat);
                drop(turn);
                answer
            })
            .await;
        let answer = answer.map_err(|()| self.unavailable("its thread has ended"))?;
        self.idle.lock().push(worker);
        answer.map_err(|over| match over {
            Over::Unavailable(unavailable) => unavailable,
            over => self.unavailable(&over.to_string()),
        })
    }

    pub(super) async fn find_marker(
        self: &Arc<Self>,
        delivery: DeliveryId,
    ) -> Result<Option<Vec<u8>>, Unavailable> {
        self.syncer.check()?;
        let find = move |seat: &mut Seat| {
            statement::find_marker(seat, delivery).map(|found| (found, seat.syncs_itself))
        };
        let (found, on_disk) = self.apart(false, find).await?;
        // Who committed may have been killed before it was synced, and nobody finishes from what may go.
        if found.is_some() && !on_disk {
            self.syncer.sync().await?;
        }
        Ok(found)
    }

    /// Returns when all is on disk that was committed here.
    pub(super) async fn settle(&self) -> Result<(), Unavailable> {
        self.syncer.settle().await
    }

    pub(super) async fn markers(
        self: &Arc<Self>,
        after: i64,
        limit: usize,
    ) -> Result<Vec<DeliveryId>, Unavailable> {
        self.apart(false, move |seat| statement::markers(seat, after, limit)).await
    }

    pub(super) async fn remove_markers(
        self: &Arc<Self>,
        deliveries: Vec<DeliveryId>,
    ) -> Result<(), Unavailable> {
        self.apart(true, move |seat| statement::remove_markers(seat, &deliveries)).await
    }

    pub(super) async fn kv_bytes(self: &Arc<Self>, plugin: &str) -> Result<i64, Unavailable> {
        let plugin = plugin.to_owned();
        self.apart(false, move |seat| statement::kv_bytes(seat, &plugin)).await
    }

    async fn permit(
        &self,
        of: &Arc<Semaphore>,
        waiting: &Waiting,
    ) -> Result<OwnedSemaphorePermit, Unavailable> {
        match waiting.wait_for(Arc::clone(of).acquire_owned()).await {
            Some(permit) => permit.map_err(|_| self.unavailable("it is closing")),
            None => Err(self.unavailable(&format!(
                "its turn did not come within {PATIENCE:?}{}",
                self.writer().unwrap_or_default()
            ))),
        }
    }

    /// Who has the turn, where an attempt has.
    fn writer(&self) -> Option<String> {
        let writer = self.writer.lock();
        let (who, since) = writer.as_ref().filter(|_| self.turn.available_permits() == 0)?;
        Some(format!(": {who} has had the turn to write for {} s", since.elapsed().as_secs()))
    }

    async fn worker(&self) -> Result<Worker, Unavailable> {
        // A statement of its own, so that the lock is not held over the await.
        let idle = self.idle.lock().pop();
        match idle {
            Some(worker) => Ok(worker),
            None => {
                let (name, path, room) = (self.name.clone(), self.path.clone(), Arc::clone(&self.room));
                Worker::start(name, path, self.statement_timeout, room).await
            }
        }
    }

    /// Truncates a log that readers, one after another, keep from starting over: new transactions wait until
    /// those under way have ended.
    fn fold_where_held_back(self: &Arc<Self>) {
        if !self.room.has_held_back_log() || self.folding.swap(true, Ordering::Relaxed) {
            return;
        }
        let pool = Arc::clone(self);
        tokio::spawn(async move {
            let all = u32::try_from(pool.all).unwrap_or(u32::MAX);
            if let Ok(Ok(_all)) = tokio::time::timeout(PATIENCE, pool.places.acquire_many(all)).await {
                // What fails is tried again after the next commit.
                let _ = pool
                    .apart(true, |seat| {
                        seat.truncate_log();
                        Ok(())
                    })
                    .await;
            }
            tokio::time::sleep(FOLD_PAUSE).await;
            pool.folding.store(false, Ordering::Relaxed);
        });
    }

    /// Has transactions stand in line for a while after a conflict.
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
    /// It has read, and not written.
    Reads,
    /// It has the turn.
    Writes,
}

/// A transaction. Dropped, it is rolled back.
pub(super) struct Transaction {
    pool: Arc<Pool>,
    /// From its first statement on.
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
        self.run(!checked.reads, move |seat| statement::run(seat, &checked, &parameters, bounds)).await
    }

    /// Runs `work` within the transaction, which begins with it where it has not yet.
    pub(super) async fn run<T: Send + 'static, E: From<Over> + ConflictOrNot + Send + 'static>(
        &mut self,
        writes: bool,
        work: impl FnOnce(&mut Seat) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let begin = self.prepare(writes).await?;
        let worker = self.worker.as_ref().ok_or_else(|| self.ended())?;
        let answer = worker
            .watched(move |seat| {
                begin.map_or(Ok(()), |begin| seat.host(begin))?;
                work(seat)
            })
            .await
            .unwrap_or_else(|()| Err(self.ended().into()));
        self.pool.note(&answer);
        answer
    }

    /// Waits for the turn where one is needed, and takes a connection where it has none yet. Returns what is
    /// to be run first.
    async fn prepare(&mut self, writes: bool) -> Result<Option<&'static str>, Over> {
        let writes = writes || (self.in_line && self.state == State::Fresh);
        if writes && self.state != State::Writes {
            self.turn = Some(self.pool.permit(&self.pool.turn, &self.waiting).await?);
            self.pool.room.may_write().map_err(Over::Full)?;
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

    fn ended(&self) -> Over {
        self.pool.unavailable("its thread has ended").into()
    }

    pub(super) async fn kv_get(&mut self, plugin: &str, key: &str) -> Result<Option<Vec<u8>>, Over> {
        let (plugin, key) = (plugin.to_owned(), key.to_owned());
        self.run(false, move |seat| statement::kv_get(seat, &plugin, &key)).await
    }

    pub(super) async fn kv_list(
        &mut self,
        plugin: &str,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, Over> {
        let [plugin, prefix, after] = [plugin, prefix, after].map(str::to_owned);
        self.run(false, move |seat| statement::kv_list(seat, &plugin, &prefix, &after, limit)).await
    }

    /// Writes what is left to write, with the marker, and commits; returns when it is on disk. `holding` is
    /// dropped as soon as it has committed, or has not.
    pub(super) async fn commit(
        mut self,
        delivery: DeliveryId,
        carried: Vec<u8>,
        written: Written,
        holding: impl Send + 'static,
    ) -> Result<Committed, CommitError> {
        if written.is_empty() && self.state != State::Writes {
            let pool = Arc::clone(&self.pool);
            // It only stops reading.
            drop((self, holding));
            pool.settle().await?;
            return Ok(Committed::NothingWritten);
        }
        let begin = self.prepare(true).await?;
        let worker = self.worker.take().ok_or_else(|| self.ended())?;
        let (pool, turn, place) = (Arc::clone(&self.pool), self.turn.take(), self.place.take());
        let (asker, answered) = oneshot::channel();
        worker.hand_over(move |worker, seat| {
            let begun = begin.map_or(Ok(()), |begin| seat.host(begin)).map_err(CommitError::from);
            let committed =
                begun.and_then(|()| statement::commit(seat, delivery, &carried, &written, &pool.syncer));
            if committed.is_ok() {
                seat.truncate_log();
            }
            // Where it has not committed nothing of it remains; in this order, so that the next writer finds
            // this connection.
            if seat.may_return() {
                pool.idle.lock().push(worker);
            }
            drop((turn, place, holding));
            match committed {
                Ok(Some(written)) => pool.syncer.answer(written, asker),
                // Who has gone away meanwhile finds the marker, or none.
                Ok(None) => drop(asker.send(Ok(()))),
                Err(error) => drop(asker.send(Err(error))),
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

impl ConflictOrNot for Over {
    fn is_conflict(&self) -> bool {
        *self == Self::Conflict
    }
}

impl ConflictOrNot for SqlError {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Over(Over::Conflict))
    }
}

impl ConflictOrNot for CommitError {
    fn is_conflict(&self) -> bool {
        *self == Self::Conflict
    }
}

impl Drop for Transaction {
    /// Stops what runs, and gives place and turn back once nothing of it is left.
    fn drop(&mut self) {
        let (place, turn) = (self.place.take(), self.turn.take());
        let Some(worker) = self.worker.take() else { return };
        let pool = Arc::clone(&self.pool);
        worker.end(move |worker, seat| {
            if seat.may_return() {
                pool.idle.lock().push(worker);
            }
            drop((turn, place));
        });
    }
}
