//! The published keys of one source: fetched when a request names one, and kept for the next requests.
//!
//! A stranger can write any request, and so can have any key looked for that the row allows. Therefore:
//!
//! - Requests for one key share one fetch. A key that could not be had is not looked for again for ten seconds.
//! - Few requests may wait at once, and few keys may be fetched that no signature was verified with yet. The limits do
//!   not count for keys that did verify one, so a stranger can delay only the first use of a new key.
//! - Few keys are kept, and a key that verified a signature never gives way to one that did not.
//!
//! A key is fetched again after some hours. If that fails, the old one serves until it is a day old.

use std::{collections::HashMap, fmt, pin::Pin, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use posthouse_model::{Env, config::Rate};
use tokio::sync::Semaphore;

use super::published::PublishedKey;

use crate::rate::Allowance;

/// A key is fetched again when it is this old.
const REFRESH: SignedDuration = SignedDuration::from_hours(6);
/// A key is never used when it is this old.
const KEEP: SignedDuration = SignedDuration::from_hours(24);
/// How long a failure is remembered.
const FAILED: SignedDuration = SignedDuration::from_secs(10);
/// The most keys of a source.
const MOST: usize = 64;
/// The most requests of a source that wait for a key.
const WAITING: usize = 64;
/// How often a key may be fetched that has verified nothing yet.
const UNPROVEN: Rate = Rate { per_second: 0.2, burst: 10 };

/// The name of a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Wanted {
    /// The row of the scheme.
    pub(super) row: Arc<str>,
    /// The URL of a certificate, or the id of a key.
    pub(super) id: String,
}

/// Why there is no key. The request can be neither verified nor refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unpublished {
    reason: String,
    /// When the sender should send the request again.
    pub(super) seconds: u64,
}

impl Unpublished {
    /// A reason, in words.
    pub(super) fn new(reason: impl Into<String>, seconds: u64) -> Self {
        Self { reason: reason.into(), seconds }
    }
}

impl fmt::Display for Unpublished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// A fetch that goes on.
pub(super) type Publishing = Pin<Box<dyn Future<Output = Result<PublishedKey, String>> + Send>>;

/// Where keys come from: the network, or a fake in tests.
pub(super) trait Publisher: Send + Sync + 'static {
    /// Fetches a key.
    fn publish(&self, wanted: &Wanted) -> Publishing;
}

/// The keys of a source.
pub(super) struct Keychain {
    entries: Mutex<HashMap<Wanted, Arc<Entry>>>,
    publisher: Box<dyn Publisher>,
    waiting: Semaphore,
    unproven: Allowance,
    env: Env,
}

/// A key, or the failure to get it.
struct Entry {
    known: Mutex<Known>,
    /// Whoever holds it may fetch.
    turn: Arc<tokio::sync::Mutex<()>>,
}

struct Known {
    key: Option<(Arc<PublishedKey>, Timestamp)>,
    failed: Option<(String, Timestamp)>,
    /// Whether it has verified a signature.
    proven: bool,
    used: Timestamp,
}

impl Known {
    /// The key, if it may still be used.
    fn usable(&self, now: Timestamp) -> Option<(&Arc<PublishedKey>, SignedDuration)> {
        let (key, fetched) = self.key.as_ref()?;
        let age = now.duration_since(*fetched);
        (age < KEEP && key.check(now).is_ok()).then_some((key, age))
    }

    /// The key, if it need not be fetched.
    fn fresh(&self, now: Timestamp) -> Option<Arc<PublishedKey>> {
        self.usable(now).filter(|(_, age)| *age < REFRESH).map(|(key, _)| Arc::clone(key))
    }

    /// The key, or why there is none. None if it has to be fetched.
    fn settled(&self, now: Timestamp) -> Option<Result<Arc<PublishedKey>, Unpublished>> {
        if let Some(key) = self.fresh(now) {
            return Some(Ok(key));
        }
        let (reason, at) = self.failed.as_ref()?;
        let left = FAILED - now.duration_since(*at);
        left.is_positive().then(|| match self.usable(now) {
            Some((key, _)) => Ok(Arc::clone(key)),
            None => Err(Unpublished::new(reason, left.as_secs().unsigned_abs() + 1)),
        })
    }
}

impl Keychain {
    /// An empty one.
    pub(super) fn new(publisher: impl Publisher, env: Env) -> Self {
        Self {
            entries: Mutex::default(),
            publisher: Box::new(publisher),
            waiting: Semaphore::new(WAITING),
            unproven: Allowance::new(UNPROVEN),
            env,
        }
    }

    /// A key that is here.
    pub(super) fn known(&self, wanted: &Wanted) -> Option<Arc<PublishedKey>> {
        let now = self.env.now();
        let entry = self.entries.lock().get(wanted).cloned()?;
        let mut known = entry.known.lock();
        known.used = now;
        known.fresh(now)
    }

