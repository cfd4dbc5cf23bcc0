//! `GET /v1/audit`: what operators did, newest first.

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use posthouse_store::{AuditFilter, AuditId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{query, rows};

use crate::admin::{Action, Admin, Since, error::ApiError};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    action: Option<String>,
    since: Option<Since>,
    limit: Option<u32>,
    before: Option<i64>,
}

pub(super) async fn list(
    State(admin): State<Admin>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(asked) = query?;
    let filter = AuditFilter {
        action: Action::filter(asked.action.as_deref().unwrap_or_default())?,
        since: admin.since(asked.since),
        limit: query::limit(asked.limit)?,
        before: asked.before.map(AuditId),
    };
    let entries = admin.0.store.audit(filter.clone()).await?;
    let next = entries.last().filter(|_| entries.len() == filter.limit as usize).map(|entry| entry.id.0);
    Ok(Json(json!({ "audit": rows::all::<_, rows::AuditEntry>(entries), "next": next })))
}
