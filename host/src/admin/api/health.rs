//! `GET /healthz`: whether the daemon takes events. Needs no token.

use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Value, json};

use crate::admin::Admin;

pub(super) async fn health(State(admin): State<Admin>) -> (StatusCode, Json<Value>) {
    match admin.0.store.failure() {
        None => (StatusCode::OK, Json(json!({ "status": "ok" }))),
        Some(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "failed", "reason": reason })))
        }
    }
}
