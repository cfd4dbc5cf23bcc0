//! Fixtures for the tests of all crates: a clock that a test moves, the machine's clock, bytes that a seed fixes, an
//! event, the settings of a database.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;

#[cfg(feature = "config")]
use super::config::{DatabaseSettings, DatabaseTarget};
use super::{Clock, Env, EventId, EventType, NewEvent, Random, RequestParts, SourceName};

/// A clock that only a test moves. Its clones share the time.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock that shows this time until a test moves it.
    pub fn at(moment: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(nanos(moment))))
    }

    /// A clock that shows 1970-01-01T00:00:00Z.
    pub fn epoch() -> Self {
        Self::at(Timestamp::UNIX_EPOCH)
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_nanos() as i64, Ordering::SeqCst);
    }

    /// Sets the clock back.
    pub fn set_back(&self, by: Duration) {
        self.0.fetch_sub(by.as_nanos() as i64, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanosecond(self.0.load(Ordering::SeqCst).into()).unwrap()
    }
}

fn nanos(moment: Timestamp) -> i64 {
    moment.as_nanosecond().try_into().unwrap()
}

/// The machine's clock, for tests that depend on its time.
pub struct MachineClock;

impl Clock for MachineClock {
    #[allow(clippy::disallowed_methods, reason = "a test of what the time of the machine decides")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// Randomness in which each byte is this one.
#[derive(Debug, Clone, Copy)]
pub struct Constant(pub u8);

impl Random for Constant {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.0);
    }
}

/// Randomness that differs between calls, by SplitMix64 from a seed.
#[derive(Debug)]
pub struct Seeded(AtomicU64);

impl Seeded {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::SeqCst).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `most`.
    pub fn below(&self, most: u64) -> u64 {
        self.next() % most
    }

    /// Shuffles a list.
    pub fn shuffle<T>(&self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

impl Random for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// A clock at 1970-01-01T00:00:00Z, and randomness in which each byte is 7.
pub fn still() -> Env {
    Env::new(ManualClock::epoch(), Constant(7))
}

/// An event of the source `scalekit` and the organization `org_1`, with `{"n":1}` as its `data`.
pub fn event(id: &str, event_type: &str, received_at: Timestamp) -> NewEvent {
    const DATA: &str = r#"{"n":1}"#;
    let head = format!(r#"{{"id":"{id}","type":"{event_type}","data":"#);
    let start = head.len() as u32;
    NewEvent {
        source: SourceName::new("scalekit").unwrap(),
        id: EventId::new(id).unwrap(),
        event_type: EventType::new(event_type).unwrap(),
        organization: Some("org_1".into()),
        occurred_at: None,
        received_at,
        depth: 0,
        trace: None,
        data: start..start + DATA.len() as u32,
        body: format!("{head}{DATA}}}").into(),
        request: RequestParts::default(),
    }
}

/// A database with the settings that config.toml leaves out, but of any size and with few connections.
#[cfg(feature = "config")]
pub fn database(target: DatabaseTarget) -> DatabaseSettings {
    DatabaseSettings {
        target,
        pool: 4,
        statement_timeout: Duration::from_secs(5),
        ca: None,
        max_size: None,
        functions: [].into(),
    }
}
