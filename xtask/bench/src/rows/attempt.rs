//! The cost of one attempt, in a fresh instance and in a used one.
//!
//! It runs in this process, by the library: the guest runs, and its effects are staged and dropped. Attempts
//! run one after another, so the time is the work of one core.

use std::{path::Path, sync::Arc, time::Instant};

use bytes::Bytes;
use posthouse::daemon::env;
use posthouse_database::Databases;
use posthouse_egress::Egress;
use posthouse_guest::plugin::{Engine, EngineOptions, Registry};
use posthouse_model::{
    DeliveryId, Env, Event, EventId, EventSeq, EventType, Job, LeaseToken, NewEvent, PluginId, RequestParts,
    SourceName,
    config::{Compile, Http, PluginSettings},
};

use super::{
    rate::{KV_GUEST, with_plugins},
    size::store,
};
use crate::{
    bench::Bench,
    table::{Row, median, per_second},
};

const ATTEMPTS: u32 = 20_000;

pub(crate) fn measure(bench: &mut Bench) {
    // The daemon never starts: this process does its work.
    let daemon = with_plugins(bench.daemon(), 1).prepare();
    let noop = bench.noop_round().rate;
    for (name, reuse) in [("attempt, fresh instance", 1), ("attempt, reused instance", 1000)] {
        let micros = micros_an_attempt(bench, daemon.dir(), reuse);
        let rate = 1e6 / micros;
        bench.add(Row {
            name: name.into(),
            value: format!("{micros:.1} µs"),
            noop: per_second(noop),
            ratio: Some(rate / noop),
            note: format!("one after another, not committed; {} on one core", per_second(rate)),
            ..Row::default()
        });
    }
}

fn micros_an_attempt(bench: &Bench, dir: &Path, reuse: u32) -> f64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let env = env();
        let store = store(&dir.join("data/posthouse.db"), 1000, &env);
        let options = EngineOptions {
            cache_dir: dir.join("data/aot"),
            instances: 64,
            compiler: bench.binary(),
            compile: Compile::default(),
        };
        let engine = Engine::new(options, env.clone()).expect("an engine");
        let settings = Arc::new(move |_: &str| PluginSettings { reuse, ..PluginSettings::default() });
        let registry = Registry::new(
            engine,
            store.clone(),
            Databases::default(),
            Egress::new(&Http::default(), env.clone()).expect("a way out"),
            dir.join("plugins"),
            settings,
            env.clone(),
        )
        .await
        .expect("a registry");
        registry.scan().await;
        let plugin = registry.by_name(KV_GUEST).expect("the guest");
        assert!(plugin.serving(), "{:?}", plugin.record.held);
        let mut rates = Vec::new();
        for _ in 0..=bench.arguments.rounds {
            let jobs: Vec<_> = (0..ATTEMPTS).map(|number| job(plugin.record.id, number, &env)).collect();
            let began = Instant::now();
            for job in &jobs {
                let report = plugin.attempt(job).await;
                assert!(report.result.is_ok(), "{:?}", report.result);
            }
            rates.push(began.elapsed().as_secs_f64() * 1e6 / f64::from(ATTEMPTS));
        }
        store.close().await.expect("a store that closes");
        median(&rates[1..], |rate| *rate)
    })
}

fn job(plugin: PluginId, number: u32, env: &Env) -> Job {
    let body =
        format!(r#"{{"id":"evt_{number}","type":"user.created","data":{{"user":{{"id":"usr_{number}"}}}}}}"#);
    let start = body.find(r#"{"user""#).expect("the data") as u32;
    let data = start..body.len() as u32 - 1;
    let content = NewEvent {
        source: SourceName::new("scalekit").expect("a name"),
        id: EventId::new(&format!("evt_{number}")).expect("an id"),
        event_type: EventType::new("user.created").expect("a type"),
        organization: Some("org_102690563312124938".into()),
        occurred_at: None,
        received_at: env.now(),
        depth: 0,
        trace: None,
        body: Bytes::from(body),
        data,
        request: RequestParts::default(),
    };
    Job {
        delivery: DeliveryId(i64::from(number)),
        token: LeaseToken(0),
        expires: None,
        ordered: false,
        plugin,
        attempt: 1,
        conflicts: 0,
        may_have_run: false,
        due_at: env.now(),
        replay: false,
        trace: None,
        event: Arc::new(Event { seq: EventSeq(i64::from(number)), content }),
    }
}
