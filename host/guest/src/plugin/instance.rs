//! An instance is a wasmtime store with a guest in it. It serves one attempt, or several one after another.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use posthouse_model::{Decision, Job, Question};
use wasmtime::{Store, UpdateDeadline};

use super::engine::{Engine, Place};

use crate::imports::{Failure, Guest, HANDLES, HostState, Invocation, Linked, Manifest, PluginContext, Stop};

/// How long the outer timeout waits beyond the deadline. Running guest code is stopped earlier, at its next
/// tick, with a backtrace of where it was.
const LAG: Duration = Duration::from_millis(50);

/// An instance in its place of the pool. Its fields drop in this order, so the place is released last.
pub(super) struct Instance {
    store: Store<HostState>,
    guest: Option<Guest>,
    served: u32,
    place: Place,
}

impl Instance {
    /// An instance without a guest. The first call creates the guest, under the same deadline.
    pub(super) fn new(
        engine: &Engine,
        context: Arc<PluginContext>,
        invocation: Invocation,
        place: Place,
    ) -> Self {
        let limits = context.settings.limits;
        let mut store = Store::new(&engine.parts().wasm, HostState::new(context, invocation));
        store.limiter(|state| state.meter());
        store.set_hostcall_fuel(limits.hostcall);
        store.set_max_component_handles(HANDLES);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|context| {
            let state = context.data();
            if std::time::Instant::now() < state.deadline() {
                return Ok(UpdateDeadline::Yield(1));
            }
            Err(Stop::time(state.context().settings.limits.time).into())
        });
        Self { store, guest: None, served: 0, place }
    }

    /// Prepares the instance for another attempt, in another place.
    pub(super) fn again(&mut self, invocation: Invocation, place: Place) {
        self.store.data_mut().begin(invocation);
        self.store.set_epoch_deadline(1);
        self.place = place;
    }

    /// Moves the instance to a place of instances kept for reuse.
    pub(super) fn rest(&mut self, place: Place) {
        self.place = place;
    }

    /// How many attempts it has served.
    pub(super) fn served(&self) -> u32 {
        self.served
    }

    pub(super) fn state(&mut self) -> &mut HostState {
        self.store.data_mut()
    }

    /// Asks the guest for its manifest.
    pub(super) async fn describe(&mut self, linked: &Linked) -> wasmtime::Result<Manifest> {
        self.in_time(async |store, guest| {
            let guest = awake(guest, linked, store).await?;
            guest.describe(store).await
        })
        .await
    }

    /// Passes an event to the guest.
    pub(super) async fn handle(
        &mut self,
        linked: &Linked,
        job: &Job,
    ) -> wasmtime::Result<Result<(), Failure>> {
        self.served += 1;
        self.state().hand(job);
        self.in_time(async |store, guest| {
            let guest = awake(guest, linked, store).await?;
            guest.handle(store, job).await
        })
        .await
    }

    /// Asks the guest for a decision about a question, which is that of the job.
    pub(super) async fn decide(
        &mut self,
        linked: &Linked,
        job: &Job,
        question: &Question,
        deadline: Instant,
    ) -> wasmtime::Result<Result<Decision, Failure>> {
        self.served += 1;
        self.state().hand(job);
        self.in_time(async |store, guest| {
            let guest = awake(guest, linked, store).await?;
            guest.decide(store, job, question, deadline).await
        })
        .await
    }

    async fn in_time<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Store<HostState>, &mut Option<Guest>) -> wasmtime::Result<T>,
    ) -> wasmtime::Result<T> {
        let limit = self.store.data().context().settings.limits.time;
        let due = tokio::time::Instant::from_std(self.store.data().deadline()) + LAG;
        let waiting = self.store.data().waiting();
        let mut work = pin!(work(&mut self.store, &mut self.guest));
        let mut put_off = Duration::ZERO;
        loop {
            match tokio::time::timeout_at(due + put_off, &mut work).await {
                Ok(done) => return done,
                Err(_) if waiting.so_far() > put_off => put_off = waiting.so_far(),
                Err(_) => return Err(Stop::time(limit).into()),
            }
        }
    }
}

/// Returns the guest, and creates it first if there is none.
async fn awake<'a>(
    guest: &'a mut Option<Guest>,
    linked: &Linked,
    store: &mut Store<HostState>,
) -> wasmtime::Result<&'a Guest> {
    Ok(match guest {
        Some(guest) => guest,
        None => guest.insert(linked.instantiate(store).await?),
    })
}
