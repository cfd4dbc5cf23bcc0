//! The path of every host call.
//!
//! A call is counted and shown to the views, checked against the grants, answered, and its answer is shown to the views.
//! A recorder or a replayer is a [`Tap`](super::call::Tap) on this path.

use futures_util::FutureExt as _;
use posthouse_model::Octets;

use super::{
    call::{HostAnswer, HostCall, Kind},
    config,
    emit::Emitter,
    fault::Fault,
    http::Http,
    kv::{Kv, Source},
    limits::{Stop, lacks},
    outbox::Outbox,
    sql::{self, Sql},
    state::{HostState, Invocation},
};

impl HostState {
    /// Makes a call of the guest.
    ///
    /// # Errors
    /// [`Stop`] says why the attempt ends here. An error that the guest can handle is part of the answer.
    pub(super) async fn call(&mut self, call: HostCall) -> Result<HostAnswer, Stop> {
        let kind = call.kind();
        let given = self.views.asked(&call);
        let result = match (self.refusal(kind), given) {
            (Some(refusal), _) => refusal,
            (None, Some(given)) => given,
            (None, None) => self.answer(kind, call).await,
        };
        self.views.answered(&result);
        result
    }

    /// Makes a call whose answer never has to wait, for a function of WIT that is not async. An async function costs an
    /// allocation in wasmtime for each call.
    ///
    /// # Errors
    /// As [`Self::call`]; [`Stop::Pending`] if the answer would have to wait after all.
    pub(super) fn call_now(&mut self, call: HostCall) -> Result<HostAnswer, Stop> {
        let kind = call.kind();
        self.call(call).now_or_never().unwrap_or(Err(Stop::Pending(kind)))
    }

    /// Returns the refusal of a call that may not be made. None if it may. A missing grant is an answer to the guest.
    fn refusal(&self, kind: Kind) -> Option<Result<HostAnswer, Stop>> {
        if self.invocation == Invocation::Describe && !kind.while_describing() {
            return Some(Err(Stop::Describing(kind)));
        }
        let (capability, denial) = kind.needs()?;
        let granted = self.context.settings.grants.allows(capability);
        (!granted).then(|| Ok(denial(lacks(&self.context.plugin, capability))))
    }

    /// Answers a call that may be made. The futures of rare calls that may wait long are boxed, since the
    /// future of every call is as large as the largest.
    async fn answer(&mut self, kind: Kind, call: HostCall) -> Result<HostAnswer, Stop> {
        Ok(match call {
            HostCall::LogWrite { .. } => {
                self.views.log.room()?;
                HostAnswer::LogWrite
            }
            HostCall::Print { .. } => {
                self.views.log.room()?;
                HostAnswer::Print
            }
            HostCall::ConfigGet { key } => HostAnswer::ConfigGet(config::get(&self.context.settings, &key)),
            HostCall::KvGet { key } => {
                let found = Fault::settle(self.kv(kind).await?.get(&key).await)?;
                HostAnswer::KvGet(found.map(|value| value.map(Octets)))
            }
            HostCall::KvSet { key, value } => {
                HostAnswer::KvSet(Fault::settle(self.kv(kind).await?.set(key, value).await)?)
            }
            HostCall::KvDelete { key } => {
                HostAnswer::KvDelete(Fault::settle(self.kv(kind).await?.delete(key).await)?)
            }
            HostCall::KvList { prefix, after, limit } => {
                let listed =
                    Fault::settle(self.kv(kind).await?.list(&prefix, after.as_deref(), limit).await)?;
                HostAnswer::KvList(
                    listed.map(|list| list.into_iter().map(|(key, value)| (key, Octets(value))).collect()),
                )
            }
            HostCall::KvIncrement { key, by } => {
                HostAnswer::KvIncrement(Fault::settle(self.kv(kind).await?.increment(key, by).await)?)
            }
            HostCall::SqlQuery { statement, parameters } => {
                let query = async { self.sql(kind).await?.query(&statement, parameters).await };
                HostAnswer::SqlQuery(Fault::settle(Box::pin(query).await)?)
            }
            HostCall::SqlExecute { statement, parameters } => {
                let execute = async { self.sql(kind).await?.execute(&statement, parameters).await };
                HostAnswer::SqlExecute(Fault::settle(Box::pin(execute).await)?)
            }
            HostCall::HttpFetch(draft) => HostAnswer::HttpFetch(Box::pin(self.http()?.fetch(draft)).await?),
            HostCall::SendMail(draft) => {
                HostAnswer::SendMail(Fault::settle(self.outbox(kind)?.send_mail(*draft))?)
            }
            HostCall::SendRequest(draft) => {
                HostAnswer::SendRequest(Fault::settle(self.outbox(kind)?.send_request(draft))?)
            }
            HostCall::Emit { event_type, organization, data } => {
                let emitted = self.emitter()?.emit(&event_type, organization.as_deref(), &data);
                HostAnswer::Emit(Fault::settle(emitted)?)
            }
            HostCall::WallClock => HostAnswer::WallClock(self.context.env.now()),
            HostCall::MonotonicClock => HostAnswer::MonotonicClock(self.monotonic()),
            HostCall::AlarmAt { instant } => HostAnswer::AlarmAt(instant),
            HostCall::AlarmAfter { duration } => {
                HostAnswer::AlarmAfter(self.monotonic().saturating_add(duration))
            }
            HostCall::Poll { pollables } => HostAnswer::Poll(Box::pin(self.wasi.poll(&pollables)).await?),
            HostCall::Block { pollable } => {
                Box::pin(self.wasi.block(pollable)).await?;
                HostAnswer::Block
            }
            HostCall::Ready { pollable } => HostAnswer::Ready(Box::pin(self.wasi.is_ready(pollable)).await?),
            HostCall::RandomBytes { length } => HostAnswer::RandomBytes(self.random_bytes(length)?),
            HostCall::RandomNumber => HostAnswer::RandomNumber(self.context.env.random_u64()),
            HostCall::RandomSeed => {
                HostAnswer::RandomSeed((self.context.env.random_u64(), self.context.env.random_u64()))
            }
            HostCall::OpenStream(_) => HostAnswer::OpenStream,
            HostCall::Exit { status } => return Err(Stop::Exited(status)),
            HostCall::WasiHttp { function } => return Err(Stop::NotOffered(function)),
        })
    }

