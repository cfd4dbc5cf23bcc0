//! The writing half of the handle: each method submits an operation and waits for its outcome.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use posthouse_model::{
    Attempt, DeliveryId, EventSeq, Job, NewEvent, Orders, OutboxKind, PluginId, Subscriber,
};
use tokio::sync::oneshot;

use super::{
    Accepted, Answer, Completed, DeliveryFilter, OutboxId, OutboxJob, OutboxResult, Places, PluginUpdate,
    Store, StoreError, Verdict, Watcher,
    committer::{Command, Reply, Waiter},
    op::{Completion, Op, Outcome},
    time::nanos,
    types::AuditId,
};

/// Deliveries that one transaction replays.
const SLICE: usize = 256;

/// Between two tries to record that an item has been sent, while the disk is full.
const PAUSE: Duration = Duration::from_secs(1);

/// The most bytes of each text of an audit entry.
const AUDIT_TEXT: usize = 500;

/// The most bytes of a revision's error.
const REVISION_ERROR: usize = 1000;

impl Store {
    /// Stores an event with a delivery for each subscriber; returns when both are on disk.
    ///
    /// # Errors
    /// [`StoreError::Backlog`] when too much is unfinished, [`StoreError::NoSpace`] when the disk is nearly
    /// full; any other when it could not be written. An event that was refused is not in the store.
    pub async fn accept<S: Into<Subscriber>>(
        &self,
        event: NewEvent,
        subscribers: impl IntoIterator<Item = S>,
    ) -> Answer<Accepted> {
        self.accept_watched(event, subscribers.into_iter().map(Into::into).collect(), None).await
    }

    /// The same; `watcher` learns how the first attempt of each delivery ended, but for those of held
    /// plugins. If the event is not new it learns nothing.
    ///
    /// # Errors
    /// As [`Self::accept`].
    pub async fn accept_watched(
        &self,
        event: NewEvent,
        subscribers: Vec<Subscriber>,
        watcher: Option<Watcher>,
    ) -> Answer<Accepted> {
        let (to, answer) = oneshot::channel();
        let received_at = nanos(event.received_at);
        let op = Op::Accept { event, subscribers, watched: watcher.is_some() };
        self.send(Command::Do(op, Reply::Accepted { to, watcher, received_at })).await?;
        answer.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// Whether more may be made. Asked before a commit of derived events: once an attempt has committed
    /// they can't be refused any more, so the backlog may exceed its limit by what the attempts under way have
    /// staged.
    ///
    /// # Errors
    /// [`StoreError::Backlog`] when too much is unfinished.
    pub fn room(&self) -> Answer<()> {
        let unfinished = self.shared().unfinished();
        if unfinished < self.max_backlog() { Ok(()) } else { Err(StoreError::Backlog(unfinished)) }
    }

    /// Submits a finished attempt. Returns when it is queued; the commit follows. On a conflict the
    /// job comes through its lane again at once, `conflicts` one higher, and nothing was written.
    /// If the lease is lost nothing is written (counted and logged).
    ///
    /// # Errors
    /// When the store takes no work any more; the delivery then runs again after a restart.
    pub async fn complete(&self, job: Job, attempt: Attempt, verdict: Verdict) -> Answer<()> {
        let completion = Completion::new(job, attempt, verdict);
        self.send(Command::Do(Op::Complete(Box::new(completion)), Reply::Nobody)).await
    }

    /// As [`Self::complete`], and returns when the batch has committed. If no sender and no later delivery of
    /// the same order key waits for it, the batch may wait up to 2 ms for others. While the disk is full that
    /// takes as long as the disk is full. Cancelled, the completion goes on.
    ///
    /// # Errors
    /// When the store takes no work any more: the delivery then runs again after a restart, unless the
    /// commit that failed reached the disk all the same.
    pub async fn complete_durably(&self, job: Job, attempt: Attempt, verdict: Verdict) -> Answer<Completed> {
        self.submit(job, attempt, verdict).await?.committed().await
    }

    /// The first half of [`Self::complete_durably`]: returns when the completion is queued.
    ///
    /// # Errors
    /// As [`Self::complete`].
    pub async fn submit(&self, job: Job, attempt: Attempt, verdict: Verdict) -> Answer<Submitted> {
        let (to, completed) = oneshot::channel();
        let completion = Completion::new(job, attempt, verdict);
        self.send(Command::Do(Op::Complete(Box::new(completion)), Reply::Completed(to))).await?;
        Ok(Submitted { store: self.clone(), completed })
    }

    /// Sends a job through its lane again at once, `conflicts` one higher and counted: another was in the way of
    /// what it did elsewhere. Returns when that is queued.
    ///
    /// # Errors
    /// When the store takes no work any more; the delivery then runs again after a restart.
    pub async fn run_again(&self, job: Job) -> Answer<()> {
        self.send(Command::Do(Op::Complete(Box::new(Completion::conflict(job))), Reply::Nobody)).await
    }

    /// Makes those of the deliveries ready again that are dead: an attempt of each took effect after all, in
    /// the database of its plugin, and the next one finishes it from there. Returns how many.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn revive(&self, deliveries: Vec<DeliveryId>) -> Answer<u64> {
        if deliveries.is_empty() {
            return Ok(0);
        }
        self.count(Op::Revive(deliveries)).await
    }

