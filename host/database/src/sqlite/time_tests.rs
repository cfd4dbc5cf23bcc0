//! Tests how long a statement can hold the database.

use std::sync::mpsc;

use posthouse_harness::{Worst, worst_statements};
use posthouse_model::{DeliveryId, config::DatabaseTarget, testing::database};
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;

const BOUNDS: Bounds = Bounds { rows: 10_000, bytes: 4 << 20 };

/// `statement_timeout` in these tests. A wait counts as a hang only after a much longer time, because the machine may
/// be busy.
const TIMEOUT: Duration = Duration::from_millis(300);
const HANGS: Duration = Duration::from_secs(30);

fn pool(folder: &TempDir, before: &str) -> Arc<Pool> {
    pool_with(folder, before, TIMEOUT)
}

fn pool_with(folder: &TempDir, before: &str, statement_timeout: Duration) -> Arc<Pool> {
    let path = folder.path().join("app.db");
    Connection::open(&path).unwrap().execute_batch(before).unwrap();
    let settings = DatabaseSettings { statement_timeout, ..database(DatabaseTarget::Sqlite(path.clone())) };
    Pool::new("app", &path, &settings, 0)
}

async fn begin(pool: &Arc<Pool>) -> Transaction {
    pool.begin(false, &Waiting::default()).await.unwrap()
}

