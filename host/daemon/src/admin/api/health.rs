//! `GET /healthz` and `GET /readyz`, for monitoring. Neither needs a token.
//!
//! The two answer different questions. A daemon that is not healthy needs a restart: its store has stopped,
//! or the writer hangs. A daemon that is not ready should get no events for now, and should be left alone.
//! Its disk is full or nearly so, or too much is unfinished; it recovers automatically.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    extract::State,
    http::StatusCode,
    middleware::from_fn,
    routing::{MethodRouter, get},
};
use posthouse_store::StoreError;
use serde_json::{Value, json};

use crate::{
    admin::{Admin, guard},
    listener::Peer,
};

/// The time limit for the store's writer to answer.
pub(in crate::admin) const ANSWER: Duration = Duration::from_secs(3);

/// Both routes, which need no token.
pub(super) fn router() -> Router<Admin> {
    let within = |handler: MethodRouter<Admin>| handler.layer(from_fn(guard::within_time));
    Router::new().route("/healthz", within(get(health))).route("/readyz", within(get(readiness)))
}

async fn health(
    State(admin): State<Admin>,
    Extension(peer): Extension<Arc<Peer>>,
) -> (StatusCode, Json<Value>) {
    let _shield = peer.shield();
    answer("ok", "failed", admin.ailments().await)
}

async fn readiness(
    State(admin): State<Admin>,
    Extension(peer): Extension<Arc<Peer>>,
) -> (StatusCode, Json<Value>) {
    let _shield = peer.shield();
    let ailments = admin.ailments().await;
    answer("ready", "not ready", ailments.into_iter().chain(admin.obstacles()).collect())
}

fn answer(well: &str, unwell: &str, reasons: Vec<String>) -> (StatusCode, Json<Value>) {
    if reasons.is_empty() {
        return (StatusCode::OK, Json(json!({ "status": well })));
    }
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": unwell, "reasons": reasons })))
}

impl Admin {
    /// Conditions that keep events out and pass without a restart.
    pub(in crate::admin) fn obstacles(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.0.stopping.is_cancelled() {
            reasons.push("the daemon is stopping".to_owned());
        }
        if let Err(full) = self.0.store.room() {
            reasons.push(format!("{full}; `posthouse stats` says of which plugins"));
        }
        if let Some(short) = self.0.store.shortage() {
            reasons.push(format!("{short}; make room on it, and events are taken in again"));
        }
        if let Some(trouble) = self.0.store.trouble() {
            reasons.push(format!("the last write failed: {trouble}; make room on the disk of the store"));
        }
        reasons
    }

    /// Conditions that only a restart fixes.
    pub(in crate::admin) async fn ailments(&self) -> Vec<String> {
        match tokio::time::timeout(ANSWER, self.0.store.flush()).await {
            // The writer answered that it can't write just now: it works.
            Ok(Ok(()) | Err(StoreError::Io(_) | StoreError::Backlog(_) | StoreError::NoSpace { .. })) => {
                Vec::new()
            }
            Ok(Err(error)) => vec![error.to_string()],
            Err(_) => vec![format!("the store's writer has not answered for {} s", ANSWER.as_secs())],
        }
    }
}
