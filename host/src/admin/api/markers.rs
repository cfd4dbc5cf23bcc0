//! `POST /v1/markers/keep`: who makes a backup has the markers of attempts stay in the databases meanwhile.
//!
//! Asked again before the time is over, they stay on; asked for no time, they go. `kept` of an answer says
//! whether they have stayed since this holder asked before: where a daemon was started anew, they have not.

use std::time::Duration;

use axum::{
    Extension, Json,
    extract::{State, rejection::JsonRejection},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admin::{Action, Actor, Admin, error::ApiError};

/// The longest that they stay without being asked again, in seconds.
const LONGEST: u64 = 3600;

/// The most bytes of a holder's name.
const NAME: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Body {
    holder: String,
    seconds: u64,
}

pub(super) async fn keep(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    body: Result<Json<Body>, JsonRejection>,
) -> Result<Json<Value>, ApiError> {
    let Json(Body { holder, seconds }) = body?;
    if holder.is_empty() || holder.len() > NAME || !holder.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ApiError::bad_request(format!("`holder` is not 1 to {NAME} visible ASCII characters")));
    }
    if seconds > LONGEST {
        return Err(ApiError::bad_request(format!("`seconds` is {seconds}; 0 to {LONGEST} is allowed")));
    }
    let databases = admin.0.registry.databases().clone();
    let hold = |time| {
        databases.keep_markers(&holder, time).ok_or_else(|| {
            ApiError::conflict("too many have markers stay already; wait until their backups are made")
        })
    };
    let kept = hold(Duration::from_secs(seconds))?;
    // The first word and the last are an operator's; those between them only say that he is still there.
    match (kept, seconds) {
        (false, 1..) => admin.noted(&actor, Action::BeginBackup, &holder, "markers stay").await?,
        (true, 0) => admin.noted(&actor, Action::EndBackup, &holder, "markers go").await?,
        _ => {}
    }
    Ok(Json(json!({ "holder": holder, "seconds": seconds, "kept": kept })))
}
