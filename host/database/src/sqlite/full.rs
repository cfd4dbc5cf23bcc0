//! Tests that a plugin's writes have a limit on disk, however it writes, and that the error names the limit.

use std::{fs, path::PathBuf, time::Duration};

use posthouse_model::{KvWrite, config::DatabaseTarget, testing::database};
use tempfile::TempDir;

use super::*;

const BOUNDS: Bounds = Bounds { rows: 100_000, bytes: 4 << 20 };
const MIB: u64 = 1 << 20;
/// The limit of the log, and of the temporary files, of these small databases.
const PART: u64 = 16 * MIB;

struct Fixture {
    folder: TempDir,
    pool: Arc<Pool>,
}

impl Fixture {
    fn new(max_size: u64) -> Self {
        Self::with(max_size, 0)
    }

    fn with(max_size: u64, min_free: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let settings = DatabaseSettings {
            statement_timeout: Duration::from_secs(60),
            max_size: Some(max_size),
            ..database(DatabaseTarget::Sqlite(path.clone()))
        };
        Self { pool: Pool::new("app", &path, &settings, min_free), folder }
    }

    fn file(&self, ending: &str) -> PathBuf {
        self.folder.path().join(format!("app.db{ending}"))
    }

    fn size(&self, ending: &str) -> u64 {
        fs::metadata(self.file(ending)).map_or(0, |file| file.len())
    }

    async fn begin(&self) -> Transaction {
        self.pool.begin(false, &Waiting::default()).await.unwrap()
    }

    /// Runs the statements in one transaction, and commits it.
    async fn run(&self, delivery: i64, statements: &[&str]) -> Result<Committed, String> {
        let mut transaction = self.begin().await;
        for statement in statements {
            transaction.statement(statement, vec![], BOUNDS).await.map_err(|error| match error {
                SqlError::Statement { sqlstate, message } => {
                    assert_eq!(sqlstate, "53100", "{message}");
                    message
                }
                SqlError::TxAborted(TxAborted::Full(message)) => message,
                other => panic!("{statement}: {other:?}"),
            })?;
        }
        transaction.commit(DeliveryId(delivery), vec![], Written::default(), ()).await.map_err(|error| {
            match error {
                CommitError::Failed { sqlstate, message } => {
                    assert_eq!(sqlstate, "53100", "{message}");
                    message
                }
                other => panic!("{other:?}"),
            }
        })
    }
}

