//! One suite for every engine: what a transaction promises.

use std::{collections::BTreeMap, path::Path, time::Duration};

use super::*;

const BOUNDS: Bounds = Bounds { rows: 100, bytes: 64 << 10 };

fn sqlite(folder: &Path) -> Database {
    let settings = DatabaseSettings {
        target: DatabaseTarget::Sqlite(folder.join("app.db")),
        pool: 4,
        statement_timeout: Duration::from_millis(300),
        ca: None,
    };
    Database::new("app", &settings)
}

async fn begin(database: &Database, delivery: i64) -> Transaction {
    database.begin(DeliveryId(delivery), 0).await.unwrap()
}

async fn run(database: &Database, statements: &[&str]) {
    let mut transaction = begin(database, 900).await;
    for statement in statements {
        transaction.execute(statement, vec![], BOUNDS).await.unwrap();
    }
    transaction.commit(vec![]).await.unwrap();
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
    let folder = tempfile::tempdir().unwrap();
    let database = sqlite(folder.path());
    run(&database, &["CREATE TABLE t (n BIGINT)"]).await;
    let mut kept = begin(&database, 1).await;
    let changed =
        kept.execute("INSERT INTO t VALUES ($1), ($2)", vec![Value::Integer(1), Value::Integer(2)], BOUNDS);
    assert_eq!(changed.await, Ok(2));
    assert_eq!(kept.commit(b"carried".to_vec()).await, Ok(Committed::Marked));
    let mut dropped = begin(&database, 2).await;
    dropped.execute("DELETE FROM t", vec![], BOUNDS).await.unwrap();
    drop(dropped);
    assert_eq!(numbers(&database, "SELECT n FROM t ORDER BY n").await, [1, 2]);
    assert_eq!(database.find_marker(DeliveryId(1)).await.unwrap(), Some(b"carried".to_vec()));
    assert_eq!(database.markers(10, None).await.unwrap(), [DeliveryId(1)]);
    let mut again = begin(&database, 1).await;
    again.execute("INSERT INTO t VALUES (3)", vec![], BOUNDS).await.unwrap();
    assert_eq!(again.commit(vec![]).await, Err(CommitError::AlreadyCommitted));
    database.remove_markers(&[DeliveryId(1), DeliveryId(7)]).await.unwrap();
    assert_eq!(database.find_marker(DeliveryId(1)).await.unwrap(), None);
    assert_eq!(numbers(&database, "SELECT n FROM t ORDER BY n").await, [1, 2]);
}

#[tokio::test]
async fn who_only_reads_leaves_no_marker() {
    let folder = tempfile::tempdir().unwrap();
    let database = sqlite(folder.path());
    let mut reader = begin(&database, 1).await;
    reader.query("SELECT 1", vec![], BOUNDS).await.unwrap();
    assert_eq!(reader.commit(vec![]).await, Ok(Committed::NothingWritten));
    assert_eq!(database.markers(10, None).await.unwrap(), []);
}

#[tokio::test]
async fn kv_is_written_with_the_rows() {
    let folder = tempfile::tempdir().unwrap();
    let database = sqlite(folder.path());
    let writes =
        BTreeMap::from([("a".to_owned(), KvWrite::Set(b"1".to_vec())), ("b".to_owned(), KvWrite::Add(2))]);
    for turn in 1..=2 {
        let mut writer = begin(&database, turn).await;
        assert_eq!(writer.kv_bytes("p").await, Ok(if turn == 1 { 0 } else { 4 }));
        writer.stage_kv("p", writes.clone(), 1000);
        assert_eq!(writer.commit(vec![]).await, Ok(Committed::Marked));
    }
    let mut reader = begin(&database, 3).await;
    assert_eq!(reader.kv_get("p", "b").await, Ok(Some(b"4".to_vec())));
    assert_eq!(reader.kv_get("other", "b").await, Ok(None));
    let entries = reader.kv_list("p", "", Some("a"), 10).await.unwrap();
    assert_eq!(entries, [("b".to_owned(), b"4".to_vec())]);
    drop(reader);
    let mut over = begin(&database, 4).await;
    over.stage_kv("p", BTreeMap::from([("c".to_owned(), KvWrite::Set(vec![0; 10]))]), 10);
    assert_eq!(over.commit(vec![]).await, Err(CommitError::Conflict), "the guest is to see the limit itself");
}

#[tokio::test]
async fn who_read_what_another_has_changed_meets_a_conflict_once() {
    let folder = tempfile::tempdir().unwrap();
    let database = sqlite(folder.path());
    run(&database, &["CREATE TABLE t (n BIGINT)", "INSERT INTO t VALUES (0)"]).await;
    let mut slow = begin(&database, 1).await;
    slow.query("SELECT n FROM t", vec![], BOUNDS).await.unwrap();
    run(&database, &["UPDATE t SET n = n + 1"]).await;
    let late = slow.execute("UPDATE t SET n = 10", vec![], BOUNDS).await;
    assert_eq!(late, Err(SqlError::Over(Over::Conflict)));
    drop(slow);
    let mut again = database.begin(DeliveryId(1), 1).await.unwrap();
    again.query("SELECT n FROM t", vec![], BOUNDS).await.unwrap();
    again.execute("UPDATE t SET n = n + 10", vec![], BOUNDS).await.unwrap();
    again.commit(vec![]).await.unwrap();
    assert_eq!(numbers(&database, "SELECT n FROM t").await, [11]);
}

#[tokio::test]
async fn a_statement_that_fails_leaves_the_transaction_as_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let database = sqlite(folder.path());
    run(&database, &["CREATE TABLE t (n BIGINT PRIMARY KEY CHECK (n > 0), m TEXT NOT NULL)"]).await;
    let mut transaction = begin(&database, 1).await;
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
    transaction.commit(vec![]).await.unwrap();
    assert_eq!(numbers(&database, "SELECT n FROM t ORDER BY n").await, [1, 4]);
}

#[tokio::test]
async fn answers_are_bounded_and_so_is_their_time() {
    let folder = tempfile::tempdir().unwrap();
    let database = sqlite(folder.path());
    let count = |n: u32, what: &str| {
        format!(
            "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {n}) SELECT {what} FROM c"
        )
    };
    run(&database, &["CREATE TABLE t (n BIGINT)"]).await;
    let mut transaction = begin(&database, 1).await;
    let limit = |answer: Result<Rows, SqlError>| match answer {
        Err(SqlError::Limit(text)) => text,
        other => panic!("{other:?}"),
    };
    assert!(limit(transaction.query(&count(101, "n"), vec![], BOUNDS).await).contains("`sql_rows` (100)"));
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
        limit(transaction.query(insert, vec![], Bounds { rows: 0, bytes: 1000 }).await).contains("sql_rows")
    );
    transaction.commit(vec![]).await.unwrap();
    assert_eq!(numbers(&database, "SELECT n FROM t").await, [1], "what the bound cut off is undone");
}
