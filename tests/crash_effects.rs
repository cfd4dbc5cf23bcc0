//! Effects happen once, whatever is killed and when.
//!
//! The story: events stream in, each posted until it is acknowledged. The guest `effects` handles each: it
//! writes keys and rows in one database, and stages a mail and a request. Some of its attempts fail after all
//! of that. The daemon is killed repeatedly: at each fault point between "the guest has returned" and "its
//! marker is gone" (`POSTHOUSE_FAULT`; docs/architecture.md draws them), and at random times. On PostgreSQL,
//! the database is killed too, and the network before it hangs.
//!
//! At the end, everything is as after a run without a crash:
//!
//! - a row, a key and a completion for each acknowledged event, once;
//! - counters that were read and written back are exact, and no two attempts saw the same value;
//! - an outbox item for each mail and each request that was staged, once;
//! - every mail has left; every request has arrived, at least once, and under one Idempotency-Key;
//! - no delivery is stuck, none is dead, no marker is left.

#![allow(clippy::expect_used, reason = "what fails fails the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use posthouse_harness::{
    Daemon, Event, Load, LoadReport, Postgres, Proxy, WebReply, WebServer, seed, wait_until,
};
use posthouse_model::fault::FaultPoint;
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};
use rusqlite::Connection as Sqlite;
use serde_json::json;

/// Kills in each run of the suite. `POSTHOUSE_KILLS` sets another number: `cargo xtask soak` makes it 10,000.
const KILLS: u32 = 200;
/// How often the database is killed.
const DATABASE_KILLS: u32 = 25;
/// How often the network hangs.
const STALLS: u32 = 8;
const EVENTS_PER_SECOND: u32 = 25;
/// The number of counters, few enough that some attempts conflict.
const BUCKETS: u64 = 8;

const TABLES: &str = "
CREATE TABLE bucket (id BIGINT PRIMARY KEY, n BIGINT NOT NULL);
INSERT INTO bucket VALUES (0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0), (7, 0);
CREATE TABLE entry (event TEXT NOT NULL, bucket BIGINT NOT NULL, n BIGINT NOT NULL);";

#[test]
fn the_daemon_dies_at_every_step_on_sqlite() {
    the_daemon_dies_at_every_step(Database::sqlite());
}

#[test]
fn the_daemon_dies_at_every_step_on_postgresql() {
    the_daemon_dies_at_every_step(Database::postgres());
}

fn the_daemon_dies_at_every_step(database: Database) {
    let kills = std::env::var("POSTHOUSE_KILLS").map_or(KILLS, |text| text.parse().expect("a number"));
    let mut dice = StdRng::seed_from_u64(seed());
    let url = database.url();
    let mut fixture = Fixture::new(database, &url, &mut dice);
    let load = fixture.load();
    // Each kill is at the next point of the list, or at a random time.
    let mut places: Vec<Option<FaultPoint>> = FaultPoint::ALL.into_iter().map(Some).collect();
    places.extend([None; 3]);
    let mut reached: BTreeMap<&str, u32> = BTreeMap::new();
    fixture.daemon.kill();
    for kill in 0..kills {
        let place = places[kill as usize % places.len()];
        let fault = place.map(|point| format!("{}:{}", point.name(), dice.random_range(1..8)));
        fixture.daemon.set_env("POSTHOUSE_FAULT", fault.as_deref());
        fixture.daemon.launch();
        // Long enough to reach the point. A batch of markers takes the longest.
        let limit = Duration::from_millis(if place.is_some() { 1200 } else { dice.random_range(0..600) });
        if fixture.daemon.ended_within(limit) {
            let point = place.expect("the daemon ends only at a fault point");
            *reached.entry(point.name()).or_default() += 1;
        } else {
            fixture.daemon.kill();
        }
        if kill % 50 == 49 {
            eprintln!("{} kills, {} events acknowledged; died at {reached:?}", kill + 1, load.acknowledged());
        }
    }
    fixture.daemon.set_env("POSTHOUSE_FAULT", None);
    fixture.daemon.start();
    fixture.check(&load.stop());
    eprintln!("{kills} kills, of them by themselves at {reached:?}");
    for point in FaultPoint::ALL {
        assert!(reached.contains_key(point.name()), "no kill was at `{}`", point.name());
    }
}

