//! Collects each number from its source.
//!
//! If one source cannot answer, such as the store's tables, its numbers are left out and the others are still
//! returned: metrics are needed most when something is wrong.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use jiff::Timestamp;
use posthouse_guest::plugin::Plugin;
use posthouse_model::{
    BreakerState, CatchUpStatus, DecisionCounts, DeliveryState, HeldReason, HistogramCounts, PluginId,
    RequestCounts, Usage,
};
use posthouse_store::{PluginRecord, StoreMeters, StoreStats};
use tokio::{task::spawn_blocking, time::timeout};

use super::{names::*, sheet::Sheet};

use crate::admin::{Admin, api::health::ANSWER};

/// The label of all types without a sample.
const OTHER: &str = "other";

/// The outcomes of sending an item, in the order in which the store counts them.
const SENDINGS: [&str; 3] = ["sent", "retry", "dead"];

/// Collects all metrics.
pub(super) async fn collect(admin: &Admin) -> Sheet {
    let store = &admin.0.store;
    let (ailments, leased, stats, unsent, process) = tokio::join!(
        admin.ailments(),
        timeout(ANSWER, store.oldest_leased()),
        store.stats(),
        store.unsent(),
        spawn_blocking(Process::read),
    );
    let mut sheet = Sheet::default();
    let list = admin.0.registry.list();
    let plugins: Vec<PluginRecord> = list.iter().map(|plugin| plugin.record.clone()).collect();
    daemon(&mut sheet, admin, ailments.is_empty());
    if let Ok(process) = process {
        process.tell(&mut sheet);
    }
    for (source, ledger) in (admin.0.ledgers)() {
        requests(&mut sheet, &source, &ledger.snapshot());
    }
    for (source, status) in (admin.0.senders.catch_ups.statuses)() {
        catching_up(&mut sheet, &source, &status);
    }
    for (interceptor, (counts, times)) in admin.0.decided.snapshot() {
        decisions(&mut sheet, &interceptor, &counts, times);
    }
    for plugin in &list {
        standing(&mut sheet, admin, plugin);
    }
    pools(&mut sheet, admin);
    counted(&mut sheet, store.meters(), &plugins);
    match stats {
        Ok(stats) => {
            let leased = leased.ok().and_then(Result::ok).unwrap_or_default().into_iter().collect();
            ledger(&mut sheet, &stats, &plugins, &leased, admin.0.env.now());
        }
        Err(error) => tracing::debug!(%error, "the scrape lacks the metrics that the store's tables provide"),
    }
    if let Ok(unsent) = unsent {
        for (kind, count) in unsent {
            sheet.level(&UNSENT, [kind.as_str()], count as f64);
        }
    }
    sheet
}

/// The daemon as a whole, and the state of its store.
fn daemon(sheet: &mut Sheet, admin: &Admin, healthy: bool) {
    let store = &admin.0.store;
    let now = admin.0.env.wall();
    sheet.level(&BUILD, [env!("CARGO_PKG_VERSION")], 1.0);
    sheet.level(&START, [], seconds(admin.0.started_at.duration_since(Timestamp::UNIX_EPOCH)));
    let (at, begun) = admin.0.metrics.started;
    sheet.level(&CLOCK, [], step(now.duration_since(at), begun.elapsed()));
    sheet.level(&HEALTHY, [], flag(healthy));
    sheet.level(&READY, [], flag(healthy && admin.obstacles().is_empty()));
    let reloads = admin.0.reloads.snapshot();
    sheet.count(&RELOADS, ["taken"], reloads.taken);
    sheet.count(&RELOADS, ["refused"], reloads.refused);
    sheet.level(&RELOADED, [], flag(reloads.last_taken));

    let (stopped, failing) = (store.failure().is_some(), store.trouble().is_some());
    sheet.level(&STORE_STATE, ["writing"], flag(!stopped && !failing));
    sheet.level(&STORE_STATE, ["failing"], flag(!stopped && failing));
    sheet.level(&STORE_STATE, ["stopped"], flag(stopped));
    sheet.level(&BACKLOG_LIMIT, [], store.backlog().limit as f64);
    if let Some((free, size)) = store.disk() {
        sheet.level(&DISK_FREE, [], free as f64);
        sheet.level(&DISK_SIZE, [], size as f64);
    }
}

