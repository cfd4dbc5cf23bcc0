//! What a guest can call, and the one state through which every call goes.
//!
//! [`HostState::pass`] is where a call is counted, where it is refused without its grant, and where a record
//! of call and answer will be taken, so that an attempt can be run again offline with the same answers.
//! Behind it, an interface a file: `log`, `config`, `kv`, `sql`, `http`, `outbox`, and `wasi` for clocks, randomness and
//! standard streams. What is tied to one version of the WIT package stands in `v0_1`.
//!
//! Nothing here takes effect: writes and mail are staged in the attempt's [`Effects`].

mod config;
mod did;
mod emit;
mod http;
mod kv;
mod limits;
mod log;
mod outbox;
mod refused;
mod sql;
pub(crate) mod v0_1;
mod wasi;

use std::{sync::Arc, time::Instant};

use wasmtime::component::Linker;

pub(crate) use kv::KvSource;
pub(crate) use limits::{CORE_INSTANCES, HANDLES, MEMORIES, Meter, Stop, TABLE_ELEMENTS, TABLES, cut, size};
pub(crate) use log::last_words;

use posthouse_database::{AttemptHistory, Database, Transaction, Waiting};
use posthouse_egress::PluginHttp;
use posthouse_model::{
    Capability, DeliveryId, Derived, Effects, Env, Event, Fetched, Job, LogLine, TraceContext,
    config::PluginSettings,
};

use self::{
    emit::Emitter,
    http::Http,
    kv::{Kv, Source},
    limits::Budget,
    outbox::Outbox,
    sql::Sql,
};

/// The most requests of one attempt that are recorded.
const MOST_FETCHED: usize = 128;

/// What stays the same over all attempts of a plugin's revision.
pub(crate) struct PluginContext {
    pub(crate) plugin: String,
    pub(crate) settings: Arc<PluginSettings>,
    pub(crate) env: Env,
    /// None where a revision is only asked what it is.
    pub(crate) kv: Option<Arc<dyn KvSource>>,
    /// The one that it was granted.
    pub(crate) database: Option<Database>,
    /// Where it may make requests to; none where a revision is only asked what it is.
    pub(crate) plugin_http: Option<Arc<PluginHttp>>,
}

/// Why a guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Invocation {
    /// To say what it is, with no grants.
    Describe,
    /// To handle an event.
    Handle(DeliveryId),
}

/// A kind of host call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Log,
    ConfigGet,
    KvGet,
    KvSet,
    KvDelete,
    KvList,
    KvIncrement,
    SqlQuery,
    SqlExecute,
    HttpFetch,
    SendMail,
    SendRequest,
    Emit,
    Clock,
    Random,
    Stdio,
}

impl Call {
    const ALL: [Self; 16] = [
        Self::Log,
        Self::ConfigGet,
        Self::KvGet,
        Self::KvSet,
        Self::KvDelete,
        Self::KvList,
        Self::KvIncrement,
        Self::SqlQuery,
        Self::SqlExecute,
        Self::HttpFetch,
        Self::SendMail,
        Self::SendRequest,
        Self::Emit,
        Self::Clock,
        Self::Random,
        Self::Stdio,
    ];

    /// As a guest's author knows it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Log => "log.write",
            Self::ConfigGet => "config.get",
            Self::KvGet => "kv.get",
            Self::KvSet => "kv.set",
            Self::KvDelete => "kv.delete",
            Self::KvList => "kv.list",
            Self::KvIncrement => "kv.increment",
            Self::SqlQuery => "sql.query",
            Self::SqlExecute => "sql.execute",
            Self::HttpFetch => "http.fetch",
            Self::SendMail => "outbox.send-mail",
            Self::SendRequest => "outbox.send-request",
            Self::Emit => "outbox.emit",
            Self::Clock => "wasi:clocks",
            Self::Random => "wasi:random",
            Self::Stdio => "wasi:cli",
        }
    }

    /// The grant it needs.
    fn needs(self) -> Option<Capability> {
        Some(match self {
            Self::SqlQuery | Self::SqlExecute => Capability::Sql,
            Self::HttpFetch | Self::SendRequest => Capability::Http,
            Self::SendMail => Capability::Mail,
            Self::Emit => Capability::Emit,
            _ => return None,
        })
    }

    /// Whether a guest may make it that is only asked what it is. What a language's runtime needs to
    /// start is among it.
    fn while_describing(self) -> bool {
        matches!(self, Self::Log | Self::Clock | Self::Random | Self::Stdio)
    }
}

