//! The rows, and counts over them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use posthouse_model::{
    DeliveryId, DeliveryState, Event, EventId, EventOrigin, EventSeq, KvVersion, LeaseToken, OrderKey,
    OutboxItem, OutboxKind, OutboxState, PluginId, SecondKey, SourceName, TraceContext,
};

use crate::{
    AttemptDetail, AuditEntry, CatchUpState, DecisionDetail, NewDecision, PluginRecord, PluginRevision,
};

/// Everything that is durable.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) events: BTreeMap<EventSeq, Arc<Event>>,
    pub(super) seen: HashMap<(SourceName, EventId), EventSeq>,
    pub(super) seconds: HashMap<(SourceName, SecondKey), EventSeq>,
    /// Events that did not arrive as webhooks.
    pub(super) origins: HashMap<EventSeq, EventOrigin>,
    pub(super) catching_up: HashMap<SourceName, CatchUpState>,
    pub(super) deliveries: BTreeMap<DeliveryId, Arc<Delivery>>,
    pub(super) kv: BTreeMap<(PluginId, String), (Vec<u8>, KvVersion)>,
    pub(super) outbox: BTreeMap<i64, Arc<Item>>,
    pub(super) plugins: BTreeMap<PluginId, Plugin>,
    pub(super) revisions: Vec<(PluginId, PluginRevision)>,
    pub(super) audit: Vec<AuditEntry>,
    pub(super) decisions: BTreeMap<DeliveryId, Arc<Decided>>,
    /// Deliveries that were removed, by plugin and state.
    pub(super) left: BTreeMap<(PluginId, DeliveryState), u64>,
    /// Items that were removed, by state.
    pub(super) items_left: BTreeMap<OutboxState, u64>,
    pub(super) conflicts: u64,
    pub(super) lost_leases: u64,
    pub(super) last_id: i64,
    pub(super) last_token: i64,
}

/// A decision of an interceptor.
#[derive(Debug, Clone)]
pub(super) struct Decided {
    pub(super) new: NewDecision,
    pub(super) run: u32,
    /// The row as it is shown, without its outbox items.
    pub(super) shown: DecisionDetail,
}

#[derive(Debug, Clone)]
pub(super) struct Plugin {
    pub(super) record: PluginRecord,
    pub(super) forgotten: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) event: EventSeq,
    pub(super) plugin: PluginId,
    pub(super) stage: Stage,
    pub(super) attempts: u32,
    pub(super) made_at: i64,
    pub(super) due_at: i64,
    pub(super) finished_at: Option<i64>,
    /// None if it was created with its event; else the delivery that it replays, if any.
    pub(super) replay_of: Option<Option<DeliveryId>>,
    pub(super) error: Option<String>,
    pub(super) order_key: Option<OrderKey>,
    /// Whether an attempt may have run that was not counted.
    pub(super) ran: bool,
    pub(super) log: Vec<AttemptDetail>,
}

/// The state of a delivery or an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Ready,
    Leased { token: LeaseToken, lane: u64, expires: Option<i64> },
    Waiting,
    Blocked,
    Deferred,
    Done,
    Dead,
}

impl Stage {
    pub(super) fn is_finished(self) -> bool {
        matches!(self, Self::Done | Self::Dead)
    }

    /// Whether it may be leased once it is due.
    pub(super) fn may_run(self) -> bool {
        matches!(self, Self::Ready | Self::Waiting)
    }

    /// The state that operators see.
    pub(super) fn shown(self, held: bool) -> DeliveryState {
        match self {
            Self::Leased { .. } => DeliveryState::Leased,
            Self::Done => DeliveryState::Done,
            Self::Dead => DeliveryState::Dead,
            _ if held => DeliveryState::Held,
            Self::Ready => DeliveryState::Ready,
            Self::Waiting | Self::Blocked | Self::Deferred => DeliveryState::Waiting,
        }
    }

