//! Tests that this version opens a store of every schema version, keeps its contents, and runs its deliveries.
//!
//! `tests/data/stores/` has a dump for each version. All tell the same story, and each adds the records
//! that are new in its version. A dump is never edited once its version is released, because it is the record of
//! what stores of that version contain.

use std::{collections::BTreeSet, fs, path::PathBuf};

use posthouse_model::{DecisionState, DeliveryState, EventOrigin, EventType, OutboxKind, Outcome, SecondKey};
use rusqlite::Connection;

use crate::{
    Accepted, AuditFilter, DecisionFilter, DeliveryFilter, EventFilter, Offer, OutboxFilter, OutboxSlots,
    conformance::support::*, sqlite::schema::latest,
};

use DeliveryState::{Dead, Done, Held, Ready, Waiting};

/// The id of the first delivery.
const FIRST: i64 = 5 << 30;

/// The first version that knows of events that no webhook brought.
const CATCH_UP: i64 = 13;

/// The first version that knows of decisions.
const DECISIONS: i64 = 15;

/// The deliveries in the order of their ids: since which version, the event, the plugin, the state once the store is
/// open, the attempts.
const DELIVERIES: [(i64, &str, &str, DeliveryState, u32); 14] = [
    (1, "evt_done", "counter", Done, 2),
    (1, "evt_ready", "counter", Ready, 0),
    (1, "evt_ready", "mailer", Held, 0),
    (1, "evt_leased", "counter", Ready, 0),
    (1, "evt_waiting", "counter", Waiting, 1),
    (1, "evt_dead", "counter", Dead, 1),
    (1, "evt_done", "counter", Done, 1),
    (1, "evt_unwanted", "departed", Held, 0),
    (4, "dlv_5368709120.1", "counter", Ready, 0),
    (7, "evt_first", "counter", Waiting, 1),
    (7, "evt_second", "counter", Waiting, 0),
    (9, "evt_replayed", "counter", Dead, 1),
    (9, "evt_replayed", "counter", Waiting, 0),
    (10, "evt_traced", "counter", Ready, 0),
];

/// The items of the outbox in the order of their ids: since which version, the kind, the end of the summary, the state
/// once the store is open, the attempts.
const ITEMS: [(i64, &str, &str, &str, u32); 9] = [
    (1, "mail", "ready", "ready", 0),
    (1, "mail", "leased", "ready", 0),
    (1, "mail", "waiting", "waiting", 1),
    (1, "mail", "sent", "sent", 1),
    (1, "mail", "dead", "dead", 33),
    (6, "request", "/ready", "ready", 0),
    (6, "request", "/dead", "dead", 33),
    (8, "mail", "of another plugin", "ready", 0),
    (10, "mail", "traced", "ready", 0),
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/stores")
}

/// A store of this version, opened by this one at the time of its last event.
fn of_version(version: i64) -> Fixture {
    let dump = fs::read_to_string(folder().join(format!("schema_{version:02}.sql"))).unwrap();
    Fixture::with(On::Sqlite, |options| {
        fs::create_dir_all(options.path.parent().unwrap()).unwrap();
        Connection::open(&options.path).unwrap().execute_batch(&dump).unwrap();
    })
}

#[test]
fn every_version_of_the_schema_has_a_dump() {
    let files: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    let expected: BTreeSet<String> =
        (1..=latest()).map(|version| format!("schema_{version:02}.sql")).collect();
    assert_eq!(files, expected, "there is one dump for each version of the schema");
    for version in 1..=latest() {
        let connection = Connection::open_in_memory().unwrap();
        let dump = fs::read_to_string(folder().join(format!("schema_{version:02}.sql"))).unwrap();
        connection.execute_batch(&dump).unwrap();
        let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(found, version);
    }
}

#[tokio::test]
async fn a_store_of_any_version_shows_everything_that_it_held() {
    for version in 1..=latest() {
        println!("version {version}");
        let fixture = of_version(version);
        shows_events_and_deliveries(&fixture, version).await;
        shows_the_attempts(&fixture, version).await;
        shows_the_rest(&fixture, version).await;
        fixture.assert_balanced().await;
    }
}

