//! The changes of a plugin in its database take effect with their delivery or not at all, on SQLite and on
//! PostgreSQL. A plugin reaches nothing but what it was granted.

#![allow(clippy::expect_used, reason = "what fails fails the test")]

use posthouse_harness::{Builder, Daemon, Event, Postgres, guest, wait_until, worst_statements};
use serde_json::{Value, json};

/// A daemon with `sql-probe` on the database with this URL.
fn on(url: &str) -> Builder {
    on_with(url, "")
}

/// Like [`on`], with these keys for the database.
fn on_with(url: &str, keys: &str) -> Builder {
    Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).guest("sql-probe").toml(&format!(
        "[databases.app]\nurl = {url:?}\nstatement_timeout = \"500ms\"\n{keys}\n\
         [plugin.sql-probe]\nretry = {{ attempts = 3, base = \"20ms\", factor = 1.0 }}\n\
         limits = {{ time = \"20s\", sql_rows = 100, sql_bytes = \"16KiB\" }}\n\
         [plugin.sql-probe.grants]\ndatabase = \"app\"\n"
    ))
}

/// Runs the test on each engine. The PostgreSQL has to outlive its daemon.
fn on_each(test: impl Fn(Daemon)) {
    test(on("sqlite:data/app.db").start());
    let postgres = Postgres::start();
    test(on(&postgres.url()).start());
}

/// Runs the steps in one event, and returns its delivery to sql-probe with all attempts.
fn steps(daemon: &Daemon, steps: Value) -> Value {
    let event = Event::new("user.created").data(json!({ "steps": steps }));
    assert!(daemon.post_event(&event).accepted());
    daemon.wait_settled();
    daemon.event(&event.id)["history"][0].clone()
}

/// The last attempt's log about its steps.
fn said(delivery: &Value) -> Vec<String> {
    let attempts = delivery["attempt_log"].as_array().expect("attempts");
    let logs = attempts.last().expect("an attempt")["logs"].as_array().cloned().unwrap_or_default();
    logs.iter().map(|line| line["message"].as_str().expect("a line").to_owned()).collect()
}

fn create(daemon: &Daemon) {
    let done = steps(daemon, json!([{ "sql": "CREATE TABLE t (n BIGINT PRIMARY KEY, m TEXT)" }]));
    assert_eq!(done["state"], "done", "{done}");
}

fn rows(daemon: &Daemon) -> String {
    said(&steps(daemon, json!([{ "sql": "SELECT n FROM t ORDER BY n", "query": true }]))).remove(0)
}

#[test]
fn check_tells_which_database_a_plugin_gets() {
    let daemon = on("sqlite:data/app.db").prepare();
    let checked = daemon.cli(&["check"]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.stdout.contains("\n  granted: sql on database app\n"), "{}", checked.stdout);
    assert!(!checked.stdout.contains("nothing beyond log"), "{}", checked.stdout);
    assert!(!daemon.dir().join("data/app.db").exists(), "check connects to no database");
}

#[test]
fn rows_and_keys_take_effect_once_however_often_it_was_tried() {
    on_each(|daemon| {
        create(&daemon);
        let delivery = steps(
            &daemon,
            json!([
                { "sql": "INSERT INTO t VALUES ($1, $2)", "with": [1, "one"] },
                { "add": "count", "by": 1 },
                { "get": "count" },
                { "fail": 2 },
            ]),
        );
        assert_eq!(delivery["attempts"], 3, "{delivery}");
        assert_eq!(delivery["state"], "done", "{delivery}");
        assert_eq!(
            said(&delivery),
            ["changed 1", "value Some(\"1\")"],
            "the third attempt began from nothing"
        );
        assert_eq!(rows(&daemon), "rows [[Value::Integer(1)]]");
        let got = said(&steps(&daemon, json!([{ "get": "count" }])));
        assert_eq!(got, ["value Some(\"1\")"]);
        assert!(daemon.kv("sql-probe").is_empty(), "its keys are kept in its database");
    });
}

#[test]
fn what_an_attempt_did_goes_when_it_fails_traps_or_runs_out_of_time() {
    on_each(|daemon| {
        create(&daemon);
        for end in [json!({ "fail": 9 }), json!({ "trap": true })] {
            let insert = json!({ "sql": "INSERT INTO t VALUES (1, 'x')" });
            let delivery = steps(&daemon, json!([insert, { "set": "k", "to": "v" }, end]));
            assert_eq!(delivery["state"], "dead", "{delivery}");
        }
        assert_eq!(rows(&daemon), "rows []");
        assert_eq!(said(&steps(&daemon, json!([{ "get": "k" }]))), ["value None"]);
    });
}

