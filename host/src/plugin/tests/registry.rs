//! The registry: plugins come, change, break, go and return, over a real store.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use super::*;
use crate::{
    config::Http,
    database::Databases,
    egress::Egress,
    plugin::{Health, PluginError, Registry},
    store::{Store, StoreOptions},
};

/// The clock of the machine: what makes a file young.
pub(super) struct Wall;

impl Clock for Wall {
    #[allow(clippy::disallowed_methods, reason = "a test of what the time of the machine decides")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A folder with a registry of it.
pub(super) struct House {
    pub(super) bench: Bench,
    store: Store,
    folder: PathBuf,
    pub(super) registry: Registry,
}

impl House {
    pub(super) async fn new(clock: impl Clock + 'static) -> Self {
        let bench = Bench::new(4);
        let ambient = Ambient::new(clock, Still);
        let options = StoreOptions {
            path: bench.dir.path().join("store.db"),
            retention: Duration::from_secs(3600),
            max_backlog: 1000,
            min_free: 0,
            max_size: None,
        };
        let store = Store::open(options, ambient.clone()).unwrap();
        let folder = bench.dir.path().join("plugins");
        fs::create_dir(&folder).unwrap();
        let registry = Self::registry(&bench, &store, &folder, ambient).await;
        Self { bench, store, folder, registry }
    }

    async fn registry(bench: &Bench, store: &Store, folder: &Path, ambient: Ambient) -> Registry {
        let settings = Arc::new(|name: &str| match name {
            "told" => PluginSettings { events: Some(vec![Pattern::new("session.*").unwrap()]), ..settings() },
            _ => settings(),
        });
        let egress = Egress::new(&Http::default(), Ambient::new(Still, Still)).unwrap();
        Registry::new(
            bench.engine.clone(),
            store.clone(),
            Databases::default(),
            egress,
            folder.to_owned(),
            settings,
            ambient,
        )
        .await
        .unwrap()
    }

    pub(super) fn put(&self, name: &str, wasm: &[u8]) {
        // As a deployment does it: the file is whole when it gets its name.
        let path = self.folder.join(format!("{name}.tmp"));
        fs::write(&path, wasm).unwrap();
        fs::rename(path, self.folder.join(format!("{name}.wasm"))).unwrap();
    }

    pub(super) fn remove(&self, name: &str) {
        fs::remove_file(self.folder.join(format!("{name}.wasm"))).unwrap();
    }

    fn record(&self, name: &str) -> crate::store::PluginRecord {
        self.registry.by_name(name).expect("a plugin").record.clone()
    }

    fn subscribers(&self, event_type: &str) -> usize {
        self.registry.subscribers(&EventType::new(event_type).unwrap()).len()
    }

