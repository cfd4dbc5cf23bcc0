//! `GET /v1/plugins`: how each plugin stands; `POST /v1/plugins/{name}/pause`, `/resume`, `/forget`.
//!
//! What a plugin's `config` table holds is not shown: any value in it may be a secret.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use serde_json::{Value, json};

use super::{Admin, error::ApiError};
use crate::{
    plugin::{Plugin, PluginError},
    store::PluginStats,
};

pub(super) async fn list(State(admin): State<Admin>) -> Result<Json<Value>, ApiError> {
    let stats = admin.0.store.stats().await?.plugins;
    let plugins: Vec<_> = admin.0.registry.list().iter().map(|plugin| view(plugin, &stats)).collect();
    Ok(Json(json!({ "plugins": plugins })))
}

pub(super) async fn show(
    State(admin): State<Admin>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path(name) = name?;
    let Some(plugin) = admin.0.registry.by_name(&name) else {
        return Err(PluginError::Unknown(name).into());
    };
    let stats = admin.0.store.stats().await?.plugins;
    Ok(Json(view(&plugin, &stats)))
}

pub(super) async fn act(
    State(admin): State<Admin>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path((name, action)) = path?;
    let registry = &admin.0.registry;
    match action.as_str() {
        "pause" => registry.pause(&name).await?,
        "resume" => registry.resume(&name).await?,
        "forget" => registry.forget(&name).await?,
        odd => return Err(ApiError::not_found(format!("`{odd}` is neither pause, resume nor forget"))),
    }
    tracing::info!(plugin = %name, action, "an operator changed a plugin");
    // Forgotten ones are not there any more.
    let Some(plugin) = registry.by_name(&name) else {
        return Ok(Json(json!({ "name": name, "state": "forgotten" })));
    };
    let stats = admin.0.store.stats().await?.plugins;
    Ok(Json(view(&plugin, &stats)))
}

fn view(plugin: &Plugin, stats: &[PluginStats]) -> Value {
    let (record, settings) = (&plugin.record, &plugin.settings);
    let counts = stats.iter().find(|counts| counts.plugin == record.name);
    let lacks: Vec<_> =
        record.requires.iter().filter(|capability| !settings.grants.allows(**capability)).collect();
    json!({
        "name": record.name,
        "state": if plugin.serving() { "serving" } else { "held" },
        "held": record.held,
        "reason": record.held.as_ref().map(ToString::to_string),
        "paused": record.paused,
        "revision": record.revision,
        "description": record.description,
        "events": record.events,
        "requires": record.requires,
        "lacks": lacks,
        "grants": settings.grants,
        "last_error": record.last_error,
        "loaded_at": record.loaded_at,
        "made": counts.map_or(0, |counts| counts.made),
        "deliveries": counts.map(|counts| &counts.states),
        "oldest_open": counts.and_then(|counts| counts.oldest_open),
        "settings": {
            "concurrency": settings.concurrency,
            "reuse": settings.reuse,
            "order_by": settings.order_by,
            "attempts": settings.retry.attempts,
            "time": humantime::format_duration(settings.limits.time).to_string(),
            "memory": settings.limits.memory,
        },
    })
}
