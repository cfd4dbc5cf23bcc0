//! `POST /v1/replay`: new deliveries of old events.
//!
//! Of one event (`{"event":…}`): for the plugin that is named, or for each that subscribes to its type
//! now or has had a delivery of it. Of dead letters (`{"dead":true}`): for the plugin that each was for.
//! Each new delivery has an id of its own, so that it does take effect again.

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Admin, Since, error::ApiError};
use crate::{
    model::{DeliveryId, DeliveryState, EventType, PluginId, SourceName},
    plugin::PluginError,
    store::{DeliveryFilter, EventDetail},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Body {
    event: Option<String>,
    source: Option<SourceName>,
    plugin: Option<String>,
    #[serde(default)]
    dead: bool,
    since: Option<Since>,
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn replay(
    State(admin): State<Admin>,
    body: Result<Json<Body>, JsonRejection>,
) -> Result<Json<Value>, ApiError> {
    let Json(asked) = body?;
    let plugin = match &asked.plugin {
        None => None,
        Some(name) => Some(admin.plugin_id(name)?),
    };
    let dry_run = asked.dry_run;
    match (asked.event, asked.dead) {
        (Some(event), false) if asked.since.is_none() => {
            let deliveries =
                detached(async move { admin.replay_event(&event, asked.source, plugin, dry_run).await })
                    .await?;
            Ok(Json(match deliveries {
                Replayed::Would(count) => json!({ "count": count, "dry_run": true }),
                Replayed::Made(ids) => json!({ "count": ids.len(), "deliveries": ids, "dry_run": false }),
            }))
        }
        (None, true) if asked.source.is_none() => {
            let filter = DeliveryFilter {
                state: Some(DeliveryState::Dead),
                plugin: asked.plugin,
                since: admin.moment(asked.since),
                ..DeliveryFilter::default()
            };
            let (store, orders) = (admin.0.store.clone(), admin.0.registry.orders());
            let count = detached(async move {
                Ok(if dry_run {
                    store.count_deliveries(filter).await?
                } else {
                    store.replay_deliveries(filter, orders).await?
                })
            })
            .await?;
            Ok(Json(json!({ "count": count, "dry_run": dry_run })))
        }
        _ => Err(ApiError::bad_request(
            r#"say either `"event"` (with `"source"`, `"plugin"`) or `"dead": true` (with `"plugin"`, `"since"`)"#,
        )),
    }
}

enum Replayed {
    Would(usize),
    Made(Vec<DeliveryId>),
}

impl Admin {
    fn plugin_id(&self, name: &str) -> Result<PluginId, ApiError> {
        match self.0.registry.by_name(name) {
            Some(plugin) => Ok(plugin.record.id),
            None => Err(PluginError::Unknown(name.to_owned()).into()),
        }
    }

    async fn replay_event(
        &self,
        id: &str,
        source: Option<SourceName>,
        plugin: Option<PluginId>,
        dry_run: bool,
    ) -> Result<Replayed, ApiError> {
        let events = self.find_events(source, id).await?;
        let [event] = events.as_slice() else {
            let sources: Vec<_> = events.iter().map(|event| event.summary.source.as_str()).collect();
            return Err(ApiError::conflict(format!(
                "several sources have an event `{id}` ({}); say which with `source`",
                sources.join(", ")
            )));
        };
        let plugins = match plugin {
            Some(plugin) => vec![plugin],
            None => self.concerned(event),
        };
        if plugins.is_empty() {
            return Err(ApiError::conflict(format!(
                "no plugin subscribes to `{}` and none had a delivery of event `{id}`; name one with `plugin`",
                event.summary.event_type
            )));
        }
        if dry_run {
            return Ok(Replayed::Would(plugins.len()));
        }
        Ok(Replayed::Made(
            self.0.store.replay_event(event.summary.seq, plugins, self.0.registry.orders()).await?,
        ))
    }

    /// The plugins that subscribe to the event now, and those that had a delivery of it and are still
    /// known.
    fn concerned(&self, event: &EventDetail) -> Vec<PluginId> {
        let registry = &self.0.registry;
        let subscribed = EventType::new(&event.summary.event_type)
            .map(|event_type| registry.subscribers(&event_type))
            .unwrap_or_default();
        let had = event
            .history
            .iter()
            .filter_map(|delivery| registry.by_name(&delivery.summary.plugin))
            .map(|plugin| plugin.record.id);
        let mut plugins: Vec<_> = subscribed.into_iter().chain(had).collect();
        plugins.sort_unstable();
        plugins.dedup();
        plugins
    }
}

/// Runs to its end what must not stop half way when the client goes away.
pub(super) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(_) => Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the work did not end; see the log")),
    }
}