/// The state behind a guest's host calls: one an instance, begun anew for every attempt.
pub(crate) struct HostState {
    context: Arc<PluginContext>,
    invocation: Invocation,
    deadline: Instant,
    born: Instant,
    calls: [u32; Call::ALL.len()],
    log: log::Log,
    kv: kv::Stage,
    outbox: Vec<posthouse_model::OutboxItem>,
    /// Requests made and staged.
    requests: u32,
    emitted: Vec<Derived>,
    did: did::Did,
    /// The event at hand.
    cause: Option<Arc<Event>>,
    /// The span of the attempt, and the requests made under it; none where nothing of it is recorded.
    trace: Option<TraceContext>,
    fetched: Vec<Fetched>,
    budget: Budget,
    /// On the plugin's database, from the first call that needs it.
    transaction: Option<Transaction>,
    /// What is known of the attempts before.
    past: AttemptHistory,
    /// How long it waits for others, which is not its own time.
    waiting: Waiting,
    meter: Meter,
    wasi: wasi::Wasi,
}

impl HostState {
    pub(crate) fn new(context: Arc<PluginContext>, invocation: Invocation) -> Self {
        let limits = &context.settings.limits;
        let born = Instant::now();
        Self {
            invocation,
            deadline: born + limits.time,
            born,
            calls: Default::default(),
            log: log::Log::new(limits),
            kv: kv::Stage::default(),
            outbox: Vec::new(),
            requests: 0,
            emitted: Vec::new(),
            did: did::Did::default(),
            cause: None,
            trace: None,
            fetched: Vec::new(),
            budget: Budget::default(),
            transaction: None,
            past: AttemptHistory::default(),
            waiting: Waiting::default(),
            meter: Meter::new(limits.memory),
            wasi: wasi::Wasi::default(),
            context,
        }
    }

    /// Begins an attempt in an instance that has served before. What its memories hold goes on counting.
    pub(crate) fn begin(&mut self, invocation: Invocation) {
        self.invocation = invocation;
        self.deadline = Instant::now() + self.context.settings.limits.time;
        self.calls = Default::default();
        self.log.begin();
        self.kv = kv::Stage::default();
        self.outbox = Vec::new();
        self.requests = 0;
        self.emitted = Vec::new();
        self.did = did::Did::default();
        self.cause = None;
        self.trace = None;
        self.fetched = Vec::new();
        self.budget = Budget::default();
        self.transaction = None;
        self.waiting = Waiting::default();
        self.meter.reset();
    }

    /// Says what the attempt is about.
    pub(crate) fn hand(&mut self, job: &Job) {
        self.cause = Some(Arc::clone(&job.event));
        self.waiting = Waiting::of(format!("plugin `{}` ({})", self.context.plugin, job.delivery));
        self.past = AttemptHistory { conflicts: job.conflicts, may_have_run: job.may_have_run };
        self.trace = job.trace;
    }

    /// Lets a call pass, if it may.
    fn pass<T, E: From<Stop>>(
        &mut self,
        call: Call,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        self.admit(call)?;
        work(self)
    }

    /// Counts a call, and says whether it may be made.
    fn admit(&mut self, call: Call) -> Result<(), Stop> {
        let count = &mut self.calls[call as usize];
        *count = count.saturating_add(1);
        if self.invocation == Invocation::Describe && !call.while_describing() {
            return Err(Stop::Describing(call));
        }
        if let Some(capability) = call.needs()
            && !self.context.settings.grants.allows(capability)
        {
            return Err(Stop::lacks(&self.context.plugin, capability));
        }
        Ok(())
    }