/// The ledger of requests of one source.
fn requests(sheet: &mut Sheet, source: &str, counts: &RequestCounts) {
    let sum = |reasons: &BTreeMap<String, u64>| reasons.values().sum::<u64>();
    sheet.count(&RECEIVED, [source], counts.received);
    for (outcome, count) in [
        ("accepted", counts.accepted),
        ("duplicate", counts.duplicate),
        ("filtered", counts.filtered),
        ("rejected", sum(&counts.rejected)),
        ("failed", sum(&counts.failed)),
    ] {
        sheet.count(&REQUESTS, [source, outcome], count);
    }
    for (metric, reasons) in [(&REJECTED, &counts.rejected), (&FAILED, &counts.failed)] {
        for (reason, count) in reasons {
            sheet.count(metric, [source, reason], *count);
        }
    }
    sheet.level(&UNDER_WAY, [source], counts.under_way() as f64);
}

/// What an interceptor answered.
fn decisions(sheet: &mut Sheet, interceptor: &str, counts: &DecisionCounts, times: HistogramCounts) {
    sheet.count(&DECISIONS, [interceptor, "ALLOW"], counts.allowed);
    sheet.count(&DECISIONS, [interceptor, "DENY"], counts.denied);
    for (cause, count) in &counts.fallbacks {
        sheet.count(&FALLBACKS, [interceptor, cause.as_str()], *count);
    }
    sheet.count(&REPEATED, [interceptor], counts.repeated);
    sheet.count(&LATE, [interceptor], counts.late);
    sheet.count(&OVERRULED, [interceptor], counts.overruled);
    sheet.times(&DECISION, [interceptor], times);
}

/// The state of a plugin.
fn standing(sheet: &mut Sheet, admin: &Admin, plugin: &Plugin) {
    let record = &plugin.record;
    let name = record.name.as_str();
    let state = record.held.as_ref().map_or(SERVING, HeldReason::word);
    for word in HeldReason::WORDS.into_iter().chain([SERVING]) {
        sheet.level(&PLUGIN_STATE, [name, word], flag(word == state));
    }
    for state in BreakerState::ALL {
        sheet.level(&BREAKER, [name, state.as_str()], flag(state == plugin.breaker()));
    }
    sheet.level(&PLUGIN_ERROR, [name], flag(record.last_error.is_some()));
    let loads = admin.0.registry.loads(name);
    sheet.count(&LOADS, [name, "loaded"], loads.loaded);
    sheet.count(&LOADS, [name, "failed"], loads.failed);
}

/// How a sender's list compares with the store.
fn catching_up(sheet: &mut Sheet, source: &str, status: &CatchUpStatus) {
    sheet.count(&CATCH_UPS, [source, "complete"], status.complete);
    sheet.count(&CATCH_UPS, [source, "failed"], status.failed);
    sheet.count(&CATCH_UP_REQUESTS, [source], status.requests);
    sheet.count(&CATCH_UP_FOUND, [source], status.found);
    sheet.count(&CATCH_UP_TAKEN_IN, [source], status.taken_in);
    sheet.level(&CATCH_UP_MISSING, [source], status.missing as f64);
    let complete_at = status.complete_at.map_or(0.0, |at| seconds(at.duration_since(Timestamp::UNIX_EPOCH)));
    sheet.level(&CATCH_UP_COMPLETE, [source], complete_at);
}

/// The state of a plugin that is not held.
const SERVING: &str = "serving";

/// Resources with a limit.
fn pools(sheet: &mut Sheet, admin: &Admin) {
    let mut tell = |used: &Metric<1>, limit: &Metric<1>, label: &str, usage: Usage| {
        sheet.level(used, [label], usage.used as f64);
        sheet.level(limit, [label], usage.limit as f64);
    };
    for (state, usage) in admin.0.registry.instances() {
        tell(&INSTANCES, &INSTANCES_LIMIT, state, usage);
    }
    for (pool, usage) in admin.0.store.readers() {
        tell(&READERS, &READERS_LIMIT, pool, usage);
    }
    for database in admin.0.registry.databases().all() {
        tell(&CONNECTIONS, &CONNECTIONS_LIMIT, database.name(), database.usage());
    }
}

