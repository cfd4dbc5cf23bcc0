//! `GET /v1/plugins`: the state of each plugin. `POST /v1/plugins/{name}/pause`, `/resume`, `/forget`.
//!
//! The list also contains the ignored files of the plugins folder, with the reason.
//!
//! The content of a plugin's `config` table is not shown: any value in it may be a secret.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, State, rejection::PathRejection},
};
use posthouse_guest::plugin::{Plugin, PluginError};
use posthouse_model::config::nearest;
use posthouse_store::PluginStats;
use serde_json::{Value, json};

use super::rows;

use crate::admin::{
    Action, Actor, Admin,
    error::{ApiError, shown},
};

pub(super) async fn list(State(admin): State<Admin>) -> Result<Json<Value>, ApiError> {
    let stats = admin.0.store.stats().await?.plugins;
    let plugins: Vec<_> = admin.0.registry.list().iter().map(|plugin| view(plugin, &stats)).collect();
    Ok(Json(json!({ "plugins": plugins, "ignored": admin.0.registry.ignored() })))
}

pub(super) async fn show(
    State(admin): State<Admin>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path(name) = name?;
    let plugin = admin.plugin(&name).await?;
    let stats = admin.0.store.stats().await?.plugins;
    let mut shown = view(&plugin, &stats);
    let revisions = admin.0.store.revisions(plugin.record.id).await?;
    shown["revisions"] = json!(rows::all::<_, rows::PluginRevision>(revisions));
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

/// An operator's action on a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::admin) enum Deed {
    Pause,
    Resume,
    Forget,
}

impl Deed {
    /// The action's name in the audit log.
    fn action(self) -> Action {
        match self {
            Self::Pause => Action::PausePlugin,
            Self::Resume => Action::ResumePlugin,
            Self::Forget => Action::ForgetPlugin,
        }
    }
}

impl Admin {
    async fn told(&self, actor: &Actor, deed: Deed, name: Named) -> Result<Json<Value>, ApiError> {
        let Path(name) = name?;
        self.act(actor, deed, &name).await?;
        // A forgotten plugin is no longer in the registry.
        let Some(plugin) = self.0.registry.by_name(&name) else {
            return Ok(Json(json!({ "name": name, "state": "forgotten" })));
        };
        let stats = self.0.store.stats().await?.plugins;
        Ok(Json(view(&plugin, &stats)))
    }

    /// The plugin with this name.
    ///
    /// # Errors
    /// 404, with the other record that has the name, or with the nearest name.
    pub(in crate::admin) async fn plugin(&self, name: &str) -> Result<Arc<Plugin>, ApiError> {
        if let Some(plugin) = self.0.registry.by_name(name) {
            return Ok(plugin);
        }
        let what = match self.place(name).await? {
            Some(place) => format!("`{0}` is a delivery: `posthouse deliveries show {0}`", place.id),
            None => self.what_is(name).await?,
        };
        if what.is_empty() {
            return Err(self.no_plugin(name));
        }
        Err(ApiError::not_found(format!("no plugin `{}`; {what}", shown(name))))
    }

    /// The error for a missing plugin, with the nearest name.
    pub(in crate::admin) fn no_plugin(&self, name: &str) -> ApiError {
        let known = self.0.registry.list();
        match nearest(name, known.iter().map(|plugin| plugin.record.name.as_str())) {
            Some(near) => ApiError::not_found(format!("no plugin `{}`; did you mean `{near}`?", shown(name))),
            None => PluginError::Unknown(name.to_owned()).into(),
        }
    }

    /// Pauses, resumes or forgets a plugin.
    pub(in crate::admin) async fn act(&self, actor: &Actor, deed: Deed, name: &str) -> Result<(), ApiError> {
        let (admin, registry, plugin) = (self.clone(), self.0.registry.clone(), name.to_owned());
        let work = async move {
            if registry.by_name(&plugin).is_none() {
                return Err(admin.no_plugin(&plugin));
            }
            match deed {
                Deed::Pause => registry.pause(&plugin).await?,
                Deed::Resume => registry.resume(&plugin).await?,
                Deed::Forget => registry.forget(&plugin).await?,
            }
            Ok(())
        };
        self.audited(actor, deed.action(), name, work, |()| "done".to_owned()).await
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
