//! Fault points: named places where a test has the daemon die.
//!
//! Every step between "the guest returned" and "nothing is left to do" has one, so that crash tests can kill
//! the process exactly there. `docs/architecture.md` draws them in order, and says what the next start does at
//! each.
//!
//! They exist only with the cargo feature `fault-points`. Only tests build it, and an optimised build refuses
//! it. Without it [`reached`] is empty. With it, `POSTHOUSE_FAULT=<name>` or `POSTHOUSE_FAULT=<name>:<n>` in
//! the environment kills the process when it reaches the place for the n-th time. n counts from 1, its default.
//! The process gets SIGKILL, as in a power cut: nothing is flushed, closed or caught.
//! `POSTHOUSE_PAUSE=<name>:<ms>` makes the process wait there each time.

#[cfg(all(feature = "fault-points", not(debug_assertions)))]
compile_error!("the feature `fault-points` is for tests: a release must not hold it");

/// Whether this build has fault points.
pub const COMPILED_IN: bool = cfg!(feature = "fault-points");

/// The fault points, in the order in which an attempt reaches them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultPoint {
    /// The guest has returned ok. Its effects are staged; a transaction on its database is open.
    GuestReturned,
    /// The marker is written in that transaction, which is not committed.
    MarkerWritten,
    /// The database has committed. The commit may not be on disk yet.
    DatabaseCommitted,
    /// The commit is on disk. The store does not know of it.
    DatabaseSynced,
    /// The writer has the completion in its transaction, which is not committed.
    StoreWritten,
    /// The store has committed, and has not answered yet.
    StoreCommitted,
    /// The attempt knows that the store has committed. Its marker is still there.
    StoreTold,
    /// Markers are deleted in a transaction that is not committed.
    MarkerDeleted,
    /// The markers are deleted, and the deletion is committed.
    MarkerRemoved,
    /// An outbox item was sent, and the store does not know of it.
    ItemSent,
}

impl FaultPoint {
    /// Every fault point, in order.
    pub const ALL: [Self; 10] = [
        Self::GuestReturned,
        Self::MarkerWritten,
        Self::DatabaseCommitted,
        Self::DatabaseSynced,
        Self::StoreWritten,
        Self::StoreCommitted,
        Self::StoreTold,
        Self::MarkerDeleted,
        Self::MarkerRemoved,
        Self::ItemSent,
    ];

    /// The name in `POSTHOUSE_FAULT`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GuestReturned => "guest-returned",
            Self::MarkerWritten => "marker-written",
            Self::DatabaseCommitted => "database-committed",
            Self::DatabaseSynced => "database-synced",
            Self::StoreWritten => "store-written",
            Self::StoreCommitted => "store-committed",
            Self::StoreTold => "store-told",
            Self::MarkerDeleted => "marker-deleted",
            Self::MarkerRemoved => "marker-removed",
            Self::ItemSent => "item-sent",
        }
    }
}

/// Records that the process has reached this point. Kills it if a test has asked for that.
#[inline]
pub fn reached(point: FaultPoint) {
    #[cfg(feature = "fault-points")]
    armed::reached(point);
    #[cfg(not(feature = "fault-points"))]
    let _ = point;
}

/// Whether a test has asked for this point. Then the step before it is sent separately from the next one, even
/// if the two usually share a round trip.
#[inline]
pub fn is_awaited(point: FaultPoint) -> bool {
    #[cfg(feature = "fault-points")]
    return armed::is_awaited(point);
    #[cfg(not(feature = "fault-points"))]
    {
        let _ = point;
        false
    }
}

/// How far the system's clock is to be wrong. The number of seconds is in the file that `POSTHOUSE_CLOCK`
/// names, and a test writes it while the process runs.
pub fn clock_is_off_by() -> jiff::SignedDuration {
    #[cfg(feature = "fault-points")]
    return clock::is_off_by();
    #[cfg(not(feature = "fault-points"))]
    jiff::SignedDuration::ZERO
}

