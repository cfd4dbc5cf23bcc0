//! Runs handwritten guests, in the text format, through the whole engine: compiler child, cache, pool, limits,
//! reports and registry.

mod attempts;
mod calls;
mod compiling;
mod components;
mod registry;
mod wasi;

use std::{path::Path, sync::Arc, time::Duration};

use jiff::Timestamp;
use posthouse_model::{
    config::{Compile, PluginSettings, Retry},
    testing::{event, still},
    *,
};

use super::{
    AttemptReport, Engine,
    revision::{self, Code},
    testing::{self, Bench, guest, in_world, module},
};
use crate::imports::{
    KvSource, PluginContext,
    tests::{MemoryKv, limits},
};

fn settings() -> PluginSettings {
    let second = Duration::from_secs(1);
    PluginSettings {
        component: None,
        events: None,
        concurrency: 8,
        reuse: 1,
        rate: None,
        retry: Retry { attempts: 4, base: second, factor: 2.0, max: second, jitter: 0.0 },
        breaker: Default::default(),
        limits: limits(),
        order_by: None,
        grants: Grants::default(),
        config: [("greeting".to_owned(), posthouse_model::config::Secret::new("hello"))].into(),
    }
}

impl Bench {
    async fn load(&self, wasm: &[u8], settings: PluginSettings) -> Loaded<'_> {
        let content = revision::read(&self.file(wasm)).await.unwrap();
        let settings = Arc::new(settings);
        let inspection =
            revision::load(&self.engine, "guest", &content, Arc::clone(&settings)).await.unwrap();
        let kv: Arc<dyn KvSource> = Arc::new(MemoryKv::default());
        let env = still();
        let context = Arc::new(PluginContext {
            plugin: "guest".to_owned(),
            settings,
            env,
            kv: Some(kv),
            database: None,
            plugin_http: None,
        });
        Loaded { engine: &self.engine, code: inspection.code, context }
    }

    /// One attempt of a guest with this `handle`.
    async fn attempt(&self, body: &str, settings: PluginSettings) -> AttemptReport {
        self.load(&guest(body), settings).await.attempt().await
    }
}

struct Loaded<'a> {
    engine: &'a Engine,
    code: Code,
    context: Arc<PluginContext>,
}

impl Loaded<'_> {
    async fn attempt(&self) -> AttemptReport {
        self.code.attempt(self.engine, &self.context, &job("user.created")).await
    }
}

fn job(event_type: &str) -> Job {
    let content = event("evt_1", event_type, Timestamp::UNIX_EPOCH);
    Job {
        delivery: DeliveryId(1),
        token: LeaseToken(1),
        expires: None,
        ordered: false,
        plugin: PluginId(1),
        attempt: 1,
        conflicts: 0,
        may_have_run: false,
        due_at: Timestamp::UNIX_EPOCH,
        replay: false,
        trace: None,
        event: Arc::new(Event { seq: EventSeq(1), content }),
    }
}

/// Not a test: the compiler child of the tests here.
#[test]
#[ignore = "run as the compiler child of the other tests"]
fn plays_the_compiler() {
    testing::play_the_compiler();
}
