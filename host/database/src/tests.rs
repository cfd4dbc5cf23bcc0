//! One suite for every engine: the promises of a transaction.

mod neighbours;
mod statements;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use posthouse_harness::Postgres;
use posthouse_model::{config::Secret, testing::database};

use super::*;

const BOUNDS: Bounds = Bounds { rows: 100, bytes: 64 << 10 };

/// An empty database of each engine.
struct Fixture {
    folder: tempfile::TempDir,
    postgres: Postgres,
}

impl Fixture {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), postgres: Postgres::start() }
    }

    fn databases(&self) -> [Database; 2] {
        self.databases_with(&[], None)
    }

    /// The same, with this size limit.
    fn bounded(&self, max_size: Option<u64>) -> [Database; 2] {
        self.databases_with(&[], max_size)
    }

    /// The same, with these granted functions.
    fn databases_with(&self, functions: &[&str], max_size: Option<u64>) -> [Database; 2] {
        let functions: BTreeSet<String> = functions.iter().map(|name| (*name).to_owned()).collect();
        [
            DatabaseTarget::Sqlite(self.folder.path().join("app.db")),
            DatabaseTarget::Postgres(Secret::new(self.postgres.url())),
        ]
        .map(|target| {
            let settings = DatabaseSettings {
                statement_timeout: Duration::from_millis(500),
                functions: functions.clone(),
                max_size,
                ..database(target)
            };
            Database::new("app", &settings, 0)
        })
    }
}

/// Whether the database is SQLite.
fn is_sqlite(database: &Database) -> bool {
    matches!(database.0.engine, Engine::Sqlite(_))
}

async fn begin(database: &Database, delivery: i64) -> Transaction {
    database.begin(DeliveryId(delivery), AttemptHistory::default(), &Waiting::default()).await.unwrap()
}

/// The history of an attempt with this many conflicts.
fn again(conflicts: u32) -> AttemptHistory {
    AttemptHistory { conflicts, may_have_run: false }
}

async fn run(database: &Database, statements: &[&str]) {
    let mut transaction = begin(database, 900).await;
    for statement in statements {
        transaction.execute(statement, vec![], BOUNDS).await.unwrap();
    }
    transaction.commit(vec![], ()).await.unwrap();
    database.remove_markers(&[DeliveryId(900)]).await.unwrap();
}

async fn numbers(database: &Database, query: &str) -> Vec<i64> {
    let rows = begin(database, 901).await.query(query, vec![], BOUNDS).await.unwrap();
    let number = |row: &Vec<Value>| match row[0] {
        Value::Integer(number) => number,
        _ => panic!("{row:?}"),
    };
    rows.rows.iter().map(number).collect()
}

#[tokio::test]
async fn what_commits_is_there_with_its_marker_and_what_is_dropped_is_not() {
    let fixture = Fixture::new();
    for database in &fixture.databases() {
        run(database, &["CREATE TABLE t (n BIGINT)"]).await;
        let mut kept = begin(database, 1).await;
        let changed = kept.execute(
            "INSERT INTO t VALUES ($1), ($2)",
            vec![Value::Integer(1), Value::Integer(2)],
            BOUNDS,
        );
        assert_eq!(changed.await, Ok(2));
        assert_eq!(kept.commit(b"carried".to_vec(), ()).await, Ok(Committed::Marked));
        let mut dropped = begin(database, 2).await;
        dropped.execute("DELETE FROM t", vec![], BOUNDS).await.unwrap();
        drop(dropped);
        assert_eq!(numbers(database, "SELECT n FROM t ORDER BY n").await, [1, 2]);
        assert_eq!(database.find_marker(DeliveryId(1)).await.unwrap(), Some(b"carried".to_vec()));
        assert_eq!(database.markers(10, None).await.unwrap(), [DeliveryId(1)]);
        let mut again = begin(database, 1).await;
        again.execute("INSERT INTO t VALUES (3)", vec![], BOUNDS).await.unwrap();
        assert_eq!(again.commit(vec![], ()).await, Err(CommitError::AlreadyCommitted));
        database.remove_markers(&[DeliveryId(1), DeliveryId(7)]).await.unwrap();
        assert_eq!(database.find_marker(DeliveryId(1)).await.unwrap(), None);
        assert_eq!(numbers(database, "SELECT n FROM t ORDER BY n").await, [1, 2]);
    }
}

