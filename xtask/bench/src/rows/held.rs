//! How long the worst statements of a plugin hold a SQLite database: from the start of a statement until
//! another attempt can write. The limit is `statement_timeout` and a second.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use posthouse_database::{
    AttemptHistory, Bounds, Database, Databases, SqlError, Transaction, Value, Waiting,
};
use posthouse_harness::{Worst, worst_statements};
use posthouse_model::{
    DeliveryId,
    config::{DatabaseSettings, DatabaseTarget},
};
use rusqlite::Connection;

use crate::{bench::Bench, table::Row};

/// The default in `[databases.*]`.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The defaults in `[defaults.limits]`.
const BOUNDS: Bounds = Bounds { rows: 10_000, bytes: 4 << 20 };

pub(crate) fn measure(bench: &mut Bench) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    for worst in worst_statements() {
        let name = format!("held: {}", worst.what);
        let (held, answer) = runtime.block_on(hold(worst));
        let value = format!("{:.2} s", held.as_secs_f64());
        let within = held <= TIMEOUT + Duration::from_secs(1);
        let note = if within { answer } else { format!("{answer}: beyond the limit") };
        bench.add(Row { name, value, note, ..Row::default() });
    }
}

/// Runs one statement. Returns the time until the turn was free, and the answer that the plugin got.
async fn hold(Worst { before, first, statement, parameters, .. }: Worst) -> (Duration, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("app.db");
    let prepare = format!("PRAGMA journal_mode = WAL; {before}; CREATE TABLE others (n INTEGER)");
    Connection::open(&path).and_then(|file| file.execute_batch(&prepare)).expect("a database");
    let settings = DatabaseSettings {
        target: DatabaseTarget::Sqlite(path),
        pool: 4,
        statement_timeout: TIMEOUT,
        ca: None,
        max_size: None,
        functions: BTreeSet::new(),
    };
    let databases = Databases::new(&BTreeMap::from([("app".to_owned(), settings)]), 0);
    let database = databases.get("app").expect("it is there");
    let mut bad = begin(&database, 1).await;
    if !first.is_empty() {
        bad.execute(&first, vec![], BOUNDS).await.expect("it passes");
    }
    bad.execute("INSERT INTO others VALUES (1)", vec![], BOUNDS).await.expect("a row");
    let mut next = begin(&database, 2).await;
    let parameters = parameters.into_iter().map(Value::Text).collect();
    let began = Instant::now();
    let run = async {
        let answer = bad.execute(&statement, parameters, BOUNDS).await;
        // The attempt ends here: its rows are rolled back.
        drop(bad);
        answer
    };
    let wait = async {
        next.execute("INSERT INTO others VALUES (2)", vec![], BOUNDS).await.expect("its turn");
        began.elapsed()
    };
    let (answer, held) = tokio::join!(run, wait);
    (held, answered(&answer))
}

async fn begin(database: &Database, delivery: i64) -> Transaction {
    let begun = database.begin(DeliveryId(delivery), AttemptHistory::default(), &Waiting::default()).await;
    begun.expect("a transaction")
}

fn answered(answer: &Result<u64, SqlError>) -> String {
    match answer {
        Ok(_) => "done".to_owned(),
        Err(SqlError::Refused(_)) => "refused".to_owned(),
        Err(SqlError::Statement { sqlstate, .. }) => match sqlstate.as_str() {
            "57014" => "timeout".to_owned(),
            "54000" => "value too long".to_owned(),
            "54001" => "too complex".to_owned(),
            other => other.to_owned(),
        },
        Err(SqlError::Limit(_)) => "limit of rows or bytes".to_owned(),
        Err(SqlError::TxAborted(over)) => over.to_string(),
    }
}
