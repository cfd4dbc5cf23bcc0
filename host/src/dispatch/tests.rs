//! A plugin that fails for an hour, of a clock that runs as fast as the test: its breaker holds its
//! deliveries, and they run when the cause is gone.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::watch;

use super::Dispatch;
use crate::{
    config::{Http, PluginSettings},
    database::Databases,
    egress::Egress,
    model::{Ambient, BreakerState, Clock, DeliveryState, EventId, EventType, NewEvent, Random, SourceName},
    plugin::{
        Registry,
        tests::{Bench, sick_until},
    },
    store::{Accepted, Store, StoreOptions},
};

const START: i64 = 1_767_225_600;
const HOUR: i64 = 3600;
/// Of the simulated clock, between two events.
const STEP: i64 = 10;
/// Far longer than anything takes; reached only where something never comes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Seconds since 1970.
#[derive(Clone)]
struct Simulated(Arc<AtomicI64>);

impl Clock for Simulated {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0.load(Ordering::SeqCst)).unwrap()
    }
}

struct Middle;

impl Random for Middle {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0x7f);
    }
}

struct House {
    _bench: Bench,
    clock: Simulated,
    store: Store,
    registry: Registry,
}

impl House {
    async fn new(guest: &[u8]) -> Self {
        let bench = Bench::new(4);
        let clock = Simulated(Arc::new(AtomicI64::new(START)));
        let ambient = Ambient::new(clock.clone(), Middle);
        let options = StoreOptions {
            path: bench.dir.path().join("store.db"),
            retention: Duration::from_hours(24),
            max_backlog: 10_000,
            min_free: 0,
            max_size: None,
        };
        let store = Store::open(options, ambient.clone()).unwrap();
        let folder = bench.dir.path().join("plugins");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("sick.wasm"), guest).unwrap();
        let registry = Registry::new(
            bench.engine.clone(),
            store.clone(),
            Databases::default(),
            Egress::new(&Http::default(), ambient.clone()).unwrap(),
            folder,
            Arc::new(|_: &str| PluginSettings::default()),
            ambient.clone(),
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
        let body = format!(r#"{{"id":"evt_{n}","type":"user.created","data":{{}}}}"#);
        let event = NewEvent {
            source: SourceName::new("scalekit").unwrap(),
            id: EventId::new(&format!("evt_{n}")).unwrap(),
            event_type: EventType::new("user.created").unwrap(),
            organization: None,
            occurred_at: None,
            received_at: self.clock.now(),
            depth: 0,
            trace: None,
            data: 0..2,
            body: body.into_bytes().into(),
        };
        let recipients = self.registry.recipients(&event);
        let accepted = self.store.accept(event, recipients).await.unwrap();
        assert!(matches!(accepted, Accepted::Stored(_)));
    }

    /// Lets so many seconds pass, and the store and the dispatch see it.
    async fn pass(&self, seconds: i64) {
        self.clock.0.fetch_add(seconds, Ordering::SeqCst);
        self.store.flush().await.unwrap();
        tokio::time::sleep(Duration::from_millis(15)).await;
    }

    fn breaker(&self) -> BreakerState {
        self.registry.by_name("sick").unwrap().breaker()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_fails_for_an_hour_holds_its_deliveries_and_recovers_by_itself() {
    let house = House::new(&sick_until(START + HOUR)).await;
    let ambient = Ambient::new(house.clock.clone(), Middle);
    let (stop, stopped) = watch::channel(false);
    let dispatch = Dispatch::new(
        house.store.clone(),
        house.registry.clone(),
        ambient,
        crate::telemetry::Telemetry::default(),
    );
    let running = tokio::spawn(dispatch.run(stopped, Duration::from_secs(5)));

    let events = HOUR / STEP;
    for n in 0..events {
        house.accept(n).await;
        house.pass(STEP).await;
    }
    assert_ne!(house.breaker(), BreakerState::Closed);
    let trip = house.registry.by_name("sick").unwrap().trip().unwrap();
    assert!(trip.pauses > 1, "it was tried meanwhile: {trip:?}");
    let during = house.store.states().await.unwrap();
    // Those that made it trip, five at most, and those that were tried: each pause one attempt of four.
    assert!(during[&DeliveryState::Dead] <= 12, "{during:?}");
    assert!(during[&DeliveryState::Held] > 300, "{during:?}");

    // The cause is gone.
    let mut seconds = 0;
    let done = tokio::time::timeout(PATIENCE, async {
        loop {
            house.pass(STEP).await;
            seconds += STEP;
            let states = house.store.states().await.unwrap();
            let (done, dead) = (states[&DeliveryState::Done], states[&DeliveryState::Dead]);
            if done + dead == events as u64 {
                return (done, dead);
            }
        }
    });
    let (done, dead) = done.await.expect("everything is finished");
    assert_eq!(dead, during[&DeliveryState::Dead], "nothing more was given up");
    assert_eq!(done + dead, house.store.stats().await.unwrap().made);
    assert_eq!(house.breaker(), BreakerState::Closed);
    eprintln!("{done} done, {dead} given up, {} pauses; well again {seconds} s after the hour", trip.pauses);
    stop.send_replace(true);
    running.await.unwrap();
}
