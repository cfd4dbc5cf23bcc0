//! `GET /healthz` and `GET /readyz`, for monitoring. Neither needs a token.
//!
//! The two answer different questions. A daemon that is not healthy needs a restart: its store has stopped,
//! or the writer hangs. A daemon that is not ready should get no events for now, and should be left alone.
//! Its disk is full or nearly so, or too much is unfinished; it recovers automatically.

use std::{sync::Arc, time::Duration};

use axum::{Extension, Json, extract::State, http::StatusCode};
use posthouse_store::StoreError;
use serde::Serialize;
use utoipa::ToSchema;

use super::schemas::Either;

use crate::{
    admin::{Admin, error::ErrorBody},
    listener::Peer,
};

/// The time limit for the store's writer to answer.
pub(in crate::admin) const ANSWER: Duration = Duration::from_secs(3);

/// The daemon works.
#[derive(Serialize, ToSchema)]
#[serde(tag = "status")]
pub(super) enum Healthy {
    #[serde(rename = "ok")]
    Ok,
}

/// The daemon needs a restart.
#[derive(Serialize, ToSchema)]
#[serde(tag = "status")]
pub(super) enum Unhealthy {
    #[serde(rename = "failed")]
    Failed {
        /// The failures that only a restart fixes.
        reasons: Vec<String>,
    },
}

/// The daemon accepts events.
#[derive(Serialize, ToSchema)]
#[serde(tag = "status")]
pub(super) enum Ready {
    #[serde(rename = "ready")]
    Ready,
}

/// The daemon accepts no events.
#[derive(Serialize, ToSchema)]
#[serde(tag = "status")]
pub(super) enum NotReady {
    #[serde(rename = "not ready")]
    NotReady {
        /// The reasons why the daemon accepts no events.
        reasons: Vec<String>,
    },
}

/// 503 of `/healthz`: from the handler, or from the time limit.
type UnhealthyAnswer = Either<Unhealthy, ErrorBody>;
/// 503 of `/readyz`: from the handler, or from the time limit.
type NotReadyAnswer = Either<NotReady, ErrorBody>;

/// Whether the daemon works
///
/// If it does not, only a restart helps.
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "getHealth",
    responses(
        (status = 200, description = "The daemon works.", body = Healthy),
        (
            status = 503, body = inline(UnhealthyAnswer),
            description = "The store has stopped or does not answer.",
        ),
    ),
)]
pub(super) async fn health(
    State(admin): State<Admin>,
    Extension(peer): Extension<Arc<Peer>>,
) -> Result<Json<Healthy>, (StatusCode, Json<Unhealthy>)> {
    let _shield = peer.shield();
    let reasons = admin.ailments().await;
    if reasons.is_empty() {
        return Ok(Json(Healthy::Ok));
    }
    Err((StatusCode::SERVICE_UNAVAILABLE, Json(Unhealthy::Failed { reasons })))
}

/// Whether the daemon accepts events
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "getReadiness",
    responses(
        (status = 200, description = "The daemon accepts events.", body = Ready),
        (
            status = 503, body = inline(NotReadyAnswer),
            description = "The daemon accepts no events for now. It recovers automatically, unless it is not \
                           healthy either.",
        ),
    ),
)]
pub(super) async fn readiness(
    State(admin): State<Admin>,
    Extension(peer): Extension<Arc<Peer>>,
) -> Result<Json<Ready>, (StatusCode, Json<NotReady>)> {
    let _shield = peer.shield();
    let ailments = admin.ailments().await;
    let reasons: Vec<_> = ailments.into_iter().chain(admin.obstacles()).collect();
    if reasons.is_empty() {
        return Ok(Json(Ready::Ready));
    }
    Err((StatusCode::SERVICE_UNAVAILABLE, Json(NotReady::NotReady { reasons })))
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
            reasons.push(format!("{short}; free some space, and events are accepted again"));
        }
        if let Some(trouble) = self.0.store.trouble() {
            reasons
                .push(format!("the last write failed: {trouble}; free some space on the disk of the store"));
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
