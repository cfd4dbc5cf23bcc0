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
pub const STATES: [&str; 5] = ["ready", "leased", "waiting", "sent", "dead"];

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
    #[serde(default)]
    dead: bool,
    #[serde(default)]
    items: Vec<i64>,
}

pub(super) async fn replay(
    State(admin): State<Admin>,
    body: Result<Json<ReplayBody>, JsonRejection>,
) -> Result<Json<Value>, ApiError> {
    let Json(ReplayBody { dead, items }) = body?;
    if dead != items.is_empty() {
        return Err(ApiError::bad_request(
            r#"say either `"dead": true`, for all that were given up, or `"items"`"#,
        ));
    }
    let items = items.into_iter().map(OutboxId).collect();
    let count = detached(async move { Ok(admin.0.store.replay_outbox(items).await?) }).await?;
    Ok(Json(json!({ "count": count })))
}
