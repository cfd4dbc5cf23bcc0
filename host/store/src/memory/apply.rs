//! Applies operations to the state.

use std::sync::Arc;

use posthouse_model::{
    DeliveryId, Effects, Event, EventSeq, Job, KvChange, KvRead, KvVersion, KvWrite, NewEvent, OrderKey,
    Orders, OutboxKind, PluginId, SecondKey, SourceName, Subscriber, TraceContext,
};

use super::{
    Work,
    state::{Delivery, Item, Plugin, SENDER, Stage},
};

use crate::{
    Accepted, AttemptDetail, AuditEntry, AuditId, CatchUpStep, Completed, MAX_MISSING, Offer, OutboxResult,
    PluginChange, PluginRecord, PluginRevision, PluginUpdate, StoreError,
    catching_up::MISSING_KEPT,
    engine::Room,
    op::{Completion, Conclusion, Op, Outcome, Record},
    time::{nanos, timestamp},
};

impl Work {
    pub(super) fn apply(&mut self, op: &Op, rooms: &[Room]) -> Outcome {
        match op {
            Op::Accept { offers, watched } => self.accept(offers, *watched),
            Op::CatchUp { source, step } => self.catch_up(source, step),
            Op::Complete(completion) => Outcome::Completed(self.complete(completion, rooms)),
            Op::Revive(deliveries) => Outcome::Count(deliveries.iter().map(|id| self.revive(*id)).sum()),
            Op::Replay { deliveries, orders } => self.replay(deliveries, orders),
            Op::ReplayEvent { event, plugins, orders } => self.replay_event(*event, plugins, orders),
            Op::CompleteOutbox { item, result, .. } => Outcome::Flag(self.complete_item(item.0, result)),
            Op::ReleaseOutbox(items) => {
                for (item, _) in items {
                    if let Some(item) = self.state.outbox.get_mut(&item.0).filter(|item| item.stage == SENDER)
                    {
                        Arc::make_mut(item).stage = Stage::Ready;
                    }
                }
                Outcome::Done
            }
            Op::ReplayOutbox(items) => {
                self.replay_items(&items.iter().map(|item| item.0).collect::<Vec<_>>())
            }
            Op::RegisterPlugin(name) => Outcome::Plugin(self.register(name)),
            Op::UpdatePlugin { plugin, update } => self.update(*plugin, update),
            Op::ForgetPlugin(plugin) => self.forget(*plugin),
            Op::LoadRevision { plugin, sha256, description } => {
                let serving =
                    |(of, one): &&(PluginId, PluginRevision)| of == plugin && one.ended_at.is_none();
                if self.state.revisions.iter().find(serving).is_none_or(|(_, one)| one.sha256 != *sha256) {
                    self.end_revision(*plugin, "replaced");
                    self.add_revision(*plugin, sha256, description, None);
                }
                Outcome::Done
            }
            Op::RemoveRevision(plugin) => {
                self.end_revision(*plugin, "removed");
                Outcome::Done
            }
            Op::RefuseRevision { plugin, sha256, ending } => {
                let newest = self.state.revisions.iter().rev().find(|(of, _)| of == plugin);
                if newest.is_none_or(|(_, one)| one.sha256 != *sha256 || one.ending.as_ref() != Some(ending))
                {
                    self.add_revision(*plugin, sha256, "", Some(ending));
                }
                Outcome::Done
            }
            Op::BeginAudit { actor, action, target } => {
                let id = AuditId(self.state.next_id());
                let (actor, action, target) = (actor.clone(), action.clone(), target.clone());
                let at = timestamp(self.now);
                self.state.audit.push(AuditEntry { id, at, actor, action, target, outcome: None });
                Outcome::Audit(id)
            }
            Op::EndAudit { entry, outcome } => {
                if let Some(entry) = self.state.audit.iter_mut().find(|one| one.id == *entry) {
                    entry.outcome = Some(outcome.clone());
                }
                Outcome::Done
            }
            Op::Remove { events, .. } => {
                Outcome::Removed(events.iter().map(|event| self.remove(*event)).sum(), false)
            }
            Op::ReleaseSpace { .. } => Outcome::Flag(false),
            Op::BeginDecision(new) => self.begin_decision(new),
            Op::EndDecision(end) => Outcome::Completed(self.end_decision(end)),
            Op::MarkLate { decision, event, subscribers } => self.mark_late(*decision, event, subscribers),
            Op::RemoveDecisions { cutoff, most, .. } => self.remove_decisions(*cutoff, *most),
            Op::OldestLeased => self.oldest_leased(rooms),
            Op::Nothing => Outcome::Done,
        }
    }

