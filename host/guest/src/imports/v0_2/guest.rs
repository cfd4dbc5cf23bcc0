//! The exports of a guest: `guest`, `interceptor`, or both.

use std::time::Instant;

use posthouse_model::{Capability, Decision, Job, Question};
use wasmtime::{Store, component::InstancePre};

use super::{
    bindings::{
        exports::posthouse::plugin::{guest, interceptor},
        posthouse::plugin::types,
    },
    decision,
    types::nanoseconds,
};
use crate::imports::{
    guest::{Failure, Manifest},
    state::HostState,
};

/// The interface of a plugin that handles events.
pub(in crate::imports) const GUEST: &str = "posthouse:plugin/guest@0.2.0";
/// The interface of a plugin that decides.
pub(in crate::imports) const INTERCEPTOR: &str = "posthouse:plugin/interceptor@0.2.0";

/// A component that is linked, with its exports looked up.
pub(crate) struct Linked {
    linked: InstancePre<HostState>,
    guest: Option<guest::GuestIndices>,
    interceptor: Option<interceptor::GuestIndices>,
}

/// The exports of an instance.
pub(crate) struct Guest {
    guest: Option<guest::Guest>,
    interceptor: Option<interceptor::Guest>,
}

impl Linked {
    /// Looks up the exports of a component that has at least one of the two interfaces.
    ///
    /// # Errors
    /// Names an export that is missing or has another type.
    pub(in crate::imports) fn new(linked: InstancePre<HostState>) -> wasmtime::Result<Self> {
        let exports = |interface| linked.component().get_export_index(None, interface).is_some();
        let guest = exports(GUEST).then(|| guest::GuestIndices::new(&linked)).transpose()?;
        let interceptor =
            exports(INTERCEPTOR).then(|| interceptor::GuestIndices::new(&linked)).transpose()?;
        Ok(Self { linked, guest, interceptor })
    }

    /// The interface that it exports; `guest` if it exports both.
    pub(in crate::imports) fn interface(&self) -> &'static str {
        if self.guest.is_some() { GUEST } else { INTERCEPTOR }
    }

    /// Whether it decides.
    pub(in crate::imports) fn decides(&self) -> bool {
        self.interceptor.is_some()
    }

    /// Creates an instance in the store.
    pub(in crate::imports) async fn instantiate(
        &self,
        store: &mut Store<HostState>,
    ) -> wasmtime::Result<Guest> {
        let instance = self.linked.instantiate_async(&mut *store).await?;
        let guest = self.guest.as_ref().map(|guest| guest.load(&mut *store, &instance)).transpose()?;
        let interceptor = self
            .interceptor
            .as_ref()
            .map(|interceptor| interceptor.load(&mut *store, &instance))
            .transpose()?;
        Ok(Guest { guest, interceptor })
    }
}

impl Guest {
    /// Asks the guest for its manifest.
    pub(in crate::imports) async fn describe(
        &self,
        store: &mut Store<HostState>,
    ) -> wasmtime::Result<Manifest> {
        match (&self.guest, &self.interceptor) {
            (Some(guest), _) => guest.call_describe(store).await.map(Manifest::from),
            (None, Some(interceptor)) => interceptor.call_describe(store).await.map(Manifest::from),
            (None, None) => Err(lacks(GUEST)),
        }
    }

    /// Passes an event to the guest.
    pub(in crate::imports) async fn handle(
        &self,
        store: &mut Store<HostState>,
        job: &Job,
    ) -> wasmtime::Result<Result<(), Failure>> {
        let guest = self.guest.as_ref().ok_or_else(|| lacks(GUEST))?;
        let content = &job.event.content;
        let granted = store.data().context().settings.grants.signatures.contains(&content.source);
        let request = &content.request;
        let signature = request.signature.iter().filter(|_| granted);
        let headers: Vec<_> =
            request.headers.iter().chain(signature).map(|(name, value)| (&**name, &**value)).collect();
        let event = guest::Event {
            id: content.id.as_str(),
            source: content.source.as_str(),
            event_type: content.event_type.as_str(),
            organization_id: content.organization.as_deref(),
            occurred_at: content.occurred_at.map(nanoseconds),
            received_at: nanoseconds(content.received_at),
            data: job.event.data(),
            body: &content.body,
            headers: &headers,
            content_type: request.content_type.as_deref().unwrap_or_default(),
            original: request.original.as_deref(),
        };
        let id = job.delivery.to_string();
        let delivery = guest::Delivery { id: &id, attempt: job.attempt };
        let result = guest.call_handle(store, event, delivery).await?;
        Ok(result.map_err(Failure::from))
    }

    /// Asks the guest for a decision, which is due at the deadline.
    pub(in crate::imports) async fn decide(
        &self,
        store: &mut Store<HostState>,
        question: &Question,
        data: &str,
        deadline: Instant,
    ) -> wasmtime::Result<Result<Decision, Failure>> {
        let interceptor = self.interceptor.as_ref().ok_or_else(|| lacks(INTERCEPTOR))?;
        let result = interceptor.call_decide(store, decision::request(question, data, deadline)).await?;
        Ok(result.map(Decision::from).map_err(Failure::from))
    }
}

/// The error of a guest that lacks an interface.
fn lacks(interface: &str) -> wasmtime::Error {
    wasmtime::format_err!("it does not export `{interface}`")
}

impl From<types::Manifest> for Manifest {
    fn from(manifest: types::Manifest) -> Self {
        Self {
            description: manifest.description,
            events: manifest.events,
            requires: manifest.requires.into_iter().map(Capability::from).collect(),
            intercepts: manifest.intercepts,
        }
    }
}