/// An `INSERT` of this many rows with this many bytes each.
fn insert(rows: u64, bytes: u64) -> String {
    format!(
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {rows})
         INSERT INTO t SELECT n, zeroblob({bytes}) FROM c"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_never_grows_beyond_its_size_however_it_is_filled() {
    let fixture = Fixture::new(4 * MIB);
    fixture.run(1, &["CREATE TABLE t (n, b)", &insert(10, 100_000)]).await.unwrap();
    let fillers = [
        insert(90, 3_900_000),
        insert(2_000, 4_000),
        "UPDATE t SET b = zeroblob(900000)".to_owned(),
        "CREATE TABLE u AS SELECT a.b, c.b AS d FROM t a, t c".to_owned(),
        "INSERT INTO t SELECT a.n, a.b FROM t a, t b, t c".to_owned(),
        "REPLACE INTO t SELECT n, zeroblob(3900000) FROM t".to_owned(),
        "CREATE INDEX i ON t (b || zeroblob(900000))".to_owned(),
    ];
    for filler in &fillers {
        let error = fixture.run(2, &["SELECT 1", filler]).await.unwrap_err();
        assert!(error.contains("`max_size` (4.0 MiB) of [databases.app]"), "{filler}: {error}");
        assert!(fixture.size("") <= 4 * MIB, "{filler}: {}", fixture.size(""));
        assert!(fixture.size("-wal") <= PART + MIB, "{filler}: {}", fixture.size("-wal"));
    }
    // The rolled-back rows take no space, and deleting rows frees some.
    fixture.run(3, &["DELETE FROM t WHERE n <= 5", &insert(4, 100_000)]).await.unwrap();
    let rows =
        fixture.begin().await.statement("SELECT count(*) FROM t", vec![], BOUNDS).await.unwrap().0.rows;
    assert_eq!(rows, [[Value::Integer(9)]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn small_commits_and_keys_meet_the_same_bound() {
    let fixture = Fixture::new(2 * MIB);
    fixture.run(1, &["CREATE TABLE t (n, b)"]).await.unwrap();
    let mut error = None;
    for delivery in 2..200 {
        error = fixture.run(delivery, &[&insert(1, 50_000)]).await.err();
        if error.is_some() {
            break;
        }
    }
    assert!(error.as_ref().is_some_and(|error| error.contains("`max_size`")), "{error:?}");
    let written = Written {
        plugin: "p".to_owned(),
        writes: [("k".to_owned(), KvWrite::Set(vec![0; 200_000]))].into(),
        most: u64::MAX,
        ..Written::default()
    };
    let mut transaction = fixture.begin().await;
    transaction.statement("SELECT 1", vec![], BOUNDS).await.unwrap();
    let error = transaction.commit(DeliveryId(300), vec![], written, ()).await.unwrap_err();
    assert!(
        matches!(&error, CommitError::Failed { sqlstate, message } if sqlstate == "53100" && message.contains("`max_size`")),
        "{error:?}"
    );
    assert!(fixture.size("") <= 2 * MIB);
    fixture.pool.remove_markers((1..200).map(DeliveryId).collect()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_transaction_writes_no_more_than_the_log_may_have() {
    let fixture = Fixture::new(60 * MIB);
    fixture.run(1, &["CREATE TABLE t (n, b)"]).await.unwrap();
    // Many rows, and one row that is in many indexes: one step of the statement.
    let indexes: Vec<String> = (0..30).map(|i| format!("CREATE INDEX i{i} ON t (b, n + {i})")).collect();
    let all: Vec<&str> = indexes.iter().map(String::as_str).collect();
    for (before, filler) in [(vec![], insert(40, 1_000_000)), (all, insert(1, 1_000_000))] {
        let mut statements = before;
        statements.push(&filler);
        let error = fixture.run(2, &statements).await.unwrap_err();
        assert!(
            error.contains("`max_size` (60.0 MiB)") && error.contains("its log") | error.contains("the log"),
            "{error}"
        );
        assert!(fixture.size("-wal") <= PART + MIB, "{}", fixture.size("-wal"));
    }
    // In several transactions there is room for it, and their logs are truncated.
    for delivery in 3..8 {
        fixture.run(delivery, &[&insert(9, 1_000_000)]).await.unwrap();
    }
    assert!(fixture.size("-wal") <= PART + MIB, "{}", fixture.size("-wal"));
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_files_have_a_bound_and_lie_beside_the_database() {
    let fixture = Fixture::new(8 * MIB);
    let many = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 200)";
    let fillers = [
        format!(
            "{many} SELECT count(*) FROM (SELECT n, zeroblob(500000 + n) AS b FROM c ORDER BY b LIMIT 100000)"
        ),
        format!(
            "{many}, m AS MATERIALIZED (SELECT zeroblob(500000) AS b FROM c) SELECT count(a.b), count(c.b) FROM m a, m c"
        ),
        format!("{many} SELECT count(*) FROM (SELECT DISTINCT zeroblob(500000 + n) FROM c)"),
        format!("{many} SELECT count(*) FROM (SELECT zeroblob(500000 + n) FROM c UNION SELECT 'x')"),
        format!("{many} SELECT count(*) FROM (SELECT count(*) FROM c GROUP BY zeroblob(500000 + n))"),
        format!(
            "{many} SELECT sum(length(b)) FROM (SELECT first_value(b) OVER (ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS b FROM (SELECT n, zeroblob(500000) AS b FROM c))"
        ),
    ];
    fixture.run(1, &["CREATE TABLE t (n)"]).await.unwrap();
    for filler in &fillers {
        let mut transaction = fixture.begin().await;
        let error = transaction.statement(filler, vec![], BOUNDS).await.unwrap_err();
        let (SqlError::TxAborted(TxAborted::Full(error)) | SqlError::Statement { message: error, .. }) =
            error
        else {
            panic!("{filler}: {error:?}")
        };
        assert!(error.contains("temporary files") && error.contains("`max_size`"), "{filler}: {error}");
        drop(transaction);
        // Its room is released, and its file has no name that could remain.
        let names: Vec<_> =
            fs::read_dir(fixture.folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert!(names.iter().all(|name| !name.to_string_lossy().contains("temporary")), "{names:?}");
    }
    let small = format!("{many} SELECT n, zeroblob(20000) AS b FROM c ORDER BY b, n DESC LIMIT 1");
    fixture.begin().await.statement(&small, vec![], BOUNDS).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_writes_nothing_where_less_than_min_free_is_left_and_reads_on() {
    let disk = {
        let folder = tempfile::tempdir().unwrap();
        let disk = rustix::fs::statvfs(folder.path()).unwrap();
        disk.f_blocks * disk.f_frsize
    };
    let fixture = Fixture::with(1 << 30, disk);
    let error = fixture.run(1, &["CREATE TABLE t (n)"]).await.unwrap_err();
    assert!(error.contains("`min_free` of [store]") && error.contains("app.db"), "{error}");
    fixture.begin().await.statement("SELECT count(*) FROM sqlite_schema", vec![], BOUNDS).await.unwrap();
    fixture.pool.remove_markers(vec![DeliveryId(1)]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_hold_the_log_back_do_not_make_it_grow_for_ever() {
    let fixture = Fixture::new(60 * MIB);
    fixture.run(1, &["CREATE TABLE t (n, b)"]).await.unwrap();
    let mut reader = fixture.begin().await;
    reader.statement("SELECT count(*) FROM t", vec![], BOUNDS).await.unwrap();
    let mut rows = 0;
    while !fixture.pool.room.has_held_back_log() {
        rows += 1;
        fixture.run(1 + rows, &[&insert(1, 1_000_000)]).await.unwrap();
    }
    assert!(fixture.size("-wal") > PART / 2);
    // The next reader waits until the log has started over, and then reads all of it.
    let pool = Arc::clone(&fixture.pool);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let next = tokio::spawn(async move {
        let mut next = pool.begin(false, &Waiting::default()).await.unwrap();
        next.statement("SELECT count(*) FROM t", vec![], BOUNDS).await.unwrap().0.rows
    });
    drop(reader);
    assert_eq!(next.await.unwrap(), [[Value::Integer(rows)]]);
    assert_eq!(fixture.size("-wal"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_to_a_file_that_was_moved_is_not_told_as_done() {
    type Move = fn(&Fixture);
    let moves: [(&str, Move); 4] = [
        ("renamed or deleted", |fixture| fs::rename(fixture.file(""), fixture.file(".moved")).unwrap()),
        ("replaced", |fixture| {
            fs::copy(fixture.file(""), fixture.file(".copy")).unwrap();
            fs::rename(fixture.file(".copy"), fixture.file("")).unwrap();
        }),
        ("its log was renamed or deleted", |fixture| fs::remove_file(fixture.file("-wal")).unwrap()),
        ("its log was replaced", |fixture| {
            fs::copy(fixture.file("-wal"), fixture.file(".copy")).unwrap();
            fs::rename(fixture.file(".copy"), fixture.file("-wal")).unwrap();
        }),
    ];
    for (what, moves) in moves {
        let fixture = Fixture::new(60 * MIB);
        fixture.run(1, &["CREATE TABLE t (n)"]).await.unwrap();
        moves(&fixture);
        let mut transaction = fixture.begin().await;
        transaction.statement("INSERT INTO t VALUES (1)", vec![], BOUNDS).await.unwrap();
        let answer = transaction.commit(DeliveryId(2), vec![], Written::default(), ()).await;
        let Err(CommitError::Unknown(error)) = answer else { panic!("{what}: {answer:?}") };
        assert!(
            error.to_string().contains(what) || what == "its log was renamed or deleted",
            "{what}: {error}"
        );
        let Err(error) = fixture.pool.begin(false, &Waiting::default()).await else {
            panic!("{what}: it goes on")
        };
        assert!(error.to_string().contains("restart"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_its_file_is_not_thrown_away_for_a_new_file() {
    let fixture = Fixture::new(60 * MIB);
    fs::write(fixture.file("-wal"), vec![7; 5000]).unwrap();
    let mut transaction = fixture.begin().await;
    let error = transaction.statement("SELECT 1", vec![], BOUNDS).await.unwrap_err();
    assert!(
        matches!(&error, SqlError::TxAborted(TxAborted::Unavailable(error)) if error.to_string().contains("put the file back")),
        "{error:?}"
    );
    assert_eq!(fixture.size("-wal"), 5000);
}