    fn full(&self) -> Option<StoreError> {
        let unfinished = self.state.unfinished();
        (unfinished >= self.settings.max_backlog).then_some(StoreError::Backlog(unfinished))
    }

    fn accept(&mut self, offers: &[Offer], watched: bool) -> Outcome {
        let wanted = offers.iter().any(|offer| !offer.subscribers.is_empty());
        if let Some(error) = self.full().filter(|_| wanted) {
            return match offers.iter().all(|offer| self.has(offer)) {
                true => Outcome::Accepted(vec![Accepted::Duplicate; offers.len()], Vec::new()),
                false => Outcome::Refused(error),
            };
        }
        let (mut accepted, mut named) = (Vec::new(), Vec::new());
        for offer in offers {
            if self.has(offer) {
                accepted.push(Accepted::Duplicate);
                continue;
            }
            let Offer { event, second, subscribers, origin } = offer;
            let (seq, deliveries) = self.take_in(event.clone(), *second, subscribers);
            self.state.origins.insert(seq, *origin);
            let heard = subscribers.iter().zip(deliveries).filter(|(to, _)| watched && !to.held);
            named.extend(heard.map(|(_, delivery)| delivery));
            accepted.push(Accepted::Stored(seq));
        }
        Outcome::Accepted(accepted, named)
    }

    /// Records the result of comparing a part of a sender's list.
    fn catch_up(&mut self, source: &SourceName, step: &CatchUpStep) -> Outcome {
        let state = self.state.catching_up.entry(source.clone()).or_default();
        state.compared_to = step.compared_to.or(state.compared_to);
        let oldest = timestamp(self.now - MISSING_KEPT);
        state.missing.retain(|one| !step.arrived.contains(&one.id) && one.occurred_at >= oldest);
        for event in &step.missing {
            let is_new = state.missing.iter().all(|one| one.id != event.id);
            if is_new && state.missing.len() < MAX_MISSING {
                state.missing.push(event.clone());
            }
        }
        state.missing.sort_by(|a, b| (a.occurred_at, a.id.as_str()).cmp(&(b.occurred_at, b.id.as_str())));
        Outcome::Done
    }

    /// Whether the store has this event already.
    fn has(&self, Offer { event, second, .. }: &Offer) -> bool {
        let is_seen = |second| self.state.seconds.contains_key(&(event.source.clone(), second));
        self.state.seen.contains_key(&(event.source.clone(), event.id.clone())) || second.is_some_and(is_seen)
    }

    pub(super) fn take_in(
        &mut self,
        event: NewEvent,
        second: Option<SecondKey>,
        subscribers: &[Subscriber],
    ) -> (EventSeq, Vec<DeliveryId>) {
        let seq = EventSeq(self.state.next_id());
        self.state.seen.insert((event.source.clone(), event.id.clone()), seq);
        if let Some(second) = second {
            self.state.seconds.insert((event.source.clone(), second), seq);
        }
        self.state.events.insert(seq, Arc::new(Event { seq, content: event }));
        let make = |to: &Subscriber| self.deliver(seq, to.plugin, to.order_key.clone(), None, false);
        (seq, subscribers.iter().map(make).collect())
    }

