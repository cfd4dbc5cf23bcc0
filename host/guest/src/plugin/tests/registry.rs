//! Tests the registry over a real store: plugins arrive, change, break, leave and return.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use posthouse_database::Databases;
use posthouse_egress::Egress;
use posthouse_model::{
    config::Http,
    testing::{Constant, MachineClock, ManualClock},
};
use posthouse_store::{Store, testing::options};

use super::*;

use crate::plugin::{Health, PluginConfig, PluginError, Registry};

/// A folder with its registry.
pub(super) struct Fixture {
    pub(super) bench: Bench,
    store: Store,
    folder: PathBuf,
    pub(super) registry: Registry,
}

impl Fixture {
    pub(super) async fn new(clock: impl Clock + 'static) -> Self {
        Self::with(clock, Self::tables()).await
    }

    /// With these tables of config.toml.
    pub(super) async fn with(clock: impl Clock + 'static, config: Arc<dyn PluginConfig>) -> Self {
        let bench = Bench::new(4);
        let env = Env::new(clock, Constant(7));
        let store = Store::open(options(&bench.dir.path().join("store.db")), env.clone()).unwrap();
        let folder = bench.dir.path().join("plugins");
        fs::create_dir(&folder).unwrap();
        let registry = Self::configured(&bench, &store, &folder, env, config).await;
        Self { bench, store, folder, registry }
    }

    fn tables() -> Arc<dyn PluginConfig> {
        Arc::new(|name: &str| match name {
            "told" => PluginSettings { events: Some(vec![Pattern::new("session.*").unwrap()]), ..settings() },
            _ => settings(),
        })
    }

    async fn registry(bench: &Bench, store: &Store, folder: &Path, env: Env) -> Registry {
        Self::configured(bench, store, folder, env, Self::tables()).await
    }

    async fn configured(
        bench: &Bench,
        store: &Store,
        folder: &Path,
        env: Env,
        config: Arc<dyn PluginConfig>,
    ) -> Registry {
        let egress = Egress::new(&Http::default(), still()).unwrap();
        Registry::new(
            bench.engine.clone(),
            store.clone(),
            Databases::default(),
            egress,
            folder.to_owned(),
            config,
            env,
        )
        .await
        .unwrap()
    }

    pub(super) fn put(&self, name: &str, wasm: &[u8]) {
        // As a deployment does it: the file is complete when it gets its name.
        let path = self.folder.join(format!("{name}.tmp"));
        fs::write(&path, wasm).unwrap();
        fs::rename(path, self.folder.join(format!("{name}.wasm"))).unwrap();
    }

    pub(super) fn remove(&self, name: &str) {
        fs::remove_file(self.folder.join(format!("{name}.wasm"))).unwrap();
    }

    pub(super) fn record(&self, name: &str) -> posthouse_store::PluginRecord {
        self.registry.by_name(name).expect("a plugin").record.clone()
    }

    pub(super) fn subscribers(&self, event_type: &str) -> usize {
        self.registry.subscribers(&EventType::new(event_type).unwrap()).len()
    }

    /// How many lines the plugin's attempts log, which shows the running revision.
    pub(super) async fn lines(&self, name: &str) -> usize {
        self.registry.by_name(name).unwrap().attempt(&job("user.created")).await.logs.len()
    }
}

#[tokio::test]
async fn a_revision_serves_until_another_loads() {
    let fixture = Fixture::new(ManualClock::epoch()).await;
    fixture.put("greet", &guest("(call $say)"));
    fixture.registry.scan().await;
    let first = fixture.record("greet");
    assert_eq!((first.held.clone(), fixture.lines("greet").await), (None, 1));
    assert_eq!((fixture.subscribers("user.created"), fixture.subscribers("session.ended")), (1, 0));

    fixture.put("greet", b"\0asm broken");
    fixture.registry.scan().await;
    let broken = fixture.record("greet");
    assert!(broken.last_error.unwrap().contains("it is not WebAssembly"));
    assert_eq!(
        (broken.held, broken.revision, fixture.lines("greet").await),
        (None, first.revision.clone(), 1)
    );

    fixture.put("greet", &guest("(call $say)"));
    fixture.registry.scan().await;
    assert_eq!(fixture.record("greet").last_error, None, "the file is again what runs");

    fixture.put("greet", &guest("(call $say) (call $say)"));
    let before = fixture.registry.by_name("greet").unwrap();
    fixture.registry.scan().await;
    assert_eq!(fixture.lines("greet").await, 2);
    assert_ne!(fixture.record("greet").revision, first.revision);
    assert_eq!(before.attempt(&job("user.created")).await.logs.len(), 1, "who holds the old one ends on it");
}

