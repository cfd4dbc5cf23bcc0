//! Decisions of interceptors.

use std::sync::Arc;

use posthouse_model::{DecisionState, DeliveryId, EventId, NewEvent, Question, SourceName, Subscriber};

use super::{
    Work,
    reads::Reads,
    state::{Decided, State},
};

use crate::{
    Answer, Begun, Completed, DecisionDetail, DecisionFilter, DecisionRun, DecisionSummary, NewDecision,
    OpenDecision, Origin,
    decisions::{EncodedEnd, allows},
    op::Outcome,
    page,
    time::{nanos, timestamp},
};

/// An hour, in nanoseconds.
const HOUR: i64 = 3600 * 1_000_000_000;

impl Work {
    pub(super) fn begin_decision(&mut self, new: &NewDecision) -> Outcome {
        let same = |one: &&mut Arc<Decided>| {
            one.new.interceptor == new.interceptor && one.new.request == new.request
        };
        if let Some(known) = self.state.decisions.values_mut().find(same) {
            if let (Some(answer), true) =
                (&known.shown.summary.answer, known.shown.summary.state != DecisionState::Running)
            {
                return Outcome::Begun(Begun::Known { allows: allows(answer), answer: answer.clone() });
            }
            let known = Arc::make_mut(known);
            known.run += 1;
            known.new.plugin = new.plugin;
            let run = DecisionRun { decision: known.shown.summary.id, run: known.run };
            return Outcome::Begun(Begun::Now { run, may_have_run: true });
        }
        let decision = DeliveryId(self.state.next_id());
        let plugin = new.plugin.and_then(|plugin| self.state.plugins.get(&plugin));
        let summary = DecisionSummary {
            id: decision,
            interceptor: new.interceptor.clone(),
            request: new.request.as_str().to_owned(),
            trigger: new.trigger.as_str().to_owned(),
            plugin: plugin.map(|plugin| plugin.record.name.clone()),
            organization: new.organization.as_deref().map(str::to_owned),
            state: DecisionState::Running,
            allows: None,
            answer: None,
            cause: None,
            late: false,
            received_at: new.received_at,
            finished_at: None,
            took_us: None,
            error: None,
        };
        let shown = DecisionDetail {
            summary,
            revision: None,
            trace: None,
            logs: Vec::new(),
            actions: Vec::new(),
            body: String::from_utf8_lossy(&new.body).into_owned(),
            outbox: Vec::new(),
        };
        self.state.decisions.insert(decision, Arc::new(Decided { new: new.clone(), run: 1, shown }));
        Outcome::Begun(Begun::Now { run: DecisionRun { decision, run: 1 }, may_have_run: false })
    }

    pub(super) fn end_decision(&mut self, end: &EncodedEnd) -> Completed {
        let id = end.run.decision;
        let holds =
            self.state.decisions.get(&id).is_some_and(|one| {
                one.run == end.run.run && one.shown.summary.state == DecisionState::Running
            });
        if !holds {
            self.state.lost_leases += 1;
            return Completed::LostLease;
        }
        if let (Some(plugin), Some(effects)) = (end.plugin, &end.effects) {
            if !self.is_as_read(plugin, effects) {
                self.state.conflicts += 1;
                return Completed::Conflict;
            }
            self.take_effect((id, plugin), effects, &end.items, None);
        }
        let Some(row) = self.state.decisions.get_mut(&id) else { return Completed::LostLease };
        let shown = &mut Arc::make_mut(row).shown;
        let summary = &mut shown.summary;
        summary.state = end.state();
        (summary.allows, summary.cause) = (end.decided, end.cause);
        summary.answer = Some(end.answer.clone());
        summary.finished_at = Some(timestamp(self.now));
        summary.took_us = Some(end.took_us.unsigned_abs());
        summary.error.clone_from(&end.error);
        if let Some(record) = &end.record {
            shown.revision.clone_from(&record.revision);
            shown.trace.clone_from(&record.trace);
            let logs = record.logs.as_deref().and_then(|logs| serde_json::from_str(logs).ok());
            shown.logs = logs.unwrap_or_default();
            let actions = record.actions.as_deref().unwrap_or_default();
            shown.actions = actions.lines().map(str::to_owned).collect();
        }
        Completed::Written
    }

