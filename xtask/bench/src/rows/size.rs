//! A large store: how fast the daemon starts on it, and how many events a second it handles.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use jiff::Timestamp;
use posthouse::daemon::env;
use posthouse_harness::Daemon;
use posthouse_model::{
    Attempt, Effects, Env, EventId, EventType, NewEvent, Outcome, PluginId, RequestParts, SourceName,
};
use posthouse_store::{Store, StoreOptions, Verdict};
use tokio::task::JoinSet;

use super::rate::{KV_GUEST, round_to_last_commit, with_plugins};
use crate::{
    bench::Bench,
    noop::Noop,
    table::{Row, thousands},
};

/// Events that are sent to the store at once while it is filled.
const OFFERED_AT_ONCE: usize = 512;

pub(crate) fn measure(bench: &mut Bench) {
    let (finished, waiting) = (bench.arguments.finished, bench.arguments.waiting);
    let mut daemon = with_plugins(bench.daemon(), 1).start();
    daemon.stop();
    let empty = started_in(&mut daemon);
    daemon.stop();

    let began = Instant::now();
    fill(&daemon.dir().join("data/posthouse.db"), &Fill { finished, waiting, dead: 0 });
    eprintln!("   filled in {:.0} s", began.elapsed().as_secs_f64());

    let grown = started_in(&mut daemon);
    assert_eq!(daemon.deliveries_in("waiting"), waiting, "the store is filled");
    let (done, noop) = (daemon.deliveries_in("done"), Noop::start().started_in);
    assert!(done >= finished, "the store is filled: {done}");
    let millis = |time: Duration| format!("{:.0} ms", time.as_secs_f64() * 1000.0);
    let holding = format!("{} finished and {} waiting deliveries", thousands(finished), thousands(waiting));
    bench.add(Row {
        name: "start-up, grown store".into(),
        value: millis(grown),
        noop: millis(noop),
        ratio: Some(grown.as_secs_f64() / noop.as_secs_f64()),
        note: format!("{holding}; {} on an empty store", millis(empty)),
        ..Row::default()
    });

    let both = bench.in_turns(|| round_to_last_commit(bench, &daemon, 1));
    bench.add(Bench::rate_row("accept, one plugin, grown store", both, &holding));
}

/// The time from the start of the process until it reports that it is healthy.
fn started_in(daemon: &mut Daemon) -> Duration {
    let began = Instant::now();
    daemon.launch();
    while !daemon.healthy() {
        assert!(began.elapsed() < Duration::from_secs(300), "{}", daemon.log());
        std::thread::sleep(Duration::from_millis(1));
    }
    began.elapsed()
}

/// The number of deliveries of each kind in a filled store. Each has its own event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fill {
    pub(super) waiting: u64,
    pub(super) dead: u64,
    pub(super) finished: u64,
}

impl Fill {
    fn events(&self) -> u64 {
        self.waiting + self.dead + self.finished
    }
}

/// A store in this file, for as many unfinished deliveries, while no daemon has it.
pub(super) fn store(path: &Path, max_backlog: u64, env: &Env) -> Store {
    let options = StoreOptions {
        path: path.to_owned(),
        retention: Duration::from_hours(24),
        max_backlog,
        min_free: 0,
        max_size: None,
    };
    Store::open(options, env.clone()).expect("the daemon's store")
}

/// Fills a store through its own handle.
pub(super) fn fill(path: &Path, fill: &Fill) {
    let fill = *fill;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let env = env();
        let store = store(path, fill.events() + 1, &env);
        let plugin = store.plugin_id(KV_GUEST).await.expect("a plugin's id");
        let handling = tokio::spawn(handle(store.clone(), plugin, env.clone(), fill));
        offer(&store, plugin, &env, fill.events()).await;
        handling.await.expect("deliveries that are handled");
        store.close().await.expect("a store that closes");
    });
}

async fn offer(store: &Store, plugin: PluginId, env: &Env, events: u64) {
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..OFFERED_AT_ONCE {
        let (store, env, next) = (store.clone(), env.clone(), Arc::clone(&next));
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= events {
                    break;
                }
                store.accept(event(number, env.now()), vec![plugin]).await.expect("an event that is taken");
            }
        });
    }
    tasks.join_all().await;
}

/// Ends every delivery. The first ones wait for an hour, the next are given up for one of ten reasons, and
/// the others are done.
async fn handle(store: Store, plugin: PluginId, env: Env, fill: Fill) {
    let mut lane = store.open_lane(plugin, 4096).await.expect("a lane");
    let later = env.now() + Duration::from_hours(1);
    for number in 0..fill.events() {
        let job = lane.next().await.expect("a delivery");
        let (outcome, error, verdict) = if number < fill.waiting {
            (Outcome::Retry, Some("the other side is busy".to_owned()), Verdict::Retry(later))
        } else if number < fill.waiting + fill.dead {
            (Outcome::Rejected, Some(format!("reason {}", number % 10)), Verdict::Dead)
        } else {
            (Outcome::Done, None, Verdict::Done(Effects::default()))
        };
        let attempt = Attempt {
            number: job.attempt,
            started_at: env.now(),
            duration: Duration::from_micros(50),
            outcome,
            error,
            trace: None,
            logs: Vec::new(),
            actions: None,
            revision: None,
        };
        store.complete(job, attempt, verdict).await.expect("a delivery that ends");
    }
    store.flush().await.expect("a store that writes");
    lane.close().await;
}

/// The n-th event of a fill.
pub(super) fn event(number: u64, now: Timestamp) -> NewEvent {
    let id = format!("evt_fill_{number:012}");
    let user = format!(
        r#"{{"user":{{"id":"usr_{number}","email":"user{number}@example.com","metadata":"{:440}"}}}}"#,
        ""
    );
    let body = format!(r#"{{"spec_version":"1","id":"{id}","type":"user.created","data":{user}}}"#);
    let start = (body.len() - 1 - user.len()) as u32;
    NewEvent {
        source: SourceName::new("scalekit").expect("a name"),
        id: EventId::new(&id).expect("an id"),
        event_type: EventType::new("user.created").expect("a type"),
        organization: Some(format!("org_1026905633121{:05}", number % 1000).into()),
        occurred_at: None,
        received_at: now,
        depth: 0,
        trace: None,
        data: start..start + user.len() as u32,
        body: Bytes::from(body),
        request: RequestParts::default(),
    }
}
