//! One plugin with SQL, from the first request to the last commit, beside a plain client of the same
//! database. The client runs the same statement in transactions of the same shape, as many at once, and each
//! is on disk before it counts.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use posthouse_harness::{Daemon, Postgres, guest};
use rusqlite::Connection;
use tokio::task::JoinSet;
use tokio_postgres::NoTls;

use super::rate::round_to_last_commit;
use crate::{
    bench::{Bench, Round},
    table::{median, per_second},
};

/// The guest that writes a row for each event.
const SQL_GUEST: &str = "sql-bench";
/// Rows in the table.
const SLOTS: u64 = 4096;
/// Transactions at once: the default of a plugin and of a database's pool.
const AT_ONCE: usize = 8;

/// The statement that the guest runs, with the name of the table.
fn statement(table: &str) -> String {
    format!(
        "INSERT INTO {table} (slot, events, event) VALUES ($1, 1, $2)
         ON CONFLICT (slot) DO UPDATE SET events = {table}.events + 1, event = $2"
    )
}

fn table(name: &str) -> String {
    format!("CREATE TABLE {name} (slot BIGINT PRIMARY KEY, events BIGINT NOT NULL, event TEXT NOT NULL)")
}

pub(crate) fn measure(bench: &mut Bench) {
    on_sqlite(bench);
    on_postgres(bench);
}

fn on_sqlite(bench: &mut Bench) {
    let mut daemon = prepare(bench, "sqlite:data/app.db");
    let folder = daemon.dir().join("data");
    std::fs::create_dir_all(&folder).expect("the daemon's folder");
    sqlite(&folder.join("app.db")).execute_batch(&table("last")).expect("a table");
    daemon.start();
    let plain = sqlite(&folder.join("plain.db"));
    plain.execute_batch(&table("plain")).expect("a table");
    let lasting = Duration::from_secs_f64(bench.arguments.seconds);
    in_turns(bench, &daemon, "SQLite", "one connection, as SQLite has one writer", || {
        // More connections would only wait for each other.
        let statement = statement("plain");
        let (began, mut done) = (Instant::now(), 0);
        while began.elapsed() < lasting {
            plain.execute_batch("BEGIN IMMEDIATE").expect("a transaction");
            let mut prepared = plain.prepare_cached(&statement).expect("a statement");
            prepared.execute((slot(done), format!("evt_{done:019}"))).expect("a row");
            plain.execute_batch("COMMIT").expect("a commit");
            done += 1;
        }
        done as f64 / began.elapsed().as_secs_f64()
    });
}

fn on_postgres(bench: &mut Bench) {
    // It syncs to disk, like a real server.
    let postgres = Postgres::with(&["max_connections=40"]);
    postgres.execute(&format!("{}; {}", table("last"), table("plain")));
    let mut daemon = prepare(bench, &postgres.url());
    daemon.start();
    let lasting = Duration::from_secs_f64(bench.arguments.seconds);
    in_turns(bench, &daemon, "PostgreSQL", "eight connections", || plain_postgres(&postgres.url(), lasting));
    assert!(postgres.query("SELECT 1 FROM last LIMIT 1").len() == 1, "the plugin wrote to it");
}

/// A daemon that is not started yet, with one plugin that has this database.
fn prepare(bench: &Bench, url: &str) -> Daemon {
    let tables = format!("[databases.app]\nurl = {url:?}\n[plugin.{SQL_GUEST}.grants]\ndatabase = \"app\"");
    bench.daemon().plugin(SQL_GUEST, guest(SQL_GUEST)).toml(&tables).prepare()
}

/// The no-op, the plain client and the daemon alternate, after one round of each that does not count.
fn in_turns(bench: &mut Bench, daemon: &Daemon, engine: &str, how: &str, mut plain: impl FnMut() -> f64) {
    let (mut noops, mut plains, mut subjects) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=bench.arguments.rounds {
        let (noop, client) = (bench.noop_round(), plain());
        let subject = round_to_last_commit(bench, daemon, 1);
        eprintln!(
            "   round {round}: plain client {}, posthouse {}",
            per_second(client),
            per_second(subject.rate)
        );
        if round > 0 {
            noops.push(noop);
            plains.push(client);
            subjects.push(subject);
        }
    }
    let middle = |rounds: &[Round]| median(rounds, |round| round.rate);
    let (noop, subject, client) = (middle(&noops), middle(&subjects), median(&plains, |rate| *rate));
    let note = format!(
        "events to the last commit, each with a row written; {:.2} of a plain client's {} ({how})",
        subject.rate / client,
        per_second(client)
    );
    bench.add(Bench::rate_row(&format!("accept, one plugin with {engine}"), (noop, subject), &note));
}

/// A connection that is as durable as the daemon's.
fn sqlite(path: &Path) -> Connection {
    let connection = Connection::open(path).expect("a database");
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")
        .expect("settings of a database");
    connection
}

/// The row of the n-th transaction, spread as in the guest.
fn slot(number: u64) -> i64 {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40 & (SLOTS - 1)) as i64
}

/// Transactions a second over this many connections, each of which runs one after another.
fn plain_postgres(url: &str, lasting: Duration) -> f64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let (stop, done, next) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let shared: &(AtomicBool, AtomicU64, AtomicU64) = Box::leak(Box::new((stop, done, next)));
    runtime.block_on(async {
        let mut clients = JoinSet::new();
        let mut connections = Vec::new();
        for _ in 0..AT_ONCE {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
            tokio::spawn(connection);
            connections.push(client);
        }
        let began = Instant::now();
        for client in connections {
            clients.spawn(async move {
                let (stop, done, next) = shared;
                let statement = client.prepare(&statement("plain")).await.expect("a statement");
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let begin = "BEGIN ISOLATION LEVEL SERIALIZABLE";
                    client.batch_execute(begin).await.expect("a transaction");
                    let event = format!("evt_{number:019}");
                    let written = client.execute(&statement, &[&slot(number), &event]).await;
                    // If two transactions conflict at a row, one of them is rolled back and does not count.
                    let end = if written.is_ok() { "COMMIT" } else { "ROLLBACK" };
                    if client.batch_execute(end).await.is_ok() && written.is_ok() {
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let stopping = thread::spawn(move || {
            thread::sleep(lasting);
            shared.0.store(true, Ordering::Relaxed);
        });
        clients.join_all().await;
        let rate = shared.1.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
        stopping.join().expect("a clock");
        rate
    })
}