#[tokio::test]
async fn a_plugin_that_is_gone_keeps_its_subscription_and_its_id() {
    let fixture = Fixture::new(ManualClock::epoch()).await;
    fixture.put("greet", &guest("(call $say)"));
    fixture.registry.scan().await;
    let id = fixture.record("greet").id;
    assert!(matches!(fixture.registry.forget("greet").await, Err(PluginError::StillThere(..))));
    fixture.remove("greet");
    fixture.registry.scan().await;
    assert_eq!(fixture.record("greet").held, Some(HeldReason::Gone));
    assert_eq!(fixture.subscribers("user.created"), 1);
    let report = fixture.registry.get(id).unwrap().attempt(&job("user.created")).await;
    assert!(matches!(report.result, Err(crate::plugin::AttemptFailure::NotRun { .. })));

    let again = Fixture::registry(&fixture.bench, &fixture.store, &fixture.folder, still()).await;
    assert_eq!(again.subscribers(&EventType::new("user.created").unwrap()), [id], "a restart remembers it");

    fixture.put("greet", &guest("(call $say)"));
    fixture.registry.scan().await;
    assert_eq!((fixture.record("greet").held, fixture.record("greet").id), (None, id));

    fixture.remove("greet");
    fixture.registry.scan().await;
    fixture.registry.forget("greet").await.unwrap();
    assert!(fixture.registry.by_name("greet").is_none() && fixture.registry.get(id).is_none());
    assert!(matches!(fixture.registry.forget("greet").await, Err(PluginError::Unknown(_))));
}

#[tokio::test]
async fn a_pause_lies_over_every_other_reason() {
    let fixture = Fixture::new(ManualClock::epoch()).await;
    fixture.put("greet", &guest("(call $say)"));
    fixture.registry.scan().await;
    fixture.registry.pause("greet").await.unwrap();
    assert_eq!(fixture.record("greet").held, Some(HeldReason::Paused));
    fixture.put("greet", &guest("(call $say) (call $say)"));
    fixture.registry.scan().await;
    assert_eq!(fixture.record("greet").held, Some(HeldReason::Paused), "a new revision ends no pause");
    fixture.remove("greet");
    fixture.registry.scan().await;
    assert_eq!(fixture.record("greet").held, Some(HeldReason::Paused));
    fixture.registry.resume("greet").await.unwrap();
    assert_eq!(fixture.record("greet").held, Some(HeldReason::Gone));
    assert!(matches!(fixture.registry.pause("nobody").await, Err(PluginError::Unknown(_))));
}

#[tokio::test]
async fn a_plugin_is_held_until_it_is_granted_what_it_requires() {
    let fixture = Fixture::new(ManualClock::epoch()).await;
    // The manifest's list of capabilities has one element, at 120. It is zero, which means mail.
    fixture.put("greet", &module("", "(i32.store (i32.const 32) (i32.const 120)) (i32.store (i32.const 36) (i32.const 1)) (i32.const 16)"));
    fixture.registry.scan().await;
    let Some(HeldReason::LacksGrant(lines)) = fixture.record("greet").held else { panic!("it is held") };
    assert_eq!(
        lines,
        "add `mail = { from = [\"team@example.com\"], to = [\"*\"] }` below [plugin.greet.grants] in config.toml"
    );
    assert_eq!(fixture.subscribers("user.created"), 1);
}

