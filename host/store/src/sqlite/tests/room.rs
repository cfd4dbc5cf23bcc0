//! The file: the space of removed rows is used again, and history does not grow without bound.

use std::time::Duration;

use posthouse_model::PluginId;

use crate::conformance::support::*;

#[tokio::test]
async fn room_is_used_again() {
    let fixture = Fixture::new(On::Sqlite);
    let fill = async |round: u64| {
        for n in 0..60 {
            let mut event = fixture.event(format!("{round}_{n}"));
            event.body = vec![b' '; 100_000].into();
            fixture.store.accept(event, Vec::<PluginId>::new()).await.unwrap();
        }
        fixture.store.flush().await.unwrap();
        fixture.clock.advance(Duration::from_secs(25 * 3600));
        assert_eq!(fixture.store.prune().await.unwrap(), 60);
    };
    for round in 0..5 {
        fill(round).await;
    }
    fixture.store.close().await.unwrap();
    let bytes = std::fs::metadata(&fixture.options.path).unwrap().len();
    assert!(bytes < 2 * 60 * 100_000, "five rounds of 6 MB left a file of {bytes} bytes");
}

#[tokio::test]
async fn no_more_revisions_are_kept_than_are_listed_and_the_one_that_serves() {
    let fixture = Fixture::new(On::Sqlite);
    let plugin = fixture.plugin("a").await;
    fixture.store.revision_loaded(plugin, "11", "first").await.unwrap();
    for n in 0..80 {
        fixture.store.revision_refused(plugin, &n.to_string(), "no").await.unwrap();
    }
    fixture.store.revision_loaded(plugin, "44", "third").await.unwrap();
    let all: i64 = rusqlite::Connection::open(&fixture.options.path)
        .unwrap()
        .query_row("SELECT count(*) FROM revision WHERE plugin = ?1", [plugin.0], |row| row.get(0))
        .unwrap();
    assert!(all <= 51, "{all}");
}
