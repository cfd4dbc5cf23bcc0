//! How the guard reads a statement's words. Tests in `database/tests` run the list of refused statements
//! against the databases themselves.

use std::collections::BTreeSet;

use super::*;

fn both(statement: &str) -> [Result<Checked, String>; 2] {
    [check(Dialect::Sqlite, statement), postgres(statement)]
}

fn postgres(statement: &str) -> Result<Checked, String> {
    check(Dialect::Postgres(&Grants::default()), statement)
}

#[test]
fn what_reads_and_writes_rows_passes_as_it_stands() {
    for statement in [
        "SELECT 'it''s; -- not a comment', \"a b\" FROM t WHERE n = $1",
        "insert into t (a, b) values ($1, $2) on conflict (a) do update set b = excluded.b returning a",
        "WITH c AS (SELECT 1) UPDATE t SET n = n + 1",
        "CREATE UNIQUE INDEX i ON t (n)",
        "ALTER TABLE t ADD COLUMN m TEXT",
    ] {
        for checked in both(statement) {
            assert_eq!(checked.unwrap().text, statement);
        }
    }
}

#[test]
fn comments_and_a_last_semicolon_are_left_out() {
    for checked in both("SELECT /* a /* b */ c */ 1 -- d\n + $2;; -- e") {
        let checked = checked.unwrap();
        assert_eq!((checked.text.as_str(), checked.parameters), ("SELECT 1 + $2", 2));
        assert!(checked.reads);
    }
}

#[test]
fn what_is_the_hosts_is_refused_in_every_disguise() {
    for statement in [
        "",
        "-- nothing",
        "BEGIN",
        "commit",
        "ROLLBACK TO SAVEPOINT x",
        "/* x */ COMMIT",
        "/* /* */ SELECT 1 -- */ */ COMMIT",
        "SELECT 1; COMMIT",
        "SELECT 1;\u{b}COMMIT",
        "ATTACH 'other.db' AS o",
        "DETACH main",
        "PRAGMA journal_mode = DELETE",
        "VACUUM INTO '/tmp/x'",
        "COPY t TO PROGRAM 'sh'",
        "SET ROLE postgres",
        "RESET ALL",
        "DO $$ BEGIN END $$",
        "CALL p()",
        "LISTEN x",
        "NOTIFY x",
        "LOCK TABLE t",
        "LOAD 'x'",
        "PREPARE x AS SELECT 1",
        "DECLARE c CURSOR FOR SELECT 1",
        "EXPLAIN ANALYZE DELETE FROM t",
        "GRANT ALL ON t TO PUBLIC",
        "TRUNCATE t",
        "CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END",
        "CREATE FUNCTION f() RETURNS int AS 'x' LANGUAGE c",
        "CREATE EXTENSION dblink",
        "CREATE TEMP TABLE t (n INT)",
        "CREATE VIRTUAL TABLE t USING fts5(a)",
        "CREATE ROLE r",
        "ALTER SYSTEM SET x = 1",
        "DROP DATABASE app",
        "SELECT * FROM posthouse_kv",
        "SELECT * FROM \"POSTHOUSE_deliveries\"",
        "SELECT 'posthouse_kv'::regclass",
        "SELECT 1 $",
        "SELECT 'open",
        "SELECT /* open",
        "SELECT $1a",
        "SELECT $0",
        "SELECT $1001",
    ] {
        for refused in both(statement) {
            assert!(refused.is_err(), "{statement}: {refused:?}");
        }
    }
}

