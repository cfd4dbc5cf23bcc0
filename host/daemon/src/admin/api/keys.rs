//! `POST /v1/sources/{name}/learn`: has a source await the key that its sender brings. `…/forget` removes such a key.
//!
//! No key is shown. It is in a file of the state folder, which the answer names.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::{
        Path, State,
        rejection::{JsonRejection, PathRejection},
    },
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::refusals::{BadBody, BadRequest, Conflict, NotFound};

use crate::admin::{Action, Actor, Admin, error::ApiError};

/// The longest time that a source awaits a key, in seconds.
const LONGEST: u64 = 3600;

/// The daemon's side of keys that senders bring. Errors say why not.
#[derive(Clone)]
pub struct Keys {
    /// Whether a source has a key, and until when it awaits one.
    pub state: Arc<HasKey>,
    /// Has a source await its key for this long. Returns until when, and the file where it will be.
    pub learn: Arc<Learn>,
    /// Removes the key that the sender of a source brought.
    pub forget: Arc<Forget>,
}

/// Whether a source has a key, and until when it awaits one.
pub type HasKey = dyn Fn(&str) -> (KeyState, Option<Timestamp>) + Send + Sync;

/// Removes the key of a source.
pub type Forget = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// Has a source await its key.
pub type Learn = dyn Fn(&str, Duration) -> Result<(Timestamp, PathBuf), String> + Send + Sync;

/// Whether a source has a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// config.toml names its secrets.
    Configured,
    /// Its sender brought it.
    Brought,
    /// It has none, and awaits one.
    Awaited,
    /// It has none.
    Missing,
}

/// How long a source awaits its key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LearnKey)]
pub(super) struct Body {
    /// How long from now, in seconds.
    #[schema(minimum = 1, maximum = 3600)]
    seconds: u64,
}

/// A source that awaits its key.
#[derive(Serialize, ToSchema)]
#[schema(as = AwaitedKey)]
pub(super) struct Awaited {
    /// The source.
    source: String,
    /// Until when.
    until: Timestamp,
    /// The file on the daemon's machine where the key will be.
    file: String,
}

/// A source whose key was removed.
#[derive(Serialize, ToSchema)]
pub(super) struct ForgottenKey {
    /// The source.
    source: String,
}

/// Await the key that a sender brings
///
/// The first request that brings one within this time sets the key of the source. The source must have none.
#[utoipa::path(
    post,
    path = "/v1/sources/{name}/learn",
    operation_id = "learnKey",
    params(("name" = String, Path, min_length = 1, description = "Its name in config.toml.")),
    request_body = Body,
    responses((status = 200, description = "The source awaits its key.", body = Awaited), BadBody, NotFound, Conflict),
)]
pub(super) async fn learn(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    name: Result<Path<String>, PathRejection>,
    body: Result<Json<Body>, JsonRejection>,
) -> Result<Json<Awaited>, ApiError> {
    let (Path(name), Json(Body { seconds })) = (name?, body?);
    if !(1..=LONGEST).contains(&seconds) {
        return Err(ApiError::bad_request(format!("`seconds` is {seconds}; 1 to {LONGEST} is allowed")));
    }
    let source = admin.known_source(&name)?;
    let learn = Arc::clone(&admin.0.senders.keys.learn);
    let work = async move {
        let (until, file) = learn(&source, Duration::from_secs(seconds)).map_err(ApiError::conflict)?;
        Ok(Awaited { source, until, file: file.display().to_string() })
    };
    let awaited = admin
        .audited(&actor, Action::LearnKey, &name, work, |awaited| format!("awaited until {}", awaited.until))
        .await?;
    Ok(Json(awaited))
}

/// Remove the key that a sender brought
///
/// From then on the source refuses every request, until its sender brings another key.
#[utoipa::path(
    post,
    path = "/v1/sources/{name}/forget",
    operation_id = "forgetKey",
    params(("name" = String, Path, min_length = 1, description = "Its name in config.toml.")),
    responses((status = 200, description = "The key is removed.", body = ForgottenKey), BadRequest, NotFound, Conflict),
)]
pub(super) async fn forget(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<ForgottenKey>, ApiError> {
    let Path(name) = name?;
    let source = admin.known_source(&name)?;
    let forget = Arc::clone(&admin.0.senders.keys.forget);
    let work = async move {
        let name = source.clone();
        tokio::task::spawn_blocking(move || forget(&name)).await?.map_err(ApiError::conflict)?;
        Ok(ForgottenKey { source })
    };
    let forgotten = admin.audited(&actor, Action::ForgetKey, &name, work, |_| "removed".to_owned()).await?;
    Ok(Json(forgotten))
}
