//! `GET /v1/plugins`: the state of each plugin. `POST /v1/plugins/{name}/pause`, `/resume`, `/forget`.
//!
//! The list also contains the ignored files of the plugins folder, with the reason.
//!
//! The content of a plugin's `config` table is not shown: any value in it may be a secret.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Extension, Json,
    extract::{Path, State, rejection::PathRejection},
};
use jiff::Timestamp;
use posthouse_guest::plugin::{Plugin, PluginError};
use posthouse_model::{
    BreakerState, Capability, DeliveryState, Grants, HeldReason, OrderBy, Pattern, config::nearest,
};
use posthouse_store::PluginStats;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    refusals::{BadRequest, Conflict, NotFound},
    rows, schemas,
};

use crate::admin::{
    Action, Actor, Admin,
    error::{ApiError, shown},
};

/// The state of a plugin.
#[derive(Serialize, ToSchema)]
#[schema(as = Plugin)]
pub(super) struct PluginView {
    /// Its name: the stem of its file, unless config.toml names another `component`.
    name: String,
    /// Whether its deliveries run.
    state: PluginState,
    /// Why its deliveries are held. Null if they run.
    #[schema(value_type = Option<schemas::HeldReason>)]
    held: Option<HeldReason>,
    /// Why its deliveries are held, for a person. Null if they run.
    reason: Option<String>,
    /// Whether an operator paused it.
    paused: bool,
    /// Its circuit breaker.
    breaker: Breaker,
    /// The SHA-256 of its file, in hex. Null before its first revision is loaded.
    revision: Option<String>,
    /// The description in its manifest.
    description: String,
    /// The event types that it subscribes to.
    #[schema(value_type = Vec<String>)]
    events: Vec<Pattern>,
    /// The capabilities that it requires.
    #[schema(value_type = Vec<String>)]
    requires: Vec<Capability>,
    /// The capabilities that it requires and config.toml does not grant.
    #[schema(value_type = Vec<String>)]
    lacks: Vec<Capability>,
    /// Its grants in config.toml.
    #[schema(value_type = Object)]
    grants: Grants,
    /// The error of the last load, if it failed.
    last_error: Option<String>,
    /// When its revision was loaded.
    loaded_at: Option<Timestamp>,
    /// Deliveries created.
    made: u64,
    /// Deliveries by state. Null if none was made.
    #[schema(value_type = Option<BTreeMap<String, u64>>)]
    deliveries: Option<BTreeMap<DeliveryState, u64>>,
    /// Deliveries of a replay of many that wait for their turn.
    replays_waiting: u64,
    /// When the oldest delivery that is ready, waiting or held was made.
    oldest_open: Option<Timestamp>,
    /// Its settings in config.toml.
    settings: Settings,
    /// The contents of its file, newest first. Only if one plugin is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    revisions: Option<Vec<rows::PluginRevision>>,
}

/// Whether the deliveries of a plugin run or are held.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum PluginState {
    Serving,
    Held,
}

/// The circuit breaker of a plugin, which pauses it automatically.
#[derive(Serialize, ToSchema)]
pub(super) struct Breaker {
    /// The state of the breaker.
    #[schema(value_type = schemas::BreakerState)]
    state: BreakerState,
    /// Different deliveries that have failed since the last success.
    failures_in_a_row: u32,
    /// Failed trials since it opened, plus one. 0 if it is closed.
    pauses: u32,
    /// When it opened. Null if it is closed.
    since: Option<Timestamp>,
    /// When a delivery that failed before is tried. Null if the breaker is closed or half-open.
    until: Option<Timestamp>,
    /// Different deliveries in a row whose failure opens it. 0 means that none do.
    failures: u32,
    /// The first pause, such as `30s`.
    pause: String,
    /// The longest pause, such as `10m`.
    max_pause: String,
}

/// Settings of a plugin in config.toml.
#[derive(Serialize, ToSchema)]
#[schema(as = PluginSettings)]
pub(super) struct Settings {
    /// The name of its file without `.wasm`, if that is not its own name.
    component: Option<String>,
    /// The most attempts at once.
    concurrency: usize,
    /// How many attempts one instance serves.
    reuse: u32,
    /// The order key: `organization`, `user` or a JSON pointer. Null means no order.
    #[schema(value_type = Option<String>)]
    order_by: Option<OrderBy>,
    /// How many attempts it may begin. Null if config.toml sets no limit.
    rate: Option<rows::Rate>,
    /// The most attempts of a delivery.
    attempts: u32,
    /// The time limit of an attempt, such as `8s`.
    time: String,
    /// The memory limit of an instance, in bytes.
    memory: usize,
}

/// All plugins.
#[derive(Serialize, ToSchema)]
#[schema(as = Plugins)]
pub(super) struct PluginList {
    /// The plugins, by name.
    plugins: Vec<PluginView>,
    /// The files in the plugins folder that are ignored.
    ignored: Vec<rows::IgnoredFile>,
}

/// The plugin after an action.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum PluginAfter {
    Known(Box<PluginView>),
    Forgotten(Forgotten),
}

/// A plugin that was forgotten.
#[derive(Serialize, ToSchema)]
#[serde(tag = "state", rename_all = "lowercase")]
#[schema(as = ForgottenPlugin)]
pub(super) enum Forgotten {
    Forgotten {
        /// Its name.
        name: String,
    },
}

