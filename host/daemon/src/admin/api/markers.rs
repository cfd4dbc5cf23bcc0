//! `POST /v1/markers/keep`: while a client makes a backup, it can keep the markers of attempts in the
//! databases.
//!
//! The markers stay if the client asks again before the time is over. With a time of 0 they are removed.
//! `kept` in an answer says whether they have stayed since this client's last request. After a restart of the
//! daemon, they have not.

use std::time::Duration;

use axum::{
    Extension, Json,
    extract::{State, rejection::JsonRejection},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admin::{Action, Actor, Admin, error::ApiError};

/// The longest time that markers stay after a request, in seconds.
const LONGEST: u64 = 3600;

/// The most bytes of the holder's name.
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
    // The first and the last request are an operator's actions. Those between only extend the time.
    match (kept, seconds) {
        (false, 1..) => admin.noted(&actor, Action::BeginBackup, &holder, "markers stay").await?,
        (true, 0) => admin.noted(&actor, Action::EndBackup, &holder, "markers go").await?,
        _ => {}
    }
    Ok(Json(json!({ "holder": holder, "seconds": seconds, "kept": kept })))
}
