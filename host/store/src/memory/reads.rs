//! Answers questions from the last state.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use posthouse_model::{
    DecisionState, DeliveryId, DeliveryState, Event, EventOrigin, EventSeq, OutboxKind, OutboxState,
    PluginId, SourceName, Usage, cause,
};

use super::{
    Disk,
    state::{Delivery, Item, State},
};

use crate::{
    Answer, AuditEntry, AuditFilter, CatchUpState, DeadGroup, DeliveryDetail, DeliveryFilter, DeliveryPage,
    DeliveryPlace, DeliverySummary, Entries, EventDetail, EventFilter, EventNames, EventPage, EventSummary,
    LastEvent, Names, Origin, OutboxFilter, OutboxId, OutboxSummary, Payloads, PluginRecord, PluginRevision,
    PluginStats, Point, Recent, StoreError, StoreStats, StoredHead, StoredHeads, Value,
    catching_up::own_id,
    conformance::InjectedFailure,
    engine::Features,
    op::Cause,
    page,
    retention::Finished,
    time::{nanos, timestamp},
};

/// The most revisions that are listed.
const REVISIONS: usize = 50;

pub(crate) struct Reads {
    disk: Arc<Disk>,
    leases_expire: bool,
    closed: AtomicBool,
}

impl Reads {
    pub(super) fn new(disk: Arc<Disk>, leases_expire: bool) -> Self {
        Self { disk, leases_expire, closed: AtomicBool::new(false) }
    }

    pub(crate) fn features(&self) -> Features {
        Features { backup: false, size_bound: false, leases_expire: self.leases_expire, charts: false }
    }

