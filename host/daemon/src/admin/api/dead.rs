//! `GET /v1/dead-letters`: dead letters by plugin and cause.

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::rows;
use crate::admin::{Admin, error::ApiError};

pub(super) async fn list(State(admin): State<Admin>) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({ "groups": rows::all::<_, rows::DeadGroup>(admin.0.store.dead_groups().await?) })))
}
