//! `GET /v1/stats`: the two ledgers and whether they add up, and the last 24 hours by event type.
//! `GET /v1/series`: activity over time. `GET /admin/webhook-stats`: the last 24 hours by event type, with
//! the field names of Scalekit's page.
//!
//! The ledger of requests: received = accepted + duplicate + filtered + rejected + failed + active, for each
//! source since the daemon started. The ledger of deliveries: made = the sum of their states, for each plugin
//! and over all, since the store was created. A ledger that does not add up is a bug, and `problems` names
//! it.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use jiff::Timestamp;
use posthouse_model::{DeliveryState, RequestCounts};
use posthouse_store::{StoreStats, TypeStats};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{refusals::BadRequest, rows};

use crate::admin::{Admin, Since, error::ApiError};

/// The ledgers.
#[derive(Serialize, ToSchema)]
pub(in crate::admin) struct Stats {
    /// The version of posthouse.
    version: &'static str,
    /// When the daemon started.
    pub(in crate::admin) started_at: Timestamp,
    /// The ledger of requests of each source.
    pub(in crate::admin) requests: BTreeMap<String, Requests>,
    /// The ledger of requests of all sources together.
    pub(in crate::admin) requests_total: Requests,
    /// The ledger of deliveries.
    #[serde(serialize_with = "rows::stats")]
    #[schema(value_type = rows::StoreStats)]
    pub(in crate::admin) store: StoreStats,
    /// The time in seconds by which the system clock was set back. 0 if it is right.
    #[schema(minimum = 0)]
    pub(in crate::admin) clock_set_back_seconds: f64,
    /// Whether both ledgers add up.
    pub(in crate::admin) balanced: bool,
    /// The sums that do not add up.
    pub(in crate::admin) problems: Vec<String>,
}

/// The ledger of requests of one source or of all, since the daemon started.
#[derive(Serialize, ToSchema)]
pub(in crate::admin) struct Requests {
    #[serde(flatten, serialize_with = "rows::counts")]
    #[schema(value_type = rows::RequestCounts)]
    pub(in crate::admin) counts: RequestCounts,
    /// Requests that have not ended. Negative only if the ledger is wrong.
    pub(in crate::admin) under_way: i128,
}

/// The ledgers, and whether they add up
#[utoipa::path(
    get,
    path = "/v1/stats",
    operation_id = "getStats",
    responses((status = 200, description = "The ledgers.", body = Stats)),
)]
pub(super) async fn stats(State(admin): State<Admin>) -> Result<Json<Stats>, ApiError> {
    Ok(Json(admin.stats().await?))
}

/// The range of a series.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SeriesQuery {
    /// How far back: 1m to 24h.
    #[param(
        value_type = Option<String>, default = "1h",
        pattern = "^([1-9]|[1-5][0-9])m$|^([1-9]|1[0-9]|2[0-4])h$",
    )]
    window: Option<Since>,
    /// The most points.
    #[param(minimum = 1, maximum = 240, default = 60)]
    points: Option<u32>,
}

/// Activity over time.
#[derive(Serialize, ToSchema)]
pub(super) struct Series {
    /// The parts, oldest first.
    points: Vec<rows::Point>,
}

/// Activity over time
#[utoipa::path(
    get,
    path = "/v1/series",
    operation_id = "getSeries",
    params(SeriesQuery),
    responses((status = 200, description = "The series.", body = Series), BadRequest),
)]
pub(super) async fn series(
    State(admin): State<Admin>,
    query: Result<Query<SeriesQuery>, QueryRejection>,
) -> Result<Json<Series>, ApiError> {
    let Query(asked) = query?;
    let window = match asked.window {
        None => Duration::from_secs(3600),
        Some(Since::Ago(span)) if (60..=24 * 3600).contains(&span.as_secs()) => span,
        Some(_) => return Err(ApiError::bad_request("`window` is a span of 1m to 24h")),
    };
    let points = match asked.points {
        None => 60,
        Some(points @ 1..=240) => points,
        Some(odd) => return Err(ApiError::bad_request(format!("`points` is {odd}; 1 to 240 is allowed"))),
    };
    Ok(Json(Series { points: rows::all(admin.0.store.series(window, points).await?) }))
}

/// Deliveries of one event type over the last 24 hours, with the field names of Scalekit's page.
#[derive(Serialize, ToSchema)]
pub(super) struct WebhookStats {
    /// The event type.
    event_type: String,
    /// Deliveries created.
    total_events: u64,
    /// Deliveries done.
    successful: u64,
    /// Deliveries that became dead letters.
    failed: u64,
    /// The mean duration of the attempts that ended a delivery, in milliseconds. Null if there were none.
    avg_processing_time: Option<f64>,
    /// The median of these durations in milliseconds, within 10 %. Null if there were none.
    p50_processing_time: Option<f64>,
    /// The 95th percentile of these durations in milliseconds, within 10 %. Null if there were none.
    p95_processing_time: Option<f64>,
    /// The 99th percentile of these durations in milliseconds, within 10 %. Null if there were none.
    p99_processing_time: Option<f64>,
}

impl From<TypeStats> for WebhookStats {
    fn from(row: TypeStats) -> Self {
        let TypeStats { event_type, total, completed, failed, average_ms, p50_ms, p95_ms, p99_ms } = row;
        Self {
            event_type,
            total_events: total,
            successful: completed,
            failed,
            avg_processing_time: average_ms,
            p50_processing_time: p50_ms,
            p95_processing_time: p95_ms,
            p99_processing_time: p99_ms,
        }
    }
}

