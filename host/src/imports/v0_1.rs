//! All that is tied to `posthouse:plugin@0.1.0`: a later version of the package lives beside this file.
//!
//! It translates between the package's types and the host's own, and does nothing else.

use std::time::Duration;

use wasmtime::{
    Store,
    component::{Component, HasSelf, Linker},
};

use super::{
    Call, Door,
    kv::{Fault, KvError},
    limits::Stop,
    outbox::{Draft, OutboxError},
    refused,
};
use crate::model::{Capability, Job, LogLevel};

mod bindings {
    #![allow(missing_docs, unreachable_pub)]
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "plugin",
        // The event is lowered straight from where it lies.
        ownership: Borrowing { duplicate_if_necessary: true },
        imports: { default: trappable },
        exports: { default: async },
    });
}

use bindings::{
    PluginPre,
    exports::posthouse::plugin::guest,
    posthouse::plugin::{config, kv, log, outbox, types},
};

/// The interface that makes a component a plugin.
pub(crate) const GUEST: &str = "posthouse:plugin/guest@0.1.0";

/// A component that is linked, its exports looked up.
pub(crate) struct Linked(PluginPre<Door>);

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
pub(super) fn link(linker: &mut Linker<Door>) -> wasmtime::Result<()> {
    bindings::Plugin::add_to_linker::<Door, HasSelf<Door>>(linker, |door| door)
}

impl Linked {
    /// Links a component.
    ///
    /// # Errors
    /// Names an import that nothing offers, or the export that is missing.
    pub(crate) fn new(linker: &Linker<Door>, component: &Component) -> wasmtime::Result<Self> {
        let extended = refused::link(linker, component)?;
        PluginPre::new(extended.as_ref().unwrap_or(linker).instantiate_pre(component)?).map(Self)
    }

    /// Makes an instance in the store.
    pub(crate) async fn instantiate(&self, store: &mut Store<Door>) -> wasmtime::Result<Guest> {
        self.0.instantiate_async(store).await.map(Guest)
    }
}

impl Guest {
    fn exports(&self) -> &guest::Guest {
        self.0.posthouse_plugin_guest()
    }

    /// Asks what it is.
    pub(crate) async fn describe(&self, store: &mut Store<Door>) -> wasmtime::Result<Manifest> {
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
        store: &mut Store<Door>,
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

impl types::Host for Door {}

impl log::Host for Door {
    fn write(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        let level = match level {
            log::Level::Trace => LogLevel::Trace,
            log::Level::Debug => LogLevel::Debug,
            log::Level::Info => LogLevel::Info,
            log::Level::Warn => LogLevel::Warn,
            log::Level::Error => LogLevel::Error,
        };
        Ok(self.pass(Call::Log, |door| door.log.write(level, message))?)
    }
}

impl config::Host for Door {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        Ok(self.pass(Call::ConfigGet, |door| Ok::<_, Stop>(door.config(&key)))?)
    }
}

impl kv::Host for Door {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, kv::Error>> {
        answer(self.pass(Call::KvGet, |door| door.kv()?.get(&key)))
    }

    fn set(&mut self, key: String, value: Vec<u8>) -> wasmtime::Result<Result<(), kv::Error>> {
        answer(self.pass(Call::KvSet, |door| door.kv()?.set(key, value)))
    }

    fn delete(&mut self, key: String) -> wasmtime::Result<Result<(), kv::Error>> {
        answer(self.pass(Call::KvDelete, |door| door.kv()?.delete(key)))
    }

    fn list(
        &mut self,
        prefix: String,
        after: Option<String>,
        limit: u32,
    ) -> wasmtime::Result<Result<Vec<kv::Entry>, kv::Error>> {
        let entries =
            answer(self.pass(Call::KvList, |door| door.kv()?.list(&prefix, after.as_deref(), limit)))?;
        Ok(entries.map(|list| list.into_iter().map(|(key, value)| kv::Entry { key, value }).collect()))
    }

    fn increment(&mut self, key: String, by: i64) -> wasmtime::Result<Result<(), kv::Error>> {
        answer(self.pass(Call::KvIncrement, |door| door.kv()?.increment(key, by)))
    }
}

impl From<KvError> for kv::Error {
    fn from(error: KvError) -> Self {
        match error {
            KvError::InvalidKey(text) => Self::InvalidKey(text),
            KvError::ValueTooLarge(text) => Self::ValueTooLarge(text),
            KvError::Quota(text) => Self::Quota(text),
            KvError::NotAnInteger(text) => Self::NotAnInteger(text),
        }
    }
}

impl outbox::Host for Door {
    fn send_mail(&mut self, mail: outbox::Mail) -> wasmtime::Result<Result<String, outbox::Error>> {
        let draft = Draft {
            from: mail.from,
            to: mail.to,
            cc: mail.cc,
            bcc: mail.bcc,
            reply_to: mail.reply_to,
            subject: mail.subject,
            text: mail.text,
            html: mail.html,
        };
        match self.pass(Call::SendMail, |door| door.outbox()?.send_mail(draft)) {
            Err(Fault::Stop(Stop::Denied(why))) => Ok(Err(outbox::Error::Denied(why))),
            other => answer(other),
        }
    }
}

impl From<OutboxError> for outbox::Error {
    fn from(error: OutboxError) -> Self {
        match error {
            OutboxError::Invalid(text) => Self::Invalid(text),
            OutboxError::Limit(text) => Self::Limit(text),
        }
    }
}
