//! The daemon: the composition root. Starts everything in order and drains it in reverse.
//!
//! ```text
//!   bind ► store ► engine ► plugins of the folder ► dispatch, sender ► ingress, admin    (start)
//!   SIGHUP, or config.toml changed ► check ► swap                                        (reload)
//!   SIGTERM ► ingress ends its requests ► attempts end ► sender ends ► store closes      (stop)
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | [`files`] | how many connections the limit of open files allows |
//! | [`sockets`] | the two listeners: systemd's sockets, or our own |
//! | [`clock`] | the time of day, which is never set back |
//! | [`manager`] | reports to systemd |
//! | [`vitals`] | whether the loops run, for systemd's watchdog |
//! | [`reload`] | reloads config.toml |
//!
//! There are two runtimes: one answers requests, the other runs guests. If a guest uses all of its core, the
//! scheduler handles that, and no request waits for it.

mod clock;
mod files;
mod manager;
mod reload;
mod senders;
mod sockets;
mod vitals;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use posthouse_database::Databases;
use posthouse_egress::{Egress, EgressError};
use posthouse_guest::plugin::{Components, Engine, EngineError, EngineOptions, PluginConfig, Registry};
use posthouse_model::{
    Answered, DecisionLedger, Env, Question, Random,
    config::{Config, ConfigError, DatabaseTarget, Files, Interceptor, Log, PluginSettings},
};
use posthouse_store as store;
use posthouse_store::{OpenError, Store, StoreError, StoreOptions, newest_event};
use rand::TryRng;
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::{
    clock::Steady,
    reload::{Reasons, Reloader},
    sockets::Passed,
    vitals::Vitals,
};

use crate::{
    admin::{self, Admin, WayIn},
    catch_up::CatchUps,
    dispatch::{self, Decisions, Dispatch, Redactions, Sender},
    ingress::{BroughtKeys, Decide, Ingress, InterceptorAnswer, KeyError, KeyPlaces, Subscribers},
    telemetry::Telemetry,
};

/// Why the daemon could not start, or failed while it stopped.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// It cannot listen on an address.
    #[error("can't listen on {address} (`{key}` in config.toml): {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Its key in config.toml.
        key: &'static str,
        /// The system's error.
        error: std::io::Error,
    },
    /// A socket that systemd passed can't be used.
    #[error("the socket `{name}` that systemd passed can't be used: {problem}")]
    Passed {
        /// Its name.
        name: String,
        /// The reason, or the fix.
        problem: String,
    },
    /// A path in config.toml is used for something else.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A secret does not fit its scheme.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The store can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The engine can't start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The admin token can't be read or created.
    #[error(transparent)]
    Token(#[from] admin::TokenError),
    /// `[mail]` can't be used.
    #[error(transparent)]
    Mail(#[from] dispatch::InvalidMailTarget),
    /// `[http]` can't be used.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// Another request to the system failed.
    #[error("{what}: {error}")]
    System {
        /// The request.
        what: &'static str,
        /// The system's error.
        error: std::io::Error,
    },
}

impl DaemonError {
    /// Whether the cause is in config.toml.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Config(_) | Self::Key(_) | Self::Mail(_) | Self::Egress(_))
    }
}

/// The randomness of the system.
struct System;

impl Random for System {
    fn fill(&self, bytes: &mut [u8]) {
        // The system's source of randomness fails only if it does not exist. Then nothing safe is possible.
        #[allow(clippy::expect_used, reason = "no secret may be made without randomness")]
        rand::rngs::SysRng.try_fill_bytes(bytes).expect("the system has no source of randomness");
    }
}

/// The [`Env`] of this system.
pub fn env() -> Env {
    Env::new(Steady::new(), System)
}

/// Applies this `[log]` section to the log, or returns why that failed.
pub type Relevel = Box<dyn Fn(&Log) -> Result<(), String> + Send + Sync>;