#[test]
fn the_database_dies_and_comes_back() {
    let mut dice = StdRng::seed_from_u64(seed());
    let database = Database::postgres();
    let url = database.url();
    let mut fixture = Fixture::new(database, &url, &mut dice);
    let load = fixture.load();
    for _ in 0..DATABASE_KILLS {
        thread::sleep(Duration::from_millis(dice.random_range(0..900)));
        let Database::Postgres(postgres) = &mut fixture.database else { unreachable!("it is a PostgreSQL") };
        if dice.random_bool(0.7) {
            postgres.kill()
        } else {
            postgres.stop()
        }
        thread::sleep(Duration::from_millis(dice.random_range(0..400)));
        postgres.start_again();
    }
    fixture.check(&load.stop());
}

#[test]
fn the_network_before_the_database_hangs() {
    let mut dice = StdRng::seed_from_u64(seed());
    let Database::Postgres(postgres) = Database::postgres() else { unreachable!("it is a PostgreSQL") };
    let proxy = Proxy::start(postgres.port());
    let url = postgres.url_by(proxy.port());
    let mut fixture = Fixture::new(Database::Postgres(postgres), &url, &mut dice);
    // The server accepts requests, and never answers.
    fixture.silent.store(true, Ordering::SeqCst);
    let load = fixture.load();
    for _ in 0..STALLS {
        thread::sleep(Duration::from_millis(dice.random_range(200..1200)));
        proxy.stall();
        // Some are shorter than an attempt may take, some longer.
        thread::sleep(Duration::from_millis(dice.random_range(300..5000)));
        // Events are accepted all the time.
        let before = load.acknowledged();
        wait_until("an event is taken in", || load.acknowledged() > before);
        proxy.go_on();
    }
    fixture.silent.store(false, Ordering::SeqCst);
    fixture.check(&load.stop());
}

/// A daemon with the guest, its database, and the server that gets its requests.
struct Fixture {
    daemon: Daemon,
    database: Database,
    receiver: WebServer,
    /// Whether the server never answers.
    silent: Arc<AtomicBool>,
    nonce: u64,
}