    pub(crate) fn inject(&self, fault: InjectedFailure) {
        *self.disk.fault.lock() = Some(fault);
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(crate) fn shortage(&self) -> Option<StoreError> {
        None
    }

    pub(crate) fn readers(&self) -> [(&'static str, Usage); 2] {
        ["guests", "people"].map(|whose| (whose, Usage { used: 0, limit: 1 }))
    }

    pub(crate) fn disk(&self) -> Option<(u64, u64)> {
        None
    }

    pub(super) fn state(&self) -> Answer<Arc<State>> {
        if self.closed.load(Ordering::Acquire) { Err(StoreError::Closed) } else { Ok(self.disk.state()) }
    }

    pub(crate) fn kv_get(&self, plugin: PluginId, key: &str) -> Answer<Value> {
        Ok(self.state()?.kv.get(&(plugin, key.to_owned())).cloned())
    }

    pub(crate) fn kv_list(
        &self,
        plugin: PluginId,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Answer<Entries> {
        Ok(self.state()?.kv_list(plugin, prefix, after, limit))
    }

    pub(crate) async fn in_state(
        &self,
        state: DeliveryState,
        mut deliveries: Vec<DeliveryId>,
    ) -> Answer<Vec<DeliveryId>> {
        let rows = self.state()?;
        let ended = |id: &DeliveryId| {
            let decided = rows.decisions.get(id);
            decided.is_some_and(|one| one.shown.summary.state != DecisionState::Running)
        };
        deliveries.retain(|id| {
            rows.deliveries.get(id).is_some_and(|one| one.stage.shown(false) == state)
                || (state == DeliveryState::Done && ended(id))
        });
        Ok(deliveries)
    }

    pub(crate) async fn origin(&self, delivery: DeliveryId) -> Answer<Option<Origin>> {
        let state = self.state()?;
        let of_event = state.deliveries.get(&delivery).and_then(|one| {
            let event = &state.events.get(&one.event)?.content;
            let plugin = state.plugins.get(&one.plugin)?.record.name.clone();
            Some(Origin { source: event.source.clone(), event: event.id.clone(), plugin })
        });
        Ok(of_event.or_else(|| state.origin_of_decision(delivery)))
    }

    pub(crate) async fn place_of(&self, delivery: DeliveryId) -> Answer<Option<DeliveryPlace>> {
        let origin = self.origin(delivery).await?;
        Ok(origin.map(|Origin { source, event, plugin }| DeliveryPlace {
            id: delivery,
            event: event.as_str().to_owned(),
            source,
            plugin,
        }))
    }

    pub(crate) async fn unsent(&self) -> Answer<[(OutboxKind, u64); OutboxKind::ALL.len()]> {
        let state = self.state()?;
        let unsent = |kind| {
            state.outbox.values().filter(|item| item.kind == kind && !item.stage.is_finished()).count() as u64
        };
        Ok(OutboxKind::ALL.map(|kind| (kind, unsent(kind))))
    }

    pub(crate) async fn outbox(&self, filter: OutboxFilter) -> Answer<Vec<OutboxSummary>> {
        let state = self.state()?;
        let wanted = |id: i64, item: &Item| {
            filter.state.is_none_or(|state| state == item.stage.of_item())
                && filter.id.is_none_or(|one| one.0 == id)
                && filter.delivery.is_none_or(|one| one == item.delivery)
                && filter.before.is_none_or(|before| id < before.0)
        };
        let found = state.outbox.iter().rev().filter(|(id, item)| wanted(**id, item));
        Ok(found.take(page(filter.limit) as usize).map(|(id, item)| state.shown_item(*id, item)).collect())
    }

    pub(crate) async fn event(&self, source: Option<SourceName>, id: &str) -> Answer<Vec<EventDetail>> {
        let state = self.state()?;
        let wanted = |event: &EventSummary| {
            event.id == id && source.as_ref().is_none_or(|source| source.as_str() == event.source)
        };
        let summaries = state.events.keys().filter_map(|seq| state.shown_event(*seq)).filter(wanted);
        Ok(summaries.map(|summary| state.shown_history(summary)).collect())
    }

    pub(crate) async fn search(&self, filter: EventFilter, _: Duration) -> Answer<EventPage> {
        let state = self.state()?;
        let limit = page(filter.limit) as usize;
        let mut found = EventPage::default();
        for (seq, event) in state.events.iter().rev() {
            let (content, Some(summary)) = (&event.content, state.shown_event(*seq)) else { continue };
            let text = || String::from_utf8_lossy(&content.body).to_ascii_lowercase();
            let wanted = filter.before.is_none_or(|before| *seq < before)
                && filter.event_type.as_ref().is_none_or(|pattern| pattern.matches(&content.event_type))
                && filter.source.as_ref().is_none_or(|source| *source == summary.source)
                && filter.organization.as_ref().is_none_or(|one| summary.organization.as_ref() == Some(one))
                && filter.id.as_ref().is_none_or(|id| *id == summary.id)
                && filter.text.as_ref().is_none_or(|wanted| text().contains(&wanted.to_ascii_lowercase()))
                && filter.since.is_none_or(|since| content.received_at >= since)
                && filter.until.is_none_or(|until| content.received_at <= until);
            if !wanted {
                continue;
            }
            found.events.push(summary);
            if found.events.len() == limit {
                found.next = Some(*seq);
                break;
            }
        }
        Ok(found)
    }

    pub(crate) async fn deliveries_within(
        &self,
        filter: DeliveryFilter,
        _: Duration,
    ) -> Answer<DeliveryPage> {
        let state = self.state()?;
        let limit = page(filter.limit) as usize;
        let found = state.deliveries.iter().rev().filter(|(id, one)| state.is_wanted(**id, one, &filter));
        let deliveries: Vec<_> = found.take(limit).filter_map(|(id, one)| state.shown(*id, one)).collect();
        let next = deliveries.last().filter(|_| deliveries.len() == limit).map(|last| last.id);
        Ok(DeliveryPage { deliveries, next })
    }

    pub(crate) async fn replayable(&self, filter: &DeliveryFilter) -> Answer<Vec<DeliveryId>> {
        let state = self.state()?;
        let most = if filter.limit == 0 { usize::MAX } else { filter.limit as usize };
        let found = state
            .deliveries
            .iter()
            .rev()
            .filter(|(id, one)| one.stage.is_finished() && state.is_wanted(**id, one, filter))
            .filter(|(id, _)| !state.was_replayed(**id));
        Ok(found.map(|(id, _)| *id).take(most).collect())
    }

    pub(crate) async fn count_deliveries(&self, filter: DeliveryFilter) -> Answer<u64> {
        self.replayable(&filter).await.map(|found| found.len() as u64)
    }

    pub(crate) async fn states(&self) -> Answer<BTreeMap<DeliveryState, u64>> {
        self.stats(0).await.map(|stats| stats.states)
    }

    pub(crate) async fn stats(&self, _: i64) -> Answer<StoreStats> {
        let state = self.state()?;
        let none = || DeliveryState::ALL.map(|state| (state, 0)).into_iter().collect::<BTreeMap<_, _>>();
        let mut stats = StoreStats { states: none(), ..StoreStats::default() };
        for (id, plugin) in &state.plugins {
            let own: Vec<_> = state.deliveries.values().filter(|one| one.plugin == *id).collect();
            let deferred = own.iter().filter(|one| one.stage == super::state::Stage::Deferred).count() as u64;
            let open = own.iter().filter(|one| one.stage.may_run()).map(|one| one.made_at).min();
            let mut states = none();
            for one in &own {
                *states.entry(one.stage.shown(state.is_held(*id))).or_default() += 1;
            }
            for ((_, left), count) in state.left.iter().filter(|((of, _), _)| of == id) {
                *states.entry(*left).or_default() += count;
            }
            let made = states.values().sum();
            stats.made += made;
            stats.replays_waiting += deferred;
            for (shown, count) in &states {
                *stats.states.entry(*shown).or_default() += count;
            }
            if !plugin.forgotten || made > 0 {
                stats.plugins.push(PluginStats {
                    plugin: plugin.record.name.clone(),
                    made,
                    states,
                    oldest_open: open.map(timestamp),
                    replays_waiting: deferred,
                });
            }
        }
        stats.plugins.sort_by(|a, b| a.plugin.cmp(&b.plugin));
        for shown in OutboxState::ALL {
            let now = state.outbox.values().filter(|item| item.stage.of_item() == shown).count() as u64;
            let left = state.items_left.get(&shown).copied().unwrap_or(0);
            stats.outbox.insert(shown, now + left);
        }
        (stats.conflicts, stats.lost_leases) = (state.conflicts, state.lost_leases);
        Ok(stats)
    }

    pub(crate) async fn names(&self) -> Answer<Names> {
        let state = self.state()?;
        let mut names = Names::default();
        for event in state.events.values() {
            names.sources.push(event.content.source.as_str().to_owned());
            names.types.push(event.content.event_type.as_str().to_owned());
        }
        names.plugins = state.plugins.values().map(|plugin| plugin.record.name.clone()).collect();
        for list in [&mut names.sources, &mut names.plugins, &mut names.types] {
            list.sort_unstable();
            list.dedup();
        }
        Ok(names)
    }

    pub(crate) async fn plugins(&self) -> Answer<Vec<PluginRecord>> {
        let state = self.state()?;
        let known = state.plugins.values().filter(|plugin| !plugin.forgotten);
        let mut records: Vec<_> = known.map(|plugin| plugin.record.clone()).collect();
        records.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(records)
    }

    pub(crate) async fn revisions(&self, plugin: PluginId) -> Answer<Vec<PluginRevision>> {
        let state = self.state()?;
        let own = state.revisions.iter().rev().filter(|(of, _)| *of == plugin);
        Ok(own.map(|(_, one)| one.clone()).take(REVISIONS).collect())
    }

    pub(crate) async fn catch_up_state(&self, source: SourceName) -> Answer<CatchUpState> {
        let state = self.state()?;
        let newest = state.events.values().rev().find(|event| event.content.source == source);
        let newest = newest.map(|event| event.content.received_at);
        let known = state.catching_up.get(&source).cloned().unwrap_or_default();
        Ok(CatchUpState { newest, ..known })
    }

    pub(crate) async fn knows(&self, source: SourceName, events: Vec<EventNames>) -> Answer<Vec<bool>> {
        let state = self.state()?;
        let has = |(id, second): &EventNames| {
            let is_second = |second| state.seconds.contains_key(&(source.clone(), second));
            state.seen.contains_key(&(source.clone(), id.clone())) || second.is_some_and(is_second)
        };
        Ok(events.iter().map(has).collect())
    }

    pub(crate) async fn heads_since(
        &self,
        source: SourceName,
        since: i64,
        before: Option<EventSeq>,
        own_ids: bool,
    ) -> Answer<StoredHeads> {
        let state = self.state()?;
        let wanted = |seq: EventSeq, event: &Event| {
            before.is_none_or(|before| seq < before)
                && event.content.source == source
                && nanos(event.content.received_at) >= since
        };
        let second = |seq| state.seconds.iter().find(|(_, of)| **of == seq).map(|((_, key), _)| *key);
        let found = state.events.iter().rev().filter(|(seq, event)| wanted(**seq, event));
        let heads = found.map(|(seq, event)| StoredHead {
            seq: *seq,
            id: event.content.id.as_str().to_owned(),
            second: second(*seq),
            own_id: second(*seq).map_or_else(|| own_id(&event.content.body), |_| None).filter(|_| own_ids),
            occurred_at: event.content.occurred_at,
            received_at: event.content.received_at,
        });
        Ok(StoredHeads { heads: heads.collect(), next: None })
    }

    pub(crate) async fn audit(&self, filter: AuditFilter) -> Answer<Vec<AuditEntry>> {
        let state = self.state()?;
        let wanted = |entry: &&AuditEntry| {
            filter.before.is_none_or(|before| entry.id.0 < before.0)
                && filter
                    .action
                    .as_ref()
                    .is_none_or(|action| format!(" {}", entry.action).contains(&format!(" {action}")))
                && filter.since.is_none_or(|since| entry.at >= since)
        };
        let found = state.audit.iter().rev().filter(wanted);
        Ok(found.take(page(filter.limit) as usize).cloned().collect())
    }

    pub(crate) async fn finished(&self, after: EventSeq, cutoff: i64, _: Cause) -> Answer<Finished> {
        let state = self.state()?;
        let old: Vec<_> = state
            .events
            .range(EventSeq(after.0 + 1)..)
            .take_while(|(_, event)| nanos(event.content.received_at) < cutoff)
            .map(|(seq, _)| *seq)
            .collect();
        let last = old.last().copied().unwrap_or(after);
        let events = old.into_iter().filter(|event| state.may_leave(*event)).collect();
        Ok(Finished { events, last, ended: true })
    }

    // The reads below are for charts, which this engine does not offer.

    pub(crate) async fn series(&self, _: i64, _: Duration, _: u32) -> Answer<Vec<Point>> {
        Ok(Vec::new())
    }

    pub(crate) async fn dead_groups(&self) -> Answer<Vec<DeadGroup>> {
        Ok(Vec::new())
    }

    pub(crate) async fn recent(&self, _: PluginId) -> Answer<Recent> {
        let (p50_ms, p95_ms, p99_ms) = (None, None, None);
        Ok(Recent { attempts: 0, failed: 0, p50_ms, p95_ms, p99_ms, revisions: Vec::new() })
    }

    pub(crate) async fn payloads(&self, _: Vec<DeliveryId>) -> Answer<HashMap<DeliveryId, Payloads>> {
        Ok(HashMap::new())
    }

    pub(crate) async fn last_events(&self) -> Answer<Vec<LastEvent>> {
        Ok(Vec::new())
    }
}

impl State {
    fn shown(&self, id: DeliveryId, one: &Delivery) -> Option<DeliverySummary> {
        let event = &self.events.get(&one.event)?.content;
        let record = &self.plugins.get(&one.plugin)?.record;
        let state = one.stage.shown(record.held.is_some());
        let blocked_by = one
            .order_key
            .as_ref()
            .filter(|_| one.stage == super::state::Stage::Blocked)
            .and_then(|key| self.of_key(one.plugin, key).next().map(|(id, _)| id));
        let waits_for_time = one.stage.may_run() || matches!(one.stage, super::state::Stage::Leased { .. });
        Some(DeliverySummary {
            id,
            event: event.id.as_str().to_owned(),
            source: event.source.as_str().to_owned(),
            event_type: event.event_type.as_str().to_owned(),
            plugin: record.name.clone(),
            state,
            held: record.held.clone().filter(|_| state == DeliveryState::Held),
            attempts: one.attempts,
            due_at: waits_for_time.then(|| timestamp(one.due_at)),
            made_at: timestamp(one.made_at),
            finished_at: one.finished_at.map(timestamp),
            error: one.error.clone(),
            replay_of: one.replay_of.flatten(),
            blocked_by,
        })
    }

    fn is_wanted(&self, id: DeliveryId, one: &Delivery, filter: &DeliveryFilter) -> bool {
        let (Some(event), Some(plugin)) = (self.events.get(&one.event), self.plugins.get(&one.plugin)) else {
            return false;
        };
        let at = timestamp(one.finished_at.unwrap_or(one.made_at));
        filter.before.is_none_or(|before| id < before)
            && filter.state.is_none_or(|state| one.stage.shown(plugin.record.held.is_some()) == state)
            && filter.plugin.as_ref().is_none_or(|name| *name == plugin.record.name)
            && filter.event.is_none_or(|event| one.event == event)
            && filter.event_type.as_ref().is_none_or(|pattern| pattern.matches(&event.content.event_type))
            && filter.source.as_deref().is_none_or(|source| event.content.source.as_str() == source)
            && filter
                .reason
                .as_deref()
                .is_none_or(|reason| cause(one.error.as_deref().unwrap_or_default()) == cause(reason))
            && filter.since.is_none_or(|since| at >= since)
            && filter.until.is_none_or(|until| at <= until)
    }

    fn shown_event(&self, seq: EventSeq) -> Option<EventSummary> {
        let event = &self.events.get(&seq)?.content;
        let mut deliveries = BTreeMap::new();
        for (_, one) in self.of_event(seq) {
            *deliveries.entry(one.stage.shown(self.is_held(one.plugin)).to_string()).or_default() += 1;
        }
        Some(EventSummary {
            seq,
            source: event.source.as_str().to_owned(),
            id: event.id.as_str().to_owned(),
            event_type: event.event_type.as_str().to_owned(),
            organization: event.organization.as_deref().map(str::to_owned),
            occurred_at: event.occurred_at,
            received_at: event.received_at,
            origin: self.origins.get(&seq).copied().unwrap_or(match event.depth {
                0 => EventOrigin::Webhook,
                _ => EventOrigin::Derived,
            }),
            bytes: event.body.len() as u64,
            deliveries,
        })
    }

    fn shown_history(&self, summary: EventSummary) -> EventDetail {
        let event = self.events.get(&summary.seq);
        let history = self.of_event(summary.seq).filter_map(|(id, one)| {
            let own = self.outbox.iter().filter(|(_, item)| item.delivery == id);
            Some(DeliveryDetail {
                summary: self.shown(id, one)?,
                attempt_log: one.log.clone(),
                outbox: own.map(|(id, item)| self.shown_item(*id, item)).collect(),
            })
        });
        EventDetail {
            history: history.collect(),
            trace: event.and_then(|event| event.content.trace).map(|trace| trace.trace_id()),
            content_type: event
                .and_then(|event| event.content.request.content_type.as_deref())
                .map(str::to_owned),
            headers: event.map_or_else(Vec::new, |event| event.content.request.headers.clone()),
            body: event
                .map_or_else(String::new, |event| String::from_utf8_lossy(&event.content.body).into_owned()),
            masked: false,
            summary,
        }
    }

    /// The items that a delivery or a decision staged.
    pub(super) fn items_of(&self, delivery: DeliveryId) -> Vec<OutboxSummary> {
        let own = self.outbox.iter().filter(|(_, item)| item.delivery == delivery);
        own.map(|(id, item)| self.shown_item(*id, item)).collect()
    }

    fn shown_item(&self, id: i64, item: &Item) -> OutboxSummary {
        let delivery = self.deliveries.get(&item.delivery);
        let event = delivery.and_then(|one| self.events.get(&one.event)).map(|event| &event.content);
        let decision = self.origin_of_decision(item.delivery);
        let decided = self.decisions.get(&item.delivery).and_then(|one| one.shown.summary.finished_at);
        OutboxSummary {
            id: OutboxId(id),
            delivery: item.delivery,
            event: event
                .map(|event| &event.id)
                .or(decision.as_ref().map(|one| &one.event))
                .map(ToString::to_string),
            source: event
                .map(|event| &event.source)
                .or(decision.as_ref().map(|one| &one.source))
                .map(ToString::to_string),
            plugin: self.plugins.get(&item.plugin).map(|plugin| plugin.record.name.clone()),
            head: item.item.head(),
            key: Some(item.item.key().to_owned()),
            state: item.stage.of_item(),
            attempts: item.attempts,
            staged_at: delivery.and_then(|one| one.finished_at).map(timestamp).or(decided),
            due_at: (!item.stage.is_finished()).then(|| timestamp(item.due_at)),
            finished_at: item.finished_at.map(timestamp),
            error: item.error.clone(),
        }
    }
}
