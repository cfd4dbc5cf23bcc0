//! The writing half of the handle: each method submits an operation and waits for its outcome.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use posthouse_model::{
    Attempt, DeliveryId, EventOrigin, EventSeq, Job, NewEvent, Orders, OutboxKind, PluginId, Subscriber,
};
use tokio::sync::oneshot;

use super::{
    Accepted, Answer, Completed, DeliveryFilter, Offer, OutboxId, OutboxJob, OutboxResult, OutboxSlots,
    PluginUpdate, Store, StoreError, Verdict, Watcher,
    committer::{Command, Reply, Waiter},
    op::{Completion, Op, Outcome},
    time::nanos,
    types::AuditId,
};

/// The number of deliveries that one transaction replays.
const SLICE: usize = 256;

/// The pause between two attempts to record that an item was sent, while the disk is full.
const PAUSE: Duration = Duration::from_secs(1);

/// The maximum length of each text of an audit entry, in bytes.
const AUDIT_TEXT: usize = 500;

/// The maximum length of a revision's error, in bytes.
const REVISION_ERROR: usize = 1000;

impl Store {
    /// Stores an event with a delivery for each subscriber; returns when both are on disk.
    ///
    /// # Errors
    /// [`StoreError::Backlog`] if the backlog is full, [`StoreError::NoSpace`] if the disk is nearly full,
    /// any other if the write failed. A refused event is not in the store.
    pub async fn accept<S: Into<Subscriber>>(
        &self,
        event: NewEvent,
        subscribers: impl IntoIterator<Item = S>,
    ) -> Answer<Accepted> {
        self.accept_watched(event, subscribers.into_iter().map(Into::into).collect(), None).await
    }

    /// As [`Self::accept`]. `watcher` also learns how the first attempt of each delivery ended, except for
    /// deliveries of held plugins. If the event is a duplicate, it learns nothing.
    ///
    /// # Errors
    /// As [`Self::accept`].
    pub async fn accept_watched(
        &self,
        event: NewEvent,
        subscribers: Vec<Subscriber>,
        watcher: Option<Watcher>,
    ) -> Answer<Accepted> {
        let offer = Offer { event, second: None, subscribers, origin: EventOrigin::Webhook };
        let accepted = self.accept_all(vec![offer], watcher).await?;
        Ok(accepted.first().copied().unwrap_or(Accepted::Duplicate))
    }