/// Never returns if a test has asked for that. `POSTHOUSE_STUCK=<text>` makes each guest's SQLite statement
/// that contains the text a statement that no interrupt ends.
#[inline]
pub fn get_stuck(statement: &str) {
    #[cfg(feature = "fault-points")]
    armed::get_stuck(statement);
    #[cfg(not(feature = "fault-points"))]
    let _ = statement;
}

#[cfg(feature = "fault-points")]
mod clock {
    use std::{
        path::PathBuf,
        sync::LazyLock,
        time::{Duration, Instant},
    };

    use jiff::SignedDuration;
    use parking_lot::Mutex;

    /// The time between two reads of the file.
    const LOOK: Duration = Duration::from_millis(20);

    static FILE: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os("POSTHOUSE_CLOCK").map(PathBuf::from));
    static LAST: Mutex<Option<(Instant, SignedDuration)>> = Mutex::new(None);

    pub(super) fn is_off_by() -> SignedDuration {
        let Some(file) = &*FILE else { return SignedDuration::ZERO };
        let mut last = LAST.lock();
        if let Some((at, by)) = *last
            && at.elapsed() < LOOK
        {
            return by;
        }
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let by = SignedDuration::from_secs(text.trim().parse().unwrap_or(0));
        *last = Some((Instant::now(), by));
        by
    }
}

#[cfg(feature = "fault-points")]
mod armed {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    };

    use rustix::process::{Signal, getpid, kill_process};

    use super::FaultPoint;

    /// The fault point that a test asked for, and the number of times to reach it.
    static ARMED: LazyLock<Option<(FaultPoint, AtomicU64)>> = LazyLock::new(|| {
        let text = std::env::var("POSTHOUSE_FAULT").ok()?;
        let wish = parse(&text);
        if wish.is_none() {
            tracing::error!(text, "POSTHOUSE_FAULT names no fault point: <name> or <name>:<n> with n from 1");
            die();
        }
        wish.map(|(point, n)| (point, AtomicU64::new(n)))
    });

    /// The fault point at which a test has the process wait, and the milliseconds.
    static PAUSED: LazyLock<Option<(FaultPoint, u64)>> =
        LazyLock::new(|| parse(&std::env::var("POSTHOUSE_PAUSE").ok()?));

    pub(super) fn reached(point: FaultPoint) {
        if let Some((_, millis)) = PAUSED.as_ref().filter(|(paused, _)| *paused == point) {
            std::thread::sleep(std::time::Duration::from_millis(*millis));
        }
        if let Some((armed, left)) = &*ARMED
            && *armed == point
            && left.fetch_sub(1, Ordering::AcqRel) == 1
        {
            die();
        }
    }

    pub(super) fn is_awaited(point: FaultPoint) -> bool {
        ARMED.as_ref().is_some_and(|(armed, _)| *armed == point)
    }

    pub(super) fn get_stuck(statement: &str) {
        static TEXT: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("POSTHOUSE_STUCK").ok());
        if TEXT.as_ref().is_some_and(|text| statement.contains(text)) {
            loop {
                std::thread::park();
            }
        }
    }

    pub(super) fn parse(text: &str) -> Option<(FaultPoint, u64)> {
        let (name, n) = match text.split_once(':') {
            Some((name, n)) => (name, n.parse().ok().filter(|n| *n > 0)?),
            None => (text, 1),
        };
        FaultPoint::ALL.into_iter().find(|point| point.name() == name).map(|point| (point, n))
    }

    fn die() -> ! {
        let _ = kill_process(getpid(), Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}

#[cfg(all(test, feature = "fault-points"))]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_a_name_and_a_count_from_one() {
        for point in FaultPoint::ALL {
            assert_eq!(armed::parse(point.name()), Some((point, 1)));
            assert_eq!(armed::parse(&format!("{}:12", point.name())), Some((point, 12)));
        }
        for wrong in ["", "nowhere", "guest-returned:0", "guest-returned:", "guest-returned:x"] {
            assert_eq!(armed::parse(wrong), None, "{wrong}");
        }
    }
}
