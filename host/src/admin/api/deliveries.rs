//! `GET /v1/deliveries`: deliveries, newest first.

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::query;
use crate::{
    admin::{Admin, Since, error::ApiError},
    model::{DeliveryState, Pattern},
    store::DeliveryFilter,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    state: Option<DeliveryState>,
    plugin: Option<String>,
    source: Option<String>,
    #[serde(rename = "type")]
    event_type: Option<Pattern>,
    reason: Option<String>,
    since: Option<Since>,
    until: Option<Since>,
    limit: Option<u32>,
    before: Option<String>,
}

pub(super) async fn list(
    State(admin): State<Admin>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(asked) = query?;
    let before = match asked.before {
        None => None,
        Some(id) => Some(id.parse().map_err(|error| ApiError::bad_request(format!("`before`: {error}")))?),
    };
    let filter = DeliveryFilter {
        state: asked.state,
        plugin: asked.plugin,
        event: None,
        event_type: asked.event_type,
        source: asked.source,
        reason: asked.reason,
        since: admin.moment(asked.since),
        until: admin.moment(asked.until),
        limit: query::limit(asked.limit)?,
        before,
    };
    let page = admin.0.store.deliveries_within(filter, query::SEARCH).await?;
    Ok(Json(json!({ "deliveries": page.deliveries, "next": page.next })))
}