#[tokio::test]
async fn a_database_that_is_full_names_the_limit_and_gives_room_back() {
    let fixture = Fixture::new();
    // An empty PostgreSQL is larger than that already.
    run(&fixture.databases()[1], &["CREATE TABLE t (n BIGINT, b TEXT)"]).await;
    run(&fixture.databases()[0], &["CREATE TABLE t (n BIGINT, b TEXT)"]).await;
    for database in fixture.bounded(Some(4 << 20)) {
        let many = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 200)
                    INSERT INTO t SELECT n, $1 FROM c";
        let refused = async |delivery: i64, sql: &str, parameters: Vec<Value>| {
            let mut writer = begin(&database, delivery).await;
            let written = writer.execute(sql, parameters, BOUNDS).await;
            match written {
                Ok(_) => writer.commit(vec![], ()).await.map(drop).map_err(|error| error.to_string()),
                Err(SqlError::Statement { sqlstate, message }) if sqlstate == "53100" => Err(message),
                Err(SqlError::TxAborted(over)) => Err(over.to_string()),
                Err(error) => panic!("{error:?}"),
            }
        };
        let error = refused(1, many, vec![Value::Text("x".repeat(60_000))]).await.unwrap_err();
        assert!(error.contains("`max_size`") && error.contains("[databases.app]"), "{error}");
        let mut writer = begin(&database, 2).await;
        writer.stage_kv("p", [("k".to_owned(), KvWrite::Set(vec![7; 6 << 20]))].into(), u64::MAX);
        let error = writer.commit(vec![], ()).await.unwrap_err().to_string();
        assert!(error.contains("`max_size`") && error.contains("53100"), "{error}");
        refused(3, "DELETE FROM t", vec![]).await.unwrap();
        assert_eq!(numbers(&database, "SELECT count(*) FROM t").await, [0]);
        refused(4, "DROP TABLE t", vec![]).await.unwrap();
    }
}

#[tokio::test]
async fn who_only_reads_leaves_no_marker() {
    let fixture = Fixture::new();
    for database in &fixture.databases() {
        let mut reader = begin(database, 1).await;
        reader.query("SELECT 1", vec![], BOUNDS).await.unwrap();
        assert_eq!(reader.commit(vec![], ()).await, Ok(Committed::NothingWritten));
        assert_eq!(database.markers(10, None).await.unwrap(), []);
    }
}

#[tokio::test]
async fn kv_is_written_with_the_rows() {
    let fixture = Fixture::new();
    for database in &fixture.databases() {
        let writes = BTreeMap::from([
            ("a".to_owned(), KvWrite::Set(b"1".to_vec())),
            ("b".to_owned(), KvWrite::Add(2)),
        ]);
        for turn in 1..=2 {
            let mut writer = begin(database, turn).await;
            assert_eq!(writer.kv_bytes("p").await, Ok(if turn == 1 { 0 } else { 4 }));
            writer.stage_kv("p", writes.clone(), 1000);
            assert_eq!(writer.commit(vec![], ()).await, Ok(Committed::Marked));
        }
        let mut reader = begin(database, 3).await;
        assert_eq!(reader.kv_get("p", "b").await, Ok(Some(b"4".to_vec())));
        assert_eq!(reader.kv_get("other", "b").await, Ok(None));
        let entries = reader.kv_list("p", "", Some("a"), 10).await.unwrap();
        assert_eq!(entries, [("b".to_owned(), b"4".to_vec())]);
        drop(reader);
        let mut over = begin(database, 4).await;
        over.stage_kv("p", BTreeMap::from([("c".to_owned(), KvWrite::Set(vec![0; 10]))]), 10);
        assert_eq!(
            over.commit(vec![], ()).await,
            Err(CommitError::Conflict),
            "the guest is to see the limit itself"
        );
    }
}

