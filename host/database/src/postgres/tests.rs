//! Tests of connections whose session was changed. A function that the operator granted changes it,
//! because no guest's statement can.

use posthouse_harness::Postgres;
use posthouse_model::{
    config::{DatabaseTarget, Secret},
    testing::database,
};

use super::*;

const BOUNDS: Bounds = Bounds { rows: 100, bytes: 64 << 10 };

const FUNCTIONS: &str = "
CREATE SCHEMA app;
CREATE TABLE w (n int);
CREATE FUNCTION app.pid() RETURNS int LANGUAGE sql AS 'SELECT pg_backend_pid()';
CREATE FUNCTION app.table() RETURNS void LANGUAGE plpgsql AS 'BEGIN CREATE TEMP TABLE t (n int); END';
CREATE FUNCTION app.view() RETURNS void LANGUAGE plpgsql AS 'BEGIN CREATE TEMP VIEW t AS SELECT 99 AS n; END';
CREATE FUNCTION app.path() RETURNS text LANGUAGE sql AS $$SELECT set_config('search_path', 'app, public', false)$$;
CREATE FUNCTION app.role() RETURNS text LANGUAGE sql AS $$SELECT set_config('role', 'posthouse', false)$$;
CREATE FUNCTION app.zone() RETURNS text LANGUAGE sql AS $$SELECT set_config('TimeZone', 'Asia/Tokyo', false)$$;
CREATE FUNCTION app.endless() RETURNS text LANGUAGE sql AS $$SELECT set_config('statement_timeout', '0', false)$$;
CREATE FUNCTION app.idle() RETURNS text LANGUAGE sql
    AS $$SELECT set_config('default_transaction_read_only', 'on', false)$$;
CREATE FUNCTION app.listen() RETURNS void LANGUAGE plpgsql AS 'BEGIN LISTEN x; END';
CREATE FUNCTION app.lock() RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_lock(5)';";

/// The functions that change the session permanently.
const DIRT: [&str; 7] = ["table", "view", "path", "role", "zone", "endless", "idle"];

fn pool(postgres: &Postgres) -> Arc<Pool> {
    postgres.execute(FUNCTIONS);
    let names = DIRT.iter().copied().chain(["pid", "listen", "lock"]);
    let settings = DatabaseSettings {
        functions: names.map(|name| format!("app.{name}")).collect(),
        ..database(DatabaseTarget::Postgres(Secret::new(postgres.url())))
    };
    Pool::new("app", &postgres.url(), &settings)
}

/// How an attempt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Written,
    Read,
    Dropped,
}

/// Runs one attempt, which calls a function. Returns the connection that it had.
async fn attempt(pool: &Arc<Pool>, function: Option<&str>, end: End) -> Value {
    let begun = pool.begin(DeliveryId(1), AttemptHistory::default(), &Waiting::default()).await;
    let mut transaction = begun.unwrap();
    let (rows, _) = transaction.statement("SELECT app.pid()", vec![], BOUNDS).await.unwrap();
    if end == End::Written {
        transaction.statement("INSERT INTO w VALUES (1)", vec![], BOUNDS).await.unwrap();
    }
    if let Some(function) = function {
        let call = format!("SELECT app.{function}()::text");
        transaction.statement(&call, vec![], BOUNDS).await.unwrap();
    }
    if end == End::Dropped {
        drop(transaction);
        // A separate task rolls it back.
        while pool.places.available_permits() < 4 {
            tokio::task::yield_now().await;
        }
    } else {
        transaction.commit(vec![], Written::default(), ()).await.unwrap();
        pool.remove_markers(&[DeliveryId(1)]).await.unwrap();
    }
    rows.rows[0][0].clone()
}

#[tokio::test]
async fn a_connection_whose_session_was_changed_is_closed_and_no_other() {
    let postgres = Postgres::start();
    let pool = pool(&postgres);
    let mut connection = attempt(&pool, None, End::Written).await;
    for end in [End::Written, End::Read, End::Dropped] {
        assert_eq!(attempt(&pool, None, end).await, connection, "it is used again");
        assert_eq!(attempt(&pool, Some("lock"), end).await, connection, "what would stay was released");
    }
    for dirt in DIRT {
        for end in [End::Written, End::Read] {
            assert_eq!(attempt(&pool, Some(dirt), end).await, connection, "{dirt}");
            let other = attempt(&pool, None, End::Read).await;
            assert_ne!(other, connection, "{dirt}, {end:?}");
            connection = other;
        }
        // A rollback undoes the change. If the server reported the change, the connection is closed anyway.
        assert_eq!(attempt(&pool, Some(dirt), End::Dropped).await, connection, "{dirt}");
        connection = attempt(&pool, None, End::Read).await;
    }
    let locks = postgres.query("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'");
    assert_eq!(locks.concat(), ["0"], "what would stay was released");
}

#[tokio::test]
async fn a_connection_that_listens_is_closed_at_its_first_notification() {
    let postgres = Postgres::start();
    let pool = pool(&postgres);
    let connection = attempt(&pool, Some("listen"), End::Read).await;
    postgres.execute("NOTIFY x");
    let mut closed = false;
    for _ in 0..100 {
        closed |= attempt(&pool, None, End::Read).await != connection;
        if closed {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(closed);
}
