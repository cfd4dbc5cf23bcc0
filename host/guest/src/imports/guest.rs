//! A guest of any version of the WIT package.
//!
//! The version is that of the interface that its component exports. Another version is a folder beside `v0_2`, a variant
//! of [`Linked`] and of [`Guest`], and a line in [`Linked::new`].

use std::time::{Duration, Instant};

use posthouse_model::{Capability, Decision, Job, Question};
use wasmtime::{
    Store,
    component::{Component, Linker},
};

use super::{refused, state::HostState, v0_1, v0_2};

/// A component that is linked, with its exports looked up.
pub(crate) enum Linked {
    V0_1(v0_1::Linked),
    V0_2(v0_2::Linked),
}

/// The exports of an instance.
pub(crate) enum Guest {
    V0_1(v0_1::Guest),
    V0_2(v0_2::Guest),
}

/// The description of a plugin as its guest returned it, before it is checked.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) description: String,
    pub(crate) events: Vec<String>,
    pub(crate) requires: Vec<Capability>,
    pub(crate) intercepts: Vec<String>,
}

/// Why a guest did not do its work, in its own words.
#[derive(Debug)]
pub(crate) enum Failure {
    Retry { reason: String, after: Option<Duration> },
    Reject { reason: String },
}

impl Linked {
    /// Links a component.
    ///
    /// # Errors
    /// Names an import that nothing offers, or the interfaces of which the component exports none.
    pub(crate) fn new(linker: &Linker<HostState>, component: &Component) -> wasmtime::Result<Self> {
        let extended = refused::link(linker, component)?;
        let linked = extended.as_ref().unwrap_or(linker).instantiate_pre(component)?;
        let exports = |interface| component.get_export_index(None, interface).is_some();
        if exports(v0_2::GUEST) || exports(v0_2::INTERCEPTOR) {
            return v0_2::Linked::new(linked).map(Self::V0_2);
        }
        if exports(v0_1::GUEST) {
            return v0_1::Linked::new(linked).map(Self::V0_1);
        }
        Err(wasmtime::format_err!(
            "it exports no interface of a plugin; posthouse knows `{}`, `{}` and `{}`",
            v0_1::GUEST,
            v0_2::GUEST,
            v0_2::INTERCEPTOR
        ))
    }

    /// The interface that the component exports.
    pub(crate) fn interface(&self) -> &'static str {
        match self {
            Self::V0_1(_) => v0_1::GUEST,
            Self::V0_2(linked) => linked.interface(),
        }
    }

    /// Whether it decides.
    pub(crate) fn decides(&self) -> bool {
        match self {
            Self::V0_1(_) => false,
            Self::V0_2(linked) => linked.decides(),
        }
    }

    /// Creates an instance in the store.
    pub(crate) async fn instantiate(&self, store: &mut Store<HostState>) -> wasmtime::Result<Guest> {
        match self {
            Self::V0_1(linked) => linked.instantiate(store).await.map(Guest::V0_1),
            Self::V0_2(linked) => linked.instantiate(store).await.map(Guest::V0_2),
        }
    }
}

impl Guest {
    /// Asks the guest for its manifest.
    pub(crate) async fn describe(&self, store: &mut Store<HostState>) -> wasmtime::Result<Manifest> {
        match self {
            Self::V0_1(guest) => guest.describe(store).await,
            Self::V0_2(guest) => guest.describe(store).await,
        }
    }

    /// Passes an event to the guest.
    pub(crate) async fn handle(
        &self,
        store: &mut Store<HostState>,
        job: &Job,
    ) -> wasmtime::Result<Result<(), Failure>> {
        match self {
            Self::V0_1(guest) => guest.handle(store, job).await,
            Self::V0_2(guest) => guest.handle(store, job).await,
        }
    }

    /// Asks the guest for a decision about a question, which is that of the job.
    pub(crate) async fn decide(
        &self,
        store: &mut Store<HostState>,
        job: &Job,
        question: &Question,
        deadline: Instant,
    ) -> wasmtime::Result<Result<Decision, Failure>> {
        match self {
            Self::V0_1(_) => Err(wasmtime::format_err!("`{}` does not decide", v0_1::GUEST)),
            Self::V0_2(guest) => guest.decide(store, question, job.event.data(), deadline).await,
        }
    }
}