#[tokio::test]
async fn who_read_what_another_has_changed_meets_a_conflict_once() {
    let fixture = Fixture::new();
    for database in &fixture.databases() {
        run(database, &["CREATE TABLE t (n BIGINT)", "INSERT INTO t VALUES (0)"]).await;
        let mut slow = begin(database, 1).await;
        slow.query("SELECT n FROM t", vec![], BOUNDS).await.unwrap();
        run(database, &["UPDATE t SET n = n + 1"]).await;
        let late = slow.execute("UPDATE t SET n = 10", vec![], BOUNDS).await;
        assert_eq!(late, Err(SqlError::TxAborted(TxAborted::Conflict)));
        drop(slow);
        let mut again = database.begin(DeliveryId(1), again(1), &Waiting::default()).await.unwrap();
        again.query("SELECT n FROM t", vec![], BOUNDS).await.unwrap();
        again.execute("UPDATE t SET n = n + 10", vec![], BOUNDS).await.unwrap();
        again.commit(vec![], ()).await.unwrap();
        assert_eq!(numbers(database, "SELECT n FROM t").await, [11]);
    }
}

#[tokio::test]
async fn a_statement_that_fails_leaves_the_transaction_as_before_it() {
    let fixture = Fixture::new();
    for database in &fixture.databases() {
        run(database, &["CREATE TABLE t (n BIGINT PRIMARY KEY CHECK (n > 0), m TEXT NOT NULL)"]).await;
        let mut transaction = begin(database, 1).await;
        transaction.execute("INSERT INTO t VALUES (1, 'one')", vec![], BOUNDS).await.unwrap();
        let cases = [
            ("INSERT INTO t VALUES (2, 'two'), (1, 'again')", "23505"),
            ("INSERT INTO t VALUES (0, 'none')", "23514"),
            ("INSERT INTO t (n) VALUES (3)", "23502"),
            ("SELECT * FROM nowhere", "42P01"),
            ("SELECT missing FROM t", "42703"),
            ("SELECT FROM WHERE", "42601"),
            ("SELECT n FROM t WHERE n = $1", "08P01"),
        ];
        for (statement, expected) in cases {
            match transaction.query(statement, vec![], BOUNDS).await {
                Err(SqlError::Statement { sqlstate, .. }) => assert_eq!(sqlstate, expected, "{statement}"),
                other => panic!("{statement}: {other:?}"),
            }
        }
        transaction.execute("INSERT INTO t VALUES (4, 'four')", vec![], BOUNDS).await.unwrap();
        transaction.commit(vec![], ()).await.unwrap();
        assert_eq!(numbers(database, "SELECT n FROM t ORDER BY n").await, [1, 4]);
    }
}

#[tokio::test]
async fn answers_are_bounded_and_so_is_their_time() {
    let fixture = Fixture::new();
    for database in &fixture.databases() {
        let count = |n: u32, what: &str| {
            format!(
                "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {n}) SELECT {what} FROM c"
            )
        };
        run(database, &["CREATE TABLE t (n BIGINT)"]).await;
        let mut transaction = begin(database, 1).await;
        let limit = |answer: Result<Rows, SqlError>| match answer {
            Err(SqlError::Limit(text)) => text,
            other => panic!("{other:?}"),
        };
        assert!(
            limit(transaction.query(&count(101, "n"), vec![], BOUNDS).await).contains("`sql_rows` (100)")
        );
        let wide = "'a text that is repeated' || n || '0123456789012345678901234567890123456789'";
        let narrow = Bounds { rows: 100, bytes: 1000 };
        assert!(limit(transaction.query(&count(100, wide), vec![], narrow).await).contains("`sql_bytes`"));
        let parameter = vec![Value::Text("x".repeat(2000))];
        assert!(limit(transaction.query("SELECT $1", parameter, narrow).await).contains("`sql_bytes`"));
        let forever = transaction.query(&count(1_000_000_000, "max(n)"), vec![], BOUNDS).await;
        let Err(SqlError::Statement { sqlstate, message }) = forever else { panic!("{forever:?}") };
        assert_eq!(sqlstate, "57014");
        assert!(message.contains("statement_timeout"), "{message}");
        transaction.execute("INSERT INTO t VALUES (1)", vec![], BOUNDS).await.unwrap();
        let insert = "INSERT INTO t SELECT n + 1 FROM t RETURNING 'some text', n";
        assert!(
            limit(transaction.query(insert, vec![], Bounds { rows: 0, bytes: 1000 }).await)
                .contains("sql_rows")
        );
        transaction.commit(vec![], ()).await.unwrap();
        assert_eq!(numbers(database, "SELECT n FROM t").await, [1], "what the bound cut off is undone");
    }
}

