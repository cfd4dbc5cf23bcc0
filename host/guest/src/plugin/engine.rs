//! The wasmtime engine: its settings, its pool, its epoch clock, its compiler and its cache.
//!
//! The daemon that runs plugins and the child that compiles them share one set of settings, since code compiled
//! under other settings would not load. Only the daemon has a pool, because it reserves more address space than
//! the child may use.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::Thread,
    time::Duration,
};

use posthouse_model::{Env, Usage, config::Compile};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::{
    Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails,
    component::Linker,
};

use super::{cache::Cache, compile::Compiler, links::Links};

use crate::imports::{self, CORE_INSTANCES, HostState, MEMORIES, TABLE_ELEMENTS, TABLES};

/// Bytes of stack that wasm code may use.
pub(super) const STACK: usize = 512 << 10;
/// Bytes of the largest linear memory that a limit can allow.
const MEMORY: usize = 512 << 20;
/// How often a running guest checks its deadline.
const TICK: Duration = Duration::from_millis(1);
/// Ticks without an attempt after which the clock stops. Waking it costs more than a few idle ticks.
const RESTLESS: u32 = 200;
/// Revisions that may be loaded at once, beside the running instances.
const LOADING: u32 = 2;
/// Instances that decide at once, beside those that handle events. So a decision never waits for an event.
const DECIDING: u32 = 16;

/// The options of an engine.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// The folder of the AOT code: `<state>/aot`, mode 0700.
    pub cache_dir: PathBuf,
    /// The most instances that run at once. A further one waits.
    pub instances: u32,
    /// The binary whose subcommand `compile` compiles plugins; see [`EngineOptions::this_binary`].
    pub compiler: PathBuf,
    /// The limits of a compilation.
    pub compile: Compile,
}

impl EngineOptions {
    /// The binary that runs now, even if its file has been replaced since. A newer binary may compile in
    /// another way.
    pub fn this_binary() -> PathBuf {
        let this = PathBuf::from("/proc/self/exe");
        if this.exists() { this } else { std::env::current_exe().unwrap_or_else(|_| "posthouse".into()) }
    }
}

/// Why the engine can't start.
#[derive(Debug, thiserror::Error)]
#[error("the plugin engine can't start: {0}")]
pub struct EngineError(pub String);

/// The wasmtime engine with its pool, its linker, its compiler child and its AOT cache.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    parts: Parts,
    ticker: Ticker,
    /// Places of running instances.
    running: Arc<Semaphore>,
    /// Places of instances kept for reuse.
    idle: Arc<Semaphore>,
    /// Places of instances that describe themselves while they are loaded.
    loading: Arc<Semaphore>,
    /// Places of instances that decide.
    deciding: Arc<Semaphore>,
    /// The most instances that run, and the most that are kept for reuse.
    instances: usize,
}

impl Engine {
    /// Creates an engine: reserves the pool, opens the cache and starts the epoch clock.
    ///
    /// # Errors
    /// [`EngineError`] if the machine can't reserve the address space, or if the cache folder is not private to
    /// this user.
    pub fn new(options: EngineOptions, env: Env) -> Result<Self, EngineError> {
        let failed = |error: wasmtime::Error| EngineError(format!("{error:#}"));
        let mut config = settings();
        // The pool has room for every instance that may exist, so it never refuses one.
        let places = options.instances.saturating_mul(2).saturating_add(LOADING + DECIDING);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(places)));
        let wasm = wasmtime::Engine::new(&config).map_err(failed)?;
        let mut linker = Linker::new(&wasm);
        imports::link(&mut linker).map_err(failed)?;
        let cache = Cache::open(options.cache_dir, &wasm).map_err(|error| EngineError(error.to_string()))?;
        let instances = options.instances as usize;
        Ok(Self(Arc::new(Inner {
            ticker: Ticker::start(&wasm)?,
            parts: Parts {
                wasm,
                linker,
                cache,
                compiler: Compiler::new(options.compiler, options.compile),
                links: Links::default(),
                env,
            },
            running: Arc::new(Semaphore::new(instances)),
            idle: Arc::new(Semaphore::new(instances)),
            loading: Arc::new(Semaphore::new(LOADING as usize)),
            deciding: Arc::new(Semaphore::new(DECIDING as usize)),
            instances,
        })))
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.0.parts
    }

    /// The instances that run, those kept for reuse, and those that decide.
    pub(super) fn usage(&self) -> [(&'static str, Usage); 3] {
        let usage = |places: &Semaphore, most: usize| Usage::of(most, places.available_permits());
        let instances = self.0.instances;
        [
            ("running", usage(&self.0.running, instances)),
            ("resting", usage(&self.0.idle, instances)),
            ("deciding", usage(&self.0.deciding, DECIDING as usize)),
        ]
    }

    /// Returns a place for a running instance. Waits while all are taken.
    pub(super) async fn place(&self) -> Place {
        Place(Arc::clone(&self.0.running).acquire_owned().await.ok())
    }

    /// Returns a place for an instance that decides. Waits while all of those are taken.
    pub(super) async fn place_to_decide(&self) -> Place {
        Place(Arc::clone(&self.0.deciding).acquire_owned().await.ok())
    }

    /// Returns a place for an instance kept for reuse, if one is free.
    pub(super) fn place_to_rest(&self) -> Option<Place> {
        Arc::clone(&self.0.idle).try_acquire_owned().ok().map(|permit| Place(Some(permit)))
    }

    /// Returns a place for an instance of a revision that is being loaded. Waits while all are taken.
    pub(super) async fn place_to_load(&self) -> Place {
        Place(Arc::clone(&self.0.loading).acquire_owned().await.ok())
    }

    /// Keeps the epoch clock running while the returned value lives.
    pub(super) fn tick(&self) -> Ticking<'_> {
        self.0.ticker.tick()
    }
}