#[tokio::test]
async fn config_toml_has_the_last_word_on_events() {
    let fixture = Fixture::new(ManualClock::epoch()).await;
    fixture.put("told", &guest(""));
    fixture.registry.scan().await;
    assert_eq!((fixture.subscribers("session.ended"), fixture.subscribers("user.created")), (1, 0));
    fixture.put("told", b"broken");
    let again = Fixture::registry(&fixture.bench, &fixture.store, &fixture.folder, still()).await;
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
    let fixture = Fixture::new(MachineClock).await;
    let whole = guest("(call $say)");
    let path = fixture.folder.join("greet.wasm");
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    fixture.registry.scan().await;
    assert!(fixture.registry.by_name("greet").is_none(), "it may still be growing");
    fs::write(&path, &whole).unwrap();
    fixture.registry.scan().await;
    assert_eq!((fixture.record("greet").held, fixture.record("greet").last_error), (None, None));
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    fixture.registry.scan().await;
    assert!(fixture.record("greet").last_error.is_some(), "it has rested for a second: this is what it is");
    assert_eq!(fixture.lines("greet").await, 1);
}

#[tokio::test]
async fn watching_finds_what_comes_and_goes() {
    let fixture = Fixture::new(MachineClock).await;
    let mut changes = fixture.registry.changes();
    let watched = fixture.registry.clone();
    let watching = tokio::spawn(async move { watched.watch(Duration::from_secs(3600)).await });
    let mut until = async |what: &str, reached: &dyn Fn() -> bool| {
        tokio::time::timeout(Duration::from_secs(60), changes.wait_for(|_| reached()))
            .await
            .expect(what)
            .unwrap();
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    fixture.put("greet", &guest("(call $say)"));
    until("it is loaded", &|| fixture.registry.by_name("greet").is_some()).await;
    fixture.remove("greet");
    until("it is gone", &|| !fixture.registry.by_name("greet").unwrap().serving()).await;
    fs::write(fixture.folder.join("odd.wasm"), b"odd").unwrap();
    until("it is broken, although no event said so", &|| fixture.registry.by_name("odd").is_some()).await;
    watching.abort();
}

#[tokio::test]
async fn a_file_that_takes_long_to_compile_keeps_no_other_waiting() {
    let fixture = Fixture::new(ManualClock::epoch()).await;
    let mut changes = fixture.registry.changes();
    // The compiler hangs on the slow file.
    fixture.bench.compiler_begins_with("grep -q stuck \"$2\" && exec sleep 600");
    fixture.put("slow", b"stuck");
    let watched = fixture.registry.clone();
    let watching = tokio::spawn(async move { watched.watch(Duration::from_secs(3600)).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    fixture.put("greet", &guest("(call $say)"));
    let loaded = changes.wait_for(|_| fixture.registry.by_name("greet").is_some());
    tokio::time::timeout(Duration::from_secs(60), loaded).await.expect("it is loaded").unwrap();
    assert!(fixture.registry.by_name("slow").is_none());
    watching.abort();
}

#[tokio::test]
async fn a_file_half_written_is_not_tried_over_and_over() {
    let fixture = Fixture::new(MachineClock).await;
    let counted = fixture.bench.dir.path().join("count");
    fixture.bench.compiler_begins_with(&format!("echo once >> {}", counted.display()));
    let whole = guest("");
    fs::write(fixture.folder.join("greet.wasm"), &whole[..whole.len() / 2]).unwrap();
    let mut changes = fixture.registry.changes();
    let watched = fixture.registry.clone();
    let watching = tokio::spawn(async move { watched.watch(Duration::from_secs(3600)).await });
    let broken = changes.wait_for(|_| fixture.registry.by_name("greet").is_some());
    tokio::time::timeout(Duration::from_secs(60), broken).await.expect("it is broken in the end").unwrap();
    assert!(!fixture.registry.by_name("greet").unwrap().serving());
    let tries = fs::read_to_string(&counted).unwrap().lines().count();
    assert!((2..=4).contains(&tries), "{tries} tries");
    watching.abort();
}

#[tokio::test]
async fn a_plugin_that_fails_again_and_again_is_paused_on_its_own_until_something_changes() {
    let fixture = Fixture::new(ManualClock::epoch()).await;
    let most = settings().breaker.failures;
    fixture.put("greet", &guest("(call $say)"));
    fixture.registry.scan().await;
    let next = std::cell::Cell::new(0);
    let record_health = async |health| {
        next.set(next.get() + 1);
        let plugin = fixture.registry.by_name("greet").unwrap();
        fixture.registry.record_health(&plugin, DeliveryId(next.get()), health).await;
    };
    let fail = async |times: u32| {
        for _ in 0..times {
            record_health(Health::Failed).await;
        }
    };
    let state = || fixture.registry.by_name("greet").unwrap().breaker();

    // Failures count in a row: a success ends the row, and an unknown result leaves it unchanged.
    fail(most - 1).await;
    record_health(Health::Well).await;
    fail(most - 1).await;
    record_health(Health::Unknown).await;
    assert_eq!(state(), BreakerState::Closed);
    let earlier = fixture.registry.by_name("greet").unwrap();
    // One delivery counts once.
    for _ in 0..2 * most {
        fixture.registry.record_health(&earlier, DeliveryId(next.get() - 1), Health::Failed).await;
    }
    assert_eq!(state(), BreakerState::Closed);
    fail(1).await;
    assert_eq!(state(), BreakerState::Open);
    let Some(HeldReason::Tripped(trip)) = fixture.record("greet").held else { panic!("it is held") };
    assert_eq!((trip.failures, trip.pauses), (most, 1));
    assert!(fixture.store.plugins().await.unwrap()[0].held.is_some(), "it is written down");
    // Another failure changes nothing.
    fixture.registry.record_health(&earlier, DeliveryId(-1), Health::Failed).await;
    assert_eq!(
        (state(), fixture.record("greet").held),
        (BreakerState::Open, Some(HeldReason::Tripped(trip)))
    );
    // A success of an attempt that began earlier closes the breaker, because it ended later.
    fixture.registry.record_health(&earlier, DeliveryId(-2), Health::Well).await;
    assert_eq!((state(), fixture.record("greet").held), (BreakerState::Closed, None));
    assert_eq!(fixture.registry.by_name("greet").unwrap().failures_in_a_row(), 0);
    fail(most).await;
    assert_eq!(state(), BreakerState::Closed, "after a false alarm it takes more");
    fail(most).await;
    assert_eq!(state(), BreakerState::Open);

    // An operator's pause takes precedence, and a resume ends both.
    fixture.registry.pause("greet").await.unwrap();
    assert_eq!((fixture.record("greet").held, state()), (Some(HeldReason::Paused), BreakerState::Open));
    assert_eq!(fixture.registry.by_name("greet").unwrap().trial(), None, "nothing is tried");
    fixture.registry.resume("greet").await.unwrap();
    assert_eq!((fixture.record("greet").held, state()), (None, BreakerState::Closed));

    // Another revision also closes it, and counts from zero.
    fail(most).await;
    assert_eq!(state(), BreakerState::Open);
    fixture.put("greet", &guest("(call $say) (call $say)"));
    fixture.registry.scan().await;
    assert_eq!((fixture.record("greet").held, state()), (None, BreakerState::Closed));
    fail(most - 1).await;
    assert_eq!(state(), BreakerState::Closed);
    fail(1).await;

    // A restart begins a trial at once, and its result opens or closes the breaker.
    let Fixture { bench, store, folder, registry } = fixture;
    drop(registry);
    let again = Fixture::registry(&bench, &store, &folder, still()).await;
    again.scan().await;
    let tried = again.by_name("greet").unwrap();
    assert!(tried.trial().is_some_and(|trial| trial.any) && !tried.serving(), "{:?}", tried.record);
    let failed = FailedTrial { untried: None, retried: true };
    assert!(again.trial_failed(&tried, failed).await);
    let open = again.by_name("greet").unwrap();
    assert_eq!((open.breaker(), open.trip().unwrap().pauses), (BreakerState::Open, 2));
    assert_eq!(open.trial().map(|trial| trial.any), Some(false), "what never ran need not wait");
    assert!(!again.trial_failed(&tried, failed).await, "it is history");
    again.begin_trials().await;
    assert_eq!(again.by_name("greet").unwrap().breaker(), BreakerState::Open, "its pause is not over");
    again.record_health(&open, DeliveryId(-4), Health::Well).await;
    assert_eq!(again.by_name("greet").unwrap().breaker(), BreakerState::Closed);
}