impl Fixture {
    /// The daemon connects to the database by `url`.
    fn new(database: Database, url: &str, dice: &mut StdRng) -> Self {
        database.execute(TABLES);
        let (silent, count) = (Arc::new(AtomicBool::new(false)), AtomicU64::new(0));
        let quiet = Arc::clone(&silent);
        let receiver = WebServer::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
            _ if quiet.load(Ordering::SeqCst) => WebReply::Silence,
            n => WebReply::status(if n % 7 == 6 { 503 } else { 200 }),
        });
        let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
            .guest("effects")
            .set("mail", r#"retry = { attempts = 1000, base = "50ms", factor = 1.0 }"#)
            .set("http", r#"retry = { attempts = 1000, base = "50ms", factor = 1.0 }"#)
            .set("http", r#"timeout = "2s""#)
            .set("log", r#"level = "warn""#)
            .toml(&format!(
                r#"
                [databases.app]
                url = {url:?}
                [plugin.effects]
                retry = {{ attempts = 1000, base = "20ms", factor = 1.0 }}
                limits = {{ time = "2s" }}
                [plugin.effects.grants]
                database = "app"
                mail = {{ from = ["team@example.com"], to = ["*"] }}
                http = [{{ url = {:?}, addresses = ["127.0.0.1/32"] }}]
                "#,
                receiver.url("/")
            ))
            .start();
        Self { daemon, database, receiver, silent, nonce: dice.next_u64() }
    }

    fn load(&self) -> Load {
        let (nonce, url) = (self.nonce, self.receiver.url("/done"));
        Load::start(&self.daemon.sender(), EVENTS_PER_SECOND, move |n| event(n, nonce, &url))
    }

    /// Checks that everything is as if nothing had been killed.
    fn check(&mut self, report: &LoadReport) {
        let daemon = &self.daemon;
        // Each wait is only for the next deliveries, however many are left.
        let unfinished =
            || ["ready", "leased", "waiting"].iter().map(|state| daemon.deliveries_in(state)).sum();
        let mut left: u64 = unfinished();
        while left > 0 {
            wait_until("deliveries go on", || unfinished() < left);
            left = unfinished();
        }
        daemon.wait_mail_settled();
        let acknowledged: BTreeSet<&str> = report.acknowledged.iter().map(String::as_str).collect();
        assert_eq!(acknowledged.len(), report.acknowledged.len(), "the test posted an id twice");
        assert!(acknowledged.len() > 100, "a run in which hardly anything happened proves nothing");
        let events: Vec<u64> = acknowledged.iter().map(|id| number_of(id)).collect();

        // Completions.
        let stats = daemon.stats();
        assert_eq!(stats["store"]["made"], json!(events.len()), "{stats}");
        assert_eq!(stats["store"]["states"]["done"], json!(events.len()), "{stats}");
        assert_eq!(stats["balanced"], json!(true), "{stats}");

        // Rows.
        let entries = self.database.query("SELECT event, bucket, n FROM entry ORDER BY bucket, n");
        assert_eq!(entries.len(), events.len(), "rows and events acknowledged");
        let written: BTreeSet<&str> = entries.iter().map(|row| row[0].as_str()).collect();
        assert_eq!(written, acknowledged);
        for bucket in 0..BUCKETS {
            let mine = events.iter().filter(|n| **n % BUCKETS == bucket).count();
            let counted = self.database.query(&format!("SELECT n FROM bucket WHERE id = {bucket}"));
            assert_eq!(counted, [[mine.to_string()]], "bucket {bucket}");
            let seen: Vec<String> =
                entries.iter().filter(|row| row[1] == bucket.to_string()).map(|row| row[2].clone()).collect();
            let one_after_the_other: Vec<String> = (1..=mine).map(|n| n.to_string()).collect();
            assert_eq!(seen, one_after_the_other, "what attempts saw in bucket {bucket}");
        }

        // Keys.
        let keys = self.database.keys();
        let mut wanted: BTreeMap<String, String> =
            acknowledged.iter().map(|id| (format!("seen/{id}"), "1".to_owned())).collect();
        for bucket in 0..BUCKETS {
            let mine = events.iter().filter(|n| **n % BUCKETS == bucket).count();
            wanted.insert(format!("count/{bucket}"), mine.to_string());
        }
        let wrong: Vec<_> = keys.iter().filter(|(key, value)| wanted.get(*key) != Some(*value)).collect();
        assert!(wrong.is_empty(), "keys that are wrong: {wrong:?}");
        assert_eq!(keys.len(), wanted.len(), "keys are missing");

        // Outbox items, mails and requests.
        let mails: BTreeSet<String> = acknowledged
            .iter()
            .filter(|id| wants_mail(number_of(id)))
            .map(|id| format!("did {id}"))
            .collect();
        let requests: BTreeSet<String> = acknowledged
            .iter()
            .filter(|id| wants_request(number_of(id)))
            .map(|id| (*id).to_owned())
            .collect();
        let outbox = &stats["store"]["outbox"];
        assert_eq!(outbox["sent"], json!(mails.len() + requests.len()), "{stats}");
        assert_eq!(outbox["dead"].as_u64().unwrap_or(0), 0, "{stats}");
        let left = daemon.mails();
        assert_eq!(left.len(), mails.len());
        assert_eq!(left.iter().map(|mail| mail.header("subject").to_owned()).collect::<BTreeSet<_>>(), mails);
        let mut keys_of: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let received = self.receiver.requests();
        for request in &received {
            let id = String::from_utf8_lossy(&request.body).into_owned();
            keys_of.entry(id).or_default().insert(request.key().to_owned());
        }
        assert_eq!(keys_of.keys().cloned().collect::<BTreeSet<_>>(), requests);
        for (event, keys) in &keys_of {
            assert_eq!(keys.len(), 1, "{event} was sent under several keys: {keys:?}");
        }
        let distinct: BTreeSet<_> = keys_of.values().flatten().collect();
        assert_eq!(distinct.len(), requests.len(), "two requests share a key");

        // Nothing is left over: a start removes what a crash left.
        self.daemon.restart();
        wait_until("no marker is left", || {
            self.database.query("SELECT count(*) FROM posthouse_deliveries") == [["0"]]
        });
        eprintln!(
            "{} events, {} tries to post them failed; {} requests wanted, {} arrived; {} conflicts",
            events.len(),
            report.failures.len(),
            requests.len(),
            received.len(),
            stats["store"]["conflicts"]
        );
    }
}

/// The database that contains the guest's rows.
enum Database {
    Sqlite { path: PathBuf, _folder: tempfile::TempDir },
    Postgres(Postgres),
}

impl Database {
    fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self::Sqlite { path: folder.path().join("app.db"), _folder: folder }
    }

    fn postgres() -> Self {
        Self::Postgres(Postgres::start())
    }

    fn url(&self) -> String {
        match self {
            Self::Sqlite { path, .. } => format!("sqlite:{}", path.display()),
            Self::Postgres(postgres) => postgres.url(),
        }
    }

    fn execute(&self, statements: &str) {
        match self {
            Self::Sqlite { path, .. } => {
                let sqlite = Sqlite::open(path).expect("the file");
                sqlite.pragma_update(None, "journal_mode", "WAL").expect("a write-ahead log");
                sqlite.execute_batch(statements).expect(statements);
            }
            Self::Postgres(postgres) => postgres.execute(statements),
        }
    }

    /// The rows of a query, with every value as text.
    fn query(&self, query: &str) -> Vec<Vec<String>> {
        match self {
            Self::Sqlite { path, .. } => {
                let sqlite = Sqlite::open(path).expect("the file");
                let mut statement = sqlite.prepare(query).expect(query);
                let columns = statement.column_count();
                let row = |row: &rusqlite::Row<'_>| {
                    (0..columns)
                        .map(|column| match row.get::<_, rusqlite::types::Value>(column)? {
                            rusqlite::types::Value::Integer(number) => Ok(number.to_string()),
                            rusqlite::types::Value::Text(text) => Ok(text),
                            rusqlite::types::Value::Blob(bytes) => {
                                Ok(String::from_utf8_lossy(&bytes).into_owned())
                            }
                            other => Ok(format!("{other:?}")),
                        })
                        .collect()
                };
                statement.query_map([], row).and_then(Iterator::collect).expect(query)
            }
            Self::Postgres(postgres) => postgres.query(query),
        }
    }

    /// The keys and values of the guest.
    fn keys(&self) -> BTreeMap<String, String> {
        let columns = match self {
            Self::Sqlite { .. } => "key, value",
            Self::Postgres(_) => "convert_from(key, 'UTF8'), convert_from(value, 'UTF8')",
        };
        let sql = format!("SELECT {columns} FROM posthouse_kv WHERE plugin = 'effects'");
        self.query(&sql).into_iter().map(|mut row| (row.remove(0), row.remove(0))).collect()
    }
}

/// The n-th event. Every seventh fails once first, every twentieth takes long.
fn event(n: u64, nonce: u64, url: &str) -> Event {
    let mut data = json!({ "bucket": n % BUCKETS });
    if wants_mail(n) {
        data["mail"] = json!("ada@example.com");
    }
    if wants_request(n) {
        data["request"] = json!(url);
    }
    if n.is_multiple_of(7) {
        data["fail"] = json!(1);
    }
    if n.is_multiple_of(20) {
        data["spin"] = json!(2_000_000);
    }
    Event::new("user.created").id(format!("evt_{nonce:016x}_{n}")).data(data)
}

fn wants_mail(n: u64) -> bool {
    n.is_multiple_of(5)
}

fn wants_request(n: u64) -> bool {
    n.is_multiple_of(3)
}

fn number_of(id: &str) -> u64 {
    id.rsplit('_').next().and_then(|number| number.parse().ok()).expect("an id of this test")
}