/// The last 24 hours by event type
#[utoipa::path(
    get,
    path = "/admin/webhook-stats",
    operation_id = "getWebhookStats",
    responses((status = 200, description = "The numbers of each event type.", body = Vec<WebhookStats>)),
)]
pub(super) async fn webhooks(State(admin): State<Admin>) -> Result<Json<Vec<WebhookStats>>, ApiError> {
    Ok(Json(rows::all(admin.0.store.stats().await?.by_type)))
}

impl Admin {
    /// The current ledgers.
    pub(in crate::admin) async fn stats(&self) -> Result<Stats, ApiError> {
        let counts: BTreeMap<_, _> =
            (self.0.ledgers)().into_iter().map(|(source, ledger)| (source, ledger.snapshot())).collect();
        let store = self.0.store.stats().await?;
        let problems: Vec<_> = counts
            .iter()
            .filter_map(|(source, counts)| imbalance(source, counts))
            .chain(open_ends(&store))
            .collect();
        Ok(Stats {
            version: env!("CARGO_PKG_VERSION"),
            started_at: self.0.started_at,
            requests_total: Requests::of(total(counts.values())),
            requests: counts.into_iter().map(|(source, counts)| (source, Requests::of(counts))).collect(),
            store,
            clock_set_back_seconds: self.0.env.set_back().map_or(0.0, |by| by.as_secs_f64()),
            balanced: problems.is_empty(),
            problems,
        })
    }
}

impl Requests {
    pub(super) fn of(counts: RequestCounts) -> Self {
        Self { under_way: counts.under_way(), counts }
    }
}

fn total<'a>(all: impl Iterator<Item = &'a RequestCounts>) -> RequestCounts {
    let mut sum = RequestCounts::default();
    for counts in all {
        sum.received += counts.received;
        sum.accepted += counts.accepted;
        sum.duplicate += counts.duplicate;
        sum.filtered += counts.filtered;
        for (into, from) in [(&mut sum.rejected, &counts.rejected), (&mut sum.failed, &counts.failed)] {
            for (reason, count) in from {
                *into.entry(reason.clone()).or_default() += count;
            }
        }
    }
    sum
}

/// The error in the ledger of a source's requests, if more ended than were received.
fn imbalance(source: &str, counts: &RequestCounts) -> Option<String> {
    let under_way = counts.under_way();
    (under_way < 0).then(|| {
        format!(
            "source `{source}`: {} more requests finished than the {} received",
            -under_way, counts.received
        )
    })
}

/// The errors in the ledger of deliveries.
fn open_ends(store: &StoreStats) -> Vec<String> {
    let sum = |states: &BTreeMap<DeliveryState, u64>| states.values().sum::<u64>();
    let whole = [("all plugins".to_owned(), store.made, sum(&store.states))];
    let each = store
        .plugins
        .iter()
        .map(|plugin| (format!("plugin `{}`", plugin.plugin), plugin.made, sum(&plugin.states)));
    let mut problems: Vec<_> = whole
        .into_iter()
        .chain(each)
        .filter(|(_, made, found)| made != found)
        .map(|(whose, made, found)| {
            format!("{whose}: {made} deliveries were created, but their states add up to {found}")
        })
        .collect();
    let by_plugin: u64 = store.plugins.iter().map(|plugin| plugin.made).sum();
    if by_plugin != store.made {
        problems.push(format!("{} deliveries were created, but {by_plugin} by plugin", store.made));
    }
    problems
}

#[cfg(test)]
mod tests {
    use posthouse_store::PluginStats;

    use super::*;

    fn store(made: u64, done: u64, plugin_made: u64, plugin_done: u64) -> StoreStats {
        StoreStats {
            made,
            states: [(DeliveryState::Done, done), (DeliveryState::Dead, 1)].into(),
            plugins: vec![PluginStats {
                plugin: "counter".into(),
                made: plugin_made,
                states: [(DeliveryState::Done, plugin_done), (DeliveryState::Dead, 1)].into(),
                oldest_open: None,
                replays_waiting: 0,
            }],
            ..StoreStats::default()
        }
    }

    #[test]
    fn a_delivery_that_is_missing_anywhere_is_named() {
        assert!(open_ends(&store(3, 2, 3, 2)).is_empty());
        for (odd, named) in [
            (store(4, 2, 4, 3), "all plugins: 4"),
            (store(3, 2, 3, 1), "plugin `counter`: 3"),
            (store(3, 2, 2, 1), "3 deliveries were created, but 2 by plugin"),
        ] {
            let problems = open_ends(&odd);
            assert!(problems.len() == 1 && problems[0].contains(named), "{problems:?}");
        }
    }

    #[test]
    fn requests_under_way_are_no_imbalance_and_surplus_ends_are() {
        let mut counts = RequestCounts { received: 3, accepted: 1, ..RequestCounts::default() };
        counts.rejected.insert("signature".into(), 1);
        assert_eq!(imbalance("a", &counts), None);
        counts.failed.insert("store".into(), 3);
        assert!(imbalance("a", &counts).unwrap().contains("`a`: 2 more requests"));
    }

    #[test]
    fn the_total_is_the_sum_of_the_sources() {
        let mut first = RequestCounts { received: 2, accepted: 1, ..RequestCounts::default() };
        first.rejected.insert("stale".into(), 1);
        let mut second = RequestCounts { received: 3, duplicate: 1, ..RequestCounts::default() };
        second.rejected.insert("stale".into(), 2);
        let sum = total([&first, &second].into_iter());
        assert_eq!((sum.received, sum.accepted, sum.duplicate, sum.rejected["stale"]), (5, 1, 1, 3));
        assert_eq!(sum.under_way(), 0);
    }
}
