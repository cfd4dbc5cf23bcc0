//! `GET /v1/plugins`: how each plugin stands; `POST /v1/plugins/{name}/pause`, `/resume`, `/forget`.
//!
//! What a plugin's `config` table holds is not shown: any value in it may be a secret.

use axum::{
    Extension, Json,
    extract::{Path, State, rejection::PathRejection},
};
use serde_json::{Value, json};

use crate::{
    admin::{Actor, Admin, error::ApiError},
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
    let mut shown = view(&plugin, &stats);
    shown["revisions"] = json!(admin.0.store.revisions(plugin.record.id).await?);
    Ok(Json(shown))
}

type Named = Result<Path<String>, PathRejection>;

pub(super) async fn pause(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    name: Named,
) -> Result<Json<Value>, ApiError> {
    admin.told(&actor, Deed::Pause, name).await
}

pub(super) async fn resume(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    name: Named,
) -> Result<Json<Value>, ApiError> {
    admin.told(&actor, Deed::Resume, name).await
}

pub(super) async fn forget(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    name: Named,
) -> Result<Json<Value>, ApiError> {
    admin.told(&actor, Deed::Forget, name).await
}

/// What an operator can do to a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::admin) enum Deed {
    Pause,
    Resume,
    Forget,
}

impl Deed {
    /// The word for it.
    pub(in crate::admin) fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Forget => "forget",
        }
    }
}

impl Admin {
    async fn told(&self, actor: &Actor, deed: Deed, name: Named) -> Result<Json<Value>, ApiError> {
        let Path(name) = name?;
        self.act(actor, deed, &name).await?;
        // Forgotten ones are not there any more.
        let Some(plugin) = self.0.registry.by_name(&name) else {
            return Ok(Json(json!({ "name": name, "state": "forgotten" })));
        };
        let stats = self.0.store.stats().await?.plugins;
        Ok(Json(view(&plugin, &stats)))
    }

    /// Pauses, resumes or forgets a plugin.
    pub(in crate::admin) async fn act(&self, actor: &Actor, deed: Deed, name: &str) -> Result<(), ApiError> {
        let (registry, plugin) = (self.0.registry.clone(), name.to_owned());
        let work = async move {
            match deed {
                Deed::Pause => registry.pause(&plugin).await?,
                Deed::Resume => registry.resume(&plugin).await?,
                Deed::Forget => registry.forget(&plugin).await?,
            }
            Ok(())
        };
        self.audited(actor, &format!("{} plugin", deed.as_str()), name, work, |()| "done".to_owned()).await
    }
}

/// The plugin's circuit breaker.
fn breaker(plugin: &Plugin) -> Value {
    let (trip, settings) = (plugin.trip(), plugin.settings.breaker);
    json!({
        "state": plugin.breaker(),
        "failures_in_a_row": plugin.failures_in_a_row(),
        "pauses": trip.map_or(0, |trip| trip.pauses),
        "since": trip.map(|trip| trip.since),
        "until": trip.filter(|trip| !trip.trying).map(|trip| trip.until),
        "failures": settings.failures,
        "pause": humantime::format_duration(settings.pause).to_string(),
        "max_pause": humantime::format_duration(settings.max_pause).to_string(),
    })
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
        "breaker": breaker(plugin),
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
        "replays_waiting": counts.map_or(0, |counts| counts.replays_waiting),
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