    fn deliver(
        &mut self,
        event: EventSeq,
        plugin: PluginId,
        order_key: Option<OrderKey>,
        replay_of: Option<Option<DeliveryId>>,
        deferred: bool,
    ) -> DeliveryId {
        let blocked = order_key.as_ref().is_some_and(|key| self.state.of_key(plugin, key).next().is_some());
        let id = DeliveryId(self.state.next_id());
        let delivery = Delivery {
            event,
            plugin,
            stage: match (deferred, blocked) {
                (true, _) => Stage::Deferred,
                (false, true) => Stage::Blocked,
                (false, false) => Stage::Ready,
            },
            attempts: 0,
            made_at: self.now,
            due_at: self.now,
            finished_at: None,
            replay_of,
            error: None,
            order_key,
            ran: false,
            log: Vec::new(),
        };
        self.state.deliveries.insert(id, Arc::new(delivery));
        id
    }

    fn complete(&mut self, completion: &Completion, rooms: &[Room]) -> Completed {
        let job = &completion.job;
        let Some(lane) = self.lane_of(job) else {
            self.state.lost_leases += 1;
            return Completed::LostLease;
        };
        match &completion.verdict {
            Conclusion::Done(record, effects, items) => {
                if !self.is_as_read(job.plugin, effects) {
                    return self.conflict(job, lane, rooms);
                }
                self.take_effect((job.delivery, job.plugin), effects, items, job.trace);
                self.finish(job, record, Stage::Done, None);
            }
            Conclusion::Retry(record, due) => self.finish(job, record, Stage::Waiting, Some(*due)),
            Conclusion::Dead(record) => self.finish(job, record, Stage::Dead, None),
            Conclusion::Conflict => return self.conflict(job, lane, rooms),
            Conclusion::Released => self.release(job.delivery),
        }
        Completed::Written
    }

    /// The lane of a job whose lease holds.
    fn lane_of(&self, job: &Job) -> Option<u64> {
        match self.state.deliveries.get(&job.delivery)?.stage {
            Stage::Leased { token, lane, .. } if token == job.token => Some(lane),
            _ => None,
        }
    }

    fn conflict(&mut self, job: &Job, lane: u64, rooms: &[Room]) -> Completed {
        self.state.conflicts += 1;
        if rooms.iter().any(|room| room.plugin == job.plugin && room.lane == lane) {
            self.again.push(Job { conflicts: job.conflicts + 1, ..job.clone() });
        } else {
            self.release(job.delivery);
        }
        Completed::Conflict
    }

    /// Ends a lease without a result.
    pub(super) fn release(&mut self, id: DeliveryId) {
        if let Some(delivery) = self.state.delivery(id) {
            if let Stage::Leased { lane, .. } = delivery.stage {
                self.ended.push(lane);
            }
            (delivery.stage, delivery.ran) = (Stage::Ready, true);
        }
    }

    /// Whether everything is as the attempt saw it, and its writes are possible.
    pub(super) fn is_as_read(&self, plugin: PluginId, effects: &Effects) -> bool {
        let get = |key: &str| self.state.kv.get(&(plugin, key.to_owned()));
        let reads = effects.reads.iter().all(|read| match read {
            KvRead::Key { key, version } => get(key).map(|(_, version)| *version) == *version,
            KvRead::List { prefix, after, limit, found } => {
                let now = self.state.kv_list(plugin, prefix, after.as_deref(), *limit);
                now.iter().map(|(key, _, version)| (key, version)).eq(found.iter().map(|(k, v)| (k, v)))
            }
        });
        let mut bytes = i128::from(self.state.kv_bytes(plugin));
        let before = bytes;
        let writes = effects.writes.iter().all(|(key, write)| {
            let old = get(key).map(|(value, _)| value.as_slice());
            let Ok(change) = KvChange::of(key, write, old) else { return false };
            bytes += i128::from(change.delta);
            true
        });
        let fits = effects.kv_limit.is_none_or(|most| bytes <= before || bytes <= i128::from(most));
        reads && writes && fits
    }