    /// The state of an item that is at this stage.
    pub(super) fn of_item(self) -> OutboxState {
        match self {
            Self::Leased { .. } => OutboxState::Leased,
            Self::Done => OutboxState::Sent,
            Self::Dead => OutboxState::Dead,
            Self::Ready => OutboxState::Ready,
            Self::Waiting | Self::Blocked | Self::Deferred => OutboxState::Waiting,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) delivery: DeliveryId,
    pub(super) plugin: PluginId,
    pub(super) kind: OutboxKind,
    pub(super) stage: Stage,
    pub(super) attempts: u32,
    pub(super) due_at: i64,
    pub(super) finished_at: Option<i64>,
    pub(super) error: Option<String>,
    pub(super) item: OutboxItem,
    pub(super) trace: Option<TraceContext>,
}

/// The placeholder lease of an item: nothing asks for it again.
pub(super) const SENDER: Stage = Stage::Leased { token: LeaseToken(0), lane: 0, expires: None };

impl State {
    /// The next id. There are gaps, because no code may rely on consecutive ids.
    pub(super) fn next_id(&mut self) -> i64 {
        self.last_id += 3;
        self.last_id
    }

    /// A new process begins.
    pub(super) fn recover(&mut self) {
        for delivery in self.deliveries.values_mut() {
            if matches!(delivery.stage, Stage::Leased { .. }) {
                let delivery = Arc::make_mut(delivery);
                (delivery.stage, delivery.ran) = (Stage::Ready, true);
            }
        }
        for item in self.outbox.values_mut() {
            if matches!(item.stage, Stage::Leased { .. }) {
                Arc::make_mut(item).stage = Stage::Ready;
            }
        }
    }

    pub(super) fn delivery(&mut self, id: DeliveryId) -> Option<&mut Delivery> {
        self.deliveries.get_mut(&id).map(Arc::make_mut)
    }

    pub(super) fn unfinished(&self) -> u64 {
        self.deliveries.values().filter(|delivery| !delivery.stage.is_finished()).count() as u64
    }

    pub(super) fn of_event(&self, event: EventSeq) -> impl Iterator<Item = (DeliveryId, &Arc<Delivery>)> {
        self.deliveries.iter().filter(move |(_, one)| one.event == event).map(|(id, one)| (*id, one))
    }

    /// The unfinished deliveries of this plugin and key that precede the others of the key, oldest first.
    /// Deferred ones count: later deliveries wait for them.
    pub(super) fn of_key<'a>(
        &'a self,
        plugin: PluginId,
        key: &'a OrderKey,
    ) -> impl Iterator<Item = (DeliveryId, &'a Arc<Delivery>)> {
        let same = move |one: &&Arc<Delivery>| one.plugin == plugin && one.order_key.as_ref() == Some(key);
        self.deliveries
            .iter()
            .filter(move |(_, one)| same(one) && !one.stage.is_finished())
            .map(|(id, one)| (*id, one))
    }

    pub(super) fn was_replayed(&self, id: DeliveryId) -> bool {
        self.deliveries.values().any(|one| one.replay_of == Some(Some(id)))
    }

    /// Whether everything of an event is finished.
    pub(super) fn may_leave(&self, event: EventSeq) -> bool {
        self.of_event(event).all(|(id, one)| {
            one.stage.is_finished()
                && self.outbox.values().all(|item| item.delivery != id || item.stage.is_finished())
        })
    }

    pub(super) fn is_held(&self, plugin: PluginId) -> bool {
        self.plugins.get(&plugin).is_some_and(|plugin| plugin.record.held.is_some())
    }

    pub(super) fn kv_bytes(&self, plugin: PluginId) -> u64 {
        let own = self.kv.iter().filter(|((of, _), _)| *of == plugin);
        own.map(|((_, key), (value, _))| (key.len() + value.len()) as u64).sum()
    }

    pub(super) fn kv_list(
        &self,
        plugin: PluginId,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Vec<(String, Vec<u8>, KvVersion)> {
        self.kv
            .iter()
            .filter(|((of, key), _)| *of == plugin && key.starts_with(prefix))
            .filter(|((_, key), _)| after.is_none_or(|after| &**key > after))
            .take(limit as usize)
            .map(|((_, key), (value, version))| (key.clone(), value.clone(), *version))
            .collect()
    }
}