    /// When the attempt has to end.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline + self.waiting.so_far()
    }

    /// By how long the deadline is put off, for who can't ask while the guest runs.
    pub(crate) fn waiting(&self) -> Waiting {
        self.waiting.clone()
    }

    pub(crate) fn context(&self) -> &PluginContext {
        &self.context
    }

    pub(crate) fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }

    /// Calls made in this attempt, by kind; those never made are left out.
    pub(crate) fn calls(&self) -> impl Iterator<Item = (&'static str, u32)> {
        Call::ALL.iter().zip(self.calls).filter(|(_, count)| *count > 0).map(|(call, n)| (call.name(), n))
    }

    /// What the guest logged.
    pub(crate) fn take_logs(&mut self) -> Vec<LogLine> {
        self.log.take()
    }

    /// The requests that were made, as far as they are recorded.
    pub(crate) fn take_fetched(&mut self) -> Vec<Fetched> {
        std::mem::take(&mut self.fetched)
    }

    /// Keeps what came of a request, where that is recorded.
    fn record(&mut self, fetched: Option<Fetched>) {
        if self.fetched.len() < MOST_FETCHED {
            self.fetched.extend(fetched);
        }
    }

    /// What the guest staged, and the transaction that holds the rest of what it did. Keys that are kept
    /// in a database go with the transaction.
    pub(crate) fn finish(&mut self) -> (Effects, Option<Transaction>) {
        let (reads, writes) = std::mem::take(&mut self.kv).into_effects();
        let most = self.context.settings.limits.kv_total;
        let mut effects = Effects {
            outbox: std::mem::take(&mut self.outbox),
            emitted: std::mem::take(&mut self.emitted),
            ..Effects::default()
        };
        self.did.finished(&writes, &effects.outbox, &effects.emitted);
        let mut transaction = self.transaction.take();
        match &mut transaction {
            Some(transaction) => transaction.stage_kv(&self.context.plugin, writes, most),
            None => (effects.reads, effects.writes, effects.kv_limit) = (reads, writes, Some(most)),
        }
        (effects, transaction)
    }

    /// What the guest did, in a few lines, after [`Self::finish`] where it returned ok. Of an attempt that did
    /// not, only what can't be undone is told.
    pub(crate) fn take_did(&mut self) -> Option<String> {
        self.did.take()
    }

    fn config(&self, key: &str) -> Option<String> {
        config::get(&self.context.settings, key)
    }

    /// Lets a call to `kv` pass, and opens what is behind it.
    async fn kv(&mut self, call: Call) -> Result<Kv<'_>, Stop> {
        self.admit(call)?;
        let context = &*self.context;
        let source = match &context.database {
            None => Source::Store(context.kv.as_deref().ok_or(Stop::Describing(call))?),
            Some(database) => Source::Database {
                transaction: sql::open(
                    &mut self.transaction,
                    database,
                    self.invocation,
                    self.past,
                    &self.waiting,
                )
                .await?,
                plugin: &context.plugin,
            },
        };
        Ok(Kv { limits: &context.settings.limits, source, stage: &mut self.kv, budget: &mut self.budget })
    }

    /// Lets a call to `sql` pass, and opens what is behind it.
    async fn sql(&mut self, call: Call) -> Result<Sql<'_>, Stop> {
        self.admit(call)?;
        let context = &*self.context;
        let database = context.database.as_ref().ok_or(Stop::Describing(call))?;
        Ok(Sql {
            limits: &context.settings.limits,
            transaction: sql::open(
                &mut self.transaction,
                database,
                self.invocation,
                self.past,
                &self.waiting,
            )
            .await?,
        })
    }

    fn http(&mut self) -> Result<Http<'_>, Stop> {
        let (Invocation::Handle(delivery), Some(plugin_http)) = (self.invocation, &self.context.plugin_http)
        else {
            return Err(Stop::Describing(Call::HttpFetch));
        };
        Ok(Http {
            plugin_http,
            delivery,
            limits: &self.context.settings.limits,
            fetches: self.calls[Call::HttpFetch as usize],
            requests: &mut self.requests,
            trace: self.trace.map(|trace| trace.child(&self.context.env)),
            env: &self.context.env,
        })
    }

    fn outbox(&mut self) -> Result<Outbox<'_>, Stop> {
        let Invocation::Handle(delivery) = self.invocation else {
            return Err(Stop::Describing(Call::SendMail));
        };
        Ok(Outbox {
            plugin: &self.context.plugin,
            delivery,
            grant: self.context.settings.grants.mail.as_ref(),
            plugin_http: self.context.plugin_http.as_deref().ok_or(Stop::Describing(Call::SendRequest))?,
            requests: &mut self.requests,
            limits: &self.context.settings.limits,
            staged: &mut self.outbox,
            budget: &mut self.budget,
        })
    }

    fn emitter(&mut self) -> Result<Emitter<'_>, Stop> {
        let (Invocation::Handle(delivery), Some(cause)) = (self.invocation, &self.cause) else {
            return Err(Stop::Describing(Call::Emit));
        };
        Ok(Emitter {
            plugin: &self.context.plugin,
            delivery,
            cause: &cause.content,
            trace: self.trace,
            grants: &self.context.settings.grants,
            limits: &self.context.settings.limits,
            now: self.context.env.now(),
            staged: &mut self.emitted,
            budget: &mut self.budget,
        })
    }
}

