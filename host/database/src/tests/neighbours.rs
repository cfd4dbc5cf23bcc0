//! Two plugins on one database. One runs random statements, many of which try to hide the other's tables. The
//! other plugin sees no difference and loses nothing.
//!
//! Tables are shared: any plugin that names another's table may change it. So the random plugin names the
//! other's table only to create an object of the same name, in every place where a statement can name one.

use std::cell::RefCell;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::*;

/// The changes of an attempt of the honest plugin to its rows and keys.
#[derive(Debug, Clone)]
enum Work {
    Insert(String),
    Update(usize, String),
    Delete(usize),
    Set(u8, Vec<u8>),
    Add(i64),
    Read,
}

/// One attempt.
#[derive(Debug, Clone)]
enum Attempt {
    /// An attempt of the random plugin, and whether it commits.
    Random(Vec<String>, bool),
    /// An attempt of the honest plugin.
    Honest(Work),
}

fn one_of(words: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    proptest::sample::select(words)
}

/// Creates an object under a name that may be the other plugin's, in any schema.
fn creation() -> impl Strategy<Value = String> {
    let create = one_of(&["CREATE", "create", "CREATE OR REPLACE", "CREATE /* x */"]);
    let kind =
        one_of(&["TABLE", "TEMP TABLE", "VIEW", "TEMPORARY VIEW", "SEQUENCE", "TYPE", "MATERIALIZED VIEW"]);
    let guarded = one_of(&["", "", "IF NOT EXISTS "]);
    let schema = one_of(&[
        "",
        "",
        "",
        "main.",
        "public.",
        "app.",
        "posthouse.",
        "temp.",
        "TEMP.",
        "\"temp\".",
        "'temp'.",
        "[temp].",
        "temp . ",
        "temp/**/.",
        "pg_temp.",
        "\"pg_temp\".",
        "pg_catalog.",
    ]);
    let name = one_of(&["b_rows", "B_Rows", "\"b_rows\"", "b_next", "a_1", "a_2", "a_3"]);
    (create, kind, guarded, schema, name).prop_map(|(create, kind, guarded, schema, name)| {
        let body = match kind {
            "TABLE" | "TEMP TABLE" => "(id BIGINT PRIMARY KEY, name TEXT)",
            "SEQUENCE" => "START 1",
            "TYPE" => "AS ENUM ('x')",
            _ => "AS SELECT 99 AS id, 'hidden' AS name",
        };
        format!("{create} {kind} {guarded}{schema}{name} {body}")
    })
}

/// The statements of a plugin on its own tables.
fn own() -> impl Strategy<Value = String> {
    let table = || one_of(&["a_1", "a_2", "a_3"]);
    prop_oneof![
        (table(), 0..50i64).prop_map(|(t, n)| format!(
            "INSERT INTO {t} VALUES ({n}, 'x') ON CONFLICT (id) DO UPDATE SET name = excluded.name"
        )),
        (table(), 0..50i64).prop_map(|(t, n)| format!("DELETE FROM {t} WHERE id > {n}")),
        table().prop_map(|t| format!("UPDATE {t} SET name = name || 'y', id = id + 1")),
        table().prop_map(|t| format!("SELECT max(id), count(*), lower(min(name)) FROM {t}")),
        table().prop_map(|t| format!("DROP TABLE IF EXISTS {t}")),
        table().prop_map(|t| format!("DROP VIEW IF EXISTS {t}")),
        table().prop_map(|t| format!("ALTER TABLE {t} ADD COLUMN c{} TEXT", t.len())),
        (table(), one_of(&["b_rows", "b_next", "a_1", "\"b_rows\""]))
            .prop_map(|(t, to)| format!("ALTER TABLE {t} RENAME TO {to}")),
        (table(), one_of(&["posthouse", "app", "pg_temp", "temp"]))
            .prop_map(|(t, to)| format!("ALTER TABLE {t} SET SCHEMA {to}")),
        table().prop_map(|t| format!("CREATE INDEX i_{t} ON {t} (name)")),
        table().prop_map(|t| format!("SELECT 1 AS id, 'hidden' AS name INTO b_rows FROM {t}")),
        table().prop_map(|t| format!("CREATE TABLE b_rows AS SELECT * FROM {t}")),
        Just("SELECT count(*) FROM nowhere".to_owned()),
    ]
}

/// A statement from the list of refused statements.
fn refused() -> impl Strategy<Value = String> {
    let list: Vec<String> = super::statements::refused().collect();
    proptest::sample::select(list)
}

fn attempt() -> impl Strategy<Value = Attempt> {
    let statement = prop_oneof![3 => creation(), 3 => own(), 2 => refused()];
    let random = (proptest::collection::vec(statement, 1..8), any::<bool>())
        .prop_map(|(statements, commits)| Attempt::Random(statements, commits));
    let text = || proptest::string::string_regex("[a-z' ]{0,12}").unwrap();
    let work = prop_oneof![
        3 => text().prop_map(Work::Insert),
        1 => (any::<usize>(), text()).prop_map(|(at, text)| Work::Update(at, text)),
        1 => any::<usize>().prop_map(Work::Delete),
        1 => (0..4u8, proptest::collection::vec(any::<u8>(), 0..8)).prop_map(|(key, value)| Work::Set(key, value)),
        1 => (-5..5i64).prop_map(Work::Add),
        2 => Just(Work::Read),
    ];
    prop_oneof![1 => random, 1 => work.prop_map(Attempt::Honest)]
}

