//! Leases due deliveries to lanes, and due outbox items to waiting callers.

use std::sync::Arc;

use posthouse_model::{DeliveryId, Job, LeaseToken, OutboxKind};

use super::{
    Work,
    state::{Delivery, SENDER, Stage},
};

use crate::{
    OutboxId, OutboxJob, OutboxSlots,
    engine::Room,
    fairness::{Claim, grant},
    time::timestamp,
};

/// A plugin with fewer due deliveries than this gets deferred ones.
const LITTLE: usize = 32;

/// Deferred deliveries that become ready at once.
const SLICE: usize = 64;

impl Work {
    /// Ends leases that have expired.
    pub(super) fn expire(&mut self) {
        let over = |one: &Delivery| matches!(one.stage, Stage::Leased { expires: Some(expires), .. } if expires <= self.now);
        let expired: Vec<_> =
            self.state.deliveries.iter().filter(|(_, one)| over(one)).map(|(id, _)| *id).collect();
        expired.into_iter().for_each(|id| self.release(id));
    }

    /// Jobs that a lane holds now.
    fn held(&self, room: &Room) -> usize {
        let of_lane =
            |one: &&Arc<Delivery>| matches!(one.stage, Stage::Leased { lane, .. } if lane == room.lane);
        self.state.deliveries.values().filter(of_lane).count()
    }

    /// Fills the lanes that have room.
    pub(super) fn refill(&mut self, rooms: &[Room]) {
        for room in rooms {
            self.make_deferred_ready(room);
            let held = self.held(room);
            let free = room.capacity.saturating_sub(held);
            let chosen = match room.trial {
                None => self.due(room, free),
                Some(trial) => self.tried(room, free, trial.any && held == 0),
            };
            chosen.into_iter().for_each(|id| self.lease(id, room.lane));
        }
    }

    /// Makes deferred deliveries ready while the plugin has little to do.
    fn make_deferred_ready(&mut self, room: &Room) {
        loop {
            let own = self.state.deliveries.values().filter(|one| one.plugin == room.plugin);
            let ready = own.filter(|one| one.stage == Stage::Ready).count();
            let deferred = |one: &Delivery| one.plugin == room.plugin && one.stage == Stage::Deferred;
            let next: Vec<DeliveryId> = self
                .state
                .deliveries
                .iter()
                .filter(|(_, one)| deferred(one))
                .map(|(id, _)| *id)
                .take(SLICE)
                .collect();
            if next.is_empty() || self.held(room) + ready >= LITTLE {
                return;
            }
            for id in next {
                let key = self.state.deliveries.get(&id).and_then(|one| one.order_key.clone());
                let first = key.and_then(|key| self.state.of_key(room.plugin, &key).next().map(|(id, _)| id));
                let now = self.now;
                if let Some(delivery) = self.state.delivery(id) {
                    delivery.stage =
                        if first.is_none_or(|first| first == id) { Stage::Ready } else { Stage::Blocked };
                    delivery.due_at = now;
                }
            }
        }
    }

    /// The deliveries that have been due for longest. A ready one may run even if the clock was set back.
    fn due(&self, room: &Room, free: usize) -> Vec<DeliveryId> {
        let may = |one: &Delivery| {
            one.plugin == room.plugin
                && (one.stage == Stage::Ready || one.stage == Stage::Waiting && one.due_at <= self.now)
        };
        let mut due: Vec<_> = self
            .state
            .deliveries
            .iter()
            .filter(|(_, one)| may(one))
            .map(|(id, one)| (one.due_at, *id))
            .collect();
        due.sort_unstable();
        due.into_iter().map(|(_, id)| id).take(free).collect()
    }

    /// The deliveries of a trial: untried ones, the newest and the oldest first; or one that failed.
    fn tried(&self, room: &Room, free: usize, any: bool) -> Vec<DeliveryId> {
        let own = self.state.deliveries.iter().filter(|(_, one)| one.plugin == room.plugin);
        let mut untried: Vec<_> = own
            .clone()
            .filter(|(_, one)| one.stage == Stage::Ready && one.attempts == 0 && one.due_at <= self.now)
            .map(|(id, one)| (one.replay_of.is_none(), *id))
            .collect();
        // New events before replays, and of each the newest first.
        untried.sort_unstable_by(|a, b| b.cmp(a));
        let mut chosen: Vec<_> = untried.iter().map(|(_, id)| *id).take(free).collect();
        if let (2.., Some((new, oldest))) = (chosen.len(), untried.last())
            && untried.first().is_some_and(|(first, _)| first == new)
            && let Some(last) = chosen.get_mut(1)
        {
            *last = *oldest;
        }
        chosen.sort_unstable();
        chosen.dedup();
        if chosen.is_empty() && any && free > 0 {
            let may = |one: &Delivery| {
                one.stage == Stage::Ready || one.stage == Stage::Waiting && one.due_at <= self.now
            };
            let least =
                own.filter(|(_, one)| may(one)).min_by_key(|(id, one)| (one.attempts, one.due_at, **id));
            chosen.extend(least.map(|(id, _)| *id));
        }
        chosen
    }