    pub(super) fn mark_late(
        &mut self,
        decision: DeliveryId,
        event: &NewEvent,
        subscribers: &[Subscriber],
    ) -> Outcome {
        let marks = |one: &Arc<Decided>| {
            let summary = &one.shown.summary;
            summary.state == DecisionState::Decided && !summary.late
        };
        let Some(row) = self.state.decisions.get_mut(&decision).filter(|row| marks(row)) else {
            return Outcome::Flag(false);
        };
        Arc::make_mut(row).shown.summary.late = true;
        self.take_in(event.clone(), None, subscribers);
        Outcome::Flag(true)
    }

    pub(super) fn remove_decisions(&mut self, cutoff: i64, most: u32) -> Outcome {
        let unsent = |id: &DeliveryId| {
            self.state.outbox.values().any(|item| item.delivery == *id && !item.stage.is_finished())
        };
        let old = |one: &Decided| {
            let received = nanos(one.new.received_at);
            let running = one.shown.summary.state == DecisionState::Running;
            received < if running { cutoff.saturating_sub(HOUR) } else { cutoff }
        };
        let old = self.state.decisions.iter().filter(|(id, one)| old(one) && !unsent(id)).map(|(id, _)| *id);
        let old: Vec<_> = old.take(most as usize).collect();
        for id in &old {
            self.state.decisions.remove(id);
            let items_left = &mut self.state.items_left;
            self.state.outbox.retain(|_, item| {
                if item.delivery == *id {
                    *items_left.entry(item.stage.of_item()).or_default() += 1;
                }
                item.delivery != *id
            });
        }
        Outcome::Count(old.len() as u64)
    }
}

impl State {
    /// The request that an item of a decision belongs to.
    pub(super) fn origin_of_decision(&self, decision: DeliveryId) -> Option<Origin> {
        let one = self.decisions.get(&decision)?;
        let source = SourceName::new(&format!("{}{}", Question::SOURCE, one.new.interceptor)).ok()?;
        let plugin = self.plugins.get(&one.new.plugin?)?.record.name.clone();
        Some(Origin { source, event: one.new.request.clone(), plugin })
    }
}

impl Reads {
    pub(crate) async fn decisions(&self, filter: DecisionFilter) -> Answer<Vec<DecisionSummary>> {
        let state = self.state()?;
        let wanted = |one: &&DecisionSummary| {
            filter.before.is_none_or(|before| one.id < before)
                && filter.interceptor.as_ref().is_none_or(|name| *name == one.interceptor)
                && filter.state.is_none_or(|state| state == one.state)
                && filter.allows.is_none_or(|allows| one.allows == Some(allows))
                && filter.id.as_ref().is_none_or(|id| *id == one.request || *id == one.id.to_string())
                && filter.since.is_none_or(|since| one.received_at >= since)
        };
        let rows = state.decisions.values().rev().map(|one| &one.shown.summary).filter(wanted);
        Ok(rows.take(page(filter.limit) as usize).cloned().collect())
    }

    pub(crate) async fn decision(&self, id: &str) -> Answer<Vec<DecisionDetail>> {
        let state = self.state()?;
        let wanted =
            |one: &&Arc<Decided>| one.shown.summary.request == id || one.shown.summary.id.to_string() == id;
        let shown = |one: &Arc<Decided>| DecisionDetail {
            outbox: state.items_of(one.shown.summary.id),
            ..one.shown.clone()
        };
        Ok(state.decisions.values().filter(wanted).map(shown).collect())
    }

    pub(crate) async fn open_decisions(&self) -> Answer<Vec<OpenDecision>> {
        let state = self.state()?;
        let running =
            state.decisions.iter().filter(|(_, one)| one.shown.summary.state == DecisionState::Running);
        let open = |(id, one): (&DeliveryId, &Arc<Decided>)| OpenDecision {
            decision: *id,
            interceptor: one.new.interceptor.clone(),
            request: EventId::clone(&one.new.request),
            trigger: one.new.trigger.clone(),
            plugin: one.new.plugin,
            organization: one.new.organization.as_deref().map(str::to_owned),
            received_at: one.new.received_at,
            body: one.new.body.clone(),
        };
        Ok(running.map(open).collect())
    }
}