    /// Stores several events with their deliveries: all in one transaction, or none. Returns what became of each.
    ///
    /// # Errors
    /// As [`Self::accept`]. Then none of them is in the store.
    pub async fn accept_all(&self, offers: Vec<Offer>, watcher: Option<Watcher>) -> Answer<Vec<Accepted>> {
        let Some(first) = offers.first() else { return Ok(Vec::new()) };
        let (to, answer) = oneshot::channel();
        let received_at = nanos(first.event.received_at);
        let op = Op::Accept { offers, watched: watcher.is_some() };
        self.send(Command::Do(op, Reply::Accepted { to, watcher, received_at })).await?;
        answer.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// Whether more deliveries may be created. The caller asks before the commit of an attempt that emits
    /// events: after the commit they cannot be refused. So the backlog may exceed its limit by what the
    /// running attempts have staged.
    ///
    /// # Errors
    /// [`StoreError::Backlog`] if the backlog is full.
    pub fn room(&self) -> Answer<()> {
        let unfinished = self.shared().unfinished();
        if unfinished < self.max_backlog() { Ok(()) } else { Err(StoreError::Backlog(unfinished)) }
    }

    /// Enqueues a finished attempt and returns; the commit follows. After a conflict nothing is written, and
    /// the job arrives through its lane again at once, with `conflicts` one higher. If the lease is no longer
    /// valid, nothing is written; this is counted and logged.
    ///
    /// # Errors
    /// If the store accepts no work any more; the delivery then runs again after a restart.
    pub async fn complete(&self, job: Job, attempt: Attempt, verdict: Verdict) -> Answer<()> {
        let completion = Completion::new(job, attempt, verdict);
        self.send(Command::Do(Op::Complete(Box::new(completion)), Reply::Nobody)).await
    }

    /// As [`Self::complete`], but returns after the commit of the batch. If no sender and no later delivery
    /// of the same order key waits for it, the batch may wait up to 2 ms for others. While the disk is full,
    /// the call waits. If the call is cancelled, the completion continues.
    ///
    /// # Errors
    /// If the store accepts no work any more. The delivery then runs again after a restart, unless the failed
    /// commit reached the disk anyway.
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

    /// Sends a job through its lane again at once, with `conflicts` one higher and counted: its transaction
    /// in another database conflicted. Returns when this is queued.
    ///
    /// # Errors
    /// If the store accepts no work any more; the delivery then runs again after a restart.
    pub async fn run_again(&self, job: Job) -> Answer<()> {
        self.send(Command::Do(Op::Complete(Box::new(Completion::conflict(job))), Reply::Nobody)).await
    }

    /// Makes those of the deliveries ready that are dead: an attempt of each has committed in its plugin's
    /// database after all, and the next attempt completes it from the marker. Returns how many.
    ///
    /// # Errors
    /// If the write failed.
    pub async fn revive(&self, deliveries: Vec<DeliveryId>) -> Answer<u64> {
        if deliveries.is_empty() {
            return Ok(0);
        }
        self.count(Op::Revive(deliveries)).await
    }

    /// Asks the committer, for each plugin, when its oldest leased delivery was created. A leased delivery
    /// runs or waits for a permit.
    ///
    /// # Errors
    /// If the committer accepts no work any more.
    pub async fn oldest_leased(&self) -> Answer<Vec<(PluginId, Timestamp)>> {
        match self.ask(Op::OldestLeased).await? {
            Outcome::OldestLeased(oldest) => Ok(oldest),
            _ => Ok(Vec::new()),
        }
    }

    /// Waits until an item of this kind is due and a slot is free, then leases as many items as there are
    /// free slots. Can be cancelled. While the lease cannot be written, it keeps waiting.
    ///
    /// # Errors
    /// If the store accepts no work any more.
    pub async fn lease_outbox(&self, kind: OutboxKind, slots: OutboxSlots) -> Answer<Vec<OutboxJob>> {
        let (reply, leased) = oneshot::channel();
        self.send(Command::LeaseOutbox(Waiter { kind, slots, reply })).await?;
        leased.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// Records the result of an attempt to send an item. While the disk is full it waits, because the result
    /// must not be lost.
    ///
    /// # Errors
    /// If the store accepts no work any more.
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

    /// Makes dead items ready again, with no attempts counted: the given ones, or all if the list is empty.
    /// Returns how many.
    ///
    /// # Errors
    /// If the write failed.
    pub async fn replay_outbox(&self, items: Vec<OutboxId>) -> Answer<u64> {
        self.count(Op::ReplayOutbox(items)).await
    }

    /// Creates new deliveries of old events, each linked to the one it replays. Returns how many. It replays
    /// only finished deliveries, the newest ones if the filter has a limit, and each delivery once, however
    /// often this is called. It creates them oldest first; `orders` says which of them keep that order. It
    /// works in slices, so that events are accepted in between.
    ///
    /// # Errors
    /// [`StoreError::Backlog`] if the backlog is full, [`StoreError::NoSpace`] if the disk is nearly full.
    /// The deliveries created before the error remain, and the next call continues from there.
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

    /// Creates a delivery of the event for each of the plugins, in the order of `orders`. It is linked to the
    /// plugin's latest delivery of that event, if there is one. Returns their ids; none if the event does not
    /// exist.
    ///
    /// # Errors
    /// [`StoreError::Backlog`] if the backlog is full, [`StoreError::NoSpace`] if the disk is nearly full.
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

    /// Returns the id of a name, and assigns one at the first use. A forgotten name gets its former id.
    ///
    /// # Errors
    /// If the write failed.
    pub async fn plugin_id(&self, name: &str) -> Answer<PluginId> {
        match self.ask(Op::RegisterPlugin(name.to_owned())).await? {
            Outcome::Plugin(plugin) => Ok(plugin),
            _ => Err(StoreError::Closed),
        }
    }

    /// Writes the fields of a plugin's record that the update names; the others are unchanged.
    ///
    /// # Errors
    /// If the write failed.
    pub async fn update_plugin(&self, plugin: PluginId, update: PluginUpdate) -> Answer<()> {
        self.ask(Op::UpdatePlugin { plugin, update }).await.map(drop)
    }

    /// Removes a plugin whose file is gone, with its keys; its unfinished deliveries become dead letters. Its
    /// finished deliveries keep its name. Works in slices; an interrupted call can be repeated.
    ///
    /// # Errors
    /// If the write failed.
    pub async fn forget_plugin(&self, plugin: PluginId) -> Answer<()> {
        while let Outcome::Flag(true) = self.ask(Op::ForgetPlugin(plugin)).await? {}
        Ok(())
    }

    /// Records that a revision of the plugin was loaded. It replaces the previous one if it differs.
    ///
    /// # Errors
    /// If the write failed.
    pub async fn revision_loaded(&self, plugin: PluginId, sha256: &str, description: &str) -> Answer<()> {
        let (sha256, description) = (sha256.to_owned(), description.to_owned());
        self.ask(Op::LoadRevision { plugin, sha256, description }).await.map(drop)
    }

    /// Records that the plugin's file is gone.
    ///
    /// # Errors
    /// If the write failed.
    pub async fn revision_removed(&self, plugin: PluginId) -> Answer<()> {
        self.ask(Op::RemoveRevision(plugin)).await.map(drop)
    }

    /// Records that a revision of the plugin's file does not load; only once, however often loading is tried.
    ///
    /// # Errors
    /// If the write failed.
    pub async fn revision_refused(&self, plugin: PluginId, sha256: &str, error: &str) -> Answer<()> {
        let ending = format!("refused: {}", cut(error, REVISION_ERROR));
        self.ask(Op::RefuseRevision { plugin, sha256: sha256.to_owned(), ending }).await.map(drop)
    }

    /// Records that `actor` is about to apply `action` to `target`. Returns when it is on disk.
    ///
    /// # Errors
    /// If the write failed: then the action must not be done.
    pub async fn audit_begin(&self, actor: &str, action: &str, target: &str) -> Answer<AuditId> {
        let [actor, action, target] = [actor, action, target].map(|text| cut(text, AUDIT_TEXT).to_owned());
        match self.ask(Op::BeginAudit { actor, action, target }).await? {
            Outcome::Audit(entry) => Ok(entry),
            _ => Err(StoreError::Closed),
        }
    }

    /// Records the outcome of an action.
    ///
    /// # Errors
    /// If the write failed.
    pub async fn audit_end(&self, id: AuditId, outcome: &str) -> Answer<()> {
        self.ask(Op::EndAudit { entry: id, outcome: cut(outcome, AUDIT_TEXT).to_owned() }).await.map(drop)
    }

    /// Returns when everything queued before the call is committed.
    ///
    /// # Errors
    /// If that write failed.
    pub async fn flush(&self) -> Answer<()> {
        self.ask(Op::Nothing).await.map(drop)
    }

    /// Runs an operation whose outcome is a count.
    async fn count(&self, op: Op) -> Answer<u64> {
        match self.ask(op).await? {
            Outcome::Count(count) => Ok(count),
            _ => Ok(0),
        }
    }
}

/// A queued completion. If it is dropped, the completion continues.
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

/// Returns the text, truncated if it is too long.
fn cut(text: &str, longest: usize) -> &str {
    &text[..text.floor_char_boundary(longest)]
}