    /// Opens the plugin's keys.
    async fn kv(&mut self, kind: Kind) -> Result<Kv<'_>, Stop> {
        let Self { context, invocation, transaction, past, waiting, kv: stage, budget, .. } = self;
        let source = match &context.database {
            None => Source::Store(context.kv.as_deref().ok_or(Stop::Describing(kind))?),
            Some(database) => {
                let Invocation::Handle(delivery) = *invocation else { return Err(Stop::Describing(kind)) };
                let open = Box::pin(sql::open(transaction, database, delivery, *past, waiting));
                Source::Database { transaction: open.await?, plugin: &context.plugin }
            }
        };
        Ok(Kv { limits: &context.settings.limits, source, stage, budget })
    }

    /// Opens the plugin's database.
    async fn sql(&mut self, kind: Kind) -> Result<Sql<'_>, Stop> {
        let Self { context, invocation, transaction, past, waiting, .. } = self;
        let (Invocation::Handle(delivery), Some(database)) = (*invocation, &context.database) else {
            return Err(Stop::Describing(kind));
        };
        let transaction = sql::open(transaction, database, delivery, *past, waiting).await?;
        Ok(Sql { limits: &context.settings.limits, transaction })
    }

    fn http(&mut self) -> Result<Http<'_>, Stop> {
        let (Invocation::Handle(delivery), Some(plugin_http)) = (self.invocation, &self.context.plugin_http)
        else {
            return Err(Stop::Describing(Kind::HttpFetch));
        };
        Ok(Http {
            plugin_http,
            delivery,
            limits: &self.context.settings.limits,
            fetches: self.views.count(Kind::HttpFetch),
            requests: &mut self.requests,
            span: self.views.span(),
        })
    }

    fn outbox(&mut self, kind: Kind) -> Result<Outbox<'_>, Stop> {
        let (Invocation::Handle(delivery), Some(plugin_http)) = (self.invocation, &self.context.plugin_http)
        else {
            return Err(Stop::Describing(kind));
        };
        Ok(Outbox {
            plugin: &self.context.plugin,
            delivery,
            grant: self.context.settings.grants.mail.as_ref(),
            plugin_http,
            requests: &mut self.requests,
            limits: &self.context.settings.limits,
            staged: &mut self.outbox,
            budget: &mut self.budget,
        })
    }

    fn emitter(&mut self) -> Result<Emitter<'_>, Stop> {
        let (Invocation::Handle(delivery), Some(cause)) = (self.invocation, &self.cause) else {
            return Err(Stop::Describing(Kind::Emit));
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
