//! Decisions of interceptors.

use std::time::Duration;

use posthouse_model::{
    DecisionState, DeliveryId, Effects, EventId, EventType, Fallback, KvWrite, PluginId, Ruling,
};

use super::support::*;
use crate::{
    Begun, Completed, DecidedBy, DecisionEnd, DecisionFilter, DecisionRun, NewDecision, OutboxFilter,
};

impl Fixture {
    fn asked(&self, request: &str, plugin: PluginId) -> NewDecision {
        NewDecision {
            interceptor: "signup".to_owned(),
            request: EventId::new(request).unwrap(),
            trigger: EventType::new("PRE_SIGNUP").unwrap(),
            plugin: Some(plugin),
            organization: Some("org_1".into()),
            received_at: self.now(),
            body: format!(r#"{{"trigger_point":"PRE_SIGNUP","n":"{request}"}}"#).into(),
        }
    }

    /// Begins a decision that is new or did not end.
    async fn begin(&self, request: &str, plugin: PluginId) -> (DecisionRun, bool) {
        match self.store.begin_decision(self.asked(request, plugin)).await.unwrap() {
            Begun::Now { run, may_have_run } => (run, may_have_run),
            known => panic!("{known:?}"),
        }
    }

    async fn end(&self, run: DecisionRun, plugin: PluginId, how: DecidedBy) -> Completed {
        let sent = Ruling::plain(matches!(how, DecidedBy::Plugin { allows: true, .. }));
        let took = Duration::from_millis(5);
        let end = DecisionEnd { run, plugin: Some(plugin), how, sent, took, attempt: None, error: None };
        self.store.end_decision(end).await.unwrap()
    }
}

fn decided(allows: bool, effects: Effects) -> DecidedBy {
    DecidedBy::Plugin { allows, effects }
}

pub(super) async fn a_decision_takes_effect_once_and_its_answer_is_known_afterwards(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("policy").await;
    let (run, may_have_run) = fixture.begin("req_1", plugin).await;
    assert!(!may_have_run);
    let effects = Effects { outbox: vec![mail("ada@example.com")], ..effects(&[("seats", set("1"))]) };
    assert_eq!(fixture.end(run, plugin, decided(true, effects.clone())).await, Completed::Written);
    assert_eq!(fixture.end(run, plugin, decided(true, effects)).await, Completed::LostLease, "once");

    for fixture in [fixture.crashed(), fixture] {
        assert_eq!(fixture.store.kv_get(plugin, "seats").await.unwrap().unwrap().0, b"1");
        let asked = fixture.asked("req_1", plugin);
        let known = Begun::Known { allows: true, answer: r#"{"decision":"ALLOW"}"#.to_owned() };
        assert_eq!(fixture.store.begin_decision(asked.clone()).await.unwrap(), known);
        let elsewhere = NewDecision { interceptor: "session".to_owned(), ..asked };
        assert!(matches!(fixture.store.begin_decision(elsewhere).await.unwrap(), Begun::Now { .. }));

        let items = fixture.store.outbox(OutboxFilter::default()).await.unwrap();
        assert_eq!(items.len(), 1);
        assert_eq!((items[0].delivery, items[0].event.as_deref()), (run.decision, Some("req_1")));
        assert_eq!(items[0].source.as_deref(), Some("interceptor:signup"));
        let origin = fixture.store.origin(run.decision).await.unwrap().unwrap();
        assert_eq!((origin.source.as_str(), origin.event.as_str()), ("interceptor:signup", "req_1"));
        // Its marker may go, and no delivery has its number.
        let all = vec![run.decision, DeliveryId(7)];
        assert_eq!(fixture.store.done_among(all.clone()).await.unwrap(), [run.decision]);
        assert_eq!(fixture.store.dead_among(all).await.unwrap(), []);
        fixture.accept("evt_1", &[plugin]).await;
        let mut lane = fixture.store.open_lane(plugin, 8).await.unwrap();
        assert_ne!(next(&mut lane).await.delivery, run.decision);
    }
}

pub(super) async fn a_decision_that_did_not_end_begins_again_with_its_number(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("policy").await;
    let (first, _) = fixture.begin("req_1", plugin).await;
    let fixture = fixture.crashed();
    let open = fixture.store.open_decisions().await.unwrap();
    assert_eq!(open.len(), 1);
    assert_eq!((open[0].decision, open[0].request.as_str()), (first.decision, "req_1"));
    assert_eq!((open[0].plugin, open[0].organization.as_deref()), (Some(plugin), Some("org_1")));
    assert_eq!(fixture.store.done_among(vec![first.decision]).await.unwrap(), []);

    let (second, may_have_run) = fixture.begin("req_1", plugin).await;
    assert_eq!((second.decision, may_have_run), (first.decision, true));
    let effects = || effects(&[("seats", KvWrite::Add(1))]);
    assert_eq!(fixture.end(first, plugin, decided(true, effects())).await, Completed::LostLease);
    assert_eq!(fixture.end(second, plugin, decided(true, effects())).await, Completed::Written);
    assert_eq!(fixture.store.kv_get(plugin, "seats").await.unwrap().unwrap().0, b"1");
    assert!(fixture.store.open_decisions().await.unwrap().is_empty());
}

pub(super) async fn what_changed_meanwhile_is_a_conflict_and_a_fallback_leaves_nothing(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("policy").await;
    let (one, _) = fixture.begin("req_1", plugin).await;
    let (two, _) = fixture.begin("req_2", plugin).await;
    let taken = || saw(effects(&[("seats", set("1"))]), "seats", None);
    assert_eq!(fixture.end(one, plugin, decided(true, taken())).await, Completed::Written);
    assert_eq!(fixture.end(two, plugin, decided(true, taken())).await, Completed::Conflict);
    let fallback = DecidedBy::Fallback(Fallback::Conflict);
    assert_eq!(fixture.end(two, plugin, fallback).await, Completed::Written);
    let shown = fixture.store.decision("req_2").await.unwrap().remove(0).summary;
    assert_eq!((shown.state, shown.allows), (DecisionState::Fallback, None));
    assert_eq!(
        (shown.cause, shown.answer.as_deref()),
        (Some(Fallback::Conflict), Some(r#"{"decision":"DENY"}"#))
    );
    let known = fixture.store.begin_decision(fixture.asked("req_2", plugin)).await.unwrap();
    assert_eq!(known, Begun::Known { allows: false, answer: r#"{"decision":"DENY"}"#.to_owned() });
}

pub(super) async fn a_late_decision_is_marked_once_with_its_event(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("policy").await;
    let (run, _) = fixture.begin("req_1", plugin).await;
    let mark = || fixture.store.mark_late(run.decision, fixture.event("late_1"), vec![plugin.into()]);
    assert!(!mark().await.unwrap(), "it is under way");
    fixture.end(run, plugin, decided(true, Effects::default())).await;
    assert!(mark().await.unwrap());
    assert!(!mark().await.unwrap(), "once");
    assert!(fixture.store.decision("req_1").await.unwrap()[0].summary.late);
    let mut lane = fixture.store.open_lane(plugin, 8).await.unwrap();
    assert_eq!(next(&mut lane).await.event.content.id.as_str(), "late_1");
    assert_quiet(&mut lane).await;
}

pub(super) async fn decisions_are_listed_newest_first_and_found_by_id(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("policy").await;
    for n in 0..5 {
        let (run, _) = fixture.begin(&format!("req_{n}"), plugin).await;
        if n < 4 {
            fixture.end(run, plugin, decided(n % 2 == 0, Effects::default())).await;
        }
        fixture.clock.advance(Duration::from_secs(1));
    }
    let listed = async |filter: DecisionFilter| -> Vec<String> {
        let found = fixture.store.decisions(filter).await.unwrap();
        found.into_iter().map(|one| one.request).collect()
    };
    let all = DecisionFilter::default;
    assert_eq!(listed(all()).await, ["req_4", "req_3", "req_2", "req_1", "req_0"]);
    let first = fixture.store.decisions(DecisionFilter { limit: 2, ..all() }).await.unwrap();
    let next = DecisionFilter { before: first.last().map(|one| one.id), ..all() };
    assert_eq!(listed(next).await, ["req_2", "req_1", "req_0"]);
    assert_eq!(listed(DecisionFilter { allows: Some(false), ..all() }).await, ["req_3", "req_1"]);
    assert_eq!(listed(DecisionFilter { state: Some(DecisionState::Running), ..all() }).await, ["req_4"]);
    assert!(listed(DecisionFilter { interceptor: Some("session".to_owned()), ..all() }).await.is_empty());
    let number = first[0].id.to_string();
    assert_eq!(listed(DecisionFilter { id: Some(number.clone()), ..all() }).await, ["req_4"]);
    let since = fixture.now() - jiff::SignedDuration::from_secs(2);
    assert_eq!(listed(DecisionFilter { since: Some(since), ..all() }).await, ["req_4", "req_3"]);
    let shown = fixture.store.decision(&number).await.unwrap().remove(0);
    assert_eq!(shown.body, r#"{"trigger_point":"PRE_SIGNUP","n":"req_4"}"#);
    assert_eq!(
        (shown.summary.trigger.as_str(), shown.summary.plugin.as_deref()),
        ("PRE_SIGNUP", Some("policy"))
    );
    assert!(fixture.store.decision("req_9").await.unwrap().is_empty());
}

pub(super) async fn old_decisions_leave_and_their_ids_with_them(on: On) {
    let fixture = Fixture::with(on, |options| options.retention = Duration::from_secs(3600));
    let plugin = fixture.plugin("policy").await;
    let (plain, _) = fixture.begin("req_plain", plugin).await;
    fixture.end(plain, plugin, decided(true, Effects::default())).await;
    let (mailing, _) = fixture.begin("req_mailing", plugin).await;
    let effects = Effects { outbox: vec![mail("ada@example.com")], ..Effects::default() };
    fixture.end(mailing, plugin, decided(true, effects)).await;
    fixture.begin("req_open", plugin).await;
    assert_eq!(fixture.store.prune().await.unwrap(), 0);
    fixture.clock.advance(Duration::from_secs(3601));
    assert_eq!(fixture.store.prune().await.unwrap(), 1, "one has an unsent mail, one is under way");
    assert!(!fixture.begin("req_plain", plugin).await.1, "the id is new");
    fixture.clock.advance(Duration::from_secs(3600));
    assert_eq!(fixture.store.prune().await.unwrap(), 1, "it can't be under way any more");
}
