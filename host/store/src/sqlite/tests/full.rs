//! A file that may not grow: SQLite's own error, and not an injected one.

use super::Injected;
use crate::{Accepted, StoreError, conformance::support::*, reads::Reads};

#[tokio::test]
async fn a_full_disk_is_told_and_outlived() {
    let fixture = Fixture::new(On::Sqlite);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 4).await.unwrap();
    fixture.accept("before", &[plugin]).await;
    let job = next(&mut lane).await;
    let pages = async |most| {
        let Reads::Sqlite(reads) = fixture.store.reads() else { panic!("another engine") };
        reads.inject(Injected::MaxPages(most));
        fixture.store.flush().await.unwrap();
    };
    pages(1).await;
    let mut big = fixture.event("big");
    big.body = vec![b' '; 1 << 20].into();
    for _ in 0..3 {
        let refused = fixture.store.accept(big.clone(), vec![plugin]).await;
        assert!(matches!(refused, Err(StoreError::Io(_))), "{refused:?}");
    }
    assert_eq!(fixture.store.failure(), None);
    assert_eq!(fixture.states().await, ["leased"]);
    fixture.assert_balanced().await;
    pages(1_000_000).await;
    assert!(matches!(fixture.store.accept(big, vec![plugin]).await, Ok(Accepted::Stored(_))));
    fixture.done(job, effects(&[])).await;
    assert_eq!(fixture.states().await, ["done", "leased"]);
    assert_eq!(next(&mut lane).await.event.content.id.as_str(), "big");
    fixture.assert_balanced().await;
}