/// Offers everything in this folder to guests.
pub(crate) fn link(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    wasi::link(linker)?;
    v0_1::link(linker)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{collections::BTreeMap, future::ready, time::Duration};

    use parking_lot::Mutex;

    use futures_util::future::Either;
    use posthouse_model::{KvVersion, config::Limits};
    use posthouse_store::{Entries, Reading, Value};

    use super::KvSource;

    /// The limits as config.toml has them by default.
    pub(crate) fn limits() -> Limits {
        Limits {
            time: Duration::from_secs(8),
            memory: 64 << 20,
            log_lines: 1000,
            log_line: 8 << 10,
            reason: 4 << 10,
            kv_key: 512,
            kv_value: 256 << 10,
            kv_total: 64 << 20,
            http_fetches: 100,
            http_time: Duration::from_secs(5),
            http_request: 1 << 20,
            http_response: 1 << 20,
            http_headers: 16 << 10,
            staged_items: 1000,
            staged_bytes: 4 << 20,
            sql_rows: 10_000,
            sql_bytes: 4 << 20,
            hostcall: 4 << 20,
        }
    }

    /// Committed data in memory.
    #[derive(Default)]
    pub(crate) struct MemoryKv(Mutex<BTreeMap<String, (Vec<u8>, KvVersion)>>);

    impl MemoryKv {
        pub(crate) fn of(data: &BTreeMap<String, Vec<u8>>) -> Self {
            let kv = Self::default();
            data.iter().for_each(|(key, value)| kv.put(key, value));
            kv
        }

        pub(crate) fn put(&self, key: &str, value: &[u8]) {
            let mut data = self.0.lock();
            let version = data.values().map(|(_, version)| version.0).max().unwrap_or(0) + 1;
            data.insert(key.to_owned(), (value.to_vec(), KvVersion(version)));
        }

        pub(crate) fn version(&self, key: &str) -> Option<KvVersion> {
            self.0.lock().get(key).map(|(_, version)| *version)
        }
    }

    impl KvSource for MemoryKv {
        fn get<'a>(&'a self, key: &'a str) -> Reading<'a, Value> {
            Either::Left(ready(Ok(self.0.lock().get(key).cloned())))
        }

        fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>, limit: u32) -> Reading<'a, Entries> {
            let data = self.0.lock();
            let wanted = |key: &str| key.starts_with(prefix) && after.is_none_or(|after| key > after);
            let found = data.iter().filter(|(key, _)| wanted(key)).take(limit as usize);
            let found = found.map(|(key, (value, version))| (key.clone(), value.clone(), *version)).collect();
            Either::Left(ready(Ok(found)))
        }

        fn bytes(&self) -> u64 {
            self.0.lock().iter().map(|(key, (value, _))| (key.len() + value.len()) as u64).sum()
        }
    }
}