async fn shows_events_and_deliveries(fixture: &Fixture, version: i64) {
    let events: Vec<_> = DELIVERIES.iter().filter(|row| row.0 <= version).map(|row| row.1).collect();
    let found = fixture.store.events(EventFilter::default()).await.unwrap();
    let ids: BTreeSet<_> = found.iter().map(|event| event.id.as_str()).collect();
    assert_eq!(ids, events.iter().copied().collect());
    assert_eq!(ids.len(), found.len(), "each once");
    for event in &found {
        let detail = fixture.store.event(None, &event.id).await.unwrap().remove(0);
        let body: serde_json::Value = serde_json::from_str(&detail.body).unwrap();
        assert_eq!((body["id"].as_str(), body["data"]["n"].as_i64()), (Some(event.id.as_str()), Some(1)));
        assert_eq!(detail.trace.is_some(), event.id == "evt_traced");
        let origin = match (&*event.id, event.source.as_str()) {
            ("evt_unwanted", _) if version >= CATCH_UP => EventOrigin::CatchUp,
            (_, "scalekit") => EventOrigin::Webhook,
            _ => EventOrigin::Derived,
        };
        assert_eq!(event.origin, origin, "{}", event.id);
        let kept = (detail.content_type.as_deref(), detail.headers);
        let expected = match event.id.as_str() {
            "evt_ready" if version >= 14 => {
                (Some("application/json"), vec![("x-request-id".to_owned(), "req_1".to_owned())])
            }
            "evt_leased" if version >= 14 => (Some("application/x-www-form-urlencoded"), Vec::new()),
            _ => (None, Vec::new()),
        };
        assert_eq!(kept, expected, "{}", event.id);
    }
    let found = fixture.store.deliveries(DeliveryFilter::default()).await.unwrap();
    let found: Vec<_> = found
        .iter()
        .rev()
        .map(|row| (row.id.0, row.event.as_str(), row.plugin.as_str(), row.state, row.attempts))
        .collect();
    let expected = DELIVERIES.iter().filter(|row| row.0 <= version);
    let expected: Vec<_> =
        (FIRST..).zip(expected).map(|(id, row)| (id, row.1, row.2, row.3, row.4)).collect();
    assert_eq!(found, expected);
}

async fn shows_the_attempts(fixture: &Fixture, version: i64) {
    let history = fixture.store.event(None, "evt_done").await.unwrap().remove(0).history;
    assert_eq!(history[1].summary.replay_of, Some(history[0].summary.id));
    let [failed, done] = &history[0].attempt_log[..] else { panic!("{history:?}") };
    assert_eq!((failed.number, failed.outcome, failed.duration_us), (1, Outcome::Retry, 25));
    assert_eq!(failed.error.as_deref(), Some("the guest trapped: unreachable"));
    assert_eq!(failed.trace.as_deref(), Some("counter.wasm!handle"));
    assert_eq!((done.number, done.outcome, &done.error), (2, Outcome::Done, &None));
    assert_eq!(done.logs[0].message, "counted it");
    assert_eq!(done.revision.as_deref(), (version >= 2).then_some("0123456789ab"));
    let did: &[&str] = if version >= 11 { &["add count", "add seen/evt_done"] } else { &[] };
    assert_eq!(done.actions, did);
}