/// The input of the daemon.
pub struct Service {
    /// The parsed config.toml.
    pub config: Config,
    /// The path for reloads.
    pub path: PathBuf,
    /// The files that config.toml names.
    pub files: Files,
    /// Applies a changed `[log]` section.
    pub relevel: Relevel,
}

/// How long a loop may take to answer at the start before the log names it.
const FIRST_PROOF: Duration = Duration::from_secs(5);

/// The time limit at shutdown for sending the remaining spans.
const LAST_SPANS: Duration = Duration::from_secs(5);

/// The time limit at shutdown for the store and the outbox, besides that for requests and attempts.
const LAST_WORK: Duration = Duration::from_secs(60);

/// Runs until SIGTERM or SIGINT, and returns when everything is drained.
///
/// # Errors
/// [`DaemonError`] if something that it needs is missing; then nothing was acknowledged.
pub fn run(service: Service) -> Result<(), DaemonError> {
    let passed = Passed::take()?;
    let open_files = files::raise_limit();
    let requests = runtime("requests")?;
    let attempts = runtime("attempts")?;
    let result = requests.block_on(serve(service, passed, &attempts, open_files));
    // The tasks left on them have had their time. A guest that still spins must not delay the exit.
    attempts.shutdown_background();
    requests.shutdown_background();
    result
}

fn runtime(name: &'static str) -> Result<Runtime, DaemonError> {
    Builder::new_multi_thread()
        .thread_name(name)
        .enable_all()
        .build()
        .map_err(|error| DaemonError::System { what: "can't start threads", error })
}