#[test]
fn a_statement_that_fails_is_an_answer_and_the_guest_goes_on() {
    on_each(|daemon| {
        create(&daemon);
        let slow = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT max(n) FROM c";
        let many =
            "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 101) SELECT n FROM c";
        let delivery = steps(
            &daemon,
            json!([
                { "sql": "INSERT INTO t VALUES (1, 'one')" },
                { "sql": "INSERT INTO t VALUES (2, 'two'), (1, 'again')" },
                { "sql": "SELECT * FROM nowhere", "query": true },
                { "sql": "SELEC 1", "query": true },
                { "sql": slow, "query": true },
                { "sql": many, "query": true },
                { "sql": "INSERT INTO t VALUES (3, $1)", "with": ["x".repeat(20_000)] },
                { "sql": "INSERT INTO t VALUES (4, 'four')" },
            ]),
        );
        assert_eq!(delivery["state"], "done", "{delivery}");
        let said = said(&delivery);
        let starts = [
            "changed 1",
            "error 23505",
            "error 42P01",
            "refused: plugins may not use `SELEC`",
            "error 57014",
            "limit: ",
            "limit: ",
            "changed 1",
        ];
        assert_eq!(said.len(), starts.len(), "{said:?}");
        for (line, start) in said.iter().zip(starts) {
            assert!(line.starts_with(start), "{start}: {said:?}");
        }
        assert!(
            said[4].contains("`statement_timeout` (500ms)") && said[5].contains("`sql_rows` (100)"),
            "{said:?}"
        );
        assert!(said[6].contains("`sql_bytes`"), "{said:?}");
        assert_eq!(rows(&daemon), "rows [[Value::Integer(1)], [Value::Integer(4)]]");
    });
}

#[test]
fn a_guest_cant_leave_its_transaction_or_reach_what_is_the_hosts() {
    on_each(|daemon| {
        create(&daemon);
        let statements = [
            "COMMIT",
            "ROLLBACK",
            "BEGIN",
            "SAVEPOINT posthouse",
            "/* x */ commit",
            "SELECT 1; COMMIT",
            "ATTACH DATABASE '/tmp/other.db' AS other",
            "PRAGMA writable_schema = 1",
            "VACUUM INTO '/tmp/copy.db'",
            "COPY t TO '/tmp/t'",
            "SET ROLE posthouse",
            "DO 'x'",
            "LISTEN x",
            "LOCK TABLE t",
            "CREATE TEMP TABLE u (n BIGINT)",
            "CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END",
            "SELECT * FROM posthouse_kv",
            "DELETE FROM \"posthouse_deliveries\"",
            "CREATE VIEW v AS SELECT * FROM main.posthouse_kv",
        ];
        let mut wishes = vec![json!({ "sql": "INSERT INTO t VALUES (1, 'one')" })];
        wishes.extend(statements.iter().map(|statement| json!({ "sql": statement, "query": true })));
        wishes.push(json!({ "fail": 9 }));
        let delivery = steps(&daemon, json!(wishes));
        assert_eq!(delivery["state"], "dead", "{delivery}");
        let said = said(&delivery);
        assert_eq!(said.len(), 1 + statements.len());
        for (line, statement) in said[1..].iter().zip(statements) {
            assert!(line.starts_with("refused: "), "{statement}: {line}");
        }
        assert_eq!(rows(&daemon), "rows []", "none of them committed the insert");
    });
}

#[test]
fn an_attempt_leaves_nothing_on_its_connection_that_hides_a_table_from_the_next() {
    on_each(|mut daemon| {
        create(&daemon);
        let hiding = [
            "CREATE TABLE temp.t (n BIGINT PRIMARY KEY, m TEXT)",
            "CREATE VIEW \"temp\".t AS SELECT 99 AS n, 'hidden' AS m",
            "CREATE TEMP TABLE t (n BIGINT PRIMARY KEY, m TEXT)",
            "CREATE TABLE pg_temp.t (n BIGINT PRIMARY KEY, m TEXT)",
        ];
        let wishes: Vec<_> = hiding.iter().map(|sql| json!({ "sql": sql })).collect();
        for line in said(&steps(&daemon, json!(wishes))) {
            assert!(line.starts_with("refused: ") || line.starts_with("error "), "{line}");
        }
        for n in 0..5 {
            let insert = json!([{ "sql": "INSERT INTO t VALUES ($1, 'row')", "with": [n] }]);
            assert_eq!(said(&steps(&daemon, insert)), ["changed 1"]);
        }
        // The rows on disk, and not only those of a connection.
        daemon.restart();
        let expected: Vec<_> = (0..5).map(|n| format!("[Value::Integer({n})]")).collect();
        assert_eq!(rows(&daemon), format!("rows [{}]", expected.join(", ")));
    });
}

