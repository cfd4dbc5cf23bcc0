//! A daemon that is killed at any moment never allows a sign-up whose seat is not in the table, and never takes two
//! seats for one request.
//!
//! The story: people sign up, each asking until there is an answer, as browsers and senders do. The plugin
//! signup-policy reserves a seat for each that it allows, until none is left. Meanwhile the daemon is killed repeatedly
//! (SIGKILL), while it starts, while guests run, while effects commit. At the end:
//!
//! - every ALLOW has its seat in the table, with the id of its request;
//! - no two seats have one request, and no person has two;
//! - the seats that are counted as taken are those that are reserved, and are no more than there are;
//! - a request that was answered gets the same answer again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails fails the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use posthouse_harness::{Daemon, Interceptor, seed, sign_up};
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};
use rusqlite::Connection as Sqlite;
use serde_json::{Value, json};

/// Kills in each run of the suite. `POSTHOUSE_KILLS` sets another number.
const KILLS: u32 = 25;
/// People who sign up at one time.
const PEOPLE_AT_ONCE: usize = 4;
/// The seats of the organization, few enough to run out in a long run.
const SEATS: i64 = 400;

/// A request that got an answer of the plugin: its person, and whether it was allowed.
type Answers = BTreeMap<String, (String, bool)>;

#[test]
fn a_kill_never_allows_without_a_seat_nor_takes_two() {
    let kills = std::env::var("POSTHOUSE_KILLS").map_or(KILLS, |text| text.parse().expect("a number"));
    let mut dice = StdRng::seed_from_u64(seed());
    let interceptor = Interceptor::new("signup", "signup-policy");
    let table = interceptor.toml().replace("[\"*\"]", "[\"PRE_SIGNUP\"]");
    let mut daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .guest("signup-policy")
        .set("log", "level = \"warn\"")
        .toml(&table)
        .toml(
            r#"
            [databases.app]
            url = "sqlite:data/app.db"
            [plugin.signup-policy.grants]
            database = "app"
            "#,
        )
        .start();
    // The plugin makes its tables.
    assert_eq!(interceptor.ask(&daemon, "req_first", json!({})).json()["decision"], "DENY");
    let tables = Sqlite::open(daemon.dir().join("data/app.db")).unwrap();
    tables.busy_timeout(Duration::from_secs(10)).unwrap();
    let rows = format!(
        "INSERT INTO signup_domains VALUES ('example.com', 'org_1', 0, '[\"member\"]');
         INSERT INTO signup_seats (organization_id, seats) VALUES ('org_1', {SEATS});"
    );
    tables.execute_batch(&rows).unwrap();
    drop(tables);

    let (stop, next) = (AtomicBool::new(false), AtomicU64::new(0));
    let nonce = dice.next_u64();
    let address = daemon.address();
    let answers: Answers = thread::scope(|scope| {
        let asking: Vec<_> = (0..PEOPLE_AT_ONCE)
            .map(|_| scope.spawn(|| people(&interceptor, address, nonce, &next, &stop)))
            .collect();
        for _ in 0..kills {
            thread::sleep(Duration::from_millis(dice.random_range(0..700)));
            daemon.kill();
            if dice.random_bool(0.25) {
                daemon.launch();
            } else {
                daemon.start();
            }
        }
        daemon.kill();
        daemon.start();
        stop.store(true, Ordering::Relaxed);
        asking.into_iter().flat_map(|asking| asking.join().unwrap()).collect()
    });

    // What a dead daemon had committed and not told is in the store after the start.
    let reserved = daemon.app_rows("SELECT email, request FROM signup_reservations");
    let seats: BTreeMap<&str, &str> = reserved.iter().map(|row| (row[1].as_str(), row[0].as_str())).collect();
    assert_eq!(seats.len(), reserved.len(), "two seats of one request");
    let people: BTreeSet<&str> = seats.values().copied().collect();
    assert_eq!(people.len(), reserved.len(), "two seats of one person");
    let allowed: Vec<_> = answers.iter().filter(|(_, (_, allowed))| *allowed).collect();
    for (id, (email, _)) in &allowed {
        assert_eq!(seats.get(id.as_str()), Some(&email.as_str()), "ALLOW for {id} without its seat");
    }
    let taken: i64 = daemon.app_rows("SELECT taken FROM signup_seats")[0][0].parse().unwrap();
    assert_eq!(taken, reserved.len() as i64, "the counter and the rows");
    assert!(taken <= SEATS && !allowed.is_empty() && answers.len() > kills as usize, "{}", answers.len());

    // The same ids again.
    for (id, (email, was_allowed)) in answers.iter().take(200) {
        let body = sign_up(email, json!({}));
        let again = interceptor.post(&daemon, &Interceptor::headers(id, &body), &body).json();
        assert_eq!(again["decision"] == "ALLOW", *was_allowed, "{id}: {again}");
    }
    let after: i64 = daemon.app_rows("SELECT count(*) FROM signup_reservations")[0][0].parse().unwrap();
    assert_eq!(after, reserved.len() as i64, "an answered request took another seat");
    eprintln!(
        "{kills} kills; {} requests answered, {} allowed, {} seats reserved",
        answers.len(),
        allowed.len(),
        reserved.len()
    );
}

/// Signs people up, one after another, each with one request that is repeated until it is answered. An answer without a
/// decision says nothing about the seat, and is not kept.
fn people(
    interceptor: &Interceptor,
    address: SocketAddr,
    nonce: u64,
    next: &AtomicU64,
    stop: &AtomicBool,
) -> Answers {
    let (mut answers, mut connection) = (Answers::new(), None);
    while !stop.load(Ordering::Relaxed) {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let (id, email) = (format!("req_{nonce:016x}_{number}"), format!("p{number}@example.com"));
        let body = sign_up(&email, json!({}));
        loop {
            match interceptor.try_ask(address, &mut connection, &id, &body) {
                Ok(answer) => {
                    assert_eq!(answer.status, 200, "{answer}");
                    let said = answer.json();
                    if said["decision"] == "ALLOW" || said["error"]["code"] != Value::Null {
                        answers.insert(id, (email, said["decision"] == "ALLOW"));
                    }
                    break;
                }
                Err(_) if stop.load(Ordering::Relaxed) => break,
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }
    answers
}