    pub(super) fn write(&mut self, plugin: PluginId, key: &str, write: &KvWrite) {
        let at = (plugin, key.to_owned());
        let new = write.applied(self.state.kv.get(&at).map(|(value, _)| value.as_slice())).ok().flatten();
        let version = KvVersion(self.state.next_id());
        match new {
            Some(value) => drop(self.state.kv.insert(at, (value, version))),
            None => drop(self.state.kv.remove(&at)),
        }
        self.resized.push(plugin);
    }

    /// Applies what a plugin did in this delivery or decision.
    pub(super) fn take_effect(
        &mut self,
        (delivery, plugin): (DeliveryId, PluginId),
        effects: &Effects,
        items: &[(OutboxKind, String)],
        trace: Option<TraceContext>,
    ) {
        for (key, write) in &effects.writes {
            self.write(plugin, key, write);
        }
        for (kind, item) in items {
            self.stage_item((delivery, plugin), *kind, item, trace);
        }
        for derived in &effects.emitted {
            self.take_in(derived.event(timestamp(self.now)), None, &derived.subscribers);
        }
    }

    fn stage_item(
        &mut self,
        (delivery, plugin): (DeliveryId, PluginId),
        kind: OutboxKind,
        item: &str,
        trace: Option<TraceContext>,
    ) {
        let Ok(item) = serde_json::from_str(item) else { return };
        let id = self.state.next_id();
        let row = Item {
            delivery,
            plugin,
            kind,
            stage: Stage::Ready,
            attempts: 0,
            due_at: self.now,
            finished_at: None,
            error: None,
            item,
            trace,
        };
        self.state.outbox.insert(id, Arc::new(row));
    }

    fn finish(&mut self, job: &Job, record: &Record, stage: Stage, due: Option<i64>) {
        let now = self.now;
        let Some(delivery) = self.state.delivery(job.delivery) else { return };
        if let Stage::Leased { lane, .. } = delivery.stage {
            self.ended.push(lane);
        }
        delivery.stage = stage;
        delivery.attempts = record.number;
        delivery.due_at = due.unwrap_or(delivery.due_at);
        delivery.finished_at = stage.is_finished().then_some(now);
        delivery.error.clone_from(&record.error);
        delivery.log.retain(|attempt| attempt.number != record.number);
        delivery.log.push(shown(record));
        if let Some(key) = delivery.order_key.clone().filter(|_| stage.is_finished()) {
            self.unblock(job.plugin, &key);
        }
    }

    /// The first of a key may run.
    pub(super) fn unblock(&mut self, plugin: PluginId, key: &OrderKey) {
        let first = self.state.of_key(plugin, key).next().map(|(id, _)| id);
        if let Some(delivery) = first.and_then(|id| self.state.delivery(id))
            && delivery.stage == Stage::Blocked
        {
            delivery.stage = Stage::Ready;
        }
    }

    fn revive(&mut self, id: DeliveryId) -> u64 {
        let now = self.now;
        match self.state.delivery(id).filter(|delivery| delivery.stage == Stage::Dead) {
            Some(delivery) => {
                (delivery.stage, delivery.ran, delivery.due_at) = (Stage::Ready, true, now);
                delivery.finished_at = None;
                1
            }
            None => 0,
        }
    }

    fn replay(&mut self, deliveries: &[DeliveryId], orders: &Orders) -> Outcome {
        let mut count = 0;
        for &id in deliveries {
            if let Some(error) = self.full() {
                return if count == 0 { Outcome::Refused(error) } else { Outcome::Count(count) };
            }
            let found = self.state.deliveries.get(&id).filter(|delivery| delivery.stage.is_finished());
            if let Some((event, plugin)) = found.map(|delivery| (delivery.event, delivery.plugin))
                && !self.state.was_replayed(id)
            {
                self.deliver_again(event, plugin, Some(id), orders, true);
                count += 1;
            }
        }
        Outcome::Count(count)
    }