    /// Whether the plugin's attempts log so many lines: which revision runs.
    async fn lines(&self, name: &str) -> usize {
        self.registry.by_name(name).unwrap().attempt(&job("user.created")).await.logs.len()
    }
}

#[tokio::test]
async fn a_revision_serves_until_another_loads() {
    let house = House::new(Still).await;
    house.put("greet", &guest("(call $say)"));
    house.registry.scan().await;
    let first = house.record("greet");
    assert_eq!((first.held.clone(), house.lines("greet").await), (None, 1));
    assert_eq!((house.subscribers("user.created"), house.subscribers("session.ended")), (1, 0));

    house.put("greet", b"\0asm broken");
    house.registry.scan().await;
    let broken = house.record("greet");
    assert!(broken.last_error.unwrap().contains("it is not WebAssembly"));
    assert_eq!((broken.held, broken.revision, house.lines("greet").await), (None, first.revision.clone(), 1));

    house.put("greet", &guest("(call $say)"));
    house.registry.scan().await;
    assert_eq!(house.record("greet").last_error, None, "the file is again what runs");

    house.put("greet", &guest("(call $say) (call $say)"));
    let before = house.registry.by_name("greet").unwrap();
    house.registry.scan().await;
    assert_eq!(house.lines("greet").await, 2);
    assert_ne!(house.record("greet").revision, first.revision);
    assert_eq!(before.attempt(&job("user.created")).await.logs.len(), 1, "who holds the old one ends on it");
}

#[tokio::test]
async fn a_plugin_that_is_gone_keeps_its_subscription_and_its_id() {
    let house = House::new(Still).await;
    house.put("greet", &guest("(call $say)"));
    house.registry.scan().await;
    let id = house.record("greet").id;
    assert!(matches!(house.registry.forget("greet").await, Err(PluginError::StillThere(_))));
    house.remove("greet");
    house.registry.scan().await;
    assert_eq!(house.record("greet").held, Some(HeldReason::Gone));
    assert_eq!(house.subscribers("user.created"), 1);
    let report = house.registry.get(id).unwrap().attempt(&job("user.created")).await;
    assert!(matches!(report.result, Err(crate::plugin::AttemptFailure::NotRun { .. })));

    let again = House::registry(&house.bench, &house.store, &house.folder, Ambient::new(Still, Still)).await;
    assert_eq!(again.subscribers(&EventType::new("user.created").unwrap()), [id], "a restart remembers it");

    house.put("greet", &guest("(call $say)"));
    house.registry.scan().await;
    assert_eq!((house.record("greet").held, house.record("greet").id), (None, id));

    house.remove("greet");
    house.registry.scan().await;
    house.registry.forget("greet").await.unwrap();
    assert!(house.registry.by_name("greet").is_none() && house.registry.get(id).is_none());
    assert!(matches!(house.registry.forget("greet").await, Err(PluginError::Unknown(_))));
}

#[tokio::test]
async fn a_pause_lies_over_every_other_reason() {
    let house = House::new(Still).await;
    house.put("greet", &guest("(call $say)"));
    house.registry.scan().await;
    house.registry.pause("greet").await.unwrap();
    assert_eq!(house.record("greet").held, Some(HeldReason::Paused));
    house.put("greet", &guest("(call $say) (call $say)"));
    house.registry.scan().await;
    assert_eq!(house.record("greet").held, Some(HeldReason::Paused), "a new revision ends no pause");
    house.remove("greet");
    house.registry.scan().await;
    assert_eq!(house.record("greet").held, Some(HeldReason::Paused));
    house.registry.resume("greet").await.unwrap();
    assert_eq!(house.record("greet").held, Some(HeldReason::Gone));
    assert!(matches!(house.registry.pause("nobody").await, Err(PluginError::Unknown(_))));
}

#[tokio::test]
async fn a_plugin_is_held_until_it_is_granted_what_it_requires() {
    let house = House::new(Still).await;
    // The manifest's list of capabilities: one, at 120, which is zero: mail.
    house.put("greet", &module("", "(i32.store (i32.const 32) (i32.const 120)) (i32.store (i32.const 36) (i32.const 1)) (i32.const 16)"));
    house.registry.scan().await;
    let Some(HeldReason::LacksGrant(lines)) = house.record("greet").held else { panic!("it is held") };
    assert_eq!(
        lines,
        "add `mail = { from = [\"team@example.com\"], to = [\"*\"] }` below [plugin.greet.grants] in config.toml"
    );
    assert_eq!(house.subscribers("user.created"), 1);
}

#[tokio::test]
async fn config_toml_has_the_last_word_on_events() {
    let house = House::new(Still).await;
    house.put("told", &guest(""));
    house.registry.scan().await;
    assert_eq!((house.subscribers("session.ended"), house.subscribers("user.created")), (1, 0));
    house.put("told", b"broken");
    let again = House::registry(&house.bench, &house.store, &house.folder, Ambient::new(Still, Still)).await;
    again.scan().await;
    assert!(matches!(again.by_name("told").unwrap().record.held, Some(HeldReason::Broken(_))));
    assert_eq!(
        again.subscribers(&EventType::new("session.ended").unwrap()).len(),
        1,
        "broken, yet subscribed"
    );
}

#[tokio::test]
async fn a_file_half_written_is_no_error_yet() {
    let house = House::new(Wall).await;
    let whole = guest("(call $say)");
    let path = house.folder.join("greet.wasm");
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    house.registry.scan().await;
    assert!(house.registry.by_name("greet").is_none(), "it may still be growing");
    fs::write(&path, &whole).unwrap();
    house.registry.scan().await;
    assert_eq!((house.record("greet").held, house.record("greet").last_error), (None, None));
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    house.registry.scan().await;
    assert!(house.record("greet").last_error.is_some(), "it has rested for a second: this is what it is");
    assert_eq!(house.lines("greet").await, 1);
}

#[tokio::test]
async fn watching_finds_what_comes_and_goes() {
    let house = House::new(Wall).await;
    let mut changes = house.registry.changes();
    let watched = house.registry.clone();
    let watching = tokio::spawn(async move { watched.watch(Duration::from_secs(3600)).await });
    let mut until = async |what: &str, reached: &dyn Fn() -> bool| {
        tokio::time::timeout(Duration::from_secs(60), changes.wait_for(|_| reached()))
            .await
            .expect(what)
            .unwrap();
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    house.put("greet", &guest("(call $say)"));
    until("it is loaded", &|| house.registry.by_name("greet").is_some()).await;
    house.remove("greet");
    until("it is gone", &|| !house.registry.by_name("greet").unwrap().serving()).await;
    fs::write(house.folder.join("odd.wasm"), b"odd").unwrap();
    until("it is broken, though no event told so", &|| house.registry.by_name("odd").is_some()).await;
    watching.abort();
}

#[tokio::test]
async fn a_file_that_takes_long_to_compile_keeps_no_other_waiting() {
    let house = House::new(Still).await;
    let mut changes = house.registry.changes();
    // A compiler that never ends with the slow one.
    house.bench.compiler_begins_with("grep -q stuck \"$2\" && exec sleep 600");
    house.put("slow", b"stuck");
    let watched = house.registry.clone();
    let watching = tokio::spawn(async move { watched.watch(Duration::from_secs(3600)).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    house.put("greet", &guest("(call $say)"));
    let loaded = changes.wait_for(|_| house.registry.by_name("greet").is_some());
    tokio::time::timeout(Duration::from_secs(60), loaded).await.expect("it is loaded").unwrap();
    assert!(house.registry.by_name("slow").is_none());
    watching.abort();
}

#[tokio::test]
async fn a_file_half_written_is_not_tried_over_and_over() {
    let house = House::new(Wall).await;
    let counted = house.bench.dir.path().join("count");
    house.bench.compiler_begins_with(&format!("echo once >> {}", counted.display()));
    let whole = guest("");
    fs::write(house.folder.join("greet.wasm"), &whole[..whole.len() / 2]).unwrap();
    let mut changes = house.registry.changes();
    let watched = house.registry.clone();
    let watching = tokio::spawn(async move { watched.watch(Duration::from_secs(3600)).await });
    let broken = changes.wait_for(|_| house.registry.by_name("greet").is_some());
    tokio::time::timeout(Duration::from_secs(60), broken).await.expect("it is broken in the end").unwrap();
    assert!(!house.registry.by_name("greet").unwrap().serving());
    let tries = fs::read_to_string(&counted).unwrap().lines().count();
    assert!((2..=4).contains(&tries), "{tries} tries");
    watching.abort();
}

#[tokio::test]
async fn a_plugin_that_fails_again_and_again_is_paused_on_its_own_until_something_changes() {
    let house = House::new(Still).await;
    let most = settings().breaker.failures;
    house.put("greet", &guest("(call $say)"));
    house.registry.scan().await;
    let next = std::cell::Cell::new(0);
    let heed = async |health| {
        next.set(next.get() + 1);
        let plugin = house.registry.by_name("greet").unwrap();
        house.registry.heed(&plugin, DeliveryId(next.get()), health).await;
    };
    let fail = async |times: u32| {
        for _ in 0..times {
            heed(Health::Failed).await;
        }
    };
    let state = || house.registry.by_name("greet").unwrap().breaker();

    // In a row: what succeeds ends it, and what says nothing leaves it as it is.
    fail(most - 1).await;
    heed(Health::Well).await;
    fail(most - 1).await;
    heed(Health::Unknown).await;
    assert_eq!(state(), BreakerState::Closed);
    let earlier = house.registry.by_name("greet").unwrap();
    // One delivery counts once.
    for _ in 0..2 * most {
        house.registry.heed(&earlier, DeliveryId(next.get() - 1), Health::Failed).await;
    }
    assert_eq!(state(), BreakerState::Closed);
    fail(1).await;
    assert_eq!(state(), BreakerState::Open);
    let Some(HeldReason::Tripped(trip)) = house.record("greet").held else { panic!("it is held") };
    assert_eq!((trip.failures, trip.pauses), (most, 1));
    assert!(house.store.plugins().await.unwrap()[0].held.is_some(), "it is written down");
    // Another failure says nothing new.
    house.registry.heed(&earlier, DeliveryId(-1), Health::Failed).await;
    assert_eq!((state(), house.record("greet").held), (BreakerState::Open, Some(HeldReason::Tripped(trip))));
    // A success of an attempt that began before does: it ended after.
    house.registry.heed(&earlier, DeliveryId(-2), Health::Well).await;
    assert_eq!((state(), house.record("greet").held), (BreakerState::Closed, None));
    assert_eq!(house.registry.by_name("greet").unwrap().failures_in_a_row(), 0);
    fail(most).await;
    assert_eq!(state(), BreakerState::Closed, "after a false alarm it takes more");
    fail(most).await;
    assert_eq!(state(), BreakerState::Open);

    // An operator's pause lies over it, and a resume ends both.
    house.registry.pause("greet").await.unwrap();
    assert_eq!((house.record("greet").held, state()), (Some(HeldReason::Paused), BreakerState::Open));
    assert_eq!(house.registry.by_name("greet").unwrap().trial(), None, "nothing is tried");
    house.registry.resume("greet").await.unwrap();
    assert_eq!((house.record("greet").held, state()), (None, BreakerState::Closed));

    // So does another revision, which starts to count from nothing.
    fail(most).await;
    assert_eq!(state(), BreakerState::Open);
    house.put("greet", &guest("(call $say) (call $say)"));
    house.registry.scan().await;
    assert_eq!((house.record("greet").held, state()), (None, BreakerState::Closed));
    fail(most - 1).await;
    assert_eq!(state(), BreakerState::Closed);
    fail(1).await;

    // A start has a trial at once, and what comes of that turns the breaker.
    let House { bench, store, folder, registry } = house;
    drop(registry);
    let again = House::registry(&bench, &store, &folder, Ambient::new(Still, Still)).await;
    again.scan().await;
    let tried = again.by_name("greet").unwrap();
    assert!(tried.trial().is_some_and(|trial| trial.any) && !tried.serving(), "{:?}", tried.record);
    let vain = Vain { untried: None, retried: true };
    assert!(again.trial_failed(&tried, vain).await);
    let open = again.by_name("greet").unwrap();
    assert_eq!((open.breaker(), open.trip().unwrap().pauses), (BreakerState::Open, 2));
    assert_eq!(open.trial().map(|trial| trial.any), Some(false), "what never ran need not wait");
    assert!(!again.trial_failed(&tried, vain).await, "it is history");
    again.begin_trials().await;
    assert_eq!(again.by_name("greet").unwrap().breaker(), BreakerState::Open, "its pause is not over");
    again.heed(&open, DeliveryId(-4), Health::Well).await;
    assert_eq!(again.by_name("greet").unwrap().breaker(), BreakerState::Closed);
}
