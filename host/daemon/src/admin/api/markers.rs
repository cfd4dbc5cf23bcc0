//! `POST /v1/markers/hold`: while a client makes a backup, it can hold the markers of attempts in the
//! databases.
//!
//! The markers stay if the client asks again before the time is over. With a time of 0 they are released.
//! `kept` in an answer says whether they have stayed since this client's last request. After a restart of the
//! daemon, they have not.

use std::time::Duration;

use axum::{
    Extension, Json,
    extract::{State, rejection::JsonRejection},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::refusals::{BadBody, Conflict};

use crate::admin::{Action, Actor, Admin, error::ApiError};

/// The longest time that markers stay after a request, in seconds.
const LONGEST: u64 = 3600;

/// The most bytes of the holder's name.
const NAME: usize = 64;

/// A request to hold markers.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = HoldMarkers)]
pub(super) struct Body {
    /// The name of the client that makes the backup.
    #[schema(pattern = "^[!-~]{1,64}$", examples("nightly"))]
    holder: String,
    /// How long from now, in seconds. 0 releases the markers.
    #[schema(maximum = 3600)]
    seconds: u64,
}

/// The hold that is now in effect.
#[derive(Serialize, ToSchema)]
#[schema(as = HeldMarkers)]
pub(super) struct Kept {
    /// The name from the request.
    holder: String,
    /// The time from the request, in seconds.
    seconds: u64,
    /// Whether the markers have stayed for this client since its last request.
    kept: bool,
}

/// Hold the markers of attempts in the databases while a backup is made
#[utoipa::path(
    post,
    path = "/v1/markers/hold",
    operation_id = "holdMarkers",
    request_body = Body,
    responses((status = 200, description = "The markers stay for this time.", body = Kept), BadBody, Conflict),
)]
pub(super) async fn hold(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    body: Result<Json<Body>, JsonRejection>,
) -> Result<Json<Kept>, ApiError> {
    let Json(Body { holder, seconds }) = body?;
    if holder.is_empty() || holder.len() > NAME || !holder.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ApiError::bad_request(format!("`holder` is not 1 to {NAME} visible ASCII characters")));
    }
    if seconds > LONGEST {
        return Err(ApiError::bad_request(format!("`seconds` is {seconds}; 0 to {LONGEST} is allowed")));
    }
    let databases = admin.0.registry.databases().clone();
    let hold = |time| {
        databases.hold_markers(&holder, time).ok_or_else(|| {
            ApiError::conflict("too many backups hold markers already; wait until one of them ends")
        })
    };
    let kept = hold(Duration::from_secs(seconds))?;
    // The first and the last request are an operator's actions. Those between only extend the time.
    match (kept, seconds) {
        (false, 1..) => admin.noted(&actor, Action::BeginBackup, &holder, "markers held").await?,
        (true, 0) => admin.noted(&actor, Action::EndBackup, &holder, "markers released").await?,
        _ => {}
    }
    Ok(Json(Kept { holder, seconds, kept }))
}