    fn replay_event(&mut self, event: EventSeq, plugins: &[PluginId], orders: &Orders) -> Outcome {
        if let Some(error) = self.full() {
            return Outcome::Refused(error);
        }
        if !self.state.events.contains_key(&event) {
            return Outcome::Deliveries(Vec::new());
        }
        let mut made = Vec::new();
        for &plugin in plugins {
            let had = self.state.of_event(event).filter(|(_, one)| one.plugin == plugin);
            let latest = had.map(|(id, _)| id).last();
            made.push(self.deliver_again(event, plugin, latest, orders, false));
        }
        Outcome::Deliveries(made)
    }

    fn deliver_again(
        &mut self,
        event: EventSeq,
        plugin: PluginId,
        of: Option<DeliveryId>,
        orders: &Orders,
        deferred: bool,
    ) -> DeliveryId {
        let content = self.state.events.get(&event).map(|event| event.content.clone());
        let key = orders.get(&plugin).zip(content).and_then(|(order, content)| order.key(&content));
        self.deliver(event, plugin, key, Some(of), deferred)
    }

    fn complete_item(&mut self, id: i64, result: &OutboxResult) -> bool {
        let now = self.now;
        let Some(item) = self.state.outbox.get_mut(&id).filter(|item| item.stage == SENDER) else {
            return false;
        };
        let item = Arc::make_mut(item);
        item.attempts += 1;
        (item.stage, item.finished_at, item.error) = match result {
            OutboxResult::Sent => (Stage::Done, Some(now), None),
            OutboxResult::Retry { due, error } => {
                item.due_at = nanos(*due);
                (Stage::Waiting, None, Some(error.clone()))
            }
            OutboxResult::Dead { error } => (Stage::Dead, Some(now), Some(error.clone())),
        };
        true
    }

    fn replay_items(&mut self, items: &[i64]) -> Outcome {
        let mut count = 0;
        for (id, item) in &mut self.state.outbox {
            if item.stage == Stage::Dead && (items.is_empty() || items.contains(id)) {
                let item = Arc::make_mut(item);
                (item.stage, item.attempts, item.due_at) = (Stage::Ready, 0, self.now);
                item.finished_at = None;
                count += 1;
            }
        }
        Outcome::Count(count)
    }

    fn register(&mut self, name: &str) -> PluginId {
        if let Some((id, plugin)) = self.state.plugins.iter_mut().find(|(_, one)| one.record.name == name) {
            plugin.forgotten = false;
            return *id;
        }
        let id = PluginId(self.state.next_id());
        self.state.plugins.insert(id, Plugin { record: blank(id, name), forgotten: false });
        id
    }

    fn update(&mut self, plugin: PluginId, update: &PluginUpdate) -> Outcome {
        let Some(plugin) = self.state.plugins.get_mut(&plugin) else { return Outcome::Done };
        let record = &mut plugin.record;
        record.held.clone_from(&update.held);
        match &update.change {
            PluginChange::Loaded { revision, description, events, requires, loaded_at } => {
                record.revision = revision.clone().or(record.revision.take());
                record.description.clone_from(description);
                record.events.clone_from(events);
                record.requires.clone_from(requires);
                (record.loaded_at, record.last_error) = (*loaded_at, None);
            }
            PluginChange::Subscribed(events) => record.events.clone_from(events),
            PluginChange::Failed(error) => record.last_error = Some(error.clone()),
            PluginChange::Recovered => record.last_error = None,
            PluginChange::Paused(paused) => record.paused = *paused,
            PluginChange::Held => {}
        }
        Outcome::Done
    }

