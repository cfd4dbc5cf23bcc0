//! Operators' queries: a search stops in time and continues where it stopped, events are counted per minute,
//! dead letters are grouped by cause, and operators' actions are recorded.

use std::time::Duration;

use posthouse_model::{DeliveryState, EventSeq, Orders, PluginId, SourceName};

use super::support::*;

use crate::{AuditFilter, DeliveryFilter, EventFilter, Verdict};

pub(super) async fn a_text_is_found_whatever_its_case_and_an_id_at_once(on: On) {
    let fixture = Fixture::new(on);
    for n in 0..20 {
        let mut event = fixture.event(n);
        if n % 7 == 3 {
            event.body = format!(r#"{{"email":"Ada{n}@Example.com"}}"#).into_bytes().into();
        }
        fixture.store.accept(event, Vec::<PluginId>::new()).await.unwrap();
        fixture.clock.advance(Duration::from_secs(60));
    }
    let all = EventFilter::default;
    let found = async |filter| -> Vec<String> {
        fixture.store.events(filter).await.unwrap().into_iter().map(|event| event.id).collect()
    };
    let text = |text: &str| EventFilter { text: Some(text.to_owned()), ..all() };
    assert_eq!(found(text("ada1")).await, ["17", "10"]);
    assert_eq!(found(text("@EXAMPLE.COM")).await, ["17", "10", "3"]);
    assert!(found(text("%")).await.is_empty());
    assert_eq!(found(EventFilter { limit: 1, ..text("example") }).await, ["17"]);
    let until = fixture.now() - Duration::from_secs(5 * 60);
    assert_eq!(found(EventFilter { until: Some(until), ..text("example") }).await, ["10", "3"]);

    let id = |id: &str| EventFilter { id: Some(id.to_owned()), ..all() };
    assert_eq!(found(id("10")).await, ["10"]);
    assert!(found(id("20")).await.is_empty());
    assert!(found(EventFilter { source: Some("other".into()), ..id("10") }).await.is_empty());
    assert!(found(EventFilter { text: Some("nowhere".into()), ..id("10") }).await.is_empty());
}

pub(super) async fn a_search_out_of_time_says_where_it_stopped_and_the_next_goes_on_there(on: On) {
    let fixture = Fixture::new(on);
    for n in 0..400 {
        fixture.store.accept(fixture.event(n), Vec::<PluginId>::new()).await.unwrap();
    }
    let (mut before, mut ids, mut calls) = (None, Vec::new(), 0);
    loop {
        let filter =
            EventFilter { text: Some("\"id\":\"7".into()), before, limit: 1000, ..EventFilter::default() };
        let page = fixture.store.search(filter, Duration::ZERO).await.unwrap();
        ids.extend(page.events.into_iter().map(|event| event.id));
        calls += 1;
        match page.next {
            Some(next) => {
                assert!(page.looked_to.is_some() && before.is_none_or(|before| next < before));
                before = Some(next);
            }
            None => break,
        }
    }
    let expected: Vec<_> = (0..400).rev().map(|n| n.to_string()).filter(|n| n.starts_with('7')).collect();
    assert_eq!(ids, expected);
    assert!(calls > 2, "{calls} calls: nothing was out of time");
}

pub(super) async fn every_minute_is_counted_over_a_restart_too(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 8).await.unwrap();
    for n in 0..3 {
        fixture.accept(n, &[plugin]).await;
    }
    for verdict in [Verdict::Done(effects(&[])), Verdict::Dead] {
        fixture.finish(next(&mut lane).await, verdict).await;
    }
    fixture.store.flush().await.unwrap();
    drop(lane);
    let fixture = fixture.reopened().await;
    fixture.accept("again", &[plugin]).await;
    fixture.clock.advance(Duration::from_secs(120));
    fixture.accept("later", &[plugin]).await;

    let points = fixture.store.series(Duration::from_secs(600), 10).await.unwrap();
    assert_eq!(points.len(), 10);
    let told: Vec<_> =
        points.iter().map(|p| (p.minutes, p.events, p.made, p.completed, p.failed, p.unfinished)).collect();
    assert_eq!(told[6..], [(1, 0, 0, 0, 0, 0), (1, 4, 4, 1, 1, 2), (1, 0, 0, 0, 0, 2), (1, 1, 1, 0, 0, 3)]);
    assert!(points[7].p50_ms.is_some_and(|ms| (1.3..1.7).contains(&ms)), "{points:?}");

    let day = fixture.store.series(Duration::from_secs(86_400), 60).await.unwrap();
    assert_eq!((day.len(), day.last().unwrap().minutes), (60, 24));
    assert_eq!(day.iter().map(|point| point.events).sum::<u64>(), 5);
}

const SERVER: &str = "no server for … (… tries)";

