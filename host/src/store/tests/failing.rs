//! Writes that fail: nothing is acknowledged that is not on the disk, and nothing is forgotten that was.

use rusqlite::ffi;

use super::support::*;
use crate::store::{StoreError, Verdict};

fn failure(code: i32) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
}

#[tokio::test]
async fn a_full_disk_refuses_what_came_and_the_next_is_taken_in() {
    let house = House::new();
    let shared = &house.store.0.shared;
    shared.inject(failure(ffi::SQLITE_FULL));
    let refused = house.store.accept(house.event("a"), Vec::new()).await;
    assert!(matches!(refused, Err(StoreError::Io(_))), "{refused:?}");
    assert_eq!(house.store.failure(), None);
    // Taken back whole: the same event is new.
    house.accept("a", &[]).await;
}

#[tokio::test]
async fn a_failed_sync_stops_the_writer_for_ever() {
    let house = House::new();
    house.accept("before", &[]).await;
    house.store.0.shared.inject(failure(ffi::SQLITE_IOERR_FSYNC));
    for id in ["a", "b"] {
        let refused = house.store.accept(house.event(id), Vec::new()).await;
        assert!(matches!(refused, Err(StoreError::Poisoned(_))), "{refused:?}");
    }
    assert!(house.store.failure().is_some());
    let found = house.crashed();
    let events =
        found.store.events(crate::store::EventFilter { limit: 10, ..Default::default() }).await.unwrap();
    assert_eq!(events.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["before"]);
}

#[tokio::test]
async fn an_attempt_that_met_a_full_disk_is_completed_later_and_not_run_again() {
    let house = House::new();
    let plugin = house.plugin("a").await;
    let mut lane = house.store.open_lane(plugin, 8).await.unwrap();
    house.accept("a", &[plugin]).await;
    let job = next(&mut lane).await;
    house.store.0.shared.inject(failure(ffi::SQLITE_FULL));
    house.finish(job, Verdict::Done(effects(&[("n", set("1"))]))).await;
    let patience = tokio::time::Instant::now() + PATIENCE;
    while house.states().await != ["done"] {
        assert!(tokio::time::Instant::now() < patience, "the completion must come through");
        tokio::time::sleep(MOMENT).await;
    }
    assert_quiet(&mut lane).await;
    assert_eq!(house.store.kv_get(plugin, "n").unwrap().unwrap().0, b"1");
}
