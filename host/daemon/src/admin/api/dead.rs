//! `GET /v1/dead-letters`: dead letters by plugin and cause.

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::rows;
use crate::admin::{Admin, error::ApiError};

/// Dead letters by plugin and cause.
#[derive(Serialize, ToSchema)]
pub(super) struct DeadGroups {
    /// The groups, those with the most to replay first.
    groups: Vec<rows::DeadGroup>,
}

/// List dead letters by plugin and cause
///
/// The newest 100,000 dead letters in at most 200 groups, those with the most to replay first.
#[utoipa::path(
    get,
    path = "/v1/dead-letters",
    operation_id = "listDeadLetters",
    responses((status = 200, description = "The groups.", body = DeadGroups)),
)]
pub(super) async fn list(State(admin): State<Admin>) -> Result<Json<DeadGroups>, ApiError> {
    Ok(Json(DeadGroups { groups: rows::all(admin.0.store.dead_groups().await?) }))
}