    fn lease(&mut self, id: DeliveryId, lane: u64) {
        self.state.last_token += 1;
        let token = LeaseToken(self.state.last_token);
        let expires = self.settings.lease_time.map(|time| self.now.saturating_add(time));
        let Some(delivery) = self.state.delivery(id) else { return };
        delivery.stage = Stage::Leased { token, lane, expires };
        let delivery = delivery.clone();
        let Some(event) = self.state.events.get(&delivery.event) else { return };
        self.jobs.push(Job {
            delivery: id,
            token,
            expires: expires.map(timestamp),
            ordered: delivery.order_key.is_some(),
            plugin: delivery.plugin,
            attempt: delivery.attempts + 1,
            conflicts: 0,
            may_have_run: delivery.ran || delivery.attempts > 0,
            due_at: timestamp(delivery.due_at),
            replay: delivery.replay_of.is_some(),
            trace: None,
            event: Arc::clone(event),
        });
    }

    /// Leases due items to the callers that wait.
    pub(super) fn lease_outbox(&mut self, waiters: &[(OutboxKind, OutboxSlots)]) -> Vec<Vec<OutboxJob>> {
        waiters.iter().map(|(kind, slots)| self.lease_items(*kind, *slots)).collect()
    }

    fn lease_items(&mut self, kind: OutboxKind, slots: OutboxSlots) -> Vec<OutboxJob> {
        let mut claims: Vec<Claim> = Vec::new();
        for item in self.state.outbox.values().filter(|item| item.kind == kind) {
            let plugin = item.plugin.0;
            let claim = match claims.iter_mut().find(|claim| claim.plugin == plugin) {
                Some(claim) => claim,
                None => {
                    claims.push(Claim { plugin, under_way: 0, due: 0, granted: 0 });
                    let Some(claim) = claims.last_mut() else { continue };
                    claim
                }
            };
            claim.under_way += usize::from(item.stage == SENDER);
            claim.due += usize::from(item.stage.may_run() && item.due_at <= self.now);
        }
        let free = slots.at_once.saturating_sub(claims.iter().map(|claim| claim.under_way).sum());
        grant(&mut claims, free, slots.kept);
        let mut due: Vec<_> = self
            .state
            .outbox
            .iter()
            .filter(|(_, item)| item.kind == kind && item.stage.may_run() && item.due_at <= self.now)
            .map(|(id, item)| (item.due_at, *id, item.plugin.0))
            .collect();
        due.sort_unstable();
        due.retain(|(_, _, plugin)| {
            let claim = claims.iter_mut().find(|claim| claim.plugin == *plugin && claim.granted > 0);
            claim.map(|claim| claim.granted -= 1).is_some()
        });
        let mut jobs = Vec::new();
        for (_, id, _) in due {
            let Some(item) = self.state.outbox.get_mut(&id).map(Arc::make_mut) else { continue };
            item.stage = SENDER;
            jobs.push(OutboxJob {
                id: OutboxId(id),
                delivery: item.delivery,
                plugin: item.plugin,
                attempt: item.attempts + 1,
                trace: item.trace,
                item: item.item.clone(),
            });
        }
        jobs
    }

    /// When the next item is due that waits only for its time.
    pub(super) fn next<'a>(
        &self,
        rooms: &[Room],
        waiters: impl Iterator<Item = (&'a (OutboxKind, OutboxSlots), &'a Vec<OutboxJob>)>,
    ) -> Option<i64> {
        let expiry = |one: &Delivery| match one.stage {
            Stage::Leased { expires, .. } => expires,
            Stage::Waiting if rooms.iter().any(|room| room.plugin == one.plugin) => Some(one.due_at),
            _ => None,
        };
        let deliveries = self.state.deliveries.values().filter_map(|one| expiry(one));
        let kinds: Vec<_> = waiters.filter(|(_, jobs)| jobs.is_empty()).map(|((kind, _), _)| *kind).collect();
        let waited = self.state.outbox.values().filter(|item| kinds.contains(&item.kind));
        let items = waited.filter(|item| item.stage == Stage::Waiting).map(|item| item.due_at);
        // Items that are due already wait for a slot, and a slot becomes free with another batch.
        deliveries.chain(items).filter(|due| *due > self.now).min()
    }
}
