//! Puts commits on disk, many with one sync.
//!
//! ```text
//!   COMMIT: written to the log ─► the next writer's turn
//!     │
//!     ▼
//!   request ─► request ─► request ──► all requests so far ─► one sync of the log ─► each gets its answer
//!                                                            later requests: the next sync
//! ```
//!
//! With `synchronous = NORMAL`, a COMMIT in write-ahead mode has written to the log when it returns, and has
//! not waited for the disk. A killed process loses nothing of it. A power cut may lose the end of the log, from
//! some commit on. So a commit is reported only after a sync of the log that began after the commit. The same
//! holds for an attempt that has read rows which are not on disk yet ([`Syncer::settle`]). SQLite itself syncs
//! the log before it copies from it into the file, and syncs the file before it starts the log over. So
//! everything that has left the log is on disk.
//!
//! The syncer has its own descriptor of the log, because SQLite holds no locks on the log. Closing a descriptor
//! of the database file would release SQLite's locks, as POSIX requires. The log is not deleted while a
//! connection is open. The connections of a pool stay open, and one that has to close waits ([`Syncer::retire`]).
//!
//! After a failed sync it is unknown what is on disk, and a later sync would not show it. So the database is
//! not used until the next start.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{room::Room, worker::Worker};
use crate::{CommitError, Unavailable};

/// Before the next sync the syncer pauses for this many times the duration of the last one, if active
/// transactions may request a sync, too.
const REST: u32 = 8;

/// The longest pause for others to join.
const LONGEST_REST: Duration = Duration::from_millis(2);

/// A request that waits for a sync.
pub(super) enum Asker {
    /// A commit, which is reported after the sync.
    Commit(oneshot::Sender<Result<(), CommitError>>),
    /// A connection, which closes after the sync.
    Closing(Worker),
}

/// Puts the log on disk.
pub(super) type Sync = Box<dyn FnMut() -> io::Result<()> + Send>;

/// The handle of the syncing thread, which starts with the first commit and ends with the pool.
pub(super) struct Syncer {
    state: Arc<State>,
    thread: Mutex<Thread>,
}

enum Thread {
    /// The thread has not started.
    Sync(Sync),
    Asked(mpsc::Sender<Asker>),
    /// The thread could not be started.
    None,
}

struct State {
    name: String,
    /// Commits and requests that no sync has answered yet.
    pending: AtomicUsize,
    /// Active transactions.
    open: AtomicUsize,
    failure: OnceLock<String>,
}

impl Syncer {
    /// The syncer of the database of this name. `sync` puts its log on disk.
    pub(super) fn new(name: &str, sync: Sync) -> Self {
        let state = State {
            name: name.to_owned(),
            pending: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            failure: OnceLock::new(),
        };
        Self { state: Arc::new(state), thread: Mutex::new(Thread::Sync(sync)) }
    }

    /// Counts a transaction as active while the result exists: its commit may request a sync.
    pub(super) fn open(&self) -> Open {
        self.state.open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(&self.state))
    }

    /// Call this before the COMMIT, so that readers of its rows know that they are not on disk yet.
    pub(super) fn writing(&self) -> Writing {
        self.state.pending.fetch_add(1, Ordering::SeqCst);
        Writing(Some(Arc::clone(&self.state)))
    }

    /// Answers `asker` once every commit before this call is on disk.
    pub(super) fn answer(&self, mut written: Writing, asker: Asker) {
        // It is counted until it is answered.
        written.0 = None;
        let mut thread = self.thread.lock();
        if let Thread::Sync(_) = &*thread
            && let Thread::Sync(sync) = std::mem::replace(&mut *thread, Thread::None)
        {
            let (asked, queue) = mpsc::channel();
            let state = Arc::clone(&self.state);
            let name = format!("sync {}", state.name);
            match thread::Builder::new().name(name).spawn(move || state.serve(sync, &queue)) {
                Ok(_) => *thread = Thread::Asked(asked),
                Err(error) => self.state.fail(&error),
            }
        }
        let unheard = match &*thread {
            Thread::Asked(asked) => asked.send(asker).err().map(|mpsc::SendError(asker)| asker),
            _ => Some(asker),
        };
        if let Some(asker) = unheard {
            self.state.tell(vec![asker], &Err(io::Error::other("its thread has ended")));
        }
    }

    /// Returns when every commit before this call is on disk.
    ///
    /// # Errors
    /// The log could not be synced.
    pub(super) async fn sync(&self) -> Result<(), Unavailable> {
        let (asker, answered) = oneshot::channel();
        self.answer(self.writing(), Asker::Commit(asker));
        match answered.await {
            Ok(Ok(())) => Ok(()),
            _ => Err(self.state.unavailable()),
        }
    }

    /// Closes a connection that no other attempt may use, once every commit before this call is on disk: SQLite deletes
    /// the log with the last connection.
    pub(super) fn retire(&self, worker: Worker) {
        if self.state.pending.load(Ordering::SeqCst) > 0 {
            self.answer(self.writing(), Asker::Closing(worker));
        }
    }

    /// Like [`Self::sync`], but returns at once if there is nothing to sync.
    ///
    /// # Errors
    /// The log could not be synced.
    pub(super) async fn settle(&self) -> Result<(), Unavailable> {
        self.check()?;
        if self.state.pending.load(Ordering::SeqCst) == 0 { Ok(()) } else { self.sync().await }
    }

    /// Checks that every sync so far has succeeded.
    ///
    /// # Errors
    /// A sync has failed.
    pub(super) fn check(&self) -> Result<(), Unavailable> {
        if self.state.failure.get().is_some() { Err(self.state.unavailable()) } else { Ok(()) }
    }
}