#[test]
fn what_reaches_out_of_a_postgres_session_is_refused() {
    for statement in [
        "SELECT set_config('role', 'postgres', false)",
        "SELECT pg_advisory_lock(1)",
        "SELECT \"pg_advisory_lock\"(1)",
        "SELECT pg_catalog.set_config('a', 'b', false)",
        "SELECT PG_READ_FILE('/etc/passwd')",
        "SELECT pg_terminate_backend(1)",
        "SELECT lo_import('/etc/passwd')",
        "SELECT * FROM dblink('', 'COMMIT') AS t (n int)",
        "SELECT query_to_xml('SELECT 1', true, true, '')",
        "SELECT ts_stat('SELECT 1')",
        "SELECT 1 INTO TEMP x",
        "SELECT E'\\'; COMMIT; --'",
        "SELECT U&\"\\0070osthouse_kv\"",
        "SELECT U&'x'",
        "SELECT $$x$$",
        "SELECT $tag$x$tag$",
        "SELECT 1 \\ 2",
        "SELECT `x`",
        "CREATE TABLE pg_temp.t (n int)",
    ] {
        assert!(postgres(statement).is_err(), "{statement}");
    }
    for statement in ["SELECT pg_typeof($1)", "SELECT a ? 'b' FROM t", "SELECT a[1]::text FROM t"] {
        assert!(postgres(statement).is_ok(), "{statement}");
    }
}

#[test]
fn sqlites_own_signs_for_parameters_are_refused_and_its_names_are_read() {
    for statement in ["SELECT ?", "SELECT ?1", "SELECT :a", "SELECT @a", "SELECT #a"] {
        assert!(check(Dialect::Sqlite, statement).unwrap_err().contains("parameters are `$1`"));
    }
    for statement in ["SELECT [a; b] FROM `t ; u`", "SELECT x'00'"] {
        assert!(check(Dialect::Sqlite, statement).is_ok(), "{statement}");
    }
    assert!(check(Dialect::Sqlite, "SELECT * FROM [posthouse_kv]").is_err());
}

/// The functions that a statement calls, as its refusals name them, one after the other.
fn called(statement: &str) -> Vec<String> {
    let mut granted = BTreeSet::new();
    loop {
        let grants = Grants::new("app", &granted);
        match check(Dialect::Postgres(&grants), statement) {
            Ok(_) => return granted.into_iter().collect(),
            Err(why) => {
                let name = why
                    .strip_prefix("plugins may not call the function `")
                    .and_then(|rest| rest.split('`').next());
                let name = name.unwrap_or_else(|| panic!("{statement}: {why}"));
                assert!(granted.insert(name.to_owned()), "{statement}: {why}");
            }
        }
    }
}

#[test]
fn a_call_is_told_from_every_other_name_with_a_bracket_behind_it() {
    for statement in [
        "INSERT INTO t (a, b) VALUES (1, 2) ON CONFLICT (a) DO UPDATE SET (a, b) = (1, 2)",
        "INSERT INTO app.t AS x (a) SELECT 1",
        "CREATE TABLE IF NOT EXISTS app.t (a varchar(20), b numeric(10, 2) CHECK (b > 0), c vector(3), \
         \"d\" app.geometry(Point, 4326), FOREIGN KEY (a) REFERENCES u (b), PRIMARY KEY (a, b), UNIQUE (c))",
        "CREATE TABLE t (a character varying (20), b timestamp (3) with time zone, c bit varying (3))",
        "CREATE TABLE t (a int) PARTITION BY RANGE (a)",
        "CREATE UNIQUE INDEX IF NOT EXISTS i ON app.t (a, (b)) INCLUDE (c) WHERE (a > 1)",
        "CREATE INDEX i ON t USING gin (a gin_trgm_ops)",
        "CREATE VIEW v (a, b) AS SELECT 1, 2",
        "CREATE TYPE r AS (a int, b vector(3))",
        "CREATE TYPE e AS ENUM ('a', 'b')",
        "ALTER TABLE t ALTER COLUMN c TYPE vector(4), ADD COLUMN e vector(3) DEFAULT (NULL)",
        "WITH c (n) AS (SELECT 1), d (n) AS NOT MATERIALIZED (SELECT 2), e AS MATERIALIZED (SELECT 3) \
         SELECT * FROM c, d, e",
        "WITH RECURSIVE c (n) AS (VALUES (1)) SELECT * FROM c x (y) JOIN c z (w) ON (x.y = z.w)",
        "SELECT * FROM (VALUES (1, 2)) v (a, b), LATERAL (SELECT 1) AS w (c) JOIN u USING (a)",
        "SELECT a::numeric(10, 2), a::app.vector(3), CAST(a AS vector(3)), b[1] FROM t",
        "SELECT sum(a) FILTER (WHERE a > 1) OVER (PARTITION BY (b) ORDER BY (c)) FROM t GROUP BY ROLLUP (a, b)",
        "SELECT a FROM t GROUP BY GROUPING SETS ((a), ()) HAVING (a IN (1)) OR EXISTS (SELECT 1) OR a = ANY ('{}')",
        "SELECT x FROM unnest(a) WITH ORDINALITY u (x, at)",
        "SELECT now() AT TIME ZONE ('UTC'), coalesce(a, left(b, 1)), ROW (1), ARRAY (SELECT 1)",
        "MERGE INTO t USING u ON (t.a = u.a) WHEN NOT MATCHED THEN INSERT (a) VALUES (1)",
        "SELECT pg_catalog.lower('A'), \"lower\" ('A'), pg_typeof(1)",
    ] {
        assert_eq!(called(statement), Vec::<String>::new(), "{statement}");
    }
}