/// SQLite does not check the clock within one call of a function. `database/sqlite/time_tests.rs` has the
/// whole list.
#[test]
fn a_call_that_would_work_for_minutes_holds_the_database_from_no_other_plugin() {
    let calls =
        ["`instr` of a text that is nearly there everywhere", "`GLOB` that starts again at each character"];
    for worst in worst_statements().into_iter().filter(|worst| calls.contains(&worst.what)) {
        let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
            .guest("sql-probe")
            .plugin("other", guest("sql-probe"))
            .set("server", "max_body = \"16MiB\"")
            .toml(
                "[databases.app]\nurl = \"sqlite:data/app.db\"\nstatement_timeout = \"1s\"\n\
                 [plugin.sql-probe]\nevents = [\"user.*\"]\n[plugin.sql-probe.grants]\ndatabase = \"app\"\n\
                 [plugin.other]\nevents = [\"other.*\"]\n[plugin.other.grants]\ndatabase = \"app\"\n",
            )
            .start();
        let table =
            Event::new("other.table").data(json!({ "steps": [{ "sql": "CREATE TABLE t (n BIGINT)" }] }));
        assert!(daemon.post_event(&table).accepted());
        daemon.wait_settled();
        let long = Event::new("user.created").data(json!({ "steps": [
            { "sql": "INSERT INTO t VALUES (1)" },
            { "sql": worst.statement, "with": worst.parameters, "query": true },
            { "fail": 9 },
        ] }));
        assert!(daemon.post_event(&long).accepted());
        // The guest reads megabytes before it uses the database, so rows are written before, during and after
        // that.
        let rows: Vec<_> = (0..30)
            .map(|_| {
                std::thread::sleep(std::time::Duration::from_millis(100));
                let row = json!({ "steps": [{ "sql": "INSERT INTO t VALUES (2)", "must": true }] });
                let event = Event::new("other.row").data(row);
                assert!(daemon.post_event(&event).accepted());
                event
            })
            .collect();
        wait_until(&format!("the other plugin is done beside {}", worst.what), || {
            rows.iter().all(|event| daemon.event(&event.id)["history"][0]["state"] == "done")
        });
    }
}

#[test]
fn a_function_of_an_extension_runs_where_the_operator_granted_it_and_nowhere_else() {
    let postgres = Postgres::start();
    postgres.execute("CREATE EXTENSION pg_trgm; CREATE EXTENSION xml2");
    let ask = json!([
        { "sql": "SELECT similarity('ada', 'ada') = 1", "query": true },
        { "sql": "SELECT * FROM xpath_table('1', '1', '1', '1', '1') AS x (n int)", "query": true },
    ]);
    let without = on(&postgres.url()).start();
    let refused = said(&steps(&without, ask.clone()));
    assert!(refused[0].contains("`functions = [\"similarity\"]` in [databases.app]"), "{refused:?}");
    assert!(
        refused[1].starts_with("refused: plugins may not call the function `xpath_table`"),
        "{refused:?}"
    );
    drop(without);
    let granted = on_with(&postgres.url(), "functions = [\"similarity\"]").start();
    let answers = said(&steps(&granted, ask));
    assert_eq!(answers[0], "rows [[Value::Boolean(true)]]");
    assert!(
        answers[1].starts_with("refused: plugins may not call the function `xpath_table`"),
        "{answers:?}"
    );
}

#[test]
fn what_reaches_out_of_a_postgres_session_is_refused() {
    let postgres = Postgres::start();
    let daemon = on(&postgres.url()).start();
    let statements = [
        "SELECT set_config('search_path', 'pg_catalog', false)",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_catalog.pg_sleep(1)",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity",
        "SELECT query_to_xml('SELECT * FROM ' || $1, true, true, '')",
        "SELECT U&\"\\0070osthouse_kv\"",
        "SELECT 1 INTO TEMP x",
        "/* /* */ SELECT 1 -- */ */ COMMIT",
    ];
    let wishes: Vec<_> = statements.iter().map(|sql| json!({ "sql": sql, "query": true })).collect();
    for (line, statement) in said(&steps(&daemon, json!(wishes))).iter().zip(statements) {
        assert!(line.starts_with("refused: "), "{statement}: {line}");
    }
}

#[test]
fn plugins_that_share_a_database_see_each_others_rows_and_never_each_others_keys() {
    let postgres = Postgres::start();
    for url in ["sqlite:data/app.db".to_owned(), postgres.url()] {
        let mut daemon = on(&url)
            .toml("[plugin.other.grants]\ndatabase = \"app\"\n[plugin.third]\nconcurrency = 2")
            .start();
        create(&daemon);
        steps(
            &daemon,
            json!([{ "sql": "INSERT INTO t VALUES (1, 'one')" }, { "set": "mine", "to": "secret" }]),
        );
        let probe = std::fs::read(daemon.plugin_file("sql-probe")).expect("the guest");
        daemon.put_plugin("other", &probe);
        daemon.put_plugin("third", &probe);
        daemon.restart();
        let wish = json!([{ "get": "mine" }, { "sql": "SELECT n FROM t", "query": true }]);
        let event = Event::new("user.created").data(json!({ "steps": wish }));
        assert!(daemon.post_event(&event).accepted());
        daemon.wait_settled();
        let told = daemon.event(&event.id);
        let of = |plugin: &str| {
            let history = told["history"].as_array().expect("deliveries");
            said(history.iter().find(|delivery| delivery["plugin"] == plugin).expect("its delivery"))
        };
        assert_eq!(of("sql-probe"), ["value Some(\"secret\")", "rows [[Value::Integer(1)]]"]);
        assert_eq!(of("other"), ["value None", "rows [[Value::Integer(1)]]"]);
        let third = of("third");
        assert_eq!(third[0], "value None");
        assert!(third[1].starts_with("denied: ") && third[1].contains("[plugin.third.grants]"), "{third:?}");
    }
}
