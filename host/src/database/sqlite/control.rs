//! The clock of a connection: when a guest's statement has to end, and the three ways in which it is told.
//!
//! ```text
//!   the progress handler   every 1,000 steps of SQLite's machine, at a jump backwards
//!   the authorizer         each time that SQLite asks whether a statement may do something: while it compiles
//!   an interrupt           from outside, at the deadline: loops that call neither look at its flag
//! ```
//!
//! Functions of our own look at the clock themselves ([`Work`]). What no look reaches is bounded beforehand by
//! [`super::program`].

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rusqlite::{Error, InterruptHandle, ffi};

/// Bytes that a function of our own may look at between two looks at the clock: some 20 µs.
const BETWEEN: usize = 64 << 10;

/// What the hooks of one connection share with those who wait for it.
pub(super) struct Control {
    born: Instant,
    /// Whether a guest's statement is at work, and how it is interrupted. An interrupt needs this lock, so that
    /// none can reach a statement of the host's.
    guest: Mutex<Option<InterruptHandle>>,
    at_work: AtomicBool,
    /// Microseconds after `born` when the statement has to end.
    due: AtomicU64,
    stopped: AtomicBool,
    /// The longest value that the statement may make, in bytes.
    longest: AtomicUsize,
    /// How often the authorizer was asked.
    asked: AtomicU32,
    /// How often it may be asked.
    may_ask: AtomicU32,
    /// Tables and indexes that the statement drops.
    drops: Mutex<Vec<String>>,
    /// The statement deletes rows, and nothing of the schema.
    deletes: AtomicBool,
}

impl Control {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            born: Instant::now(),
            guest: Mutex::new(None),
            at_work: AtomicBool::new(false),
            due: AtomicU64::new(u64::MAX),
            stopped: AtomicBool::new(false),
            longest: AtomicUsize::new(usize::MAX),
            asked: AtomicU32::new(0),
            may_ask: AtomicU32::new(u32::MAX),
            drops: Mutex::default(),
            deletes: AtomicBool::new(false),
        })
    }

    /// A guest's statement begins, and has to end within `time`.
    pub(super) fn begin(&self, interrupt: InterruptHandle, time: Duration) {
        let due = self.born.elapsed() + time;
        self.due.store(u64::try_from(due.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        *self.guest.lock() = Some(interrupt);
        self.set_guest(true);
    }

    /// It has ended.
    pub(super) fn end(&self) {
        self.set_guest(false);
        *self.guest.lock() = None;
        self.due.store(u64::MAX, Ordering::Relaxed);
        self.allow_questions(u32::MAX);
        self.drops.lock().clear();
    }

    /// Whether what runs now is a guest's.
    pub(super) fn is_guest(&self) -> bool {
        self.at_work.load(Ordering::Relaxed)
    }

    /// Has the authorizer take what runs for a guest's, or for the host's own.
    pub(super) fn set_guest(&self, guest: bool) {
        self.at_work.store(guest, Ordering::Relaxed);
    }

    /// Stops the statement that runs, and every other, until the transaction has ended.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.interrupt();
    }

    /// The transaction has ended.
    pub(super) fn go_on(&self) {
        self.stopped.store(false, Ordering::SeqCst);
    }

    /// Whether the statement that runs has to end.
    pub(super) fn is_over(&self) -> bool {
        self.stopped.load(Ordering::SeqCst) || !self.overdue().is_zero()
    }

    /// By how much the statement that runs is late.
    pub(super) fn overdue(&self) -> Duration {
        let due = Duration::from_micros(self.due.load(Ordering::Relaxed));
        self.born.elapsed().saturating_sub(due)
    }

    /// Interrupts the guest's statement where it has to end. False where none is at work.
    pub(super) fn interrupt(&self) -> bool {
        let guest = self.guest.lock();
        if let Some(guest) = &*guest
            && self.is_over()
        {
            guest.interrupt();
        }
        guest.is_some()
    }

    pub(super) fn set_longest(&self, bytes: usize) {
        self.longest.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn longest(&self) -> usize {
        self.longest.load(Ordering::Relaxed)
    }

    /// Counts a question to the authorizer. False where there were too many: SQLite compiles the statement again
    /// while it runs, and its program is not the one that was looked at.
    pub(super) fn ask(&self) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed) < self.may_ask.load(Ordering::Relaxed)
    }

    /// How many questions were asked since the last call.
    pub(super) fn take_asked(&self) -> u32 {
        self.asked.swap(0, Ordering::Relaxed)
    }

    /// So many questions may be asked from now on.
    pub(super) fn allow_questions(&self, most: u32) {
        self.asked.store(0, Ordering::Relaxed);
        self.may_ask.store(most, Ordering::Relaxed);
    }

    /// Whether more questions were asked than may be.
    pub(super) fn asked_too_often(&self) -> bool {
        self.asked.load(Ordering::Relaxed) > self.may_ask.load(Ordering::Relaxed)
    }

    /// The statement drops a table or an index.
    pub(super) fn drops(&self, name: &str) {
        self.drops.lock().push(name.to_owned());
    }

    /// The tables and indexes that the statement drops.
    pub(super) fn take_drops(&self) -> Vec<String> {
        std::mem::take(&mut *self.drops.lock())
    }

    /// Says whether the statement deletes rows at most, and nothing of the schema.
    pub(super) fn set_deletes(&self, deletes: bool) {
        self.deletes.store(deletes, Ordering::Relaxed);
    }

    /// Whether what the statement deletes are rows.
    pub(super) fn deletes(&self) -> bool {
        self.deletes.load(Ordering::Relaxed)
    }

    /// The work of one call of a function.
    pub(super) fn work(&self) -> Result<Work<'_>, Error> {
        let work = Work { control: self, left: Cell::new(0) };
        work.on(0)?;
        Ok(work)
    }
}

/// What one call of a function does, which looks at the clock as it goes.
pub(super) struct Work<'a> {
    control: &'a Control,
    left: Cell<usize>,
}

impl Work<'_> {
    /// It looks at so many bytes more.
    ///
    /// # Errors
    /// When the statement has to end: as if SQLite had been interrupted.
    pub(super) fn on(&self, bytes: usize) -> Result<(), Error> {
        match self.left.get().checked_sub(bytes.max(1)) {
            Some(left) => self.left.set(left),
            None if self.control.is_over() => return Err(failure(ffi::SQLITE_INTERRUPT)),
            None => self.left.set(BETWEEN),
        }
        Ok(())
    }

    /// A value of so many bytes is to be made.
    ///
    /// # Errors
    /// When that is longer than a value may be.
    pub(super) fn check_length(&self, bytes: usize) -> Result<(), Error> {
        if bytes > self.control.longest() { Err(failure(ffi::SQLITE_TOOBIG)) } else { Ok(()) }
    }
}

/// An error of SQLite's own.
pub(super) fn failure(code: i32) -> Error {
    Error::SqliteFailure(ffi::Error::new(code), None)
}
