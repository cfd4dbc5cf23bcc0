//! Seats are exact for each organization, whatever the order of the events, however often they arrive, and
//! however many attempts trap.
//!
//! The story: people join, change and leave 50 organizations, 10,000 times. The events arrive shuffled, and
//! every third arrives twice. Half of the copies have the same id, which the daemon recognises as a
//! duplicate. The other half has another id, and only the plugin can tell. Eight attempts run at once, and
//! every tenth traps after it has done its work (`trapping-seats` is the plugin seat-billing within another).
//! At the end, each organization has exactly the seats of the story.

#![allow(clippy::expect_used, reason = "what fails fails the test")]

use std::{collections::BTreeMap, thread};

use posthouse_harness::{Daemon, Event, Postgres, Sender, fresh_id, seed, wait_until};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use serde_json::json;

const EVENTS: u32 = 10_000;
const ORGANIZATIONS: u32 = 50;
/// The number of users in each organization.
const USERS: u32 = 60;

#[test]
fn seats_are_exact_on_sqlite() {
    seats_are_exact("sqlite:data/app.db", |daemon, query| daemon.app_rows(query));
}

#[test]
fn seats_are_exact_on_postgresql() {
    let postgres = Postgres::start();
    seats_are_exact(&postgres.url(), |_, query| postgres.query(query));
}

fn seats_are_exact(url: &str, rows: impl Fn(&Daemon, &str) -> Vec<Vec<String>>) {
    let mut dice = StdRng::seed_from_u64(seed());
    let (events, seats) = story(&mut dice);
    let posted = shuffled(&mut dice, events);
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .guest("trapping-seats")
        .set("log", r#"level = "error""#)
        .toml(&format!(
            r#"
            [databases.app]
            url = {url:?}
            [plugin.trapping-seats]
            concurrency = 8
            retry = {{ attempts = 20, base = "20ms", factor = 1.0 }}
            [plugin.trapping-seats.grants]
            database = "app"
            "#
        ))
        .start();
    post(&daemon.sender(), &posted);
    settle(&daemon);

    let stats = daemon.stats();
    let ids: std::collections::BTreeSet<_> = posted.iter().map(|event| &event.id).collect();
    assert_eq!(stats["store"]["states"]["done"], json!(ids.len()), "{stats}");
    assert_eq!(stats["balanced"], json!(true), "{stats}");
    let traps: i64 = daemon
        .store()
        .query_row("SELECT count(*) FROM attempt WHERE error IS NOT NULL", [], |row| row.get(0))
        .expect("the attempts");
    assert!(traps > i64::from(EVENTS / 20), "only {traps} attempts trapped");

    let counts = |query: &str| -> BTreeMap<String, i64> {
        let number = |text: &String| text.parse().expect("a count");
        rows(&daemon, query).iter().map(|row| (row[0].clone(), number(&row[1]))).collect()
    };
    assert_eq!(counts("SELECT organization_id, seats FROM seat_counts"), seats);
    let members =
        "SELECT organization_id, CAST(sum(seat) AS BIGINT) FROM seat_members GROUP BY organization_id";
    assert_eq!(counts(members), seats);
    eprintln!(
        "{} requests, {} deliveries, {traps} traps, {} conflicts",
        posted.len(),
        ids.len(),
        stats["store"]["conflicts"]
    );
}

/// The events in order, and the seats that are taken at the end.
fn story(dice: &mut StdRng) -> (Vec<Event>, BTreeMap<String, i64>) {
    let mut member: BTreeMap<(u32, u32), bool> = BTreeMap::new();
    let mut events = Vec::new();
    for second in 0..EVENTS {
        let who = (dice.random_range(0..ORGANIZATIONS), dice.random_range(0..USERS));
        let is_member = member.entry(who).or_default();
        let kind = match (*is_member, dice.random_bool(0.3)) {
            (false, _) => "created",
            (true, true) => "updated",
            (true, false) => "deleted",
        };
        *is_member = kind != "deleted";
        events.push(event(kind, who, dice.random_bool(0.5)).later(second));
    }
    let mut seats = BTreeMap::new();
    for ((organization, _), is_member) in member {
        *seats.entry(format!("org_{organization}")).or_default() += i64::from(is_member);
    }
    (events, seats)
}

/// An event in one of the two shapes that senders use.
fn event(kind: &str, (organization, user): (u32, u32), page: bool) -> Event {
    let (organization, user) = (format!("org_{organization}"), format!("usr_{user}"));
    let (family, data) = if page {
        let membership = json!({ "user_id": user, "organization_id": organization, "roles": ["member"] });
        ("membership.", json!({ "membership": membership }))
    } else {
        (
            "user.organization_membership_",
            json!({ "user": { "id": user }, "organization": { "id": organization } }),
        )
    };
    Event::new(&format!("{family}{kind}")).organization(organization).data(data)
}

/// The events in random order, every third of them twice.
fn shuffled(dice: &mut StdRng, events: Vec<Event>) -> Vec<Event> {
    let mut all = events.clone();
    for (number, event) in events.into_iter().enumerate().filter(|(number, _)| number % 3 == 0) {
        all.push(if number % 2 == 0 { event } else { event.id(fresh_id()) });
    }
    all.shuffle(dice);
    all
}

/// Posts them on eight connections.
fn post(sender: &Sender, events: &[Event]) {
    thread::scope(|scope| {
        for part in events.chunks(events.len().div_ceil(8)) {
            scope.spawn(move || {
                let mut connection = None;
                for event in part {
                    let answer = sender.try_post_event(&mut connection, event).expect("an answer");
                    assert_eq!(answer.status, 200, "{answer}");
                }
            });
        }
    });
}

/// Waits until every delivery is finished, as long as there is progress.
fn settle(daemon: &Daemon) {
    let open = || {
        let stats = daemon.stats();
        let states = ["ready", "leased", "waiting"].map(|state| stats["store"]["states"][state].as_u64());
        states.into_iter().flatten().sum::<u64>()
    };
    let mut left = open();
    while left > 0 {
        wait_until("further deliveries are finished", || open() < left);
        left = open();
    }
}
