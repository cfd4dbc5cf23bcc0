//! Keys and values: an attempt takes effect as if it had run alone, or runs again.

use std::collections::BTreeMap;

use posthouse_model::{Effects, Job, KvRead, KvWrite, PluginId};

use super::support::*;

use crate::Lane;

async fn lane_with(fixture: &Fixture, events: usize) -> (PluginId, Lane, Vec<Job>) {
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 64).await.unwrap();
    let mut jobs = Vec::new();
    for n in 0..events {
        fixture.accept(n, &[plugin]).await;
        jobs.push(next(&mut lane).await);
    }
    (plugin, lane, jobs)
}

async fn text(fixture: &Fixture, plugin: PluginId, key: &str) -> Option<String> {
    fixture.store.kv_get(plugin, key).await.unwrap().map(|(value, _)| String::from_utf8(value).unwrap())
}

pub(super) async fn effects_are_there_with_done_also_after_a_crash(on: On) {
    let fixture = Fixture::new(on);
    let (plugin, lane, mut jobs) = lane_with(&fixture, 1).await;
    fixture.done(jobs.remove(0), effects(&[("a", set("1")), ("b", set("22"))])).await;
    assert_eq!(lane.outstanding(), 0);
    let found = fixture.crashed();
    assert_eq!(found.states().await, ["done"]);
    assert_eq!(
        (text(&found, plugin, "a").await, text(&found, plugin, "b").await),
        (Some("1".into()), Some("22".into()))
    );
    assert_eq!((fixture.store.kv_bytes(plugin), found.store.kv_bytes(plugin)), (5, 5));
}

pub(super) async fn what_was_read_and_has_changed_makes_the_attempt_run_again(on: On) {
    let fixture = Fixture::new(on);
    let (plugin, mut lane, mut jobs) = lane_with(&fixture, 2).await;
    let (first, second) = (jobs.remove(0), jobs.remove(0));
    fixture.done(first, effects(&[("k", set("first"))])).await;
    // Read before the first committed: the key was not there.
    fixture.done(second, saw(effects(&[("k", set("second")), ("other", set("x"))]), "k", None)).await;
    let again = next(&mut lane).await;
    assert_eq!((again.attempt, again.conflicts), (1, 1));
    assert_eq!(
        (text(&fixture, plugin, "k").await, text(&fixture, plugin, "other").await),
        (Some("first".into()), None)
    );

    let (_, version) = fixture.store.kv_get(plugin, "k").await.unwrap().unwrap();
    fixture.done(again, saw(effects(&[("k", set("second"))]), "k", Some(version))).await;
    assert_eq!(text(&fixture, plugin, "k").await.as_deref(), Some("second"));
    let stats = fixture.store.stats().await.unwrap();
    assert_eq!(stats.conflicts, 1);
    assert_eq!(fixture.store.event(None, "1").await.unwrap()[0].history[0].attempt_log.len(), 1);
    fixture.assert_balanced().await;
}

pub(super) async fn a_key_that_went_and_came_back_has_changed(on: On) {
    let fixture = Fixture::new(on);
    let (plugin, mut lane, mut jobs) = lane_with(&fixture, 4).await;
    fixture.done(jobs.remove(0), effects(&[("k", set("x"))])).await;
    let (_, version) = fixture.store.kv_get(plugin, "k").await.unwrap().unwrap();
    fixture.done(jobs.remove(0), effects(&[("k", KvWrite::Delete)])).await;
    assert_eq!(fixture.store.kv_bytes(plugin), 0);
    fixture.done(jobs.remove(0), effects(&[("k", set("x"))])).await;
    fixture.done(jobs.remove(0), saw(effects(&[]), "k", Some(version))).await;
    assert_eq!(next(&mut lane).await.conflicts, 1);
}

pub(super) async fn a_listing_that_would_come_out_otherwise_is_a_conflict(on: On) {
    let fixture = Fixture::new(on);
    let (plugin, mut lane, mut jobs) = lane_with(&fixture, 5).await;
    fixture
        .done(
            jobs.remove(0),
            effects(&[("a", set("")), ("u/1", set("x")), ("u/2", set("y")), ("v", set(""))]),
        )
        .await;
    let listed = async |prefix: &str, after: Option<&str>, limit| -> Vec<_> {
        fixture
            .store
            .kv_list(plugin, prefix, after, limit)
            .await
            .unwrap()
            .into_iter()
            .map(|(k, _, v)| (k, v))
            .collect()
    };
    let keys = |found: &[(String, _)]| found.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    assert_eq!(keys(&listed("u/", None, 10).await), ["u/1", "u/2"]);
    assert_eq!(keys(&listed("u/", None, 1).await), ["u/1"]);
    assert_eq!(keys(&listed("u/", Some("u/1"), 10).await), ["u/2"]);
    assert_eq!(keys(&listed("u/", Some("a"), 10).await), ["u/1", "u/2"]);
    assert_eq!(keys(&listed("", Some("u/2"), 10).await), ["v"]);

    let read = async |limit| KvRead::List {
        prefix: "u/".to_owned(),
        after: None,
        limit,
        found: listed("u/", None, limit).await,
    };
    let (all, first) = (read(10).await, read(1).await);
    // Both in one batch: the second sees what the first has just written.
    let mut unaffected = effects(&[("u/3", set("z"))]);
    unaffected.reads = vec![all.clone()];
    let late = Effects { reads: vec![all], ..Effects::default() };
    let bounded = Effects { reads: vec![first], ..Effects::default() };
    let (one, two, three) = (jobs.remove(0), jobs.remove(0), jobs.remove(0));
    let id = two.delivery;
    for (job, effects) in [(one, unaffected), (two, late), (three, bounded)] {
        fixture.finish(job, crate::Verdict::Done(effects)).await;
    }
    fixture.store.flush().await.unwrap();
    assert_eq!(next(&mut lane).await.delivery, id);
    assert_quiet(&mut lane).await;
    assert_eq!(fixture.store.stats().await.unwrap().conflicts, 1);
}