/// The store's counters since the daemon started.
fn counted(sheet: &mut Sheet, meters: StoreMeters, plugins: &[PluginRecord]) {
    let StoreMeters { accept, commit, batch, failed_commits, plugins: mut by_plugin, outbox } = meters;
    sheet.times(&ACCEPT, [], accept);
    sheet.times(&COMMIT, [], commit);
    sheet.sizes(&BATCH, [], batch);
    sheet.count(&FAILED_COMMITS, [], failed_commits);
    for (kind, counts) in outbox {
        for (outcome, count) in SENDINGS.into_iter().zip(counts) {
            sheet.count(&SENT, [kind.as_str(), outcome], count);
        }
    }
    for plugin in plugins {
        let name = plugin.name.as_str();
        let Some(meters) = by_plugin.remove(&plugin.id) else { continue };
        sheet.times(&WAIT, [name], meters.wait);
        sheet.times(&ATTEMPT, [name], meters.attempt);
        for (outcome, count) in meters.attempts {
            sheet.count(&ATTEMPTS, [name, outcome.as_str()], count);
        }
        for (event_type, done, dead) in meters.finished {
            let event_type = event_type.unwrap_or(OTHER);
            sheet.count(&FINISHED, [name, event_type, "done"], done);
            sheet.count(&FINISHED, [name, event_type, "dead"], dead);
        }
    }
}

/// Numbers from the store's tables. Forgotten plugins are left out.
fn ledger(
    sheet: &mut Sheet,
    stats: &StoreStats,
    plugins: &[PluginRecord],
    leased: &HashMap<PluginId, Timestamp>,
    now: Timestamp,
) {
    let by_name: HashMap<_, _> =
        stats.plugins.iter().map(|plugin| (plugin.plugin.as_str(), plugin)).collect();
    for record in plugins {
        let name = record.name.as_str();
        let Some(plugin) = by_name.get(name) else { continue };
        sheet.count(&MADE, [name], plugin.made);
        let mut unfinished = 0;
        for (state, count) in &plugin.states {
            sheet.level(&DELIVERIES, [name, state.as_str()], *count as f64);
            match state {
                DeliveryState::Dead => sheet.level(&DEAD, [name], *count as f64),
                DeliveryState::Done => {}
                _ => unfinished += count,
            }
        }
        sheet.level(&BACKLOG, [name], unfinished as f64);
        sheet.level(&REPLAYS, [name], plugin.replays_waiting as f64);
        let oldest = plugin.oldest_open.into_iter().chain(leased.get(&record.id).copied()).min();
        let age = oldest.map_or(0.0, |oldest| seconds(now.duration_since(oldest)).max(0.0));
        sheet.level(&OLDEST, [name], age);
    }
    sheet.count(&CONFLICTS, [], stats.conflicts);
    sheet.count(&LOST_LEASES, [], stats.lost_leases);
    for (state, count) in &stats.outbox {
        sheet.level(&ITEMS, [state.as_str()], *count as f64);
    }
    sheet.level(&DISK_LEAST, [], stats.min_free_bytes as f64);
    sheet.level(&STORE_LIVE, [], stats.live_bytes as f64);
    sheet.level(&STORE_LIMIT, [], stats.max_bytes.unwrap_or(0) as f64);
    for (size, bytes) in [(&STORE_SIZE, stats.store_bytes), (&WAL_SIZE, stats.wal_bytes)] {
        if let Some(bytes) = bytes {
            sheet.level(size, [], bytes as f64);
        }
    }
}

/// The system's information about this process.
#[derive(Default)]
struct Process {
    memory: Option<u64>,
    files: Option<usize>,
    files_limit: Option<u64>,
}

impl Process {
    /// Reads it; blocks briefly.
    fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        Self {
            memory: resident
                .and_then(|kilobytes| kilobytes.parse().ok())
                .map(|kilobytes: u64| kilobytes * 1024),
            files: std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count),
            files_limit: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
        }
    }

    fn tell(&self, sheet: &mut Sheet) {
        for (metric, number) in [
            (&MEMORY, self.memory),
            (&FILES, self.files.map(|count| count as u64)),
            (&FILES_LIMIT, self.files_limit),
        ] {
            if let Some(number) = number {
                sheet.level(metric, [], number as f64);
            }
        }
    }
}

/// By how much the time of day was set: its progress minus the elapsed time, to the millisecond.
fn step(moved: jiff::SignedDuration, passed: Duration) -> f64 {
    // Adding 0 removes the sign of a negative zero.
    ((seconds(moved) - passed.as_secs_f64()) * 1000.0).round() / 1000.0 + 0.0
}

fn seconds(duration: jiff::SignedDuration) -> f64 {
    duration.as_secs_f64()
}

fn flag(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn a_clock_that_is_set_shows() {
        let hour = Duration::from_secs(3600);
        for (moved, told) in [(3600, 0.0), (0, -3600.0), (7200, 3600.0)] {
            assert_eq!(step(SignedDuration::from_secs(moved), hour), told);
        }
    }

    #[test]
    fn the_process_knows_itself() {
        let process = Process::read();
        assert!(process.memory.is_some_and(|bytes| bytes > 1 << 20));
        assert!(process.files.is_some_and(|count| count > 2));
    }
}