    fn forget(&mut self, plugin: PluginId) -> Outcome {
        for delivery in self.state.deliveries.values_mut() {
            if delivery.plugin != plugin || delivery.stage.is_finished() {
                continue;
            }
            if let Stage::Leased { lane, .. } = delivery.stage {
                self.ended.push(lane);
            }
            let delivery = Arc::make_mut(delivery);
            (delivery.stage, delivery.finished_at) = (Stage::Dead, Some(self.now));
            delivery.error = Some("plugin forgotten".to_owned());
        }
        self.state.kv.retain(|(of, _), _| *of != plugin);
        self.resized.push(plugin);
        self.state.revisions.retain(|(of, _)| *of != plugin);
        if let Some(known) = self.state.plugins.get_mut(&plugin) {
            *known = Plugin { record: blank(plugin, &known.record.name), forgotten: true };
        }
        Outcome::Flag(false)
    }

    fn end_revision(&mut self, plugin: PluginId, why: &str) {
        for (of, one) in &mut self.state.revisions {
            if *of == plugin && one.ended_at.is_none() {
                (one.ended_at, one.ending) = (Some(timestamp(self.now)), Some(why.to_owned()));
            }
        }
    }

    fn add_revision(&mut self, plugin: PluginId, sha256: &str, description: &str, refused: Option<&String>) {
        let now = timestamp(self.now);
        let revision = PluginRevision {
            sha256: sha256.to_owned(),
            description: description.to_owned(),
            loaded_at: now,
            ended_at: refused.map(|_| now),
            ending: refused.cloned(),
        };
        self.state.revisions.push((plugin, revision));
    }

    /// Removes an event that may be removed. Returns how many that is.
    fn remove(&mut self, event: EventSeq) -> u64 {
        if !self.state.may_leave(event) {
            return 0;
        }
        let Some(known) = self.state.events.remove(&event) else { return 0 };
        self.state.seen.remove(&(known.content.source.clone(), known.content.id.clone()));
        self.state.seconds.retain(|_, of| *of != known.seq);
        self.state.origins.remove(&event);
        let state = self.state.catching_up.entry(known.content.source.clone()).or_default();
        state.removed_to = state.removed_to.max(Some(known.content.received_at));
        let ids: Vec<_> = self.state.of_event(event).map(|(id, _)| id).collect();
        for id in ids {
            if let Some(delivery) = self.state.deliveries.remove(&id) {
                *self.state.left.entry((delivery.plugin, delivery.stage.shown(false))).or_default() += 1;
            }
            let items_left = &mut self.state.items_left;
            self.state.outbox.retain(|_, item| {
                if item.delivery == id {
                    *items_left.entry(item.stage.of_item()).or_default() += 1;
                }
                item.delivery != id
            });
        }
        1
    }

    fn oldest_leased(&self, rooms: &[Room]) -> Outcome {
        let of_lane = |room: &Room| {
            let leased =
                |one: &&Arc<Delivery>| matches!(one.stage, Stage::Leased { lane, .. } if lane == room.lane);
            let oldest = self.state.deliveries.values().find(leased)?;
            Some((room.plugin, timestamp(oldest.made_at)))
        };
        Outcome::OldestLeased(rooms.iter().filter_map(of_lane).collect())
    }
}

fn shown(record: &Record) -> AttemptDetail {
    AttemptDetail {
        number: record.number,
        revision: record.revision.clone(),
        started_at: timestamp(record.started_at),
        duration_us: record.duration_us.unsigned_abs(),
        outcome: record.outcome,
        error: record.error.clone(),
        trace: record.trace.clone(),
        logs: record.logs.as_deref().and_then(|logs| serde_json::from_str(logs).ok()).unwrap_or_default(),
        actions: record
            .actions
            .as_deref()
            .map_or_else(Vec::new, |actions| actions.lines().map(str::to_owned).collect()),
    }
}

fn blank(id: PluginId, name: &str) -> PluginRecord {
    PluginRecord {
        id,
        name: name.to_owned(),
        revision: None,
        description: String::new(),
        events: Vec::new(),
        requires: Vec::new(),
        held: None,
        last_error: None,
        paused: false,
        loaded_at: None,
    }
}