/// The rows and keys that the honest plugin should have.
#[derive(Debug, Default)]
struct Model {
    rows: BTreeMap<i64, String>,
    keys: BTreeMap<String, Vec<u8>>,
    next: i64,
    deliveries: i64,
}

impl Model {
    fn row(&self, at: usize) -> Option<i64> {
        self.rows.keys().nth(at.checked_rem(self.rows.len())?).copied()
    }
}

async fn random(database: &Database, statements: &[String], commits: bool) {
    let mut transaction = begin(database, 1).await;
    for statement in statements {
        if let Err(SqlError::TxAborted(_)) = transaction.execute(statement, vec![], BOUNDS).await {
            return;
        }
    }
    if commits && transaction.commit(vec![], ()).await == Ok(Committed::Marked) {
        database.remove_markers(&[DeliveryId(1)]).await.unwrap();
    }
}

async fn honest(database: &Database, work: Work, model: &mut Model) -> Result<(), TestCaseError> {
    model.deliveries += 1;
    let delivery = 1000 + model.deliveries;
    let mut transaction = begin(database, delivery).await;
    let read = transaction.query("SELECT id, name FROM b_rows ORDER BY id", vec![], BOUNDS).await;
    let rows = model.rows.iter().map(|(id, name)| vec![Value::Integer(*id), Value::Text(name.clone())]);
    let rows: Vec<_> = rows.collect();
    prop_assert_eq!(read.map(|read| read.rows), Ok(rows));
    for key in ["k0", "k1", "k2", "k3", "count"] {
        prop_assert_eq!(transaction.kv_get("honest", key).await, Ok(model.keys.get(key).cloned()));
    }
    let mut writes = BTreeMap::new();
    let ran = match work {
        Work::Insert(name) => {
            model.next += 1;
            model.rows.insert(model.next, name.clone());
            let with = vec![Value::Integer(model.next), Value::Text(name)];
            Some(("INSERT INTO b_rows (id, name) VALUES ($1, $2)", with))
        }
        Work::Update(at, name) => model.row(at).map(|id| {
            model.rows.insert(id, name.clone());
            ("UPDATE b_rows SET name = $2 WHERE id = $1", vec![Value::Integer(id), Value::Text(name)])
        }),
        Work::Delete(at) => model.row(at).map(|id| {
            model.rows.remove(&id);
            ("DELETE FROM b_rows WHERE id = $1", vec![Value::Integer(id)])
        }),
        Work::Set(key, value) => {
            let key = format!("k{key}");
            model.keys.insert(key.clone(), value.clone());
            writes.insert(key, KvWrite::Set(value));
            None
        }
        Work::Add(by) => {
            let before = model.keys.get("count").map_or("0", |value| std::str::from_utf8(value).unwrap());
            let sum = before.parse::<i64>().unwrap() + by;
            model.keys.insert("count".into(), sum.to_string().into_bytes());
            writes.insert("count".into(), KvWrite::Add(by));
            None
        }
        Work::Read => None,
    };
    let wrote = ran.is_some() || !writes.is_empty();
    if let Some((statement, with)) = ran {
        prop_assert_eq!(transaction.execute(statement, with, BOUNDS).await, Ok(1));
    }
    transaction.stage_kv("honest", writes, 1 << 20);
    let committed = transaction.commit(b"carried".to_vec(), ()).await;
    let expected = if wrote { Committed::Marked } else { Committed::NothingWritten };
    prop_assert_eq!(committed, Ok(expected));
    if wrote {
        let marker = database.find_marker(DeliveryId(delivery)).await;
        prop_assert_eq!(marker, Ok(Some(b"carried".to_vec())));
        database.remove_markers(&[DeliveryId(delivery)]).await.unwrap();
    }
    Ok(())
}

#[test]
fn whatever_one_plugin_runs_another_one_on_the_same_database_sees_and_loses_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fixture = Fixture::new();
    // A schema that is on the search path before the one with the honest plugin's table.
    fixture.postgres.execute(
        "CREATE SCHEMA posthouse; CREATE SCHEMA app; CREATE TABLE public.b_rows (id BIGINT PRIMARY KEY, name TEXT)",
    );
    for database in &fixture.databases() {
        if is_sqlite(database) {
            runtime.block_on(run(database, &["CREATE TABLE b_rows (id BIGINT PRIMARY KEY, name TEXT)"]));
        }
        let model = RefCell::new(Model::default());
        // The database continues from case to case, so a smaller case would not be the same. A failure prints
        // the attempts of its case.
        let config =
            Config { cases: 24, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new(config);
        let checked = runner.run(&proptest::collection::vec(attempt(), 1..16), |attempts| {
            runtime.block_on(async {
                let mut model_now = model.take();
                for attempt in attempts {
                    match attempt {
                        Attempt::Random(statements, commits) => random(database, &statements, commits).await,
                        Attempt::Honest(work) => honest(database, work, &mut model_now).await?,
                    }
                }
                let read = honest(database, Work::Read, &mut model_now).await;
                model.replace(model_now);
                read
            })
        });
        checked.unwrap();
    }
}