    /// When the oldest delivery was made that each plugin has leased, be it running or waiting for a
    /// permit. Asks the committer.
    ///
    /// # Errors
    /// When the committer takes no work any more.
    pub async fn oldest_leased(&self) -> Answer<Vec<(PluginId, Timestamp)>> {
        match self.ask(Op::OldestLeased).await? {
            Outcome::OldestLeased(oldest) => Ok(oldest),
            _ => Ok(Vec::new()),
        }
    }

    /// Waits until an item of this kind is due and has a place, then leases as many as have one. May be
    /// cancelled. While the lease can't be written it waits on.
    ///
    /// # Errors
    /// When the store takes no work any more.
    pub async fn lease_outbox(&self, kind: OutboxKind, places: Places) -> Answer<Vec<OutboxJob>> {
        let (reply, leased) = oneshot::channel();
        self.send(Command::LeaseOutbox(Waiter { kind, places, reply })).await?;
        leased.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// Records how an attempt to send an item ended; waits for as long as the disk is full, since
    /// what has been sent must not be forgotten.
    ///
    /// # Errors
    /// When the store takes no work any more.
    pub async fn complete_outbox(&self, job: &OutboxJob, result: OutboxResult) -> Answer<()> {
        let (item, kind) = (job.id, job.item.kind());
        loop {
            let op = Op::CompleteOutbox { item, kind, result: result.clone() };
            match self.ask(op).await {
                Err(StoreError::Io(_)) => tokio::time::sleep(PAUSE).await,
                Ok(Outcome::Flag(true)) => {
                    self.shared().meters.sent(kind, &result);
                    return Ok(());
                }
                ended => return ended.map(drop),
            }
        }
    }

    /// Makes given-up items ready again, as if never tried: those named, or all if none is. Returns
    /// how many.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn replay_outbox(&self, items: Vec<OutboxId>) -> Answer<u64> {
        self.count(Op::ReplayOutbox(items)).await
    }

