//! All that is tied to `posthouse:plugin@0.1.0`: a later version of the package lives beside this file.
//!
//! It translates between the package's types and the host's own, and does nothing else; an interface with
//! more than a call or two has a file of its own.

mod http;
mod kv;
mod outbox;
mod sql;

use std::time::Duration;

use posthouse_model::{Capability, Job, LogLevel};
use wasmtime::{
    Store,
    component::{Component, HasSelf, Linker},
};

use super::{Call, HostState, kv::Fault, limits::Stop, refused};

mod bindings {
    #![allow(missing_docs, unreachable_pub)]
    wasmtime::component::bindgen!({
        path: "../../wit/0.1",
        world: "plugin",
        // The event is lowered straight from where it lies.
        ownership: Borrowing { duplicate_if_necessary: true },
        imports: {
            "posthouse:plugin/http.fetch": async | trappable,
            "posthouse:plugin/kv.delete": async | trappable,
            "posthouse:plugin/kv.get": async | trappable,
            "posthouse:plugin/kv.increment": async | trappable,
            "posthouse:plugin/kv.list": async | trappable,
            "posthouse:plugin/kv.set": async | trappable,
            "posthouse:plugin/sql.execute": async | trappable,
            "posthouse:plugin/sql.query": async | trappable,
            default: trappable,
        },
        exports: { default: async },
    });
}

use bindings::{
    PluginPre,
    exports::posthouse::plugin::guest,
    posthouse::plugin::{config, log, types},
};

/// The interface that makes a component a plugin.
pub(crate) const GUEST: &str = "posthouse:plugin/guest@0.1.0";

/// A component that is linked, its exports looked up.
pub(crate) struct Linked(PluginPre<HostState>);

/// An instance's exports.
pub(crate) struct Guest(bindings::Plugin);

/// What a guest says of itself, unchecked.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) description: String,
    pub(crate) events: Vec<String>,
    pub(crate) requires: Vec<Capability>,
}

/// Why a guest did not do its work, in its own words.
#[derive(Debug)]
pub(crate) enum Failure {
    Retry { reason: String, after: Option<Duration> },
    Reject { reason: String },
}

/// Offers the package's interfaces to guests.
pub(super) fn link(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    bindings::Plugin::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)
}

impl Linked {
    /// Links a component.
    ///
    /// # Errors
    /// Names an import that nothing offers, or the export that is missing.
    pub(crate) fn new(linker: &Linker<HostState>, component: &Component) -> wasmtime::Result<Self> {
        let extended = refused::link(linker, component)?;
        PluginPre::new(extended.as_ref().unwrap_or(linker).instantiate_pre(component)?).map(Self)
    }

    /// Makes an instance in the store.
    pub(crate) async fn instantiate(&self, store: &mut Store<HostState>) -> wasmtime::Result<Guest> {
        self.0.instantiate_async(store).await.map(Guest)
    }
}

impl Guest {
    fn exports(&self) -> &guest::Guest {
        self.0.posthouse_plugin_guest()
    }

    /// Asks what it is.
    pub(crate) async fn describe(&self, store: &mut Store<HostState>) -> wasmtime::Result<Manifest> {
        let manifest = self.exports().call_describe(store).await?;
        Ok(Manifest {
            description: manifest.description,
            events: manifest.events,
            requires: manifest.requires.into_iter().map(Capability::from).collect(),
        })
    }

    /// Hands it the event.
    pub(crate) async fn handle(
        &self,
        store: &mut Store<HostState>,
        job: &Job,
    ) -> wasmtime::Result<Result<(), Failure>> {
        let content = &job.event.content;
        let event = guest::Event {
            id: content.id.as_str(),
            source: content.source.as_str(),
            event_type: content.event_type.as_str(),
            organization_id: content.organization.as_deref(),
            occurred_at: content.occurred_at.map(nanoseconds),
            received_at: nanoseconds(content.received_at),
            data: job.event.data(),
            body: &content.body,
        };
        let id = job.delivery.to_string();
        let delivery = guest::Delivery { id: &id, attempt: job.attempt };
        let result = self.exports().call_handle(store, event, delivery).await?;
        Ok(result.map_err(Failure::from))
    }
}

/// Nanoseconds since 1970; what was before counts as then.
fn nanoseconds(time: jiff::Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or_default()
}

impl From<guest::Failure> for Failure {
    fn from(failure: guest::Failure) -> Self {
        match failure {
            guest::Failure::Retry(reason) => Self::Retry { reason, after: None },
            guest::Failure::RetryAfter(delay) => {
                Self::Retry { reason: delay.reason, after: Some(Duration::from_secs(delay.seconds.into())) }
            }
            guest::Failure::Reject(reason) => Self::Reject { reason },
        }
    }
}

impl From<types::Capability> for Capability {
    fn from(capability: types::Capability) -> Self {
        match capability {
            types::Capability::Mail => Self::Mail,
            types::Capability::Sql => Self::Sql,
            types::Capability::Http => Self::Http,
            types::Capability::Emit => Self::Emit,
        }
    }
}

/// Sorts what a call came to: an answer, an error for the guest, or the end of the attempt.
fn answer<T, E, W: From<E>>(result: Result<T, Fault<E>>) -> wasmtime::Result<Result<T, W>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Fault::Answer(error)) => Ok(Err(error.into())),
        Err(Fault::Stop(stop)) => Err(stop.into()),
    }
}

impl types::Host for HostState {}

impl log::Host for HostState {
    fn write(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        let level = match level {
            log::Level::Trace => LogLevel::Trace,
            log::Level::Debug => LogLevel::Debug,
            log::Level::Info => LogLevel::Info,
            log::Level::Warn => LogLevel::Warn,
            log::Level::Error => LogLevel::Error,
        };
        Ok(self.pass(Call::Log, |state| state.log.write(level, message))?)
    }
}

impl config::Host for HostState {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        Ok(self.pass(Call::ConfigGet, |state| Ok::<_, Stop>(state.config(&key)))?)
    }
}
