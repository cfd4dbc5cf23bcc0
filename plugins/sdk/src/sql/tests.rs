//! Statements through the SDK, on an in-memory host.

use super::*;
use crate::{
    Capability, Delivery, Event, Failure, Manifest, Plugin,
    testing::{self, Host},
};

/// Runs the test's closure within an attempt.
struct Attempt;

thread_local! {
    static WORK: std::cell::Cell<fn() -> Result<(), Failure>> = const { std::cell::Cell::new(|| Ok(())) };
}

impl Plugin for Attempt {
    fn manifest() -> Manifest {
        Manifest::new("a test")
    }
    fn handle(_event: Event, _delivery: Delivery) -> Result<(), Failure> {
        WORK.get()()
    }
}

fn attempt(host: &mut Host, work: fn() -> Result<(), Failure>) -> Result<(), Failure> {
    WORK.set(work);
    host.deliver::<Attempt>(testing::event("a.b", "{}"))
}

const FIRST: &str =
    "CREATE TABLE users (id TEXT PRIMARY KEY, age BIGINT);\nCREATE INDEX ages ON users (age);\n";
const SECOND: &str = "ALTER TABLE users ADD name TEXT;\n";
const TABLES: Migrations = Migrations::new("test", &[FIRST, SECOND]);

fn host() -> Host {
    Host::new().grant(Capability::Sql)
}

#[test]
fn rows_are_read_by_the_names_of_their_columns() {
    attempt(&mut host(), || {
        TABLES.apply()?;
        let none: Option<&str> = None;
        for (id, age, name) in [("a", 7, Some("Ada")), ("b", 8, none)] {
            // SQLite treats `$2` as a name; the numbers must still be right.
            execute("INSERT INTO users (age, id, name) VALUES ($2, $1, $3)", &[&id, &age, &name])?;
        }
        let rows = query("SELECT * FROM users WHERE age > $1 ORDER BY id", &[&6])?;
        assert_eq!(rows.len(), 2);
        let found: Vec<(String, i64, Option<String>)> = rows
            .iter()
            .map(|row| Ok((row.get("id")?, row.get("age")?, row.get("name")?)))
            .collect::<Result<_, Error>>()?;
        assert_eq!(found, [("a".into(), 7, Some("Ada".into())), ("b".into(), 8, None)]);

        let row = query_row("SELECT id, age FROM users WHERE id = $1", &[&"a"])?.unwrap();
        assert_eq!(
            row.get::<String>("nmae").unwrap_err().to_string(),
            "there is no column `nmae`; the columns are `id`, `age`"
        );
        assert_eq!(
            row.get::<String>("age").unwrap_err().to_string(),
            "column `age` was expected to be text, and is an integer"
        );
        assert!(query_row("SELECT id FROM users WHERE id = $1", &[&"c"])?.is_none());
        assert_eq!(execute("UPDATE users SET age = age + 1", &[])?, 2);
        Ok(())
    })
    .unwrap();
}

#[test]
fn every_type_goes_there_and_back() {
    attempt(&mut host(), || {
        let json = serde_json::json!({"a": [1, null]});
        let row = query_row(
            "SELECT $1 AS a, $2 AS b, $3 AS c, $4 AS d, $5 AS e, $6 AS f, $7 AS g, $8 AS h",
            &[
                &true,
                &i64::MIN,
                &0.5,
                &"ä",
                &b"\0\xff".to_vec(),
                &Micros::of(1_767_323_045_123_456_789),
                &json,
                &Uuid("7c66a173-79c6-4270-ac78-8f35a8121e0a".to_owned()),
            ],
        )?;
        let row = row.unwrap();
        assert!(row.get::<bool>("a")?);
        assert_eq!(row.get::<i64>("b")?, i64::MIN);
        assert_eq!(row.get::<f64>("c")?, 0.5);
        assert_eq!(row.get::<String>("d")?, "ä");
        assert_eq!(row.get::<Vec<u8>>("e")?, b"\0\xff");
        assert_eq!(row.get::<Micros>("f")?, Micros(1_767_323_045_123_456));
        assert_eq!(row.get::<serde_json::Value>("g")?, json);
        assert_eq!(row.get::<Uuid>("h")?.0, "7c66a173-79c6-4270-ac78-8f35a8121e0a");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_statement_that_fails_says_why_and_the_attempt_may_go_on() {
    let mut host = host();
    attempt(&mut host, || {
        TABLES.apply()?;
        execute("INSERT INTO users (id) VALUES ($1)", &[&"a"])?;
        let again = execute("INSERT INTO users (id) VALUES ($1)", &[&"a"]).unwrap_err();
        assert_eq!(again.sqlstate(), Some("23000"), "{again}");
        assert_eq!(query("SELECT * FROM nowhere", &[]).unwrap_err().sqlstate(), Some("42P01"));
        assert!(query("SELECT $2", &[&1]).unwrap_err().to_string().contains("$2"));
        for statement in ["COMMIT", " rollback", "SELECT 1; SELECT 2"] {
            assert!(matches!(query(statement, &[]), Err(Error::Refused(_))), "{statement}");
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(host.rows("SELECT id FROM users"), ["a"]);
}

#[test]
fn migrations_are_applied_once_and_go_with_the_attempt_that_fails() {
    let mut host = host();
    let fails = attempt(&mut host, || {
        TABLES.apply()?;
        execute("INSERT INTO users (id) VALUES ('a')", &[])?;
        Err(Failure::retry("no"))
    });
    fails.unwrap_err();
    assert!(host.rows("SELECT name FROM sqlite_schema").is_empty());
    for _ in 0..2 {
        attempt(&mut host, || Ok(TABLES.apply()?)).unwrap();
    }
    assert_eq!(host.rows("SELECT * FROM plugin_migrations ORDER BY version"), ["test|1", "test|2"]);

    // A later revision of the plugin, with one more migration.
    const MORE: Migrations = Migrations::new("test", &[FIRST, SECOND, "CREATE TABLE more (id TEXT);"]);
    attempt(&mut host, || Ok(MORE.apply()?)).unwrap();
    assert_eq!(host.rows("SELECT max(version) FROM plugin_migrations"), ["3"]);
}

#[test]
fn a_table_that_another_attempt_is_making_is_tried_again() {
    let mut host = host();
    attempt(&mut host, || {
        execute("CREATE TABLE users (id TEXT PRIMARY KEY)", &[])?;
        Ok(())
    })
    .unwrap();
    let failure = attempt(&mut host, || Ok(TABLES.apply()?)).unwrap_err();
    assert!(
        matches!(&failure, Failure::Retry(reason) if reason.contains("migration 1 of `test`")),
        "{failure:?}"
    );
}

#[test]
fn without_the_grant_nothing_runs() {
    let failure = attempt(&mut Host::new(), || Ok(TABLES.apply()?)).unwrap_err();
    assert!(matches!(&failure, Failure::Reject(reason) if reason.contains("database =")), "{failure:?}");
}