    /// New deliveries of old events, each linked to the one it replays; returns how many. Only what is
    /// done or dead is replayed, the newest if the filter has a limit, and each delivery once, however
    /// often this is called. They are made oldest first, and `orders` says which keep to that order. Works
    /// in slices, so that events are accepted in between.
    ///
    /// # Errors
    /// [`StoreError::Backlog`] when too much is unfinished, [`StoreError::NoSpace`] when the disk is nearly
    /// full; what was made before remains, and the next call goes on from there.
    pub async fn replay_deliveries(&self, filter: DeliveryFilter, orders: Orders) -> Answer<u64> {
        let mut found = self.replayable(&filter).await?;
        found.reverse();
        let orders = Arc::new(orders);
        let mut count = 0;
        for slice in found.chunks(SLICE) {
            let op = Op::Replay { deliveries: slice.to_vec(), orders: Arc::clone(&orders) };
            match self.count(op).await {
                Ok(made) => count += made,
                Err(StoreError::Backlog(_) | StoreError::NoSpace { .. }) if count > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    /// A new delivery of the event for each of the plugins, linked to the plugin's latest of that event
    /// if it has had one, in the order that `orders` says. Returns their ids: none if there is no
    /// such event.
    ///
    /// # Errors
    /// [`StoreError::Backlog`] when too much is unfinished, [`StoreError::NoSpace`] when the disk is nearly
    /// full.
    pub async fn replay_event(
        &self,
        event: EventSeq,
        plugins: Vec<PluginId>,
        orders: Orders,
    ) -> Answer<Vec<DeliveryId>> {
        match self.ask(Op::ReplayEvent { event, plugins, orders }).await? {
            Outcome::Deliveries(made) => Ok(made),
            _ => Ok(Vec::new()),
        }
    }

    /// The id of a name, made at its first use. A forgotten one gets its former id.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn plugin_id(&self, name: &str) -> Answer<PluginId> {
        match self.ask(Op::RegisterPlugin(name.to_owned())).await? {
            Outcome::Plugin(plugin) => Ok(plugin),
            _ => Err(StoreError::Closed),
        }
    }

    /// Writes the fields of a plugin's record that the update names; the others stay as they are.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn update_plugin(&self, plugin: PluginId, update: PluginUpdate) -> Answer<()> {
        self.ask(Op::UpdatePlugin { plugin, update }).await.map(drop)
    }

    /// Drops a plugin that is gone, its kv and its unfinished deliveries, which become dead letters.
    /// Its finished deliveries keep its name. Works in slices; one that was interrupted can be repeated.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn forget_plugin(&self, plugin: PluginId) -> Answer<()> {
        while let Outcome::Flag(true) = self.ask(Op::ForgetPlugin(plugin)).await? {}
        Ok(())
    }

    /// Records that a revision of the plugin has been loaded. It replaces the one before, if it is another.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn revision_loaded(&self, plugin: PluginId, sha256: &str, description: &str) -> Answer<()> {
        let (sha256, description) = (sha256.to_owned(), description.to_owned());
        self.ask(Op::LoadRevision { plugin, sha256, description }).await.map(drop)
    }

    /// Records that the plugin's file left.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn revision_removed(&self, plugin: PluginId) -> Answer<()> {
        self.ask(Op::RemoveRevision(plugin)).await.map(drop)
    }

    /// Records that a content of the plugin's file does not load; once, however often it is tried.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn revision_refused(&self, plugin: PluginId, sha256: &str, error: &str) -> Answer<()> {
        let ending = format!("refused: {}", cut(error, REVISION_ERROR));
        self.ask(Op::RefuseRevision { plugin, sha256: sha256.to_owned(), ending }).await.map(drop)
    }

    /// Records that `actor` begins to do `action` to `target`; returns when it is on disk.
    ///
    /// # Errors
    /// When it could not be written: then it must not be done.
    pub async fn audit_begin(&self, actor: &str, action: &str, target: &str) -> Answer<AuditId> {
        let [actor, action, target] = [actor, action, target].map(|text| cut(text, AUDIT_TEXT).to_owned());
        match self.ask(Op::BeginAudit { actor, action, target }).await? {
            Outcome::Audit(entry) => Ok(entry),
            _ => Err(StoreError::Closed),
        }
    }

    /// Records what came of it.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn audit_end(&self, id: AuditId, outcome: &str) -> Answer<()> {
        self.ask(Op::EndAudit { entry: id, outcome: cut(outcome, AUDIT_TEXT).to_owned() }).await.map(drop)
    }

    /// Returns when everything queued before it is committed.
    ///
    /// # Errors
    /// When that could not be written.
    pub async fn flush(&self) -> Answer<()> {
        self.ask(Op::Nothing).await.map(drop)
    }

    /// Runs an operation that counts.
    async fn count(&self, op: Op) -> Answer<u64> {
        match self.ask(op).await? {
            Outcome::Count(count) => Ok(count),
            _ => Ok(0),
        }
    }
}

/// A completion that is queued. Dropped, it goes on.
pub struct Submitted {
    store: Store,
    completed: oneshot::Receiver<Completed>,
}

impl Submitted {
    /// Returns when its batch has committed.
    ///
    /// # Errors
    /// As [`Store::complete_durably`].
    pub async fn committed(self) -> Answer<Completed> {
        self.completed.await.map_err(|_| self.store.stopped())
    }
}

/// The text, cut if it is too long.
fn cut(text: &str, longest: usize) -> &str {
    &text[..text.floor_char_boundary(longest)]
}
