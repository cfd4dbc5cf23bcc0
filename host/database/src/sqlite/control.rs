//! The deadline of a guest's statement, and the three ways to stop the statement there.
//!
//! ```text
//!   progress handler   SQLite calls it at a backward jump, after at least 1,000 steps of the program
//!   authorizer         SQLite calls it while it compiles a statement
//!   interrupt          a timer sets it at the deadline, for loops that call neither of the two
//! ```
//!
//! Our own SQL functions check the deadline themselves ([`Work`]). [`super::program`] bounds the work between two
//! checks before the statement runs.

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

use crate::guard::Does;

/// Bytes that one of our own functions processes between two checks of the deadline: some 20 µs.
const BETWEEN: usize = 64 << 10;

/// State that a connection's hooks share with the tasks that wait for its answers.
pub(super) struct Control {
    born: Instant,
    /// Set while a guest's statement runs. Sending an interrupt takes this lock, so that an interrupt never stops
    /// one of the host's own statements.
    guest: Mutex<Option<InterruptHandle>>,
    at_work: AtomicBool,
    /// The deadline, in microseconds after `born`.
    due: AtomicU64,
    stopped: AtomicBool,
    /// The longest value that the statement may produce, in bytes.
    longest: AtomicUsize,
    /// Calls of the authorizer.
    asked: AtomicU32,
    /// The most calls of the authorizer.
    may_ask: AtomicU32,
    /// Tables and indexes that the statement drops.
    drops: Mutex<Vec<String>>,
    /// The effect of the statement.
    does: Mutex<Does>,
    /// Why the authorizer refused the statement.
    refused: Mutex<Option<String>>,
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
            does: Mutex::new(Does::Rows),
            refused: Mutex::default(),
        })
    }

    /// Starts a guest's statement with a deadline `time` from now.
    pub(super) fn begin(&self, does: Does, interrupt: InterruptHandle, time: Duration) {
        *self.does.lock() = does;
        let due = self.born.elapsed() + time;
        self.due.store(u64::try_from(due.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        *self.guest.lock() = Some(interrupt);
        self.set_guest(true);
    }

    /// Ends the guest's statement. Returns why the authorizer refused it, if it did.
    pub(super) fn end(&self) -> Option<String> {
        self.set_guest(false);
        *self.guest.lock() = None;
        self.due.store(u64::MAX, Ordering::Relaxed);
        self.allow_questions(u32::MAX);
        self.drops.lock().clear();
        self.refused.lock().take()
    }

    /// Whether a guest's statement runs now.
    pub(super) fn is_guest(&self) -> bool {
        self.at_work.load(Ordering::Relaxed)
    }

    /// Sets whether the authorizer treats what runs as a guest's statement or as the host's.
    pub(super) fn set_guest(&self, guest: bool) {
        self.at_work.store(guest, Ordering::Relaxed);
    }

    /// Stops the running statement and every later one, until [`Self::go_on`].
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.interrupt();
    }

    /// Lets statements run again; the transaction has ended.
    pub(super) fn go_on(&self) {
        self.stopped.store(false, Ordering::SeqCst);
    }

    /// Whether the running statement is past its deadline or was stopped.
    pub(super) fn is_over(&self) -> bool {
        self.stopped.load(Ordering::SeqCst) || !self.overdue().is_zero()
    }

    /// How far the running statement is past its deadline; zero before it.
    pub(super) fn overdue(&self) -> Duration {
        let due = Duration::from_micros(self.due.load(Ordering::Relaxed));
        self.born.elapsed().saturating_sub(due)
    }

    /// Interrupts the guest's statement if it is past its deadline. Returns false if none runs.
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

    /// Counts a call of the authorizer. Returns false after too many: then SQLite has compiled the statement
    /// again while it ran, and the program is not the one that was weighed.
    pub(super) fn ask(&self) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed) < self.may_ask.load(Ordering::Relaxed)
    }

    /// Returns the number of authorizer calls since the last call of this, and resets it.
    pub(super) fn take_asked(&self) -> u32 {
        self.asked.swap(0, Ordering::Relaxed)
    }

    /// Sets the most authorizer calls from now on, and resets the count.
    pub(super) fn allow_questions(&self, most: u32) {
        self.asked.store(0, Ordering::Relaxed);
        self.may_ask.store(most, Ordering::Relaxed);
    }

    /// Whether the authorizer was called too often.
    pub(super) fn asked_too_often(&self) -> bool {
        self.asked.load(Ordering::Relaxed) > self.may_ask.load(Ordering::Relaxed)
    }

    /// Records a table or an index that the statement drops.
    pub(super) fn drops(&self, name: &str) {
        self.drops.lock().push(name.to_owned());
    }

    /// The tables and indexes that the statement drops.
    pub(super) fn take_drops(&self) -> Vec<String> {
        std::mem::take(&mut *self.drops.lock())
    }

    /// The effect of the statement.
    pub(super) fn does(&self) -> Does {
        *self.does.lock()
    }

    /// Records why the authorizer refuses the statement. The first reason is kept.
    pub(super) fn refuse(&self, why: String) {
        self.refused.lock().get_or_insert(why);
    }

    /// Starts one call of an SQL function.
    ///
    /// # Errors
    /// The statement is past its deadline.
    pub(super) fn work(&self) -> Result<Work<'_>, Error> {
        let work = Work { control: self, left: Cell::new(0) };
        work.on(0)?;
        Ok(work)
    }
}

/// One call of an SQL function, which checks the deadline as it goes.
pub(super) struct Work<'a> {
    control: &'a Control,
    left: Cell<usize>,
}

impl Work<'_> {
    /// Counts bytes that the call processes, and checks the deadline every [`BETWEEN`] bytes.
    ///
    /// # Errors
    /// `SQLITE_INTERRUPT` if the statement is past its deadline.
    pub(super) fn on(&self, bytes: usize) -> Result<(), Error> {
        match self.left.get().checked_sub(bytes.max(1)) {
            Some(left) => self.left.set(left),
            None if self.control.is_over() => return Err(failure(ffi::SQLITE_INTERRUPT)),
            None => self.left.set(BETWEEN),
        }
        Ok(())
    }

    /// Checks the length of a result, in bytes.
    ///
    /// # Errors
    /// `SQLITE_TOOBIG` if the result is longer than the statement's values may be.
    pub(super) fn check_length(&self, bytes: usize) -> Result<(), Error> {
        if bytes > self.control.longest() { Err(failure(ffi::SQLITE_TOOBIG)) } else { Ok(()) }
    }
}

/// An error with one of SQLite's result codes.
pub(super) fn failure(code: i32) -> Error {
    Error::SqliteFailure(ffi::Error::new(code), None)
}