async fn shows_the_rest(fixture: &Fixture, version: i64) {
    let store = &fixture.store;
    let plugins = store.plugins().await.unwrap();
    let told: Vec<_> = plugins
        .iter()
        .map(|plugin| (plugin.name.as_str(), plugin.held.as_ref().map(|held| held.word()), plugin.paused))
        .collect();
    let failing = ("failing", Some("tripped"), false);
    let mut expected =
        vec![("counter", None, false), ("departed", Some("gone"), false), ("mailer", Some("paused"), true)];
    expected.splice(2..2, (version >= 9).then_some(failing));
    assert_eq!(told, expected);

    let counter = plugins[0].id;
    for (plugin, key, value) in
        [(0, "count", "2"), (0, "seen/evt_done", "2"), (1, "profile/ada", r#"{"name":"Ada"}"#)]
    {
        let found = store.kv_get(plugins[plugin].id, key).await.unwrap();
        assert_eq!(found.unwrap().0, value.as_bytes(), "{key}");
    }
    assert_eq!((store.kv_bytes(counter), store.kv_bytes(plugins[1].id)), (20, 25));
    assert_eq!(store.kv_list(counter, "", None, 9).await.unwrap().len(), 2);

    let found = store.outbox(OutboxFilter::default()).await.unwrap();
    let expected: Vec<_> = ITEMS.iter().filter(|row| row.0 <= version).collect();
    assert_eq!(found.len(), expected.len());
    for (item, (_, kind, summary, state, attempts)) in found.iter().rev().zip(expected) {
        assert_eq!(
            (item.head.kind(), item.state.as_str(), item.attempts),
            (*kind, *state, *attempts),
            "{item:?}"
        );
        assert!(item.head.summary().ends_with(summary), "{item:?}");
    }

    let audit = store.audit(AuditFilter::default()).await.unwrap();
    let audit: Vec<_> =
        audit.iter().map(|entry| (&*entry.action, &*entry.target, entry.outcome.as_deref())).collect();
    let expected = [("replay", "evt_done", None), ("pause plugin", "mailer", Some("paused"))];
    assert_eq!(audit, expected[..if version >= 5 { 2 } else { 0 }]);

    let revisions = store.revisions(counter).await.unwrap();
    let endings: Vec<_> = revisions.iter().map(|revision| revision.ending.as_deref()).collect();
    assert_eq!(endings, [None, Some("replaced")][..if version >= 11 { 2 } else { 1 }]);
    assert_eq!(revisions[0].sha256, "0123456789abcdef".repeat(4));

    let state = store.catch_up_state(&fixture.event("any").source).await.unwrap();
    let missing: Vec<_> = state.missing.iter().map(|event| event.id.as_str()).collect();
    let at = |second| Some(jiff::Timestamp::from_second(second).unwrap());
    if version >= CATCH_UP {
        assert_eq!(missing, ["evt_missed_1", "evt_missed_2"]);
        assert_eq!((state.removed_to, state.compared_to), (at(1_767_225_590), at(1_767_225_600)));
    } else {
        assert!(missing.is_empty() && state.compared_to.is_none());
        // What the versions before had removed is not known: all of it was received before the newest event.
        let newest = store.last_events().await.unwrap().into_iter().find(|last| last.source == "scalekit");
        assert_eq!(state.removed_to, newest.map(|last| last.received_at));
    }

    let decisions = store.decisions(DecisionFilter { limit: 9, ..DecisionFilter::default() }).await.unwrap();
    let decisions: Vec<_> =
        decisions.iter().map(|row| (row.request.as_str(), row.state, row.allows, row.late)).collect();
    let expected = [
        ("req_open", DecisionState::Running, None, false),
        ("req_trapped", DecisionState::Fallback, None, false),
        ("req_allowed", DecisionState::Decided, Some(true), true),
    ];
    assert_eq!(decisions, expected[..if version >= DECISIONS { 3 } else { 0 }]);
    let open = store.open_decisions().await.unwrap();
    assert_eq!(open.len(), usize::from(version >= DECISIONS));

    let stats = store.stats().await.unwrap();
    let created = stats.by_type.iter().find(|row| row.event_type == "user.created").unwrap();
    assert_eq!(created.completed, 2);
    assert!(created.p99_ms.is_some_and(|p99| p99 < 0.02), "{created:?}");
    let series = store.series(std::time::Duration::from_secs(600), 10).await.unwrap();
    let counted: u64 = series.iter().map(|point| point.made).sum();
    assert_eq!(counted, if version >= 5 { stats.made } else { 0 });
    let sources: Vec<_> =
        store.last_events().await.unwrap().into_iter().map(|last| (last.source, last.id.is_some())).collect();
    let expected = [("plugin:counter".to_owned(), true), ("scalekit".to_owned(), true)];
    assert_eq!(sources, expected[..if version >= 5 { 2 } else { 0 }]);
}

#[tokio::test]
async fn a_store_of_any_version_runs_on_and_everything_runs_once() {
    for version in 1..=latest() {
        println!("version {version}");
        let fixture = of_version(version);
        fixture.clock.advance(std::time::Duration::from_secs(60));
        let counter = fixture.plugin("counter").await;
        let mut lane = fixture.store.open_lane(counter, 16).await.unwrap();
        let mut due: Vec<_> = DELIVERIES
            .iter()
            .filter(|row| row.0 <= version && row.2 == "counter" && matches!(row.3, Ready | Waiting))
            .map(|row| row.1.to_owned())
            .collect();
        let mut ran = Vec::new();
        for _ in 0..due.len() {
            let job = next(&mut lane).await;
            let event = job.event.content.id.to_string();
            // The versions before 3 did not record whether a delivery had run.
            let certain = version >= 3 && !matches!(&*event, "evt_leased" | "evt_waiting" | "evt_first");
            assert_eq!(job.may_have_run, !certain, "{event}");
            let original = job.event.content.request.original.as_deref();
            assert_eq!(original, (version >= 14 && event == "evt_leased").then_some(&b"n=1"[..]), "{event}");
            ran.push(event);
            fixture.done(job, effects(&[])).await;
        }
        assert_quiet(&mut lane).await;
        let place = |event: &str| ran.iter().position(|ran| ran == event);
        assert!(place("evt_first") <= place("evt_second"), "{ran:?}");
        ran.sort();
        due.sort();
        assert_eq!(ran, due);

        // A dead letter that was not replayed can be replayed.
        let dead = DeliveryFilter { state: Some(Dead), ..DeliveryFilter::default() };
        assert_eq!(fixture.store.replay_deliveries(dead, Default::default()).await.unwrap(), 1);
        let job = next(&mut lane).await;
        assert_eq!(job.event.content.id.as_str(), "evt_dead");
        fixture.done(job, effects(&[])).await;

        // A new event has numbers that nothing else has, and one that was seen is a duplicate.
        fixture.accept("evt_new", &[counter]).await;
        let job = next(&mut lane).await;
        assert_eq!(job.event.content.event_type, EventType::new("user.created").unwrap());
        fixture.done(job, effects(&[("count", set("9"))])).await;
        assert_eq!(fixture.store.kv_get(counter, "count").await.unwrap().unwrap().0, b"9");
        let seen = fixture.store.accept(fixture.event("evt_done"), vec![counter]).await.unwrap();
        assert_eq!(seen, Accepted::Duplicate);
        if version >= 12 {
            let second = Some(SecondKey::of("signed", &[b"evt_done"]));
            let offer = Offer {
                event: fixture.event("evt_other"),
                second,
                subscribers: vec![counter.into()],
                origin: EventOrigin::Webhook,
            };
            let seen = fixture.store.accept_all(vec![offer], None).await.unwrap();
            assert_eq!(seen, [Accepted::Duplicate]);
        }

        for kind in OutboxKind::ALL {
            let mut due: Vec<_> = ITEMS
                .iter()
                .filter(|row| {
                    row.0 <= version && row.1 == kind.as_str() && matches!(row.3, "ready" | "waiting")
                })
                .map(|row| (row.2, row.4 + 1))
                .collect();
            if due.is_empty() {
                continue;
            }
            let places = OutboxSlots { at_once: 99, kept: false };
            let leased = tokio::time::timeout(TIMEOUT, fixture.store.lease_outbox(kind, places))
                .await
                .unwrap()
                .unwrap();
            assert_eq!(leased.len(), due.len());
            for job in leased {
                let summary = job.item.head().summary();
                let at =
                    due.iter().position(|(end, attempt)| summary.ends_with(end) && job.attempt == *attempt);
                due.swap_remove(at.unwrap_or_else(|| panic!("{summary}, attempt {}", job.attempt)));
                assert_eq!(job.trace.is_some(), summary.ends_with("traced"));
                fixture.store.complete_outbox(&job, crate::OutboxResult::Sent).await.unwrap();
            }
        }
        drop(lane);
        fixture.assert_balanced().await;
        fixture.reopened().await.assert_balanced().await;
    }
}

/// The tables and indexes of a file, as SQLite keeps them.
fn schema(fixture: &Fixture) -> Vec<(String, Option<String>)> {
    let connection = Connection::open(&fixture.options.path).unwrap();
    let mut statement = connection.prepare("SELECT name, sql FROM sqlite_schema ORDER BY name").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.collect::<rusqlite::Result<_>>().unwrap()
}

#[tokio::test]
async fn a_store_of_any_version_becomes_like_a_new_one() {
    let new = schema(&Fixture::new(On::Sqlite));
    for version in 1..=latest() {
        let old = of_version(version);
        assert_eq!(schema(&old), new, "version {version}");
        let connection = Connection::open(&old.options.path).unwrap();
        let found: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(found, "ok", "version {version}");
        let vacuum: i64 = connection.query_row("PRAGMA auto_vacuum", [], |row| row.get(0)).unwrap();
        assert_eq!(vacuum, 2, "version {version}");
    }
}
