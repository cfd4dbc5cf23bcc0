//! `GET /metrics`: what Prometheus scrapes, in its text format.
//!
//! Nothing on the way of an event knows a metric's name. Each layer keeps its own ledger (of requests, of
//! deliveries, of reloads) or counts in a `Histogram`, which costs some additions; here, when somebody asks,
//! all of that is gathered under the names that stand in [`names`]. What takes a query, or a word of the
//! writer's, is asked for once a second at most, however many scrape.
//!
//! | file | what |
//! | --- | --- |
//! | [`names`] | every metric: its name, its labels, what it tells |
//! | [`collect`] | where each number comes from |
//! | [`sheet`] | how they become text, encoded by the crate `prometheus-client` |

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

/// How long what was gathered is good enough for who comes next.
const FRESH: Duration = Duration::from_secs(1);

/// What is kept from one scrape to the next.
pub(super) struct ScrapeCache {
    /// The last answer, and when it was made. Who comes while another is being made gets that.
    last: Mutex<Option<(Instant, Bytes)>>,
    /// The time of day when the daemon started, and the same moment on a clock that nobody sets.
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
                    format!("the metrics can't be written: {error}"),
                )
            })?;
            let text = Bytes::from(text);
            *last = Some((Instant::now(), text.clone()));
            text
        }
    };
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text))
}