mod values {
    //! Values survive the round trip, on both engines.

    use proptest::{prelude::*, test_runner::TestRunner};

    use super::*;

    const TABLE: &str = "CREATE TABLE v (b BOOLEAN, i BIGINT, f DOUBLE PRECISION, t TEXT, y BYTEA, s TIMESTAMPTZ, j JSON, u UUID)";

    /// A row with a value or NULL of every type.
    fn row() -> impl Strategy<Value = Vec<Value>> {
        let or_null = |value: BoxedStrategy<Value>| prop_oneof![4 => value, 1 => Just(Value::Null)];
        // No NUL: a text in PostgreSQL cannot contain one.
        let text = || proptest::string::string_regex("[^\\x00]{0,40}").unwrap();
        let json = prop_oneof![
            text().prop_map(|text| serde_json::Value::from(text).to_string()),
            any::<i64>().prop_map(|number| format!("{{\"n\": [{number}, null, true]}}")),
        ];
        let uuid = any::<u128>().prop_map(|number| {
            let digits = format!("{number:032x}");
            [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
        });
        // From 4713 BC to 294276 AD, the range of PostgreSQL.
        let time = -210_866_803_200_000_000 + 946_684_800_000_000..i64::MAX;
        (
            or_null(any::<bool>().prop_map(Value::Boolean).boxed()),
            or_null(any::<i64>().prop_map(Value::Integer).boxed()),
            or_null(
                prop_oneof![proptest::num::f64::NORMAL, Just(f64::INFINITY), Just(0.0)]
                    .prop_map(Value::Float)
                    .boxed(),
            ),
            or_null(text().prop_map(Value::Text).boxed()),
            or_null(prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::Bytes).boxed()),
            or_null(time.prop_map(Value::Timestamp).boxed()),
            or_null(json.prop_map(Value::Json).boxed()),
            or_null(uuid.prop_map(Value::Uuid).boxed()),
        )
            .prop_map(|(b, i, f, t, y, s, j, u)| vec![b, i, f, t, y, s, j, u])
    }