/// List the plugins and their state
#[utoipa::path(
    get,
    path = "/v1/plugins",
    operation_id = "listPlugins",
    responses((status = 200, description = "The plugins.", body = PluginList)),
)]
pub(super) async fn list(State(admin): State<Admin>) -> Result<Json<PluginList>, ApiError> {
    let stats = admin.0.store.stats().await?.plugins;
    let plugins = admin.0.registry.list().iter().map(|plugin| view(plugin, &stats)).collect();
    Ok(Json(PluginList { plugins, ignored: rows::all(admin.0.registry.ignored()) }))
}

/// The state of one plugin
#[utoipa::path(
    get,
    path = "/v1/plugins/{name}",
    operation_id = "getPlugin",
    params(("name" = String, Path, min_length = 1, description = "The stem of its file.")),
    responses((status = 200, description = "The plugin.", body = PluginView), BadRequest, NotFound),
)]
pub(super) async fn show(
    State(admin): State<Admin>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<PluginView>, ApiError> {
    let Path(name) = name?;
    let plugin = admin.plugin(&name).await?;
    let stats = admin.0.store.stats().await?.plugins;
    let revisions = admin.0.store.revisions(plugin.record.id).await?;
    Ok(Json(PluginView { revisions: Some(rows::all(revisions)), ..view(&plugin, &stats) }))
}

type Named = Result<Path<String>, PathRejection>;

/// Pause a plugin
///
/// Its deliveries are held until it is resumed.
#[utoipa::path(
    post,
    path = "/v1/plugins/{name}/pause",
    operation_id = "pausePlugin",
    params(("name" = String, Path, min_length = 1, description = "The stem of its file.")),
    responses(
        (status = 200, description = "The plugin is paused.", body = PluginAfter),
        BadRequest,
        NotFound,
        Conflict,
    ),
)]
pub(super) async fn pause(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    name: Named,
) -> Result<Json<PluginAfter>, ApiError> {
    admin.told(&actor, Deed::Pause, name).await
}

/// Resume a paused plugin
#[utoipa::path(
    post,
    path = "/v1/plugins/{name}/resume",
    operation_id = "resumePlugin",
    params(("name" = String, Path, min_length = 1, description = "The stem of its file.")),
    responses(
        (status = 200, description = "The plugin is not paused.", body = PluginAfter),
        BadRequest,
        NotFound,
        Conflict,
    ),
)]
pub(super) async fn resume(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    name: Named,
) -> Result<Json<PluginAfter>, ApiError> {
    admin.told(&actor, Deed::Resume, name).await
}

/// Forget a plugin whose file is gone
#[utoipa::path(
    post,
    path = "/v1/plugins/{name}/forget",
    operation_id = "forgetPlugin",
    params(("name" = String, Path, min_length = 1, description = "The stem of its file.")),
    responses(
        (status = 200, description = "The plugin is forgotten.", body = PluginAfter),
        BadRequest,
        NotFound,
        Conflict,
    ),
)]
pub(super) async fn forget(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    name: Named,
) -> Result<Json<PluginAfter>, ApiError> {
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
    async fn told(&self, actor: &Actor, deed: Deed, name: Named) -> Result<Json<PluginAfter>, ApiError> {
        let Path(name) = name?;
        self.act(actor, deed, &name).await?;
        // A forgotten plugin is no longer in the registry.
        let Some(plugin) = self.0.registry.by_name(&name) else {
            return Ok(Json(PluginAfter::Forgotten(Forgotten::Forgotten { name })));
        };
        let stats = self.0.store.stats().await?.plugins;
        Ok(Json(PluginAfter::Known(Box::new(view(&plugin, &stats)))))
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
fn breaker(plugin: &Plugin) -> Breaker {
    let (trip, settings) = (plugin.trip(), plugin.settings.breaker);
    Breaker {
        state: plugin.breaker(),
        failures_in_a_row: plugin.failures_in_a_row(),
        pauses: trip.map_or(0, |trip| trip.pauses),
        since: trip.map(|trip| trip.since),
        until: trip.filter(|trip| !trip.trying).map(|trip| trip.until),
        failures: settings.failures,
        pause: humantime::format_duration(settings.pause).to_string(),
        max_pause: humantime::format_duration(settings.max_pause).to_string(),
    }
}

/// The plugin, without its revisions.
fn view(plugin: &Plugin, stats: &[PluginStats]) -> PluginView {
    let (record, settings) = (&plugin.record, &plugin.settings);
    let counts = stats.iter().find(|counts| counts.plugin == record.name);
    let lacks = |capability: &Capability| !settings.grants.allows(*capability);
    PluginView {
        name: record.name.clone(),
        state: if plugin.serving() { PluginState::Serving } else { PluginState::Held },
        held: record.held.clone(),
        reason: record.held.as_ref().map(ToString::to_string),
        paused: record.paused,
        breaker: breaker(plugin),
        revision: record.revision.clone(),
        description: record.description.clone(),
        events: record.events.clone(),
        requires: record.requires.clone(),
        lacks: record.requires.iter().copied().filter(lacks).collect(),
        grants: settings.grants.clone(),
        last_error: record.last_error.clone(),
        loaded_at: record.loaded_at,
        made: counts.map_or(0, |counts| counts.made),
        deliveries: counts.map(|counts| counts.states.clone()),
        replays_waiting: counts.map_or(0, |counts| counts.replays_waiting),
        oldest_open: counts.and_then(|counts| counts.oldest_open),
        settings: Settings {
            component: settings.component.clone(),
            concurrency: settings.concurrency,
            reuse: settings.reuse,
            order_by: settings.order_by.clone(),
            rate: settings.rate.map(rows::Rate::from),
            attempts: settings.retry.attempts,
            time: humantime::format_duration(settings.limits.time).to_string(),
            memory: settings.limits.memory,
        },
        revisions: None,
    }
}
