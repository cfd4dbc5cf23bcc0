//! `GET /v1/audit`: the actions of operators, newest first.

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use posthouse_store::{AuditFilter, AuditId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    query,
    refusals::{BadRequest, UnknownName},
    rows,
};

use crate::admin::{Action, Admin, Since, error::ApiError};

/// The filters of the list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only actions with these words: `pause` means `pause plugin`, `replay` means every kind of replay.
    action: Option<String>,
    /// Only actions that began at this time or later.
    since: Option<Since>,
    /// The most rows.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// Only entries with a smaller id: the `next` of the previous page.
    #[param(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    before: Option<i64>,
}

/// A page of the audit log.
#[derive(Serialize, ToSchema)]
pub(super) struct AuditPage {
    /// The entries, newest first.
    audit: Vec<rows::AuditEntry>,
    /// The `before` of the next page. Null if there is none.
    next: Option<i64>,
}

/// List what operators did, newest first
#[utoipa::path(
    get,
    path = "/v1/audit",
    operation_id = "listAudit",
    params(ListQuery),
    responses((status = 200, description = "A page of the audit log.", body = AuditPage), BadRequest, UnknownName),
)]
pub(super) async fn list(
    State(admin): State<Admin>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<AuditPage>, ApiError> {
    let Query(asked) = query?;
    let filter = AuditFilter {
        action: Action::filter(asked.action.as_deref().unwrap_or_default())?,
        since: admin.since(asked.since),
        limit: query::limit(asked.limit)?,
        before: asked.before.map(AuditId),
    };
    let entries = admin.0.store.audit(filter.clone()).await?;
    let next = entries.last().filter(|_| entries.len() == filter.limit as usize).map(|entry| entry.id.0);
    Ok(Json(AuditPage { audit: rows::all(entries), next }))
}