/// An active transaction.
pub(super) struct Open(Arc<State>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A commit that may have been written. If this is dropped, it was not.
pub(super) struct Writing(Option<Arc<State>>);

impl Drop for Writing {
    fn drop(&mut self) {
        if let Some(state) = &self.0 {
            state.pending.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl State {
    fn serve(&self, mut sync: Sync, queue: &mpsc::Receiver<Asker>) {
        let (mut ended, mut rest) = (Instant::now(), Duration::ZERO);
        while let Ok(first) = queue.recv() {
            // If no transaction is active, there is nothing to wait for.
            let left = rest.saturating_sub(ended.elapsed());
            if !left.is_zero() && self.open.load(Ordering::Relaxed) > 0 {
                thread::sleep(left);
            }
            let askers: Vec<Asker> = std::iter::once(first).chain(queue.try_iter()).collect();
            let began = Instant::now();
            let synced = match self.failure.get() {
                Some(_) => Err(io::Error::other("an earlier one failed")),
                None => sync(),
            };
            ended = Instant::now();
            rest = ((ended - began) * REST).min(LONGEST_REST);
            self.tell(askers, &synced);
        }
    }

    fn tell(&self, askers: Vec<Asker>, synced: &io::Result<()>) {
        if let Err(error) = synced {
            self.fail(error);
        }
        self.pending.fetch_sub(askers.len(), Ordering::SeqCst);
        for asker in askers {
            let result = match synced {
                Ok(()) => Ok(()),
                Err(_) => Err(CommitError::Unknown(self.unavailable())),
            };
            match asker {
                // If the attempt is gone by now, the marker shows the result.
                Asker::Commit(asker) => drop(asker.send(result)),
                Asker::Closing(worker) => drop(worker),
            }
        }
    }

    fn fail(&self, error: &io::Error) {
        let reason = format!(
            "its log could not be synced ({error}), so the state of the disk is unknown; a restart makes the \
             database usable again"
        );
        if self.failure.set(reason).is_ok() {
            tracing::error!(database = self.name, %error, "could not sync the write-ahead log of a database");
        }
    }

    fn unavailable(&self) -> Unavailable {
        let reason = self.failure.get().cloned().unwrap_or_else(|| "its log is not synced".to_owned());
        Unavailable { name: self.name.clone(), reason }
    }
}

/// Syncs the write-ahead log of this room's database. A sync only counts if the files are still at their paths
/// after it, since a restart would not find them elsewhere.
pub(super) fn log_of(room: Arc<Room>) -> Sync {
    let mut log = Log { database: room.path().to_owned(), held: None };
    Box::new(move || {
        room.check()?;
        log.sync()?;
        room.check()
    })
}

struct Log {
    database: PathBuf,
    held: Option<File>,
}

impl Log {
    fn sync(&mut self) -> io::Result<()> {
        // The log is beside the file itself, after all links.
        let mut path = fs::canonicalize(&self.database)?.into_os_string();
        path.push("-wal");
        let there = fs::metadata(&path)?;
        let is_it = |file: &File| {
            file.metadata().is_ok_and(|held| (held.dev(), held.ino()) == (there.dev(), there.ino()))
        };
        let log = match self.held.take().filter(is_it) {
            Some(log) => log,
            None => {
                // The log's name has to be on disk, too.
                if let Some(folder) = Path::new(&path).parent() {
                    File::open(folder)?.sync_all()?;
                }
                File::open(&path)?
            }
        };
        let synced = log.sync_data();
        self.held = Some(log);
        synced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A syncer whose disk the test controls: when a sync ends, and how.
    fn by_hand() -> (Syncer, mpsc::Receiver<()>, mpsc::Sender<io::Result<()>>) {
        let (began, begins) = mpsc::channel();
        let (end, ends) = mpsc::channel();
        let sync = move || {
            began.send(()).unwrap();
            ends.recv().unwrap()
        };
        (Syncer::new("app", Box::new(sync)), begins, end)
    }

    fn ask(syncer: &Syncer) -> oneshot::Receiver<Result<(), CommitError>> {
        let (asker, answered) = oneshot::channel();
        syncer.answer(syncer.writing(), Asker::Commit(asker));
        answered
    }

    #[test]
    fn who_asks_while_a_sync_is_under_way_is_answered_by_the_next_and_many_by_one() {
        let (syncer, begins, end) = by_hand();
        let mut first = ask(&syncer);
        begins.recv().unwrap();
        let mut others = [ask(&syncer), ask(&syncer), ask(&syncer)];
        assert!(first.try_recv().is_err(), "nobody is answered before the sync has ended");
        end.send(Ok(())).unwrap();
        assert_eq!(first.blocking_recv(), Ok(Ok(())));
        begins.recv().unwrap();
        assert!(others.iter_mut().all(|other| other.try_recv().is_err()));
        end.send(Ok(())).unwrap();
        assert!(others.into_iter().all(|other| other.blocking_recv() == Ok(Ok(()))));
        assert!(begins.try_recv().is_err(), "one sync was enough for three");
    }

    #[tokio::test]
    async fn who_has_seen_what_is_not_on_disk_waits_and_nobody_else() {
        let (syncer, begins, end) = by_hand();
        syncer.settle().await.unwrap();
        drop(syncer.writing());
        syncer.settle().await.unwrap();
        let written = syncer.writing();
        let settled = syncer.settle();
        let synced = async {
            tokio::task::spawn_blocking(move || begins.recv().unwrap()).await.unwrap();
            end.send(Ok(())).unwrap();
        };
        tokio::join!(async { settled.await.unwrap() }, synced);
        drop(written);
    }

    #[tokio::test]
    async fn after_a_sync_that_failed_nothing_is_believed_any_more() {
        let (syncer, _begins, end) = by_hand();
        end.send(Err(io::Error::other("no more"))).unwrap();
        let answer = ask(&syncer).await.unwrap();
        assert!(matches!(&answer, Err(CommitError::Unknown(_))), "{answer:?}");
        // The disk is not asked again: it might report success.
        assert!(ask(&syncer).await.unwrap().is_err());
        assert!(syncer.settle().await.is_err());
        let error = syncer.check().unwrap_err().to_string();
        assert!(error.contains("no more") && error.contains("restart"), "{error}");
    }

    #[test]
    fn the_log_that_is_synced_is_the_one_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        let connection = rusqlite::Connection::open(&database).unwrap();
        let link = folder.path().join("elsewhere.db");
        std::os::unix::fs::symlink(&database, &link).unwrap();
        let mut log = Log { database: link, held: None };
        assert_eq!(log.sync().unwrap_err().kind(), io::ErrorKind::NotFound, "there is none");
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        connection.execute_batch("CREATE TABLE t (n)").unwrap();
        log.sync().unwrap();
        let number = |log: &Log| log.held.as_ref().unwrap().metadata().unwrap().ino();
        let first = number(&log);
        drop(connection);
        let connection = rusqlite::Connection::open(&database).unwrap();
        connection.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        log.sync().unwrap();
        assert_ne!(number(&log), first, "it was deleted and created again");
    }
}