    /// A key, fetched if it has to be.
    ///
    /// # Errors
    /// [`Unpublished`] says why it can't be had now.
    pub(super) async fn key(&self, wanted: &Wanted) -> Result<Arc<PublishedKey>, Unpublished> {
        if let Some(key) = self.known(wanted) {
            return Ok(key);
        }
        let crowded = || Unpublished::new("too many requests wait for keys", 1);
        let _waiting = self.waiting.try_acquire().map_err(|_| crowded())?;
        let entry = self.entry(wanted).ok_or_else(crowded)?;
        let turn = Arc::clone(&entry.turn).lock_owned().await;
        let (settled, proven) = {
            let known = entry.known.lock();
            (known.settled(self.env.now()), known.proven)
        };
        if let Some(settled) = settled {
            return settled;
        }
        if !proven {
            self.unproven
                .take()
                .map_err(|seconds| Unpublished::new("too many keys that nothing was signed with", seconds))?;
        }
        let publishing = self.publisher.publish(wanted);
        let (fetching, env) = (Arc::clone(&entry), self.env.clone());
        // It goes on if the sender leaves, so that the next request finds its result.
        let fetched = tokio::spawn(async move {
            let _turn = turn;
            let outcome = publishing.await;
            fetching.record(outcome, env.now());
        });
        let _ = fetched.await;
        let settled = entry.known.lock().settled(self.env.now());
        settled.unwrap_or_else(|| Err(Unpublished::new("the key was not fetched", 10)))
    }

    /// Records that a signature was verified with this key.
    pub(super) fn prove(&self, wanted: &Wanted) {
        if let Some(entry) = self.entries.lock().get(wanted) {
            entry.known.lock().proven = true;
        }
    }

    /// The entry of a key; a new one takes the place of one that is in nobody's use. None if there is no such place.
    fn entry(&self, wanted: &Wanted) -> Option<Arc<Entry>> {
        let now = self.env.now();
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get(wanted) {
            return Some(Arc::clone(entry));
        }
        if entries.len() >= MOST {
            let idle = |entry: &Arc<Entry>| Arc::strong_count(entry) == 1;
            let may_go = |entry: &Known| !entry.proven || now.duration_since(entry.used) > KEEP;
            let oldest = entries
                .iter()
                .filter(|(_, entry)| idle(entry) && may_go(&entry.known.lock()))
                .min_by_key(|(_, entry)| entry.known.lock().used)
                .map(|(wanted, _)| wanted.clone())?;
            entries.remove(&oldest);
        }
        let known = Known { key: None, failed: None, proven: false, used: now };
        let entry = Arc::new(Entry { known: Mutex::new(known), turn: Arc::default() });
        entries.insert(wanted.clone(), Arc::clone(&entry));
        Some(entry)
    }
}

