//! Fault points: the places at which a test can have the daemon die.
//!
//! Every step between "the guest returned" and "nothing is left to do" has one, so that the crash tests
//! can stop the process exactly there. `docs/architecture.md` draws them in their order and says what the
//! next start does at each.
//!
//! They are there with the cargo feature `fault-points`, which only tests build, and which a build with
//! optimisation refuses. Without it [`reached`] is empty. With it, the environment variable
//! `POSTHOUSE_FAULT=<name>` or `POSTHOUSE_FAULT=<name>:<n>` makes the n-th time (from 1, the first where
//! none is said) that the place is reached the process's last: it gets SIGKILL, as in a power cut, so
//! nothing is flushed, closed or caught.

#[cfg(all(feature = "fault-points", not(debug_assertions)))]
compile_error!("the feature `fault-points` is for tests: a release must not hold it");

/// Whether this build has them.
pub const COMPILED_IN: bool = cfg!(feature = "fault-points");

/// The places, in the order in which an attempt comes by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultPoint {
    /// The guest has returned ok. Its effects are staged; a transaction on its database is open.
    GuestReturned,
    /// The marker stands in that transaction, which is not committed.
    MarkerWritten,
    /// The database has committed, which may not be on disk yet.
    DatabaseCommitted,
    /// That is on disk; the store does not know.
    DatabaseSynced,
    /// The writer has the completion in its transaction, which is not committed.
    StoreWritten,
    /// The store has committed, and nobody has been told.
    StoreCommitted,
    /// The attempt knows that the store has committed; its marker is to be removed.
    StoreTold,
    /// Markers are deleted in a transaction that is not committed.
    MarkerDeleted,
    /// Markers are gone.
    MarkerRemoved,
    /// An outbox item has left, and the store does not know.
    ItemSent,
}

impl FaultPoint {
    /// Every place, in order.
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

    /// The name by which `POSTHOUSE_FAULT` knows it.
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

/// The process has come to this place, and dies here where a test asked for it.
#[inline]
pub fn reached(point: FaultPoint) {
    #[cfg(feature = "fault-points")]
    armed::reached(point);
    #[cfg(not(feature = "fault-points"))]
    let _ = point;
}

/// Whether a test has asked for this place, and so for its step to be made apart from the next one where
/// the two usually travel together.
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

/// By how much the system's clock is to be taken for wrong: the seconds in the file that `POSTHOUSE_CLOCK`
/// names, which a test writes while the process runs.
pub fn clock_is_off_by() -> jiff::SignedDuration {
    #[cfg(feature = "fault-points")]
    return clock::is_off_by();
    #[cfg(not(feature = "fault-points"))]
    jiff::SignedDuration::ZERO
}

/// Never returns if a test asked for that: `POSTHOUSE_STUCK=<text>` makes each guest's SQLite statement that contains
/// the text a statement that no interrupt ends.
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

    /// Between two looks into the file.
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

    /// The place that was asked for, and how often it is still passed by.
    static ARMED: LazyLock<Option<(FaultPoint, AtomicU64)>> = LazyLock::new(|| {
        let text = std::env::var("POSTHOUSE_FAULT").ok()?;
        let wish = parse(&text);
        if wish.is_none() {
            tracing::error!(text, "POSTHOUSE_FAULT names no fault point: <name> or <name>:<n> with n from 1");
            die();
        }
        wish.map(|(point, n)| (point, AtomicU64::new(n)))
    });

    pub(super) fn reached(point: FaultPoint) {
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