#[test]
fn a_call_is_found_wherever_an_expression_can_stand() {
    for statement in [
        "SELECT f(1)",
        "SELECT F /* x */ (1)",
        "SELECT \"f\"(1)",
        "SELECT ALL f(1)",
        "SELECT DISTINCT f(1)",
        "SELECT DISTINCT ON (a) f(1) FROM t",
        "SELECT a, f(1)",
        "SELECT (f(1))",
        "SELECT -f(1)",
        "SELECT a[f(1)]",
        "SELECT ARRAY[f(1)]",
        "SELECT a::int + f(1)",
        "SELECT 1 WHERE NOT f(1)",
        "SELECT CASE f(1) WHEN 1 THEN 1 END",
        "SELECT CASE WHEN true THEN f(1) END",
        "SELECT CASE WHEN true THEN 1 ELSE f(1) END",
        "SELECT CAST(f(1) AS int)",
        "SELECT a IN (f(1))",
        "SELECT a BETWEEN f(1) AND 2",
        "SELECT a BETWEEN SYMMETRIC f(1) AND 2",
        "SELECT a IS DISTINCT FROM f(1)",
        "SELECT a LIKE f(1)",
        "SELECT a SIMILAR TO f(1)",
        "SELECT a LIKE 'b' ESCAPE f(1)",
        "SELECT a AT TIME ZONE f(1)",
        "SELECT a COLLATE \"C\" || f(1)",
        "SELECT extract(epoch FROM f(1))",
        "SELECT substring('a' FOR f(1))",
        "SELECT overlay('a' PLACING f(1) FROM 1)",
        "SELECT trim(BOTH f(1) FROM 'a')",
        "SELECT position('a' IN f(1))",
        "SELECT format(VARIADIC f(1))",
        "SELECT sum(a ORDER BY f(1))",
        "SELECT sum(a) FILTER (WHERE f(1))",
        "SELECT sum(a) OVER (ORDER BY a ROWS f(1) PRECEDING)",
        "SELECT * FROM f(1)",
        "SELECT * FROM t, f(1) AS (a int)",
        "SELECT * FROM t JOIN f(1) AS x ON true",
        "SELECT * FROM t JOIN LATERAL f(1) x ON f(2)",
        "SELECT * FROM ROWS FROM (f(1))",
        "SELECT * FROM t TABLESAMPLE f(1)",
        "SELECT * FROM g() WITH ORDINALITY AS (a int), f(1) AS (b int)",
        "SELECT 1 UNION ALL SELECT f(1)",
        "SELECT 1 LIMIT f(1)",
        "SELECT 1 OFFSET f(1)",
        "SELECT 1 FETCH FIRST (f(1)) ROWS ONLY",
        "SELECT 1 GROUP BY f(1)",
        "SELECT 1 HAVING f(1)",
        "SELECT 1 ORDER BY f(1)",
        "VALUES (f(1))",
        "INSERT INTO t VALUES (f(1))",
        "INSERT INTO t SELECT f(1)",
        "INSERT INTO t VALUES (1) ON CONFLICT (f(1)) DO NOTHING",
        "INSERT INTO t VALUES (1) RETURNING f(1)",
        "UPDATE t SET a = f(1)",
        "UPDATE t SET a = 1 FROM f(1)",
        "UPDATE t SET a = 1 WHERE f(1)",
        "DELETE FROM t USING f(1)",
        "WITH c AS (SELECT f(1)) SELECT 1",
        "WITH c AS (SELECT 1) SELECT f(1)",
        "WITH c AS (SELECT 1), d AS (SELECT f(1)) SELECT 1",
        "CREATE TABLE t AS SELECT f(1)",
        "CREATE TABLE t (a int DEFAULT f(1))",
        "CREATE TABLE t (a int CHECK (f(1)))",
        "CREATE TABLE t (a int GENERATED ALWAYS AS (f(1)) STORED)",
        "CREATE TABLE t (a int, EXCLUDE USING gist (f(1) WITH =))",
        "CREATE TABLE t (a int) PARTITION BY RANGE (f(1))",
        "CREATE INDEX i ON t (f(1))",
        "CREATE INDEX i ON t USING gin (f(1))",
        "CREATE INDEX i ON t (a) WHERE f(1)",
        "CREATE VIEW v AS SELECT f(1)",
        "ALTER TABLE t ALTER COLUMN a TYPE int USING f(1)",
        "ALTER TABLE t ALTER COLUMN a SET DEFAULT f(1)",
        "MERGE INTO t USING f(1) ON f(2) WHEN MATCHED AND f(3) THEN UPDATE SET a = f(4)",
    ] {
        let called = called(statement);
        assert!(called.contains(&"f".to_owned()), "{statement}: {called:?}");
    }
    for (statement, name) in [
        ("SELECT app.f(1)", "app.f"),
        ("SELECT app /* x */ . \"f\" (1)", "app.f"),
        ("SELECT \"F\"(1)", "F"),
        ("SELECT \"LOWER\"('a')", "LOWER"),
        ("SELECT public.lower('a')", "public.lower"),
        ("SELECT pg_catalog.f(1)", "pg_catalog.f"),
        ("SELECT treat('1' AS f)", "treat"),
    ] {
        assert_eq!(called(statement), [name], "{statement}");
    }
}

