//! The statements that guests may not run, and those that they may, on real databases of both engines.

use super::*;
use crate::guard;

const REFUSED: &str = include_str!("../../../../tests/data/refused-statements.txt");
const ALLOWED: &str = include_str!("../../../../tests/data/allowed-statements.txt");

/// The objects that the operator has created besides the tables, on PostgreSQL.
const OPERATORS: &str = "
CREATE EXTENSION xml2; CREATE EXTENSION pg_trgm; CREATE EXTENSION dblink; CREATE EXTENSION tablefunc;
CREATE EXTENSION hstore; CREATE EXTENSION pgcrypto; CREATE EXTENSION citext; CREATE SCHEMA app;
CREATE FUNCTION app.next_invoice() RETURNS bigint LANGUAGE sql AS 'SELECT 7::bigint';
CREATE FUNCTION run(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN EXECUTE $1; RETURN $1; END';
CREATE FUNCTION app.run(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN EXECUTE $1; RETURN $1; END';
CREATE FUNCTION \"UPPER\"(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN EXECUTE $1; RETURN $1; END';";

/// Functions of the operator that would delete rows. Some take a row of `t`, which exists by then. Some have
/// the name of a built-in function.
const HARMFUL: &str = "
CREATE FUNCTION upper(bigint) RETURNS text LANGUAGE plpgsql AS 'BEGIN DELETE FROM users; RETURN $1; END';
CREATE FUNCTION \"substring\"(int, bigint) RETURNS text LANGUAGE plpgsql AS 'BEGIN DELETE FROM users; RETURN $1; END';
CREATE FUNCTION \"overlay\"(int, bigint) RETURNS text LANGUAGE plpgsql AS 'BEGIN DELETE FROM users; RETURN $1; END';
CREATE FUNCTION peek(t) RETURNS text LANGUAGE plpgsql AS 'BEGIN DELETE FROM users; RETURN $1; END';
CREATE FUNCTION peek_any(anyelement) RETURNS text LANGUAGE plpgsql AS 'BEGIN DELETE FROM users; RETURN $1; END';
CREATE FUNCTION peek_many(VARIADIC t[]) RETURNS text LANGUAGE plpgsql AS 'BEGIN DELETE FROM users; RETURN $1; END';";

/// A line of a list of statements.
struct Line {
    engine: &'static str,
    /// Whether the engine cannot read the statement.
    unreadable: bool,
    statement: String,
}

impl Line {
    fn is_for(&self, database: &Database) -> bool {
        let engine = if is_sqlite(database) { "sqlite" } else { "postgres" };
        self.engine == "both" || self.engine == engine
    }
}

fn lines(list: &'static str) -> Vec<Line> {
    let is_line = |line: &&str| !(line.is_empty() || line.starts_with('#') || line.starts_with('['));
    let read = |line: &'static str| {
        let (engine, statement) = line.split_once(' ').unwrap();
        let (engine, unreadable) = match engine.strip_prefix('!') {
            Some(engine) => (engine, true),
            None => (engine, false),
        };
        assert!(["both", "sqlite", "postgres"].contains(&engine), "{line}");
        Line { engine, unreadable, statement: statement.replace("\\n", "\n").replace("\\t", "\t") }
    };
    list.lines().filter(is_line).map(read).collect()
}

/// The statements that must not run.
pub(super) fn refused() -> impl Iterator<Item = String> {
    lines(REFUSED).into_iter().map(|line| line.statement)
}

/// Everything that a statement could have changed: definitions, and rows of the plugins and of the host.
async fn everything(fixture: &Fixture, database: &Database) -> Vec<String> {
    let mut found: Vec<String> = if is_sqlite(database) {
        let connection = rusqlite::Connection::open(fixture.folder.path().join("app.db")).unwrap();
        let mut schema = connection.prepare("SELECT sql FROM sqlite_schema ORDER BY 1").unwrap();
        schema.query_map([], |row| row.get::<_, Option<String>>(0)).unwrap().flatten().flatten().collect()
    } else {
        let asked = "SELECT c.oid, relname, relkind, relrowsecurity, relowner, relhasrules, relhastriggers, \
             (SELECT string_agg(concat(attname, atttypid, atthasdef), ',' ORDER BY attnum) FROM pg_attribute \
             WHERE attrelid = c.oid) FROM pg_class c WHERE relnamespace > 16000 OR relname IN \
             ('t', 'users', 'v', 's', 'posthouse_kv', 'posthouse_deliveries') OR relnamespace = 2200 ORDER BY 1";
        let rows = fixture.postgres.query(asked);
        let functions = fixture.postgres.query("SELECT count(*), max(oid) FROM pg_proc");
        rows.into_iter().chain(functions).map(|row| row.join(" ")).collect()
    };
    let mut transaction = begin(database, 902).await;
    for rows in ["SELECT n, m FROM t ORDER BY n", "SELECT id, name FROM users ORDER BY id"] {
        let rows = transaction.query(rows, vec![], BOUNDS).await.unwrap();
        found.push(format!("{:?}", rows.rows));
    }
    found.push(format!("{:?}", transaction.kv_get("neighbour", "key").await.unwrap()));
    found.push(format!("{:?}", database.find_marker(DeliveryId(77)).await.unwrap()));
    found
}

/// The server's processes for posthouse's connections.
fn connections(fixture: &Fixture) -> Vec<Vec<String>> {
    fixture.postgres.query(
        "SELECT pid, backend_start FROM pg_stat_activity WHERE application_name = 'posthouse' ORDER BY 1",
    )
}

async fn prepare(fixture: &Fixture, database: &Database) {
    if !is_sqlite(database) {
        fixture.postgres.execute(OPERATORS);
    }
    let mut tables = vec![
        "CREATE TABLE t (n BIGINT PRIMARY KEY, m TEXT)",
        "CREATE TABLE users (id BIGINT PRIMARY KEY, name TEXT)",
        "CREATE INDEX i ON t (m)",
        "CREATE VIEW v AS SELECT n FROM t",
        "INSERT INTO t VALUES (1, 'one'), (2, 'two')",
        "INSERT INTO users VALUES (1, 'Ada'), (2, 'Grace')",
    ];
    if is_sqlite(database) {
        tables.push("CREATE TABLE counted (n INTEGER PRIMARY KEY AUTOINCREMENT)");
        tables.push("INSERT INTO counted VALUES (5)");
    } else {
        tables.extend(["CREATE SEQUENCE s", "CREATE TYPE mood AS ENUM ('sad', 'happy')"]);
    }
    run(database, &tables).await;
    if !is_sqlite(database) {
        fixture.postgres.execute(HARMFUL);
    }
    let mut neighbour = begin(database, 77).await;
    neighbour.stage_kv("neighbour", BTreeMap::from([("key".into(), KvWrite::Set(b"value".to_vec()))]), 1000);
    neighbour.commit(b"carried".to_vec(), ()).await.unwrap();
}

/// The state of the session that the next attempt finds. It must be the connection that the statements had, in
/// its initial state.
async fn session(database: &Database) -> Vec<String> {
    let mut transaction = begin(database, 903).await;
    match &mut transaction.open {
        Open::Sqlite(open) => open
            .run(false, |guest| {
                let all = |query: &str| -> Vec<String> {
                    let mut statement = guest.connection.prepare(query).unwrap();
                    let rows =
                        statement.query_map([], |row| row.get::<_, rusqlite::types::Value>(0)).unwrap();
                    rows.map(|row| format!("{:?}", row.unwrap())).collect()
                };
                Ok::<_, TxAborted>(
                    [
                        "SELECT name FROM pragma_database_list",
                        "SELECT * FROM pragma_foreign_keys",
                        "SELECT * FROM pragma_synchronous",
                        "SELECT name FROM sqlite_temp_schema",
                    ]
                    .iter()
                    .flat_map(|query| all(query))
                    .collect(),
                )
            })
            .await
            .unwrap(),
        Open::Postgres(_) => Vec::new(),
    }
}

#[tokio::test]
async fn no_statement_on_the_list_runs_on_either_engine_and_nothing_of_the_session_changes() {
    let list = lines(REFUSED);
    assert!(list.len() >= 300, "{}", list.len());
    let fixture = Fixture::new();
    for database in &fixture.databases() {
        prepare(&fixture, database).await;
        let before = everything(&fixture, database).await;
        let at_first = connections(&fixture);
        let mut ran = Vec::new();
        for line in list.iter().filter(|line| line.is_for(database)) {
            let mut transaction = begin(database, 1).await;
            transaction.execute("INSERT INTO t VALUES (90, 'mine')", vec![], BOUNDS).await.unwrap();
            let answer = transaction.query(&line.statement, vec![], BOUNDS).await;
            let refused = match &answer {
                Err(SqlError::Refused(why)) => !why.is_empty(),
                Err(SqlError::Statement { .. }) => line.unreadable,
                _ => false,
            };
            if !refused {
                ran.push(format!("{}\n    {answer:?}", line.statement));
            }
            // The transaction is still the same one, and continues.
            let rows = transaction.query("SELECT count(*) FROM t WHERE n = 90", vec![], BOUNDS).await;
            assert_eq!(rows.unwrap().rows, [[Value::Integer(1)]], "{}", line.statement);
        }
        assert!(ran.is_empty(), "{} of the list ran:\n{}", ran.len(), ran.join("\n"));
        assert_eq!(everything(&fixture, database).await, before);
        if is_sqlite(database) {
            assert_eq!(session(database).await, ["Text(\"main\")", "Integer(1)", "Integer(1)"]);
        } else {
            // A rollback runs while the next attempt begins, which may open one more connection.
            let now = connections(&fixture);
            assert!(at_first.iter().all(|one| now.contains(one)), "{now:?} lacks one of {at_first:?}");
            assert!(now.len() <= 6, "no connection was closed: {now:?}");
        }
    }
}

#[tokio::test]
async fn what_an_ordinary_plugin_does_runs_on_both_engines() {
    let list = lines(ALLOWED);
    let fixture = Fixture::new();
    fixture.postgres.execute(OPERATORS);
    for database in
        &fixture.databases_with(&["similarity", "app.next_invoice", "public.word_similarity"], None)
    {
        let mut transaction = begin(database, 1).await;
        let statements = list.iter().filter(|line| line.is_for(database));
        assert!(statements.clone().count() >= 60);
        let mut failed = Vec::new();
        for line in statements {
            if let Err(error) = transaction.query(&line.statement, vec![], BOUNDS).await {
                failed.push(format!("{}\n    {error:?}", line.statement));
            }
        }
        assert!(failed.is_empty(), "{}", failed.join("\n"));
        transaction.commit(vec![], ()).await.unwrap();
    }
}

#[tokio::test]
async fn a_grant_of_a_function_is_for_this_name_and_this_schema() {
    let fixture = Fixture::new();
    fixture.postgres.execute(OPERATORS);
    let [_, database] = &fixture.databases_with(&["similarity", "app.next_invoice"], None);
    let mut transaction = begin(database, 1).await;
    for statement in [
        "SELECT public.similarity('a', 'b')",
        "SELECT \"SIMILARITY\"('a', 'b')",
        "SELECT next_invoice()",
        "SELECT public.next_invoice()",
        "SELECT show_trgm('a')",
    ] {
        let refused = transaction.query(statement, vec![], BOUNDS).await;
        let Err(SqlError::Refused(why)) = refused else { panic!("{statement}: {refused:?}") };
        assert!(why.contains("`functions = [\"") && why.contains("[databases.app]"), "{why}");
    }
}

#[tokio::test]
async fn what_would_hide_a_table_further_back_on_the_search_path_is_undone() {
    let fixture = Fixture::new();
    // The first schema on the path has the name of the role.
    fixture.postgres.execute(
        "CREATE SCHEMA posthouse; CREATE TABLE public.users (id BIGINT); INSERT INTO public.users VALUES (7)",
    );
    let [_, database] = &fixture.databases();
    let mut transaction = begin(database, 1).await;
    transaction.execute("CREATE TABLE mine (id BIGINT)", vec![], BOUNDS).await.unwrap();
    for statement in [
        "CREATE TABLE users (id BIGINT)",
        "CREATE TABLE IF NOT EXISTS users (id BIGINT)",
        "CREATE TABLE posthouse.users AS SELECT 1 AS id",
        "CREATE VIEW users AS SELECT 1 AS id",
        "CREATE MATERIALIZED VIEW users AS SELECT 1 AS id",
        "CREATE SEQUENCE users",
        "CREATE TYPE users AS ENUM ('x')",
        "SELECT 1 AS id INTO users",
        "ALTER TABLE mine RENAME TO users",
    ] {
        let refused = transaction.query(statement, vec![], BOUNDS).await;
        let Err(SqlError::Refused(why)) = refused else { panic!("{statement}: {refused:?}") };
        assert!(why.contains("`posthouse.users` would hide `public.users`"), "{statement}: {why}");
        let rows = transaction.query("SELECT id FROM users", vec![], BOUNDS).await;
        assert_eq!(rows.unwrap().rows, [[Value::Integer(7)]], "{statement}");
    }
    transaction.execute("INSERT INTO mine SELECT id FROM users", vec![], BOUNDS).await.unwrap();
    transaction.commit(vec![], ()).await.unwrap();
    assert_eq!(numbers(database, "SELECT id FROM mine").await, [7]);
}

#[tokio::test]
async fn the_built_in_functions_on_the_list_only_compute_and_no_other_runs() {
    let fixture = Fixture::new();
    fixture.postgres.execute(OPERATORS);
    let [_, database] = &fixture.databases();
    let names = guard::built_in().collect::<Vec<_>>();
    let listed = names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(",");
    // PostgreSQL itself marks functions that must not run in a parallel worker: those that write, or keep
    // something in the session. `age(xid)` and the random ones only read such state.
    let unsafe_ones = fixture.postgres.query(&format!(
        "SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace \
         AND proparallel <> 's' AND proname IN ({listed}) ORDER BY 1"
    ));
    assert_eq!(unsafe_ones.concat(), ["age", "nextval", "random"]);
    let doubled = names.iter().collect::<BTreeSet<_>>().len() < names.len();
    assert!(!doubled, "a name is on the list twice");
    // All other functions of the server, its extensions and the operator are refused, called in the usual way.
    let others = fixture.postgres.query(&format!(
        "SELECT DISTINCT nspname, proname FROM pg_proc JOIN pg_namespace n ON n.oid = pronamespace \
         WHERE (nspname <> 'pg_catalog' OR proname NOT IN ({listed})) \
         AND nspname <> 'information_schema'"
    ));
    assert!(others.len() > 1500, "{}", others.len());
    let mut transaction = begin(database, 1).await;
    let mut ran = Vec::new();
    for function in others {
        let [schema, name] = function.try_into().unwrap();
        let mut calls =
            vec![format!("SELECT \"{schema}\".\"{name}\"(1)"), format!("SELECT {schema} . {name} (1)")];
        if !names.contains(&name.as_str()) {
            calls.push(format!("SELECT * FROM \"{name}\" ()"));
        }
        for call in calls {
            let answer = transaction.query(&call, vec![], BOUNDS).await;
            if !matches!(answer, Err(SqlError::Refused(_))) {
                ran.push(format!("{call}: {answer:?}"));
            }
        }
    }
    assert!(ran.is_empty(), "{}", ran.join("\n"));
}

#[test]
fn the_guard_reads_the_inputs_of_its_fuzz_target_as_postgresql_does() {
    let fixture = Fixture::new();
    fixture.postgres.execute(crate::fuzz::TABLES);
    for (name, input) in posthouse_harness::corpus("guard") {
        println!("{name}");
        crate::fuzz::guard_with(Some(&fixture.postgres.url()), &input);
    }
}