async fn serve(
    service: Service,
    mut passed: Passed,
    attempts: &Runtime,
    open_files: usize,
) -> Result<(), DaemonError> {
    let Service { config, path, files, relevel } = service;
    let clock = Steady::new();
    let env = Env::new(clock.clone(), System);
    let started_at = env.now();
    let mut stop_signal = handle_signals(StopSignals::new()?);
    let mut reasons = Reasons::new(path.clone())?;

    let webhooks = passed.webhooks(config.server.listen).await?;
    let operators = passed.admin(config.admin.listen).await?;

    manager::status("opening the store");
    empty_logs(&config)?;
    if let Ok(Some(newest)) = newest_event(&config.store.path) {
        clock.has_been(newest);
    }
    let store = Store::open(
        StoreOptions {
            path: config.store.path.clone(),
            retention: config.store.retention,
            max_backlog: config.store.max_backlog,
            min_free: config.store.min_free,
            max_size: config.store.max_size,
        },
        env.clone(),
    )?;
    let token = admin::token(&config, &env)?;
    // Checked again, because the store's file exists now.
    let problems = files.problems();
    if !problems.is_empty() {
        return Err(ConfigError::Wrong(problems).into());
    }
    let egress = Egress::new(&config.http, env.clone())?;
    let telemetry = Telemetry::start(&config.telemetry, &egress, &env)?;

    manager::status("loading the plugins");
    let in_force = Arc::new(ArcSwap::from_pointee(config.clone()));
    let registry = registry(&config, Arc::clone(&in_force), &store, &egress, &env).await?;
    // Compiling may take minutes, and a stop does not wait for it.
    let stopped_early = tokio::select! {
        () = registry.scan() => false,
        _ = &mut stop_signal => true,
    };
    if stopped_early {
        info!("stopping before all plugins were loaded");
        registry.stop_loading().await;
        return Ok(store.close().await?);
    }
    let sender = Sender::new(
        store.clone(),
        &config.mail,
        egress.clone(),
        registry.clone(),
        &config.http,
        env.clone(),
        telemetry.clone(),
    )?;
    let subscribers: Subscribers = {
        let registry = registry.clone();
        Arc::new(move |event: &_| registry.recipients(event))
    };
    let catch_ups = CatchUps::new(
        Arc::clone(&in_force),
        store.clone(),
        egress.clone(),
        Arc::clone(&subscribers),
        env.clone(),
    );
    let ingress = Ingress::new(
        &config.sources,
        &config.server,
        store.clone(),
        subscribers,
        env.clone(),
        telemetry.clone(),
        KeyPlaces { brought: BroughtKeys::new(&config.store.state_dir()), egress },
    )?;
    ingress.replace_interceptors(&config.interceptors)?;
    let ledgers = {
        let ingress = ingress.clone();
        Arc::new(move || ingress.ledger())
    };
    let senders = {
        let (config, listen) = (Arc::clone(&in_force), webhooks.local_addr().unwrap_or(config.server.listen));
        let brought = BroughtKeys::new(&in_force.load().store.state_dir());
        let config = Arc::new(move || config.load_full());
        senders::senders(config, catch_ups.clone(), listen, env.clone(), &ingress, brought)
    };
    let decided = Arc::new(DecisionLedger::default());
    let admin = Admin::new(
        store.clone(),
        registry.clone(),
        ledgers,
        Arc::clone(&decided),
        senders,
        WayIn::new(&config, token),
        started_at,
        env.clone(),
    );
    let redactions: Redactions = {
        let config = Arc::clone(&in_force);
        Arc::new(move |name: &str| config.load().redact_of(name))
    };
    let decisions = Decisions::new(
        store.clone(),
        registry.clone(),
        env.clone(),
        Arc::clone(&redactions),
        decided,
        attempts.handle().clone(),
    );
    attempts.spawn(decisions.clone().recover());
    ingress.decided_by(decided_by(decisions));
    let vitals = Vitals::new(store.clone(), ingress.clone(), registry.clone());
    let reloader = Reloader {
        path,
        config: in_force,
        relevel,
        ingress: ingress.clone(),
        registry: registry.clone(),
        vitals: vitals.clone(),
        ledger: admin.reloads(),
    };

    let stop_attempts = CancellationToken::new();
    let dispatch = attempts.spawn(
        Dispatch::new(store.clone(), registry.clone(), env.clone(), telemetry.clone())
            .redacting(Arc::clone(&redactions))
            .run(stop_attempts.clone(), config.server.shutdown_timeout),
    );
    let sender = attempts.spawn(sender.redacting(redactions).run(stop_attempts.clone()));
    let rescan = config.plugins.rescan;
    let watched = registry.clone();
    let watcher = attempts.spawn(async move { watched.watch(rescan).await });
    let sweeper = attempts.spawn(dispatch::sweep(store.clone()));
    let stop_catching_up = CancellationToken::new();
    let catching_up = attempts.spawn(catch_ups.run(stop_catching_up.clone()));

    let stop_requests = CancellationToken::new();
    let connections = files::connections(&config, open_files);
    let ingress = {
        let stopped = stop_requests.clone().cancelled_owned();
        tokio::spawn(async move { ingress.serve(webhooks, connections.webhooks, stopped).await })
    };
    let admin =
        tokio::spawn(admin.serve(operators, connections.admin, stop_requests.clone().cancelled_owned()));
    vitals.prove(FIRST_PROOF).await?;
    info!(webhooks = %config.server.listen, admin = %config.admin.listen, "ready");
    manager::ready(&vitals.status().await);
    let telling = tokio::spawn(vitals.tell());
    let watching = tokio::spawn(clock::watch(env));

    let reloads = async {
        loop {
            let why = reasons.next().await;
            reloader.reload(why).await;
        }
    };
    tokio::select! {
        _ = &mut stop_signal => {}
        never = reloads => never,
    }
    telling.abort();
    watching.abort();
    manager::stopping(2 * config.server.shutdown_timeout + LAST_WORK);
    stop_catching_up.cancel();
    stop_requests.cancel();
    for (what, task) in [("catching up", catching_up), ("ingress", ingress), ("admin", admin)] {
        if let Err(error) = task.await {
            warn!(%error, "{what} failed during shutdown");
        }
    }
    watcher.abort();
    sweeper.abort();
    registry.stop_loading().await;
    stop_attempts.cancel();
    for (what, task) in [("dispatch", dispatch), ("sender", sender)] {
        if let Err(error) = task.await {
            warn!(%error, "{what} failed during shutdown");
        }
    }
    let closed = store.close().await;
    telemetry.finish(LAST_SPANS).await;
    closed?;
    info!("stopped");
    Ok(())
}

