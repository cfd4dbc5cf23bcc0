//! The exports of a guest.

use posthouse_model::{Capability, Job};
use wasmtime::{Store, component::InstancePre};

use super::{
    bindings::{self, PluginPre, exports::posthouse::plugin::guest},
    types::nanoseconds,
};
use crate::imports::{
    guest::{Failure, Manifest},
    state::HostState,
};

/// The interface that makes a component a plugin.
pub(in crate::imports) const GUEST: &str = "posthouse:plugin/guest@0.1.0";

/// A component that is linked, with its exports looked up.
pub(crate) struct Linked(PluginPre<HostState>);

/// The exports of an instance.
pub(crate) struct Guest(bindings::Plugin);

impl Linked {
    /// Looks up the exports.
    ///
    /// # Errors
    /// Names an export that is missing or has another type.
    pub(in crate::imports) fn new(linked: InstancePre<HostState>) -> wasmtime::Result<Self> {
        PluginPre::new(linked).map(Self)
    }

    /// Creates an instance in the store.
    pub(in crate::imports) async fn instantiate(
        &self,
        store: &mut Store<HostState>,
    ) -> wasmtime::Result<Guest> {
        self.0.instantiate_async(store).await.map(Guest)
    }
}

impl Guest {
    fn exports(&self) -> &guest::Guest {
        self.0.posthouse_plugin_guest()
    }

    /// Asks the guest for its manifest.
    pub(in crate::imports) async fn describe(
        &self,
        store: &mut Store<HostState>,
    ) -> wasmtime::Result<Manifest> {
        let manifest = self.exports().call_describe(store).await?;
        Ok(Manifest {
            description: manifest.description,
            events: manifest.events,
            requires: manifest.requires.into_iter().map(Capability::from).collect(),
            intercepts: Vec::new(),
        })
    }

    /// Passes an event to the guest.
    pub(in crate::imports) async fn handle(
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
