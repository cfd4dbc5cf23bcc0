//! The time of a decision, at 200 a second: the plugin signup-policy reserves a seat for each.

use std::{
    thread,
    time::{Duration, Instant},
};

use posthouse_harness::{Daemon, Interceptor, sign_up};
use rusqlite::Connection;
use serde_json::json;

use crate::{
    bench::Bench,
    table::{Row, median},
};

/// Decisions a second, over all connections.
const RATE: u32 = 200;
const CONNECTIONS: u32 = 16;

pub(crate) fn measure(bench: &mut Bench) {
    let interceptor = Interceptor::new("signup", "signup-policy");
    let table = interceptor.toml().replace("[\"*\"]", "[\"PRE_SIGNUP\"]");
    let database =
        "[databases.app]\nurl = \"sqlite:data/app.db\"\n[plugin.signup-policy.grants]\ndatabase = \"app\"\n";
    let daemon = bench.daemon_of(&format!("{table}\n{database}")).guest("signup-policy").start();
    // The plugin makes its tables.
    interceptor.ask(&daemon, "req_first", json!({}));
    let row = "INSERT INTO signup_domains VALUES ('example.com', 'org_1', 0, '[\"member\"]')";
    let file = Connection::open(daemon.dir().join("data/app.db")).expect("the plugin's database");
    file.execute_batch(row).expect("a row");
    drop(file);
    let lasting = Duration::from_secs_f64(bench.arguments.seconds);
    // The first round only warms up.
    let rounds: Vec<_> =
        (0..=bench.arguments.rounds).map(|round| times(&daemon, &interceptor, round, lasting)).collect();
    let [half, most, nearly_all] = median(&rounds[1..], |times| times[1]);
    bench.add(Row {
        name: "p99 of a decision".into(),
        value: format!("{most:.2} ms (p50 {half:.2}, p99.9 {nearly_all:.2})"),
        note: format!("open loop at {RATE}/s, each with a row in SQLite, counted from when it was due"),
        ..Row::default()
    });
}

/// p50, p99 and p99.9 of a round, in ms.
fn times(daemon: &Daemon, interceptor: &Interceptor, round: usize, lasting: Duration) -> [f64; 3] {
    let (began, address) = (Instant::now(), daemon.address());
    let one = |connection: u32| {
        let (mut open, mut micros, mut number) = (None, Vec::new(), connection);
        loop {
            let due = Duration::from_secs(1) * number / RATE;
            if due > lasting {
                return micros;
            }
            thread::sleep(due.saturating_sub(began.elapsed()));
            let body = sign_up(&format!("p{round}_{number}@example.com"), json!({}));
            let id = format!("req_{round}_{number}");
            let answer = interceptor.try_ask(address, &mut open, &id, &body).expect("an answer");
            assert_eq!(answer.json()["decision"], "ALLOW", "{answer}");
            micros.push((began.elapsed().saturating_sub(due)).as_micros() as u32);
            number += CONNECTIONS;
        }
    };
    let mut all: Vec<u32> = thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS).map(|number| scope.spawn(move || one(number))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("its connection")).collect()
    });
    all.sort_unstable();
    let at = |share: f64| all[((all.len() as f64 * share) as usize).min(all.len() - 1)];
    [0.5, 0.99, 0.999].map(|share| f64::from(at(share)) / 1000.0)
}