impl Entry {
    /// Records the result of a fetch.
    fn record(&self, outcome: Result<PublishedKey, String>, now: Timestamp) {
        let outcome = outcome.and_then(|key| key.check(now).map(|()| key));
        let mut known = self.known.lock();
        match outcome {
            Ok(key) => {
                known.key = Some((Arc::new(key), now));
                known.failed = None;
            }
            Err(reason) => known.failed = Some((reason, now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use posthouse_model::{
        Clock as _,
        testing::{Constant, ManualClock},
    };
    use tokio::sync::Semaphore;

    use super::*;

    /// Publishes a key that is valid for a year, unless it is down. Each fetch needs a permit.
    struct Fake {
        fetches: AtomicUsize,
        down: AtomicBool,
        gate: Arc<Semaphore>,
    }

    impl Publisher for Arc<Fake> {
        fn publish(&self, _: &Wanted) -> Publishing {
            self.fetches.fetch_add(1, Ordering::SeqCst);
            let (down, gate) = (self.down.load(Ordering::SeqCst), Arc::clone(&self.gate));
            Box::pin(async move {
                gate.acquire().await.unwrap().forget();
                match down {
                    true => Err("down".to_owned()),
                    false => Ok(PublishedKey::Rsa { key: vec![1], from: at(0), until: at(365 * 86_400) }),
                }
            })
        }
    }

    const START: i64 = 1_765_281_881;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(START + seconds).unwrap()
    }

    fn wanted(id: usize) -> Wanted {
        Wanted { row: "row".into(), id: id.to_string() }
    }

    fn set(clock: &ManualClock, seconds: i64) {
        let by = at(seconds).duration_since(clock.now());
        match by.is_negative() {
            true => clock.set_back(by.unsigned_abs()),
            false => clock.advance(by.unsigned_abs()),
        }
    }

    fn keychain() -> (Arc<Keychain>, Arc<Fake>, ManualClock) {
        let gate = Arc::new(Semaphore::new(1000));
        let fake = Arc::new(Fake { fetches: AtomicUsize::new(0), down: AtomicBool::new(false), gate });
        let clock = ManualClock::at(at(0));
        let env = Env::new(clock.clone(), Constant(0));
        (Arc::new(Keychain::new(Arc::clone(&fake), env)), fake, clock)
    }

    #[tokio::test]
    async fn requests_for_one_key_share_one_fetch_even_if_the_first_leaves() {
        let (keys, fake, _) = keychain();
        let all = fake.gate.acquire_many(1000).await.unwrap();
        let ask = || {
            let keys = Arc::clone(&keys);
            tokio::spawn(async move { keys.key(&wanted(1)).await.is_ok() })
        };
        let first = ask();
        while fake.fetches.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let others: Vec<_> = (0..20).map(|_| ask()).collect();
        tokio::task::yield_now().await;
        first.abort();
        drop(all);
        for other in others {
            assert!(other.await.unwrap());
        }
        assert_eq!(fake.fetches.load(Ordering::SeqCst), 1);
        assert!(keys.known(&wanted(1)).is_some() && keys.known(&wanted(2)).is_none());
    }

    #[tokio::test]
    async fn a_failure_is_remembered_for_a_while_and_an_old_key_serves_for_a_day() {
        let (keys, fake, clock) = keychain();
        let fetches = || fake.fetches.load(Ordering::SeqCst);
        fake.down.store(true, Ordering::SeqCst);
        let failed = keys.key(&wanted(1)).await.unwrap_err();
        assert_eq!((failed.to_string().as_str(), failed.seconds), ("down", 11));
        set(&clock, 9);
        assert_eq!(keys.key(&wanted(1)).await.unwrap_err().seconds, 2);
        assert_eq!(fetches(), 1);
        set(&clock, 10);
        fake.down.store(false, Ordering::SeqCst);
        assert!(keys.key(&wanted(1)).await.is_ok());
        assert_eq!(fetches(), 2);
        set(&clock, 10 + 6 * 3600 - 1);
        assert!(keys.key(&wanted(1)).await.is_ok());
        assert_eq!(fetches(), 2);
        // The fetch fails, and the old key serves.
        fake.down.store(true, Ordering::SeqCst);
        set(&clock, 10 + 6 * 3600);
        assert!(keys.key(&wanted(1)).await.is_ok());
        assert!(keys.key(&wanted(1)).await.is_ok());
        assert_eq!(fetches(), 3);
        set(&clock, 10 + 24 * 3600);
        assert!(keys.key(&wanted(1)).await.is_err());
        assert_eq!(fetches(), 4);
    }

    #[tokio::test]
    async fn a_key_is_not_used_before_and_after_its_certificate_is_valid() {
        let (keys, _, clock) = keychain();
        assert!(keys.key(&wanted(1)).await.is_ok());
        set(&clock, -1);
        let refused = keys.key(&wanted(1)).await.unwrap_err();
        assert!(refused.to_string().contains("valid from"), "{refused}");
        set(&clock, 365 * 86_400 + 1);
        let refused = keys.key(&wanted(1)).await.unwrap_err();
        assert!(refused.to_string().contains("has expired"), "{refused}");
    }

    #[tokio::test]
    async fn strangers_have_few_keys_fetched_and_push_out_none_that_was_used() {
        let (keys, fake, clock) = keychain();
        assert!(keys.key(&wanted(0)).await.is_ok());
        keys.prove(&wanted(0));
        let mut refused = 0;
        for id in 1..200 {
            refused += usize::from(keys.key(&wanted(id)).await.is_err());
        }
        assert!(refused >= 180, "{refused}");
        assert!(fake.fetches.load(Ordering::SeqCst) < 20);
        assert!(keys.entries.lock().len() <= MOST);
        assert!(keys.known(&wanted(0)).is_some());
        // Its refresh takes no part in the strangers' limit.
        set(&clock, 7 * 3600);
        assert!(keys.key(&wanted(0)).await.is_ok());
    }

    #[tokio::test]
    async fn few_requests_wait_and_further_ones_are_told_so() {
        let (keys, fake, _) = keychain();
        let all = fake.gate.acquire_many(1000).await.unwrap();
        let ask = || {
            let keys = Arc::clone(&keys);
            tokio::spawn(async move { keys.key(&wanted(1)).await })
        };
        let waiting: Vec<_> = (0..WAITING).map(|_| ask()).collect();
        while keys.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(keys.key(&wanted(1)).await.unwrap_err().seconds, 1);
        drop(all);
        for one in waiting {
            assert!(one.await.unwrap().is_ok());
        }
    }
}
