//! Tests failing plugins, on a clock that runs as fast as the test. The deliveries of a plugin that is down are
//! held, and run once it works again. A plugin that gets bad events still handles the good ones.

use std::{collections::BTreeMap, fs, sync::Arc, time::Duration};

use jiff::Timestamp;
use posthouse_database::Databases;
use posthouse_egress::Egress;
use posthouse_guest::plugin::{
    Registry,
    testing::{self, Bench, busy_until, chokes_on, sick_until},
};
use posthouse_model::{
    BreakerState, Clock as _, DeliveryState, Env,
    config::{Breaker, Http, PluginSettings},
    testing::{Constant, ManualClock, Seeded, event},
};
use posthouse_store::{Accepted, DeliveryFilter, Store, testing::options};
use tokio_util::sync::CancellationToken;

use super::Dispatch;

const START: i64 = 1_767_225_600;
const HOUR: i64 = 3600;
/// Seconds of the simulated clock between two events.
const STEP: i64 = 10;
/// Far longer than any step takes. Only a failure reaches it.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The type of the events at which the guest of [`chokes_on`] traps.
const BAD: &str = "user.bad";
/// The milliseconds that one attempt of that guest stays below.
const ATTEMPT: i64 = 100;
/// How long nothing may change before the clock advances.
const STILL: Duration = Duration::from_millis(60);

/// The middle of the random range.
const MIDDLE: Constant = Constant(0x7f);

type States = BTreeMap<DeliveryState, u64>;

/// Counts deliveries that are neither done nor dead.
fn unfinished(states: &States) -> u64 {
    states
        .iter()
        .filter(|(state, _)| !matches!(state, DeliveryState::Done | DeliveryState::Dead))
        .map(|(_, n)| n)
        .sum()
}

struct Running {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

struct Fixture {
    _bench: Bench,
    clock: ManualClock,
    store: Store,
    registry: Registry,
}

impl Fixture {
    async fn new(guest: &[u8]) -> Self {
        Self::with(guest, PluginSettings::default()).await
    }

    async fn with(guest: &[u8], settings: PluginSettings) -> Self {
        let bench = Bench::new(4);
        let clock = ManualClock::at(Timestamp::from_second(START).unwrap());
        let env = Env::new(clock.clone(), MIDDLE);
        let store = Store::open(options(&bench.dir.path().join("store.db")), env.clone()).unwrap();
        let folder = bench.dir.path().join("plugins");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("sick.wasm"), guest).unwrap();
        let registry = Registry::new(
            bench.engine.clone(),
            store.clone(),
            Databases::default(),
            Egress::new(&Http::default(), env.clone()).unwrap(),
            folder,
            Arc::new(move |_: &str| settings.clone()),
            env.clone(),
        )
        .await
        .unwrap();
        registry.scan().await;
        assert!(
            registry.by_name("sick").unwrap().serving(),
            "{:?}",
            registry.by_name("sick").unwrap().record
        );
        Self { _bench: bench, clock, store, registry }
    }

    async fn accept(&self, n: i64) {
        self.accept_a("user.created", n).await;
    }

    async fn accept_a(&self, event_type: &str, n: i64) {
        let event = event(&format!("evt_{n}"), event_type, self.clock.now());
        let recipients = self.registry.recipients(&event);
        let accepted = self.store.accept(event, recipients).await.unwrap();
        assert!(matches!(accepted, Accepted::Stored(_)));
    }

    /// Advances the clock by so many seconds, and lets the store and the dispatch react.
    async fn pass(&self, seconds: i64) {
        self.clock.advance(Duration::from_secs(seconds as u64));
        self.store.flush().await.unwrap();
        tokio::time::sleep(Duration::from_millis(15)).await;
    }