pub(super) async fn increments_commute_and_refuse_what_is_no_number(on: On) {
    let fixture = Fixture::new(on);
    let (plugin, mut lane, mut jobs) = lane_with(&fixture, 40).await;
    for job in jobs.drain(..37) {
        fixture.finish(job, crate::Verdict::Done(effects(&[("n", KvWrite::Add(3))]))).await;
    }
    fixture.store.flush().await.unwrap();
    assert_eq!(text(&fixture, plugin, "n").await.as_deref(), Some("111"));
    assert_eq!(fixture.store.stats().await.unwrap().conflicts, 0);

    fixture.done(jobs.remove(0), effects(&[("n", KvWrite::Add(i64::MAX))])).await;
    assert_eq!(next(&mut lane).await.conflicts, 1, "the sum would leave 64 bits");
    fixture.done(jobs.remove(0), effects(&[("n", set("many"))])).await;
    fixture.done(jobs.remove(0), effects(&[("n", KvWrite::Add(1))])).await;
    assert_eq!(next(&mut lane).await.conflicts, 1, "it is no number");
    assert_eq!(text(&fixture, plugin, "n").await.as_deref(), Some("many"));
}

pub(super) async fn the_limit_holds_at_the_commit(on: On) {
    let fixture = Fixture::new(on);
    let (plugin, mut lane, mut jobs) = lane_with(&fixture, 3).await;
    let limited = |key: &str, size: usize| Effects {
        kv_limit: Some(100),
        ..effects(&[(key, KvWrite::Set(vec![b'x'; size]))])
    };
    fixture.done(jobs.remove(0), limited("a", 60)).await;
    fixture.done(jobs.remove(0), limited("b", 60)).await;
    assert_eq!(next(&mut lane).await.conflicts, 1);
    assert_eq!(fixture.store.kv_bytes(plugin), 61);
    fixture.done(jobs.remove(0), limited("a", 20)).await;
    assert_eq!(fixture.store.kv_bytes(plugin), 21);
}

pub(super) async fn plugins_do_not_see_one_another(on: On) {
    let fixture = Fixture::new(on);
    let (plugin, _lane, mut jobs) = lane_with(&fixture, 1).await;
    fixture.done(jobs.remove(0), effects(&[("k", set("1"))])).await;
    let other = fixture.plugin("b").await;
    assert_eq!(text(&fixture, plugin, "k").await.as_deref(), Some("1"));
    assert_eq!(text(&fixture, other, "k").await, None);
    assert!(fixture.store.kv_list(other, "", None, 10).await.unwrap().is_empty());
}

/// Attempts that read, write and increment at random, many at once, with conflicts run again: in the
/// end the keys are what the attempts make of them one after another, in the order of their commits.
pub(super) async fn attempts_take_effect_as_if_one_after_another(on: On) {
    let random = Seeded::new(seed());
    let fixture = Fixture::new(on);
    let (plugin, mut lane, jobs) = lane_with(&fixture, 60).await;
    // The work of each attempt: move an amount from one account to another, reading both, and count.
    let accounts = ["a", "b", "c"];
    let read = async |key: &str| {
        let found = fixture.store.kv_get(plugin, key).await.unwrap();
        let amount =
            found.as_ref().map_or(0, |(value, _)| String::from_utf8_lossy(value).parse::<i64>().unwrap());
        (amount, found.map(|(_, version)| version))
    };
    let transfer = async |from: &str, to: &str, amount: i64| {
        let ((has, seen_from), (gets, seen_to)) = (read(from).await, read(to).await);
        let mut effects = effects(&[
            (from, set(&(has - amount).to_string())),
            (to, set(&(gets + amount).to_string())),
            ("count", KvWrite::Add(1)),
        ]);
        for (key, version) in [(from, seen_from), (to, seen_to)] {
            effects.reads.push(KvRead::Key { key: key.to_owned(), version });
        }
        effects
    };
    let mut expected: BTreeMap<&str, i64> = BTreeMap::new();
    let mut plans = BTreeMap::new();
    for job in &jobs {
        let from = random.below(3) as usize;
        let to = (from + 1 + random.below(2) as usize) % 3;
        let amount = random.below(100) as i64;
        plans.insert(job.delivery, (accounts[from], accounts[to], amount));
        *expected.entry(accounts[from]).or_default() -= amount;
        *expected.entry(accounts[to]).or_default() += amount;
    }
    let mut jobs = jobs;
    while !jobs.is_empty() {
        // Several have read before the first of them commits.
        let wave: Vec<Job> = jobs.drain(..jobs.len().min(1 + random.below(6) as usize)).collect();
        let mut staged = Vec::new();
        for job in wave {
            let (from, to, amount) = plans[&job.delivery];
            staged.push((job, transfer(from, to, amount).await));
        }
        let before = lane.outstanding();
        let count = staged.len();
        for (job, effects) in staged {
            fixture.finish(job, crate::Verdict::Done(effects)).await;
        }
        fixture.store.flush().await.unwrap();
        let conflicts = count - (before - lane.outstanding());
        assert!(conflicts < count, "the first of a wave always commits");
        for _ in 0..conflicts {
            jobs.push(next(&mut lane).await);
        }
    }
    for (account, amount) in expected {
        assert_eq!(read(account).await.0, amount, "{account}");
    }
    assert_eq!(read("count").await.0, 60);
    fixture.assert_balanced().await;
}