    #[test]
    fn every_value_comes_back_as_it_went_in() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let fixture = Fixture::new();
        for database in &fixture.databases() {
            runtime.block_on(run(database, &[TABLE]));
            // A failing case prints its seed, and proptest tries it first afterwards.
            let mut runner = TestRunner::default();
            let checked = runner.run(&row(), |row| {
                runtime.block_on(async {
                    let mut transaction = begin(database, 1).await;
                    let insert = "INSERT INTO v VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
                    transaction.execute(insert, row.clone(), BOUNDS).await.unwrap();
                    let back = transaction.query("SELECT * FROM v", vec![], BOUNDS).await.unwrap();
                    prop_assert_eq!(&back.rows, &[row][..]);
                    Ok(())
                })
            });
            checked.unwrap();
        }
    }

    #[tokio::test]
    async fn what_an_engine_cant_keep_is_refused_and_never_changed_in_silence() {
        let fixture = Fixture::new();
        let [sqlite, postgres] = &fixture.databases();
        for (database, column, value, sqlstate) in [
            (sqlite, "f", Value::Float(f64::NAN), "22023"),
            (postgres, "t", Value::Text("a\0b".into()), "22021"),
            (postgres, "t", Value::Bytes(vec![1]), "42804"),
            (postgres, "i", Value::Text("twelve".into()), "22P02"),
            (postgres, "u", Value::Text("no uuid".into()), "22P02"),
        ] {
            run(database, &["DROP TABLE IF EXISTS v", TABLE]).await;
            let mut transaction = begin(database, 1).await;
            let insert = format!("INSERT INTO v ({column}) VALUES ($1)");
            match transaction.execute(&insert, vec![value], BOUNDS).await {
                Err(SqlError::Statement { sqlstate: state, .. }) => assert_eq!(state, sqlstate, "{column}"),
                other => panic!("{column}: {other:?}"),
            }
            transaction.execute("INSERT INTO v (i) VALUES (1)", vec![], BOUNDS).await.unwrap();
        }
        let mut transaction = begin(postgres, 1).await;
        let rows = transaction
            .query("SELECT 12.50::numeric, DATE '2024-02-29', TIME '12:30', 7::smallint", vec![], BOUNDS)
            .await
            .unwrap();
        let texts = ["12.50", "2024-02-29", "12:30:00"].map(|text| Value::Text(text.into()));
        assert_eq!(rows.rows[0][..3], texts);
        assert_eq!(rows.rows[0][3], Value::Integer(7));
        let array = transaction.query("SELECT ARRAY[1, 2] AS both", vec![], BOUNDS).await;
        let Err(SqlError::Statement { sqlstate, message }) = array else { panic!("{array:?}") };
        assert_eq!(sqlstate, "0A000");
        assert!(message.contains("`both` has type"), "{message}");
    }
}

#[tokio::test]
async fn one_value_that_is_too_large_is_not_taken_in() {
    let fixture = Fixture::new();
    let [sqlite, postgres] = &fixture.databases();
    let mut transaction = begin(sqlite, 1).await;
    let huge = transaction.query("SELECT zeroblob(900000000)", vec![], BOUNDS).await;
    assert!(matches!(&huge, Err(SqlError::Statement { sqlstate, .. }) if sqlstate == "54000"), "{huge:?}");
    let mut transaction = begin(postgres, 1).await;
    let huge = transaction.query("SELECT repeat('x', 5000000)", vec![], BOUNDS).await;
    assert!(matches!(&huge, Err(SqlError::TxAborted(TxAborted::TooLarge(_)))), "{huge:?}");
    drop(transaction);
    assert_eq!(numbers(postgres, "SELECT 1").await, [1]);
}

#[tokio::test]
async fn a_statement_that_the_server_does_not_stop_costs_an_attempt_and_no_other_its_connection() {
    let fixture = Fixture::new();
    let [_, postgres] = &fixture.databases();
    let mut transaction = begin(postgres, 1).await;
    // PostgreSQL checks no timeout within it, and would take an hour.
    let stuck = "SELECT length(btrim(repeat('c', 3000000), repeat('a', 1000000) || 'c'))";
    let answer = transaction.query(stuck, vec![], BOUNDS).await;
    assert!(matches!(&answer, Err(SqlError::TxAborted(TxAborted::TimedOut(_)))), "{answer:?}");
    drop(transaction);
    assert_eq!(numbers(postgres, "SELECT 1").await, [1]);
}

