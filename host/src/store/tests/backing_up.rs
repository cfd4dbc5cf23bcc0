//! A backup is of one moment, and what goes on from it gives no number twice.

use super::support::*;
use crate::store::{Backup, Beside, StoreError, Verdict, restore};

/// A backup of the house's store, as another process makes it.
fn backed_up(house: &House) -> std::path::PathBuf {
    let file = house.options.path.with_extension("backup");
    let backup = Backup::begin(&house.options.path, Beside::default(), house.now()).unwrap();
    backup.write(&file, true).unwrap().put_in_place().unwrap();
    file
}

/// A house with what is in the backup.
fn gone_back(house: &House, file: &std::path::Path) -> House {
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let options = options(&dir.path().join("state/posthouse.db"));
    let ambient = crate::model::Ambient::new(house.clock.clone(), TestRandom::new(seed()));
    restore(file, &options.path, &Default::default(), false, &ambient).unwrap();
    let store = open_at(&options, &house.clock).unwrap();
    House { store, clock: house.clock.clone(), options, _dir: dir }
}

#[tokio::test]
async fn what_was_leased_runs_again_and_counts_as_one_that_may_have_run() -> Result<(), StoreError> {
    let house = House::new();
    let plugin = house.plugin("a").await;
    let mut lane = house.store.open_lane(plugin, 1).await?;
    house.accept("one", &[plugin]).await;
    house.accept("two", &[plugin]).await;
    let leased = next(&mut lane).await;
    house.store.flush().await?;
    let file = backed_up(&house);
    house.done(leased, effects(&[("k", set("v"))])).await;

    let house = gone_back(&house, &file);
    let mut lane = house.store.open_lane(plugin, 2).await?;
    for event in ["one", "two"] {
        let job = next(&mut lane).await;
        assert_eq!(job.event.content.id.as_str(), event);
        assert!(job.may_have_run, "its marker is to be looked for");
        house.finish(job, Verdict::Done(effects(&[]))).await;
    }
    assert!(house.store.kv_get(plugin, "k").unwrap().is_none(), "that came after the backup");
    house.assert_balanced().await;
    Ok(())
}

#[tokio::test]
async fn what_came_after_the_backup_shares_no_number_with_what_comes_after_the_restore() {
    let house = House::new();
    let plugin = house.plugin("a").await;
    house.accept("one", &[plugin]).await;
    let file = backed_up(&house);
    house.accept("two", &[plugin]).await;
    let given = house.store.event(None, "two").await.unwrap()[0].history[0].summary.id;
    let mut seen = std::collections::HashSet::from([given]);
    for _ in 0..2 {
        let house = gone_back(&house, &file);
        house.accept("two", &[plugin]).await;
        let id = house.store.event(None, "two").await.unwrap()[0].history[0].summary.id;
        assert!(id > given && id.0 < 1 << 53, "{id}");
        assert!(seen.insert(id), "two restores went on with the same numbers");
        house.assert_balanced().await;
    }
}