pub(super) async fn dead_letters_are_grouped_by_plugin_and_cause_and_a_group_is_replayed_alone(on: On) {
    let fixture = Fixture::new(on);
    let (a, b) = (fixture.plugin("a").await, fixture.plugin("b").await);
    let mut lanes =
        [fixture.store.open_lane(a, 8).await.unwrap(), fixture.store.open_lane(b, 8).await.unwrap()];
    for n in 0..4 {
        fixture.accept(n, &[a, b]).await;
    }
    for (at, lane) in lanes.iter_mut().enumerate() {
        for n in 0..4 {
            let job = next(lane).await;
            let mut attempt = fixture.attempt(&job, &Verdict::Dead);
            let event = &job.event.content.id;
            attempt.error = Some(match (at, n) {
                (0, 0) => "odd".to_owned(),
                _ => format!("no server for {event} ({} tries)", 10 + n),
            });
            fixture.store.complete(job, attempt, Verdict::Dead).await.unwrap();
        }
    }
    fixture.store.flush().await.unwrap();
    let told = async || -> Vec<_> {
        let groups = fixture.store.dead_groups().await.unwrap();
        groups.into_iter().map(|g| (g.plugin, g.reason, g.count, g.to_replay)).collect()
    };
    let group = |plugin: &str, reason: &str, count, left| (plugin.to_owned(), reason.to_owned(), count, left);
    assert_eq!(told().await, [group("b", SERVER, 4, 4), group("a", SERVER, 3, 3), group("a", "odd", 1, 1)]);
    let newest = fixture.store.dead_groups().await.unwrap()[0].clone();
    let whole = fixture.store.deliveries(DeliveryFilter::default()).await.unwrap();
    let whole = whole.into_iter().find(|delivery| delivery.id == newest.newest).unwrap().error.unwrap();
    assert!(whole.contains("(13 tries)") && newest.example == whole, "the whole reason is kept: {whole}");
    let filter = DeliveryFilter {
        state: Some(DeliveryState::Dead),
        plugin: Some("a".into()),
        // Any reason of the group means the group, and so does its cause.
        reason: Some("no server for evt_9 (999 tries)".into()),
        ..DeliveryFilter::default()
    };
    let by_cause = DeliveryFilter { reason: Some(SERVER.into()), limit: 2, ..filter.clone() };
    assert_eq!(fixture.store.count_deliveries(by_cause.clone()).await.unwrap(), 2, "its limit");
    assert_eq!(fixture.store.deliveries(by_cause).await.unwrap().len(), 2);
    assert_eq!(fixture.store.count_deliveries(filter.clone()).await.unwrap(), 3);
    assert_eq!(fixture.store.replay_deliveries(filter.clone(), Orders::new()).await.unwrap(), 3);
    assert_eq!(fixture.store.count_deliveries(filter).await.unwrap(), 0);
    assert_eq!(told().await[2], group("a", SERVER, 3, 0));
}

pub(super) async fn the_newest_event_of_each_source_is_known(on: On) {
    let fixture = Fixture::new(on);
    fixture.accept("one", &[]).await;
    let mut other = fixture.event("two");
    other.source = SourceName::new("other").unwrap();
    fixture.store.accept(other, Vec::<PluginId>::new()).await.unwrap();
    fixture.clock.advance(Duration::from_secs(5));
    fixture.accept("three", &[]).await;
    let fixture = fixture.reopened().await;
    let last = fixture.store.last_events().await.unwrap();
    let told: Vec<_> = last.iter().map(|e| (e.source.as_str(), e.seq, e.id.as_deref())).collect();
    assert_eq!(told, [("other", EventSeq(2), Some("two")), ("scalekit", EventSeq(3), Some("three"))]);
    assert_eq!(last[1].received_at, fixture.now());
}

pub(super) async fn what_an_operator_does_is_on_disk_before_it_is_done(on: On) {
    let fixture = Fixture::new(on);
    let first = fixture.store.audit_begin("token", "pause plugin", "counter").await.unwrap();
    let fixture = fixture.crashed();
    let second = fixture.store.audit_begin("token", "resume plugin", &"ü".repeat(400)).await.unwrap();
    fixture.store.audit_end(second, "done").await.unwrap();
    let entries = fixture.store.audit(AuditFilter::default()).await.unwrap();
    assert_eq!(entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), [second, first]);
    assert_eq!((entries[0].outcome.as_deref(), entries[1].outcome.as_deref()), (Some("done"), None));
    assert!(entries[0].target.len() <= 500);
    let filter = AuditFilter { action: Some("pause plugin".into()), ..AuditFilter::default() };
    assert_eq!(fixture.store.audit(filter).await.unwrap().len(), 1);
    let filter = AuditFilter { before: Some(second), limit: 1, ..AuditFilter::default() };
    assert_eq!(fixture.store.audit(filter).await.unwrap()[0].id, first);
}

pub(super) async fn types_are_counted_over_a_day(on: On) {
    let fixture = Fixture::new(on);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 1).await.unwrap();
    for n in 0..6 {
        fixture.accept(n, &[plugin]).await;
        let job = next(&mut lane).await;
        let verdict = if n < 4 { Verdict::Done(effects(&[])) } else { Verdict::Dead };
        let mut attempt = fixture.attempt(&job, &verdict);
        attempt.duration = Duration::from_millis(if n == 3 { 100 } else { 10 });
        fixture.store.complete(job, attempt, verdict).await.unwrap();
        fixture.store.flush().await.unwrap();
        fixture.clock.advance(Duration::from_secs(3600));
    }
    let fixture = fixture.reopened().await;
    let of_type = fixture.store.stats().await.unwrap().by_type.remove(0);
    assert_eq!(of_type.event_type, "user.created");
    assert_eq!((of_type.total, of_type.completed, of_type.failed), (6, 4, 2));
    let (average, p99) = (of_type.average_ms.unwrap(), of_type.p99_ms.unwrap());
    assert!((average - 25.0).abs() < 1e-9, "{average}");
    assert!((0.9..=1.0).contains(&(p99 / 100.0)), "{p99}");
    // The first two hours are out of the day.
    fixture.clock.advance(Duration::from_secs(19 * 3600 + 1));
    let of_type = fixture.store.stats().await.unwrap().by_type.remove(0);
    assert_eq!((of_type.total, of_type.completed, of_type.failed), (4, 2, 2));
    fixture.clock.advance(Duration::from_secs(24 * 3600));
    assert!(fixture.store.stats().await.unwrap().by_type.is_empty());
}