#[tokio::test]
async fn an_attempt_that_is_dropped_in_the_midst_of_a_statement_leaves_nothing_locked() {
    let fixture = Fixture::new();
    for database in &fixture.databases() {
        run(database, &["CREATE TABLE t (n BIGINT)", "INSERT INTO t VALUES (1)"]).await;
        let mut slow = begin(database, 1).await;
        slow.execute("UPDATE t SET n = 2", vec![], BOUNDS).await.unwrap();
        let forever = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT max(n) FROM c";
        let asked = slow.query(forever, vec![], BOUNDS);
        assert!(tokio::time::timeout(Duration::from_millis(100), asked).await.is_err());
        drop(slow);
        run(database, &["UPDATE t SET n = n + 10"]).await;
        assert_eq!(numbers(database, "SELECT n FROM t").await, [11]);
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_while_it_rested_is_not_used() {
    let fixture = Fixture::new();
    let [_, database] = &fixture.databases();
    // Two idle connections.
    let both = (begin(database, 1).await, begin(database, 2).await);
    for mut transaction in [both.0, both.1] {
        transaction.query("SELECT 1", vec![], BOUNDS).await.unwrap();
        transaction.commit(vec![], ()).await.unwrap();
    }
    let mut postgres = fixture.postgres;
    let restart = move || {
        postgres.stop();
        postgres.start_again();
        postgres
    };
    let _restarted = tokio::task::spawn_blocking(restart).await.unwrap();
    assert_eq!(numbers(database, "SELECT 1").await, [1]);
}

#[tokio::test]
async fn attempts_on_the_same_rows_end_as_if_one_came_after_the_other() {
    const ATTEMPTS: i64 = 24;
    let fixture = Fixture::new();
    for database in &fixture.databases() {
        run(database, &["CREATE TABLE t (n BIGINT)", "INSERT INTO t VALUES (0)"]).await;
        let attempt = |delivery: i64| {
            let database = database.clone();
            async move {
                let mut conflicts = 0;
                loop {
                    let mut transaction = database
                        .begin(DeliveryId(delivery), again(conflicts), &Waiting::default())
                        .await
                        .unwrap();
                    let read = transaction.query("SELECT n FROM t", vec![], BOUNDS).await;
                    let done = match read {
                        Ok(rows) => {
                            let Value::Integer(n) = rows.rows[0][0] else { panic!("{rows:?}") };
                            let add = vec![Value::Integer(n + 1)];
                            transaction.execute("UPDATE t SET n = $1", add, BOUNDS).await.map(drop)
                        }
                        Err(error) => Err(error),
                    };
                    match done {
                        Ok(()) => match transaction.commit(vec![], ()).await {
                            Ok(_) => return conflicts,
                            Err(CommitError::Conflict) => {}
                            Err(error) => panic!("{error}"),
                        },
                        Err(SqlError::TxAborted(TxAborted::Conflict)) => drop(transaction),
                        Err(error) => panic!("{error:?}"),
                    }
                    conflicts += 1;
                }
            }
        };
        let attempts: Vec<_> = (1..=ATTEMPTS).map(|delivery| tokio::spawn(attempt(delivery))).collect();
        for attempt in attempts {
            let conflicts = attempt.await.unwrap();
            assert!(conflicts <= if is_sqlite(database) { 1 } else { 3 }, "{conflicts} conflicts");
        }
        assert_eq!(numbers(database, "SELECT n FROM t").await, [ATTEMPTS]);
        assert_eq!(database.markers(100, None).await.unwrap().len() as i64, ATTEMPTS);
    }
}

#[tokio::test]
async fn waiting_for_ones_turn_is_told_and_ends() {
    let fixture = Fixture::new();
    let [sqlite, _] = &fixture.databases();
    run(sqlite, &["CREATE TABLE t (n BIGINT)"]).await;
    let mut first = begin(sqlite, 1).await;
    first.execute("INSERT INTO t VALUES (1)", vec![], BOUNDS).await.unwrap();
    let waiting = Waiting::default();
    let mut second = sqlite.begin(DeliveryId(2), AttemptHistory::default(), &waiting).await.unwrap();
    let before = waiting.so_far();
    let ended = tokio::join!(second.execute("INSERT INTO t VALUES (2)", vec![], BOUNDS), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(waiting.so_far() > before, "it waits");
        first.commit(vec![], ()).await.unwrap();
    });
    assert_eq!(ended.0, Ok(1));
    let so_far = waiting.so_far();
    assert!(so_far >= Duration::from_millis(50));
    second.execute("INSERT INTO t VALUES (3)", vec![], BOUNDS).await.unwrap();
    assert_eq!(waiting.so_far(), so_far, "it has its turn");
}
