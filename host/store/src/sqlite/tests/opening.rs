//! Opening: one process at a time, files that only their owner may read, and no guessing about foreign files.

use std::{collections::HashSet, os::unix::fs::PermissionsExt};

use crate::conformance::support::*;
use crate::{OpenError, StoreError};

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    let fixture = Fixture::new(On::Sqlite);
    fixture.accept("one", &[]).await;
    assert_eq!(mode(fixture.options.path.parent().unwrap()), 0o700);
    for file in std::fs::read_dir(fixture.options.path.parent().unwrap()).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[tokio::test]
async fn a_second_process_is_refused_until_the_first_has_closed() {
    let fixture = Fixture::new(On::Sqlite);
    let refused = fixture.reopen().err().unwrap();
    assert!(matches!(&refused, OpenError::Locked(path) if *path == fixture.options.path), "{refused}");
    fixture.store.close().await.unwrap();
    assert_eq!(fixture.store.flush().await, Err(StoreError::Closed));
    assert!(fixture.store.stats().await.is_err());
    let store = fixture.reopen().unwrap();
    assert!(store.failure().is_none());
}

#[tokio::test]
async fn a_handle_that_is_dropped_commits_what_was_queued_and_gives_up_the_lock() {
    let fixture = Fixture::new(On::Sqlite);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 1).await.unwrap();
    fixture.accept("one", &[plugin]).await;
    let job = next(&mut lane).await;
    fixture.finish(job, crate::Verdict::Done(effects(&[("k", set("v"))]))).await;
    drop(lane);
    let Fixture { store, options, clock, disk: _disk, .. } = fixture;
    drop(store);
    let began = std::time::Instant::now();
    let store = loop {
        match open_at(&options, &clock) {
            Ok(store) => break store,
            Err(OpenError::Locked(_)) if began.elapsed() < TIMEOUT => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(store.kv_get(plugin, "k").await.unwrap().unwrap().0, b"v");
}

#[tokio::test]
async fn a_store_of_a_later_version_is_refused_with_the_way_out() {
    let fixture = Fixture::new(On::Sqlite);
    fixture.store.close().await.unwrap();
    raw(&fixture).pragma_update(None, "user_version", 99).unwrap();
    let refused = fixture.reopen().err().unwrap();
    assert!(matches!(refused, OpenError::Newer { found: 99, .. }), "{refused}");
    assert!(refused.to_string().contains("upgrade posthouse"), "{refused}");
}

#[tokio::test]
async fn another_programs_database_is_left_alone() {
    let fixture = Fixture::new(On::Sqlite);
    fixture.store.close().await.unwrap();
    raw(&fixture).pragma_update(None, "application_id", 7).unwrap();
    let refused = fixture.reopen().err().unwrap();
    assert!(refused.to_string().contains("another program's"), "{refused}");
}

#[test]
fn what_is_no_database_and_what_is_no_folder_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "this is no database, and long enough to be read as one".repeat(100)).unwrap();
    for path in [file.clone(), file.join("posthouse.db")] {
        let options = options(&path);
        let refused = open_at(&options, &clock()).err().unwrap();
        let OpenError::Unusable { path: named, .. } = &refused else { panic!("{refused}") };
        assert!(refused.to_string().contains(named.to_str().unwrap()));
        assert!(named.starts_with(&file), "{refused}");
    }
}

#[tokio::test]
async fn ids_go_on_where_they_were_and_two_stores_do_not_share_them() {
    let mut bases = HashSet::new();
    for _ in 0..3 {
        let fixture = Fixture::new(On::Sqlite);
        let plugin = fixture.plugin("a").await;
        fixture.accept("one", &[plugin]).await;
        let first = fixture.store.event(None, "one").await.unwrap()[0].history[0].summary.id;
        assert_eq!(first.0 % (1 << 30), 0);
        assert!(first.0 > 0 && first.0 < 1 << 52);
        assert!(bases.insert(first));
        let fixture = fixture.reopened().await;
        fixture.accept("two", &[plugin]).await;
        let second = fixture.store.event(None, "two").await.unwrap()[0].history[0].summary.id;
        assert_eq!(second.0, first.0 + 1);
    }
}

/// The file as an operator's tool would open it.
fn raw(fixture: &Fixture) -> rusqlite::Connection {
    rusqlite::Connection::open(&fixture.options.path).unwrap()
}