/// The right to a place in the pool. It is none if the semaphore was closed, which never happens.
pub(super) struct Place(#[expect(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>);

/// The parts that turn a file into an instance.
pub(super) struct Parts {
    pub(super) wasm: wasmtime::Engine,
    pub(super) linker: Linker<HostState>,
    pub(super) cache: Cache,
    pub(super) compiler: Compiler,
    pub(super) links: Links,
    pub(super) env: Env,
}

/// The settings under which code is compiled and run.
pub(super) fn settings() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .epoch_interruption(true)
        .max_wasm_stack(STACK)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(64))
        .parallel_compilation(true);
    config
}

fn pool(places: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(places)
        .total_core_instances(places.saturating_mul(CORE_INSTANCES))
        // One more each, for the heap of a guest whose language has a garbage collector.
        .total_memories(places.saturating_mul(MEMORIES + 1))
        .total_tables(places.saturating_mul(TABLES))
        .total_stacks(places)
        .total_gc_heaps(places)
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(TABLES)
        .max_component_instance_size(8 << 20)
        .max_core_instance_size(8 << 20)
        .table_elements(TABLE_ELEMENTS)
        .max_memory_size(MEMORY)
        // Most of an instance's cost is page-table work, so pages stay mapped and are cleared in place.
        .table_keep_resident(64 << 10)
        .linear_memory_keep_resident(1 << 20)
        .pagemap_scan(Enabled::Auto);
    pool
}

/// Advances the engine's epoch while guests run, and sleeps while none does.
struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Default)]
struct Shared {
    running: AtomicUsize,
    resting: AtomicBool,
    stopped: AtomicBool,
}

/// Keeps the clock running while it lives.
pub(super) struct Ticking<'a>(&'a Shared);

impl Ticker {
    fn start(engine: &wasmtime::Engine) -> Result<Self, EngineError> {
        let shared = Arc::new(Shared::default());
        let (engine, state) = (engine.weak(), Arc::clone(&shared));
        let handle = std::thread::Builder::new()
            .name("epoch".to_owned())
            .spawn(move || state.run(&engine))
            .map_err(|error| EngineError(format!("no thread for the epoch clock: {error}")))?;
        Ok(Self { shared, thread: handle.thread().clone() })
    }

    fn tick(&self) -> Ticking<'_> {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        if self.shared.resting.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
        Ticking(&self.shared)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Shared {
    fn run(&self, engine: &wasmtime::EngineWeak) {
        let mut idle = 0;
        while !self.stopped.load(Ordering::SeqCst) {
            let Some(engine) = engine.upgrade() else { return };
            engine.increment_epoch();
            drop(engine);
            idle = if self.running.load(Ordering::SeqCst) == 0 { idle + 1 } else { 0 };
            if idle < RESTLESS {
                std::thread::sleep(TICK);
                continue;
            }
            self.resting.store(true, Ordering::SeqCst);
            // An attempt that began before this store saw `resting` unset, and did not wake this thread.
            while self.running.load(Ordering::SeqCst) == 0
                && self.resting.load(Ordering::SeqCst)
                && !self.stopped.load(Ordering::SeqCst)
            {
                std::thread::park();
            }
            self.resting.store(false, Ordering::SeqCst);
            idle = 0;
        }
    }
}
