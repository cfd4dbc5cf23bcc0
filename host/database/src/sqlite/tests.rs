//! Tests when commits are reported that are not on disk yet. The disk is a fake: it contains what the files had
//! at the last sync.

use std::{collections::BTreeSet, fs, io, path::PathBuf, sync::mpsc, time::Duration};

use posthouse_model::{config::DatabaseTarget, testing::database};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::*;

const BOUNDS: Bounds = Bounds { rows: 100, bytes: 64 << 10 };

/// A database, and what would remain of it after a power cut.
#[derive(Clone)]
struct Fixture {
    folder: Arc<TempDir>,
    /// The file and its log.
    disk: Arc<Mutex<Option<[Vec<u8>; 2]>>>,
}

impl Fixture {
    fn new() -> Self {
        let fixture = Self { folder: Arc::new(tempfile::tempdir().unwrap()), disk: Arc::default() };
        let connection = Connection::open(fixture.path()).unwrap();
        connection.execute_batch("CREATE TABLE t (n INTEGER)").unwrap();
        fixture
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("app.db")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("app.db-wal")
    }

    /// A pool whose syncs copy the files to the fake disk, each after `may` returns.
    fn pool(&self, may: impl Fn() + Send + 'static) -> Arc<Pool> {
        let fixture = self.clone();
        let sync = move || -> io::Result<()> {
            may();
            let files = [fs::read(fixture.path())?, fs::read(fixture.log())?];
            *fixture.disk.lock() = Some(files);
            Ok(())
        };
        let settings = DatabaseSettings { pool: 8, ..database(DatabaseTarget::Sqlite(self.path())) };
        Pool::with("app", &settings, Room::new("app", &self.path(), 1 << 30, 0), Box::new(sync))
    }

    /// The deliveries with a marker on the fake disk.
    fn on_disk(&self) -> BTreeSet<i64> {
        let Some([file, log]) = self.disk.lock().clone() else { return BTreeSet::new() };
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("app.db"), file).unwrap();
        fs::write(folder.path().join("app.db-wal"), log).unwrap();
        marked(&Connection::open(folder.path().join("app.db")).unwrap())
    }

    /// The deliveries with a marker in the files now.
    fn in_sight(&self) -> BTreeSet<i64> {
        marked(&Connection::open(self.path()).unwrap())
    }
}

