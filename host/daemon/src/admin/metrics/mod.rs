//! `GET /metrics`: metrics for Prometheus, in its text format.
//!
//! The code that handles events contains no metrics. Each layer keeps its own ledger (of requests, of
//! deliveries, of reloads) or counts in a `Histogram`, which costs a few additions. A scrape collects all of
//! that under the names in [`names`]. Numbers that need a query, or an answer of the writer, are collected at
//! most once a second, for any number of clients.
//!
//! | file | what |
//! | --- | --- |
//! | [`names`] | every metric: its name, its labels and its description |
//! | [`collect`] | the source of each number |
//! | [`sheet`] | the text format, encoded by the crate `prometheus-client` |

mod collect;
mod names;
mod sheet;

use std::time::{Duration, Instant};

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use bytes::Bytes;
use jiff::Timestamp;
use posthouse_model::Env;
use prometheus_client::encoding::prometheus_text::CONTENT_TYPE;
use tokio::sync::Mutex;

use super::{Admin, error::ApiError};

/// How long a collection may be reused.
const FRESH: Duration = Duration::from_secs(1);

/// The state between two scrapes.
pub(super) struct ScrapeCache {
    /// The cached scrape and its age; concurrent scrapes share one collection.
    last: Mutex<Option<(Instant, Bytes)>>,
    /// The time of day when the daemon started, and the same moment on a monotonic clock.
    started: (Timestamp, Instant),
}

impl ScrapeCache {
    pub(super) fn new(env: &Env) -> Self {
        Self { last: Mutex::default(), started: (env.now(), Instant::now()) }
    }
}

/// All numbers, for Prometheus
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "getMetrics",
    responses((
        status = 200, body = String, content_type = "text/plain",
        description = "The text format of Prometheus. Numbers are at most a second old.",
    )),
)]
pub(super) async fn scrape(State(admin): State<Admin>) -> Result<impl IntoResponse, ApiError> {
    let mut last = admin.0.metrics.last.lock().await;
    let text = match &*last {
        Some((at, text)) if at.elapsed() < FRESH => text.clone(),
        _ => {
            let text = collect::collect(&admin).await.render().map_err(|error| {
                ApiError::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("the metrics can't be formatted: {error}"),
                )
            })?;
            let text = Bytes::from(text);
            *last = Some((Instant::now(), text.clone()));
            text
        }
    };
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text))
}