#[test]
fn a_name_after_a_dot_is_asked_about() {
    let names = |statement| postgres(statement).unwrap().names;
    assert!(names("SELECT a, b FROM t WHERE c = $1").is_empty());
    assert_eq!(names("SELECT t.f FROM t").of_rows, ["f"]);
    assert_eq!(names("SELECT (t).f, (t).f, ($1).g, a[1].h, $2.i FROM t").of_values, ["f", "g", "h", "i"]);
    assert_eq!(names("SELECT lower(a), (a).upper FROM t").called, ["lower", "upper"]);
}

mod whatever_is_written {
    use proptest::prelude::*;

    use super::*;

    const PIECES: [&str; 56] = [
        "select",
        "from",
        "where",
        "with",
        "recursive",
        "as",
        "not",
        "materialized",
        "distinct",
        "on",
        "using",
        "create",
        "alter",
        "drop",
        "table",
        "index",
        "view",
        "type",
        "unique",
        "if",
        "exists",
        "only",
        "into",
        "insert",
        "values",
        "update",
        "set",
        "references",
        "cascade",
        "operator",
        "of",
        "exclude",
        "partition",
        "by",
        "range",
        "f",
        "lower",
        "pg_catalog",
        "regclass",
        "information_schema",
        "\"q\"",
        "'text'",
        "$1",
        "1",
        "(",
        ")",
        "(",
        ")",
        "[",
        "]",
        ",",
        ".",
        ":",
        "*",
        "/* x */",
        "-- x\n",
    ];

    proptest! {
        #[test]
        fn the_guard_ends_and_its_text_means_the_same_to_it(
            first in proptest::sample::select(&FIRST[..]),
            pieces in proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..24),
        ) {
            for statement in [format!("{first} {}", pieces.join(" ")), format!("{first} {}", pieces.concat())] {
                for (dialect, checked) in both(&statement).into_iter().enumerate() {
                    if let Ok(checked) = checked {
                        prop_assert_eq!(&both(&checked.text)[dialect], &Ok(checked.clone()));
                    }
                }
            }
        }
    }
}
