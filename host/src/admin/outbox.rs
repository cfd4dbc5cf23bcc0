//! `GET /v1/outbox`: items of the outbox, newest first; `POST /v1/outbox/replay`: those given up are
//! tried again, with the Message-ID they had.

use axum::{
    Json,
    extract::{
        Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Admin, error::ApiError, query, replay::detached};
use crate::store::{OutboxFilter, OutboxId};

/// Where an item of the outbox can stand.
pub(super) const STATES: [&str; 5] = ["ready", "leased", "waiting", "sent", "dead"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    state: Option<String>,
    limit: Option<u32>,
    before: Option<i64>,
}

pub(super) async fn list(
    State(admin): State<Admin>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(asked) = query?;
    if let Some(odd) = asked.state.as_deref().filter(|state| !STATES.contains(state)) {
        let known = STATES.join(", ");
        return Err(ApiError::bad_request(format!("`state` is `{odd}`; it can be one of {known}")));
    }
    let filter = OutboxFilter {
        state: asked.state,
        limit: query::limit(asked.limit)?,
        before: asked.before.map(OutboxId),
    };
    Ok(Json(json!({ "outbox": admin.0.store.outbox(filter).await? })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplayBody {
    dead: bool,
}

pub(super) async fn replay(
    State(admin): State<Admin>,
    body: Result<Json<ReplayBody>, JsonRejection>,
) -> Result<Json<Value>, ApiError> {
    let Json(asked) = body?;
    if !asked.dead {
        return Err(ApiError::bad_request("`dead` is false; only items given up can be sent again"));
    }
    let count = detached(async move {
        let filter = OutboxFilter { state: Some("dead".to_owned()), ..OutboxFilter::default() };
        Ok(admin.0.store.replay_outbox(filter).await?)
    })
    .await?;
    Ok(Json(json!({ "count": count })))
}
