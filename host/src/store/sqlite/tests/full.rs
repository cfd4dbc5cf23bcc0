//! A file that may not grow: SQLite's own error, and not an injected one.

use super::Injected;
use crate::store::{Accepted, StoreError, conformance::support::*, reads::Reads};

#[tokio::test]
async fn a_full_disk_is_told_and_outlived() {
    let house = House::new(On::Sqlite);
    let plugin = house.plugin("a").await;
    let mut lane = house.store.open_lane(plugin, 4).await.unwrap();
    house.accept("before", &[plugin]).await;
    let job = next(&mut lane).await;
    let pages = async |most| {
        let Reads::Sqlite(reads) = house.store.reads() else { panic!("another engine") };
        reads.inject(Injected::MaxPages(most));
        house.store.flush().await.unwrap();
    };
    pages(1).await;
    let mut big = house.event("big");
    big.body = vec![b' '; 1 << 20].into();
    for _ in 0..3 {
        let refused = house.store.accept(big.clone(), vec![plugin]).await;
        assert!(matches!(refused, Err(StoreError::Io(_))), "{refused:?}");
    }
    assert_eq!(house.store.failure(), None);
    assert_eq!(house.states().await, ["leased"]);
    house.assert_balanced().await;
    pages(1_000_000).await;
    assert!(matches!(house.store.accept(big, vec![plugin]).await, Ok(Accepted::Stored(_))));
    house.done(job, effects(&[])).await;
    assert_eq!(house.states().await, ["done", "leased"]);
    assert_eq!(next(&mut lane).await.event.content.id.as_str(), "big");
    house.assert_balanced().await;
}