/// Whether a guest may get this answer to a statement that is too expensive.
fn is_bounded(answer: &Result<(Rows, u64), SqlError>) -> bool {
    match answer {
        Ok(_)
        | Err(
            SqlError::Refused(_)
            | SqlError::Limit(_)
            | SqlError::TxAborted(TxAborted::TimedOut(_) | TxAborted::RolledBack(_)),
        ) => true,
        Err(SqlError::Statement { sqlstate, .. }) => ["57014", "54000", "54001"].contains(&sqlstate.as_str()),
        Err(SqlError::TxAborted(_)) => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worst_statements_end_in_time_and_leave_the_turn_to_others() {
    let (mut timed_out, mut wrong) = (0, Vec::new());
    for Worst { what, before, first, statement, parameters } in worst_statements() {
        let folder = tempfile::tempdir().unwrap();
        let pool = pool(&folder, &format!("{before}; CREATE TABLE others (n INTEGER)"));
        let mut bad = begin(&pool).await;
        if !first.is_empty() {
            bad.statement(&first, vec![], BOUNDS).await.unwrap();
        }
        // The attempt has the turn, whatever the statement is.
        let turn = bad.statement("INSERT INTO others VALUES (1)", vec![], BOUNDS).await;
        assert_eq!(turn.unwrap().1, 1);
        let parameters = parameters.into_iter().map(Value::Text).collect();
        let began = Instant::now();
        let answer = tokio::time::timeout(HANGS, bad.statement(&statement, parameters, BOUNDS)).await;
        let answer = answer.unwrap_or_else(|_| panic!("{what}: it hangs"));
        if !is_bounded(&answer) {
            wrong.push(format!("{what}: {:?}", answer.as_ref().map(|(rows, _)| rows.rows.len())));
        }
        timed_out += usize::from(began.elapsed() >= TIMEOUT);
        drop(bad);
        let mut next = begin(&pool).await;
        let insert = next.statement("INSERT INTO others VALUES (2)", vec![], BOUNDS);
        let inserted = tokio::time::timeout(HANGS, insert).await;
        assert_eq!(inserted.unwrap_or_else(|_| panic!("{what}: no turn")).unwrap().1, 1, "{what}");
        let told = format!("{:?}", answer.map(|(rows, _)| rows.rows.len()));
        eprintln!("{:>6} ms  {what}: {:.120}", began.elapsed().as_millis(), told);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(timed_out > 5, "only {timed_out} ran for as long as they may");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_is_dropped_during_a_long_call_gives_the_turn_back() {
    let folder = tempfile::tempdir().unwrap();
    let pool = pool(&folder, "CREATE TABLE others (n INTEGER)");
    let mut bad = begin(&pool).await;
    bad.statement("INSERT INTO others VALUES (1)", vec![], BOUNDS).await.unwrap();
    let text = Value::Text("a".repeat(3 << 20));
    let pattern = Value::Text(format!("%{}b", "a_".repeat(499)));
    let like = bad.statement("SELECT $1 LIKE $2", vec![text, pattern], BOUNDS);
    assert!(tokio::time::timeout(Duration::from_millis(30), like).await.is_err());
    drop(bad);
    let mut next = begin(&pool).await;
    let insert = next.statement("INSERT INTO others VALUES (2)", vec![], BOUNDS);
    assert_eq!(tokio::time::timeout(HANGS, insert).await.expect("it hangs").unwrap().1, 1);
}

#[tokio::test]
async fn functions_that_are_not_on_the_list_are_refused_by_their_name() {
    let folder = tempfile::tempdir().unwrap();
    let pool =
        pool(&folder, "CREATE TABLE t (n INTEGER); CREATE VIEW v AS SELECT json_pretty(n) AS p FROM t");
    let mut transaction = begin(&pool).await;
    let mut wrong = Vec::new();
    for (statement, name) in [
        ("SELECT json_pretty('[]')", "json_pretty"),
        ("SELECT \"JSON_Pretty\"('[]')", "json_pretty"),
        ("SELECT p FROM v", "json_pretty"),
        ("CREATE TABLE c (a TEXT CHECK (json_pretty(a) <> ''))", "json_pretty"),
        ("CREATE INDEX i ON t (json_pretty(n))", "json_pretty"),
        ("SELECT load_extension('x')", "load_extension"),
        ("SELECT sqlite_log(1, 'x')", "sqlite_log"),
        ("SELECT fts5(NULL)", "fts5"),
    ] {
        let answer = transaction.statement(statement, vec![], BOUNDS).await;
        let refused = matches!(&answer, Err(SqlError::Refused(why)) if why.to_lowercase().contains(name));
        if !refused {
            wrong.push(format!("{statement}: {answer:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let fine =
        "SELECT json_extract('{\"a\": [1, 2]}', '$.a[1]'), 'Abc' LIKE 'a%', count(*) OVER () FROM (SELECT 1)";
    assert_eq!(transaction.statement(fine, vec![], BOUNDS).await.unwrap().0.rows.len(), 1);
}

#[tokio::test]
async fn indexes_constraints_and_columns_that_use_a_replaced_function_go_on_working() {
    let folder = tempfile::tempdir().unwrap();
    // Created with SQLite's own functions.
    let pool = pool(
        &folder,
        "CREATE TABLE t (name TEXT CHECK (instr(name, '@') > 0), short AS (replace(name, '@example.com', '')));
         CREATE INDEX i ON t (trim(name));
         CREATE VIEW v AS SELECT short FROM t WHERE name LIKE 'A%';
         INSERT INTO t VALUES ('ann@example.com'), ('bob@example.com')",
    );
    let mut transaction = begin(&pool).await;
    transaction.statement("INSERT INTO t VALUES ('amy@example.com')", vec![], BOUNDS).await.unwrap();
    let wrong = transaction.statement("INSERT INTO t VALUES ('nobody')", vec![], BOUNDS).await;
    assert!(matches!(&wrong, Err(SqlError::Statement { sqlstate, .. }) if sqlstate == "23514"), "{wrong:?}");
    let rows =
        transaction.statement("SELECT short FROM v ORDER BY short", vec![], BOUNDS).await.unwrap().0.rows;
    assert_eq!(rows, [[Value::Text("amy".into())], [Value::Text("ann".into())]]);
    let plan = "SELECT short FROM t WHERE trim(name) = $1";
    let found = transaction.statement(plan, vec![Value::Text("bob@example.com".into())], BOUNDS).await;
    assert_eq!(found.unwrap().0.rows, [[Value::Text("bob".into())]]);
    transaction.commit(DeliveryId(1), vec![], Written::default(), ()).await.unwrap();
    let theirs = Connection::open(folder.path().join("app.db")).unwrap();
    let checked: String = theirs.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(checked, "ok");
}

#[tokio::test]
async fn a_known_statement_is_weighed_again_after_the_schema_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    let pool = pool(
        &folder,
        "CREATE TABLE t (n TEXT); INSERT INTO t VALUES ('a'); CREATE VIEW v AS SELECT n FROM t",
    );
    let ask = async || {
        let mut transaction = begin(&pool).await;
        let answer = transaction
            .statement("SELECT * FROM v WHERE n = $1", vec![Value::Text("a".into())], BOUNDS)
            .await;
        (answer.map(|(rows, _)| rows.rows.len()), transaction)
    };
    assert_eq!(ask().await.0, Ok(1));
    let theirs = Connection::open(folder.path().join("app.db")).unwrap();
    let columns: Vec<_> = (0..500).map(|at| format!("lower(n) AS c{at}")).collect();
    let wide = format!("DROP VIEW v; CREATE VIEW v AS SELECT n, {} FROM t", columns.join(", "));
    theirs.execute_batch(&wide).unwrap();
    let (answer, transaction) = ask().await;
    assert_eq!(answer, Ok(1), "short values pass");
    drop(transaction);
    theirs.execute("UPDATE t SET n = printf('%.1000000c', 'a')", []).unwrap();
    let mut transaction = begin(&pool).await;
    let long = transaction.statement("SELECT * FROM v", vec![], BOUNDS).await;
    let Err(SqlError::Statement { sqlstate, message }) = long else { panic!("{:?}", long.map(|_| ())) };
    assert_eq!(sqlstate, "54000");
    assert!(message.contains("sql_bytes"), "{message}");
}

#[tokio::test]
async fn a_table_that_is_too_large_to_be_dropped_in_one_step_can_be_emptied_and_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let fill = "PRAGMA page_size = 512; CREATE TABLE t (a BLOB); CREATE TABLE s (n INTEGER); CREATE INDEX i ON s (n);
        WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 35)
        INSERT INTO t SELECT zeroblob(1000000) FROM c";
    let pool = pool_with(&folder, fill, HANGS);
    let mut transaction = begin(&pool).await;
    let large = transaction.statement("DROP TABLE t", vec![], BOUNDS).await;
    assert!(matches!(&large, Err(SqlError::Refused(why)) if why.contains("pages")), "{large:?}");
    for small in ["DROP INDEX i", "DROP TABLE s"] {
        transaction.statement(small, vec![], BOUNDS).await.unwrap();
    }
    let some = "DELETE FROM t WHERE rowid IN (SELECT rowid FROM t LIMIT 5)";
    while transaction.statement(some, vec![], BOUNDS).await.unwrap().1 > 0 {}
    assert_eq!(transaction.statement("DROP TABLE t", vec![], BOUNDS).await.unwrap().1, 0);
}

#[tokio::test]
async fn an_attempt_that_waits_for_the_turn_to_write_can_tell_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let pool = pool(&folder, "CREATE TABLE others (n INTEGER)");
    let who = Waiting::of("plugin `slow` (dlv_7)".to_owned());
    let mut first = pool.begin(false, &who).await.unwrap();
    first.statement("INSERT INTO others VALUES (1)", vec![], BOUNDS).await.unwrap();
    let why = pool.writer().unwrap();
    assert!(why.contains("plugin `slow` (dlv_7) has been writing for 0 s"), "{why}");
    drop(first);
    begin(&pool).await.statement("INSERT INTO others VALUES (2)", vec![], BOUNDS).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_no_interrupt_ends_is_given_up_after_its_grace() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let room = Room::new("app", &path, u64::MAX, 0);
    let worker = Worker::start("app".to_owned(), path, TIMEOUT, room).await.unwrap();
    let (end, ends) = mpsc::channel::<()>();
    let (begun, begins) = oneshot::channel();
    let stuck = worker.run(move |guest| {
        let control = guest.control();
        guest.as_guest(guard::Does::Rows, 1000, |_| {
            drop(begun.send(control));
            // Like a function that checks no deadline.
            let _ = ends.recv();
        });
    });
    let watch = async {
        let control = begins.await.unwrap();
        let mut late = None;
        stuck::watch(&control, Duration::from_millis(50), |by| late = Some(by)).await;
        assert!(late.is_some_and(|by| by > Duration::from_millis(50)), "{late:?}");
        end.send(()).unwrap();
    };
    assert_eq!(tokio::join!(stuck, watch).0, Ok(()));
    let control = worker.run(|guest| guest.control()).await.unwrap();
    stuck::watch(&control, Duration::ZERO, |_| panic!("nothing is at work")).await;
}