    /// Advances the clock by `step` milliseconds whenever nothing changes, until the states satisfy `done`.
    /// Returns by how much it advanced. So it measures simulated time, and not the speed of the machine.
    async fn wait(&self, step: i64, done: impl Fn(&States) -> bool) -> i64 {
        let mut passed = 0;
        let reached = tokio::time::timeout(TIMEOUT, async {
            let (mut seen, mut since) = (None, tokio::time::Instant::now());
            loop {
                self.store.flush().await.unwrap();
                let states = self.store.states().await.unwrap();
                if done(&states) {
                    return;
                }
                let now = (states, self.registry.by_name("sick").unwrap().trip());
                if seen.as_ref() != Some(&now) {
                    (seen, since) = (Some(now), tokio::time::Instant::now());
                } else if since.elapsed() > STILL {
                    self.clock.advance(Duration::from_millis(step as u64));
                    passed += step;
                    seen = None;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        if reached.await.is_err() {
            panic!(
                "after {passed} ms: {:?}, {:?}",
                self.store.states().await,
                self.registry.by_name("sick").unwrap().record
            );
        }
        passed
    }

    /// Starts a dispatch that runs until it is stopped.
    fn dispatch(&self) -> Running {
        let env = Env::new(self.clock.clone(), MIDDLE);
        let stop = CancellationToken::new();
        let telemetry = crate::telemetry::Telemetry::default();
        let dispatch = Dispatch::new(self.store.clone(), self.registry.clone(), env, telemetry);
        Running { task: tokio::spawn(dispatch.run(stop.clone(), Duration::from_secs(5))), stop }
    }

    fn breaker(&self) -> BreakerState {
        self.registry.by_name("sick").unwrap().breaker()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_fails_for_an_hour_holds_its_deliveries_and_recovers_by_itself() {
    // A step longer than the series of events, so that a trial in the last of them fails as well.
    let fixture = Fixture::new(&sick_until(START + HOUR + STEP)).await;
    let running = fixture.dispatch();

    let events = HOUR / STEP;
    for n in 0..events {
        fixture.accept(n).await;
        fixture.pass(STEP).await;
    }
    assert_ne!(fixture.breaker(), BreakerState::Closed);
    let trip = fixture.registry.by_name("sick").unwrap().trip().unwrap();
    assert!(trip.pauses > 1, "it was tried meanwhile: {trip:?}");
    let during = fixture.store.states().await.unwrap();
    // Only those that failed before the breaker opened. Deliveries tried since have never run, and keep their
    // attempts.
    assert!(during[&DeliveryState::Dead] <= 12, "{during:?}");
    assert!(during[&DeliveryState::Held] > 300, "{during:?}");

    // The cause is gone.
    let mut seconds = 0;
    let done = tokio::time::timeout(TIMEOUT, async {
        loop {
            fixture.pass(STEP).await;
            seconds += STEP;
            let states = fixture.store.states().await.unwrap();
            let (done, dead) = (states[&DeliveryState::Done], states[&DeliveryState::Dead]);
            if done + dead == events as u64 {
                return (done, dead);
            }
        }
    });
    let (done, dead) = done.await.expect("everything is finished");
    assert_eq!(dead, during[&DeliveryState::Dead], "nothing more was given up");
    assert_eq!(done + dead, fixture.store.stats().await.unwrap().made);
    assert_eq!(fixture.breaker(), BreakerState::Closed);
    eprintln!("{done} done, {dead} given up, {} pauses; well again {seconds} s after the hour", trip.pauses);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn good_events_are_done_within_ten_attempts_and_bad_ones_use_up_their_own() {
    let seed = std::process::id().into();
    eprintln!("seed {seed}");
    let random = Seeded::new(seed);
    for bad in [5, 20, 100] {
        for (shuffled, at_once) in [(false, true), (true, true), (false, false), (true, false)] {
            let mut types = vec![BAD; bad];
            types.extend(vec!["user.created"; 40]);
            if shuffled {
                random.shuffle(&mut types);
            }
            let case = format!("{bad} bad, shuffled: {shuffled}, at once: {at_once}, seed {seed}");
            good_ones_are_done(&types, at_once, &case).await;
        }
    }
}

/// Sends events of these types, all before the first attempt or while attempts run.
async fn good_ones_are_done(types: &[&str], at_once: bool, case: &str) {
    let fixture = Fixture::new(&chokes_on(BAD)).await;
    let early = (!at_once).then(|| fixture.dispatch());
    for (event_type, n) in types.iter().zip(0..) {
        fixture.accept_a(event_type, n).await;
    }
    let running = early.unwrap_or_else(|| fixture.dispatch());
    let bad = types.iter().filter(|event_type| **event_type == BAD).count() as u64;
    let good = types.len() as u64 - bad;

    let passed = fixture.wait(ATTEMPT / 10, |states| states[&DeliveryState::Done] == good).await;
    assert!(passed <= 10 * ATTEMPT, "{case}: {passed} ms until the good ones were done");
    let passed = fixture.wait(1000, |states| unfinished(states) == 0).await;
    // Their own back-off is 2, 4 and 8 s.
    assert!(passed <= 120_000, "{case}: {passed} ms until the bad ones were given up");
    let states = fixture.store.states().await.unwrap();
    assert_eq!((states[&DeliveryState::Done], states[&DeliveryState::Dead]), (good, bad), "{case}");
    let filter = DeliveryFilter { limit: 1000, ..DeliveryFilter::default() };
    for delivery in fixture.store.deliveries(filter).await.unwrap() {
        let attempts = if delivery.state == DeliveryState::Dead { 4 } else { 1 };
        assert_eq!(delivery.attempts, attempts, "{case}: {delivery:?}");
    }
    assert_eq!(fixture.breaker(), BreakerState::Closed, "{case}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_event_that_comes_after_bad_ones_alone_runs_at_once() {
    let fixture = Fixture::new(&chokes_on(BAD)).await;
    let running = fixture.dispatch();
    for n in 0..30 {
        fixture.accept_a(BAD, n).await;
    }
    fixture.wait(100, |states| states[&DeliveryState::Held] == 30).await;
    // They are held and use few attempts, because a plugin that is down would look the same.
    for _ in 0..12 {
        fixture.pass(STEP).await;
    }
    assert_ne!(fixture.breaker(), BreakerState::Closed);
    assert_eq!(fixture.store.states().await.unwrap()[&DeliveryState::Dead], 0);

    fixture.accept(30).await;
    let passed = fixture.wait(ATTEMPT / 10, |states| states[&DeliveryState::Done] == 1).await;
    assert!(passed <= 10 * ATTEMPT, "{passed} ms");
    fixture.wait(1000, |states| states[&DeliveryState::Dead] == 30).await;
    assert_eq!(fixture.breaker(), BreakerState::Closed, "those that are known to be bad do not open it");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_is_down_is_tried_a_few_times_however_much_waits() {
    let fixture = Fixture::new(&sick_until(START + 2 * HOUR)).await;
    for n in 0..1000 {
        fixture.accept(n).await;
    }
    let running = fixture.dispatch();
    let attempts = async || {
        let filter = DeliveryFilter { limit: 1000, ..DeliveryFilter::default() };
        let deliveries = fixture.store.deliveries(filter).await.unwrap();
        deliveries.iter().map(|delivery| u64::from(delivery.attempts)).sum::<u64>()
    };
    fixture
        .wait(100, |_| fixture.registry.by_name("sick").unwrap().trip().is_some_and(|trip| trip.pauses > 8))
        .await;
    for _ in 0..HOUR / STEP / 4 {
        fixture.pass(4 * STEP).await;
    }
    let tried = attempts().await;
    assert!(tried < 150, "{tried} attempts");
    let states = fixture.store.states().await.unwrap();
    assert_eq!((states[&DeliveryState::Dead], states[&DeliveryState::Held]), (0, 1000), "{states:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_busy_for_longer_than_it_says_loses_nothing() {
    let off = Breaker { failures: 0, ..Breaker::default() };
    for (breaker, after) in [(Breaker::default(), 1), (Breaker::default(), 0), (off, 1)] {
        let settings = PluginSettings { breaker, ..PluginSettings::default() };
        let fixture = Fixture::with(&busy_until(START + 8, after), settings).await;
        for n in 0..30 {
            fixture.accept(n).await;
        }
        let running = fixture.dispatch();
        fixture.wait(500, |states| unfinished(states) == 0).await;
        let states = fixture.store.states().await.unwrap();
        assert_eq!(states[&DeliveryState::Dead], 0, "{breaker:?}, {after} s: {states:?}");
        running.stop().await;
    }
}

/// Not a test: the compiler child of the tests here.
#[test]
#[ignore = "run as the compiler child of the other tests"]
fn plays_the_compiler() {
    testing::play_the_compiler();
}