fn marked(connection: &Connection) -> BTreeSet<i64> {
    if !connection.table_exists(None, "posthouse_deliveries").unwrap() {
        return BTreeSet::new();
    }
    let mut statement = connection.prepare("SELECT delivery_id FROM posthouse_deliveries").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

async fn insert(pool: &Arc<Pool>, delivery: i64) -> Result<Committed, CommitError> {
    let mut transaction = pool.begin(false, &Waiting::default()).await.unwrap();
    let insert = "INSERT INTO t VALUES ($1)";
    transaction.statement(insert, vec![Value::Integer(delivery)], BOUNDS).await.unwrap();
    transaction.commit(DeliveryId(delivery), b"{}".to_vec(), Written::default(), ()).await
}

/// Whether the task ends within a moment.
async fn ends<T>(task: &mut tokio::task::JoinHandle<T>) -> bool {
    tokio::time::timeout(Duration::from_millis(50), task).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_of_a_commit_that_a_power_cut_would_take_back() {
    const COMMITS: i64 = 200;
    let fixture = Fixture::new();
    let pool = fixture.pool(|| std::thread::sleep(Duration::from_millis(1)));
    let told = Arc::new(Mutex::new(BTreeSet::new()));
    let mut tasks = JoinSet::new();
    for first in 0..8 {
        let (pool, told) = (Arc::clone(&pool), Arc::clone(&told));
        tasks.spawn(async move {
            for delivery in (first..COMMITS).step_by(8) {
                assert_eq!(insert(&pool, delivery).await, Ok(Committed::Marked));
                told.lock().insert(delivery);
            }
        });
    }
    let mut lacking = 0;
    while told.lock().len() < COMMITS as usize {
        // The order matters: first what was reported before the power cut.
        let (told, seen) = (told.lock().clone(), fixture.in_sight());
        let found = fixture.on_disk();
        assert!(found.is_superset(&told), "told of, and lost: {:?}", told.difference(&found));
        lacking += usize::from(seen.difference(&found).next().is_some());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tasks.join_all().await;
    eprintln!("a power cut would have taken something back at {lacking} of the looks");
    assert_eq!(fixture.on_disk(), (0..COMMITS).collect());
}

/// ALTER TABLE changes a connection's session, so that no other attempt may use it.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_not_used_again_stays_open_until_its_commit_is_on_disk() {
    let fixture = Fixture::new();
    let pool = fixture.pool(|| std::thread::sleep(Duration::from_millis(50)));
    let mut transaction = pool.begin(false, &Waiting::default()).await.unwrap();
    transaction.statement("ALTER TABLE t RENAME TO u", vec![], BOUNDS).await.unwrap();
    let committed = transaction.commit(DeliveryId(1), b"{}".to_vec(), Written::default(), ()).await;
    assert_eq!(committed, Ok(Committed::Marked));
    assert_eq!(fixture.on_disk(), [1].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_closes_only_when_the_commits_that_it_made_before_are_on_disk() {
    let fixture = Fixture::new();
    let pool = fixture.pool(|| std::thread::sleep(Duration::from_millis(300)));
    let first = tokio::spawn({
        let pool = Arc::clone(&pool);
        async move { insert(&pool, 1).await }
    });
    while fixture.in_sight() != [1].into() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // It gets the connection that has just committed.
    let mut second = pool.begin(false, &Waiting::default()).await.unwrap();
    second.statement("ALTER TABLE t RENAME TO u", vec![], BOUNDS).await.unwrap();
    drop(second);
    assert_eq!(first.await.unwrap(), Ok(Committed::Marked));
    assert_eq!(fixture.on_disk(), [1].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_commit_waits_for_the_disk_others_write_and_whoever_saw_it_waits_too() {
    let fixture = Fixture::new();
    let (may, goes) = mpsc::channel::<()>();
    let goes = Mutex::new(goes);
    let pool = fixture.pool(move || goes.lock().recv().unwrap());
    let spawn = |delivery| {
        let pool = Arc::clone(&pool);
        tokio::spawn(async move { insert(&pool, delivery).await })
    };
    let mut first = spawn(1);
    assert!(!ends(&mut first).await);
    let mut second = spawn(2);
    assert!(!ends(&mut second).await);
    // Both commit, however busy the machine is.
    while fixture.in_sight() != [1, 2].into() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(fixture.on_disk(), [].into(), "and a power cut would take them back");
    // An attempt that only reads has seen them.
    let reading = Arc::clone(&pool);
    let mut reader = tokio::spawn(async move {
        let mut transaction = reading.begin(false, &Waiting::default()).await.unwrap();
        let rows = transaction.statement("SELECT n FROM t ORDER BY n", vec![], BOUNDS).await.unwrap().0;
        assert_eq!(rows.rows, [[Value::Integer(1)], [Value::Integer(2)]]);
        transaction.commit(DeliveryId(3), vec![], Written::default(), ()).await
    });
    assert!(!ends(&mut reader).await);
    let settling = Arc::clone(&pool);
    let mut failed = tokio::spawn(async move { settling.settle().await });
    assert!(!ends(&mut failed).await);
    may.send(()).unwrap();
    assert_eq!(first.await.unwrap(), Ok(Committed::Marked));
    // The others arrived during the first sync, so the second sync is for them.
    may.send(()).unwrap();
    assert_eq!(second.await.unwrap(), Ok(Committed::Marked));
    assert_eq!(reader.await.unwrap(), Ok(Committed::NothingWritten));
    assert_eq!(failed.await.unwrap(), Ok(()));
    assert_eq!(fixture.on_disk(), [1, 2].into());
    // Now there is nothing to wait for.
    assert_eq!(pool.settle().await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_marker_that_a_killed_daemon_left_is_on_disk_before_anybody_finishes_from_it() {
    let fixture = Fixture::new();
    // This sync never ends.
    let killed = fixture.pool(|| {
        loop {
            std::thread::park();
        }
    });
    let mut lost = tokio::spawn(async move { insert(&killed, 1).await });
    assert!(!ends(&mut lost).await);
    let pool = fixture.pool(|| {});
    assert_eq!(fixture.on_disk(), [].into());
    assert_eq!(pool.find_marker(DeliveryId(2)).await, Ok(None));
    assert_eq!(fixture.on_disk(), [].into(), "no marker, nothing to sync");
    assert_eq!(pool.find_marker(DeliveryId(1)).await, Ok(Some(b"{}".to_vec())));
    assert_eq!(fixture.on_disk(), [1].into());
    lost.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_sync_that_failed_the_database_is_left_alone() {
    let fixture = Fixture::new();
    let settings = database(DatabaseTarget::Sqlite(fixture.path()));
    let room = Room::new("app", &fixture.path(), 1 << 30, 0);
    let pool = Pool::with("app", &settings, room, Box::new(|| Err(io::Error::other("no more space"))));
    let answer = insert(&pool, 1).await;
    assert!(matches!(&answer, Err(CommitError::Unknown(_))), "{answer:?}");
    let Err(error) = pool.begin(false, &Waiting::default()).await else { panic!("it goes on") };
    assert!(error.to_string().contains("no more space"), "{error}");
    assert!(pool.find_marker(DeliveryId(1)).await.is_err(), "nobody finishes from what may go");
    // The next start asks the disk again.
    assert_eq!(fixture.pool(|| {}).find_marker(DeliveryId(1)).await, Ok(Some(b"{}".to_vec())));
}

/// The thread of the next attempt, and the state of its connection.
async fn next(pool: &Arc<Pool>) -> (std::thread::ThreadId, session::Session) {
    let mut transaction = pool.begin(false, &Waiting::default()).await.unwrap();
    let look = |guest: &mut GuestConnection| {
        Ok::<_, TxAborted>((std::thread::current().id(), session::Session::of(&guest.connection).unwrap()))
    };
    let found = transaction.run(false, look).await.unwrap();
    drop(transaction);
    at_rest(pool).await;
    found
}

/// Returns when every dropped transaction is rolled back, and its connection is back in the pool.
async fn at_rest(pool: &Pool) {
    while pool.places.available_permits() < pool.all {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_connection_whose_session_was_changed_is_closed_and_no_other() {
    let fixture = Fixture::new();
    let pool = fixture.pool(|| {});
    let (mut thread, at_first) = next(&pool).await;
    // No statement of a guest can do this, so the test bypasses the authorizer.
    for dirt in [
        "CREATE TEMP TABLE t (n INTEGER)",
        "CREATE TEMP VIEW t AS SELECT 99 AS n",
        "CREATE TEMP TRIGGER x AFTER INSERT ON t BEGIN DELETE FROM t; END",
        "CREATE TABLE temp.x (n); DROP TABLE temp.x",
        "PRAGMA trusted_schema = 1",
    ] {
        for commits in [true, false] {
            insert(&pool, 1).await.unwrap();
            pool.remove_markers(vec![DeliveryId(1)]).await.unwrap();
            assert_eq!(next(&pool).await, (thread, at_first), "it is used again");
            let mut transaction = pool.begin(false, &Waiting::default()).await.unwrap();
            let soil = move |guest: &mut GuestConnection| {
                guest.connection.execute_batch(dirt).unwrap();
                Ok::<_, TxAborted>(())
            };
            transaction.run(true, soil).await.unwrap();
            if commits {
                transaction.commit(DeliveryId(2), vec![], Written::default(), ()).await.unwrap();
                pool.remove_markers(vec![DeliveryId(2)]).await.unwrap();
            } else {
                drop(transaction);
                at_rest(&pool).await;
            }
            let (other, found) = next(&pool).await;
            assert_eq!(found, at_first, "{dirt}, committed: {commits}");
            // A rollback removes a table, and leaves its schema open.
            assert_ne!(other, thread, "{dirt}, committed: {commits}");
            thread = other;
        }
    }
}
