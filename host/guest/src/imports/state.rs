//! The state behind the host calls of an instance.

use std::{sync::Arc, time::Instant};

use posthouse_database::{AttemptHistory, Database, Transaction, Waiting};
use posthouse_egress::PluginHttp;
use posthouse_model::{
    DeliveryId, Derived, Effects, Env, Event, Fetched, Job, LogLine, OutboxItem, TraceContext,
    config::PluginSettings,
};

use super::{
    call::Tap,
    kv::{self, KvSource},
    limits::{Budget, Meter},
    views::Views,
    wasi::Wasi,
};

/// The state that all attempts of a plugin's revision share.
pub(crate) struct PluginContext {
    pub(crate) plugin: String,
    pub(crate) settings: Arc<PluginSettings>,
    pub(crate) env: Env,
    /// The plugin's keys in the store. None while a revision is loaded.
    pub(crate) kv: Option<Arc<dyn KvSource>>,
    /// The database that the plugin was granted.
    pub(crate) database: Option<Database>,
    /// The plugin's access to HTTP. None while a revision is loaded.
    pub(crate) plugin_http: Option<Arc<PluginHttp>>,
}

/// Why a guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Invocation {
    /// To return its manifest, without grants.
    Describe,
    /// To handle an event.
    Handle(DeliveryId),
}

/// The state behind the host calls of an instance. Each attempt starts with a new or a reset one.
pub(crate) struct HostState {
    pub(super) context: Arc<PluginContext>,
    pub(super) invocation: Invocation,
    deadline: Instant,
    /// The zero of the monotonic clock.
    pub(super) born: Instant,
    pub(super) views: Views,
    pub(super) kv: kv::Stage,
    pub(super) outbox: Vec<OutboxItem>,
    /// The number of requests that were fetched and staged.
    pub(super) requests: u32,
    pub(super) emitted: Vec<Derived>,
    /// The event that the attempt handles.
    pub(super) cause: Option<Arc<Event>>,
    /// The span of the attempt, if it is recorded.
    pub(super) trace: Option<TraceContext>,
    pub(super) budget: Budget,
    /// The transaction on the plugin's database, from the first call that needs it.
    pub(super) transaction: Option<Transaction>,
    /// The history of earlier attempts of the delivery.
    pub(super) past: AttemptHistory,
    /// How long the attempt waits for others. This time does not count towards its deadline.
    pub(super) waiting: Waiting,
    meter: Meter,
    pub(super) wasi: Wasi,
}

impl HostState {
    pub(crate) fn new(context: Arc<PluginContext>, invocation: Invocation) -> Self {
        let limits = &context.settings.limits;
        let born = Instant::now();
        Self {
            invocation,
            deadline: born + limits.time,
            born,
            views: Views::new(limits),
            kv: kv::Stage::default(),
            outbox: Vec::new(),
            requests: 0,
            emitted: Vec::new(),
            cause: None,
            trace: None,
            budget: Budget::default(),
            transaction: None,
            past: AttemptHistory::default(),
            waiting: Waiting::default(),
            meter: Meter::new(limits.memory),
            wasi: Wasi::default(),
            context,
        }
    }

    /// Resets the state for another attempt in the same instance. The contents of its memories still count.
    pub(crate) fn begin(&mut self, invocation: Invocation) {
        self.invocation = invocation;
        self.deadline = Instant::now() + self.context.settings.limits.time;
        self.views.begin();
        self.kv = kv::Stage::default();
        self.outbox = Vec::new();
        self.requests = 0;
        self.emitted = Vec::new();
        self.cause = None;
        self.trace = None;
        self.budget = Budget::default();
        self.transaction = None;
        self.waiting = Waiting::default();
        self.meter.reset();
    }

    /// Sets the delivery that the attempt handles.
    pub(crate) fn hand(&mut self, job: &Job) {
        self.cause = Some(Arc::clone(&job.event));
        self.waiting = Waiting::of(format!("plugin `{}` ({})", self.context.plugin, job.delivery));
        self.past = AttemptHistory { conflicts: job.conflicts, may_have_run: job.may_have_run };
        self.trace = job.trace;
        if let Some(trace) = job.trace {
            self.views.trace(trace, &self.context.env);
        }
    }

    /// Passes every call and every answer of this attempt to `tap`.
    pub(crate) fn tap(&mut self, tap: Box<dyn Tap>) {
        self.views.tap(tap);
    }

    /// When the attempt has to end.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline + self.waiting.so_far()
    }

    /// A handle on how far the deadline has moved, which can be read while the guest runs.
    pub(crate) fn waiting(&self) -> Waiting {
        self.waiting.clone()
    }

    pub(crate) fn context(&self) -> &PluginContext {
        &self.context
    }

    pub(crate) fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }

    /// The calls of this attempt by name, without those that it never made.
    pub(crate) fn calls(&self) -> impl Iterator<Item = (&'static str, u32)> {
        self.views.counts()
    }

    /// Returns what the guest logged.
    pub(crate) fn take_logs(&mut self) -> Vec<LogLine> {
        self.views.take_logs()
    }

    /// Returns the requests that the guest made, if the attempt has a trace.
    pub(crate) fn take_fetched(&mut self) -> Vec<Fetched> {
        self.views.take_fetched()
    }

    /// Returns what the guest staged, and its transaction. If its keys are in a database, the transaction contains them.
    pub(crate) fn finish(&mut self) -> (Effects, Option<Transaction>) {
        let (reads, writes) = std::mem::take(&mut self.kv).into_effects();
        let most = self.context.settings.limits.kv_total;
        let mut effects = Effects {
            outbox: std::mem::take(&mut self.outbox),
            emitted: std::mem::take(&mut self.emitted),
            ..Effects::default()
        };
        self.views.actions.finished(&writes, &effects.outbox, &effects.emitted);
        let mut transaction = self.transaction.take();
        match &mut transaction {
            Some(transaction) => transaction.stage_kv(&self.context.plugin, writes, most),
            None => (effects.reads, effects.writes, effects.kv_limit) = (reads, writes, Some(most)),
        }
        (effects, transaction)
    }

    /// Returns the attempt's actions in a few lines. Called after [`Self::finish`] if the guest returned ok. Otherwise
    /// the lines contain only actions that can't be undone.
    pub(crate) fn take_actions(&mut self) -> Option<String> {
        self.views.actions.take()
    }
}