/// Empties the write-ahead logs that a killed daemon left, before anything else needs disk space. The
/// plugins' databases are first, because their logs may be the longest.
///
/// # Errors
/// If the store's log can't be emptied. A database that can't be used is reported when a plugin uses it.
fn empty_logs(config: &Config) -> Result<(), OpenError> {
    for (name, settings) in &config.databases {
        if let DatabaseTarget::Sqlite(path) = &settings.target
            && let Err(error) = store::empty_log(path)
        {
            warn!(database = name, %error, "could not truncate the write-ahead log of a database");
        }
    }
    store::empty_store_log(&config.store.path)
}

/// Passes the questions of interceptors from ingress to dispatch.
fn decided_by(decisions: Decisions) -> Decide {
    Arc::new(move |question: Question, interceptor: Arc<Interceptor>, arrived: Instant| {
        let decisions = decisions.clone();
        Box::pin(async move {
            let told = decisions.decide(question, interceptor, arrived).await;
            let (repeated, cause) = match told.how {
                Answered::Decided { .. } => (false, None),
                Answered::Fallback(cause) => (false, Some(cause)),
                Answered::Repeated => (true, None),
            };
            InterceptorAnswer { body: told.body, repeated, cause }
        })
    })
}

/// Creates the engine and the registry, which has not scanned the folder yet.
async fn registry(
    config: &Config,
    in_force: Arc<ArcSwap<Config>>,
    store: &Store,
    egress: &Egress,
    env: &Env,
) -> Result<Registry, DaemonError> {
    let engine = Engine::new(
        EngineOptions {
            cache_dir: config.store.state_dir().join("aot"),
            instances: config.plugins.instances,
            compiler: EngineOptions::this_binary(),
            compile: config.plugins.compile,
        },
        env.clone(),
    )?;
    let registry = Registry::new(
        engine,
        store.clone(),
        Databases::new(&config.databases, config.store.min_free),
        egress.clone(),
        config.plugins.dir.clone(),
        Arc::new(PluginTables(in_force)),
        env.clone(),
    )
    .await?;
    Ok(registry)
}

/// The tables of plugins in the config.toml that is in force.
struct PluginTables(Arc<ArcSwap<Config>>);

impl PluginConfig for PluginTables {
    fn settings(&self, name: &str) -> PluginSettings {
        self.0.load().settings(name).clone()
    }

    fn components(&self) -> Components {
        Components::new(&self.0.load().plugin)
    }
}

fn on_signal(kind: SignalKind) -> Result<Signal, DaemonError> {
    signal(kind).map_err(|error| DaemonError::System { what: "can't wait for signals", error })
}

/// Returns at the first signal. A second one ends the process at once: acknowledged events are on disk, and
/// unfinished deliveries run after the next start, as after a crash.
fn handle_signals(mut signals: StopSignals) -> oneshot::Receiver<()> {
    let (first, stop) = oneshot::channel();
    tokio::spawn(async move {
        let signal = signals.wait().await;
        info!(signal, "stopping; a second signal stops at once");
        let _ = first.send(());
        let signal = signals.wait().await;
        warn!(
            signal,
            "stopped at once after a second signal; unfinished deliveries run after the next start"
        );
        std::process::exit(0);
    });
    stop
}

/// SIGTERM and SIGINT.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> Result<Self, DaemonError> {
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Ok(Self { terminate: on_signal(terminate)?, interrupt: on_signal(interrupt)? })
    }

    async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
