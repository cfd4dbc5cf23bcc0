//! `POST /v1/replay`: new deliveries of old events.
//!
//! For one event (`{"event":…}`, with the id of the event or of one of its deliveries), it creates a delivery
//! for the named plugin. Without a name, it creates one for each plugin that subscribes to the type now or
//! has had a delivery of the event.
//!
//! For many, it selects dead letters (`{"dead":true}`) or all finished deliveries (`{"finished":true}`),
//! narrowed by plugin, source, type, reason and time. Each is replayed for its own plugin, and only once,
//! however often the request is sent. `dry_run` only counts. Each new delivery has its own id, so it takes
//! effect again.

use std::borrow::Cow;

use axum::{
    Extension, Json,
    extract::{State, rejection::JsonRejection},
};
use posthouse_model::{DeliveryId, DeliveryState, EventType, Pattern, PluginId, SourceName, counted};
use posthouse_store::{DeliveryFilter, DeliveryPlace, EventDetail};
use serde::{Deserialize, Serialize};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use super::{
    ids,
    names::Asked,
    refusals::{BadBody, Conflict, NotFound},
    schemas::{self, Form},
};

use crate::admin::{Action, Actor, Admin, Since, error::ApiError};

/// The deliveries to replay.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Body {
    /// The sender's id of the event. The id of a delivery means its event, for its plugin.
    #[schema(nullable = false, min_length = 1)]
    event: Option<String>,
    /// Dead letters.
    #[serde(default)]
    dead: bool,
    /// All finished deliveries: done, or dead letters.
    #[serde(default)]
    finished: bool,
    /// Only for events of this source.
    #[schema(nullable = false, value_type = Option<schemas::SourceName>)]
    source: Option<SourceName>,
    /// Only for this plugin.
    #[schema(nullable = false, min_length = 1)]
    plugin: Option<String>,
    /// Only for events of these types.
    #[serde(rename = "type")]
    #[schema(nullable = false, value_type = Option<schemas::EventPattern>)]
    event_type: Option<Pattern>,
    /// Only deliveries whose error has the same cause as this one. Empty: only deliveries without an error.
    #[schema(nullable = false)]
    reason: Option<String>,
    /// Only deliveries that finished at this time or later.
    #[schema(nullable = false)]
    since: Option<Since>,
    /// Only deliveries that finished at this time or earlier. A day counts to its end.
    #[schema(nullable = false)]
    until: Option<Since>,
    /// Count the deliveries and make none.
    #[serde(default)]
    dry_run: bool,
}

/// The forms of a [`Body`].
pub(super) enum Forms {}

impl PartialSchema for Forms {
    fn schema() -> RefOr<Schema> {
        const FILTER: &[&str] = &["plugin", "source", "type", "reason", "since", "until", "dry_run"];
        schemas::forms::<Body>(&[
            Form {
                what: "One event: for the named plugin, or for each plugin that subscribes to its type or has \
                       had a delivery of it.",
                needs: "event",
                takes: &["source", "plugin", "dry_run"],
            },
            Form { what: "Dead letters that have not been replayed.", needs: "dead", takes: FILTER },
            Form {
                what: "Finished deliveries that have not been replayed.",
                needs: "finished",
                takes: FILTER,
            },
        ])
    }
}

impl ToSchema for Forms {
    fn name() -> Cow<'static, str> {
        "Replay".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Body::schemas(schemas);
    }
}

/// The result of a replay.
#[derive(Serialize, ToSchema)]
#[schema(as = Replayed)]
pub(super) struct Answer {
    /// The number of deliveries that were created, or would be.
    count: u64,
    /// Whether they were only counted.
    dry_run: bool,
    /// The new deliveries of one event.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Vec<schemas::DeliveryId>>)]
    deliveries: Option<Vec<DeliveryId>>,
}

impl Body {
    /// Whether the request has filters that make no sense for a single event.
    fn narrows(&self) -> bool {
        self.event_type.is_some() || self.reason.is_some() || self.since.is_some() || self.until.is_some()
    }
}

/// Make new deliveries of old events
///
/// Each new delivery has its own id, so its effects happen again. Of many, each is replayed for its own plugin
/// and only once, however often the request is sent.
#[utoipa::path(
    post,
    path = "/v1/replay",
    operation_id = "replayEvents",
    request_body = Forms,
    responses(
        (status = 200, description = "The deliveries were created or counted.", body = Answer),
        BadBody,
        NotFound,
        Conflict,
    ),
)]
pub(super) async fn replay(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    body: Result<Json<Body>, JsonRejection>,
) -> Result<Json<Answer>, ApiError> {
    let Json(asked) = body?;
    if let Some(name) = &asked.plugin {
        admin.plugin_id(name)?;
    }
    let source = asked.source.as_ref().map(SourceName::as_str);
    admin.known(Asked { source, event_type: asked.event_type.as_ref(), ..Asked::default() }).await?;
    let dry_run = asked.dry_run;
    if let (Some(event), false, false, false) = (&asked.event, asked.dead, asked.finished, asked.narrows()) {
        let replayed =
            admin.replay_one(&actor, event.clone(), asked.source, asked.plugin.clone(), dry_run).await?;
        return Ok(Json(match replayed {
            Replayed::Would(count) => Answer { count: count as u64, dry_run: true, deliveries: None },
            Replayed::Made(ids) => Answer { count: ids.len() as u64, dry_run: false, deliveries: Some(ids) },
        }));
    }
    if asked.event.is_some() || asked.dead == asked.finished {
        return Err(ApiError::bad_request(
            r#"give either `"event"` (with `"source"`, `"plugin"`), or `"dead": true` or `"finished": true` (with `"plugin"`, `"source"`, `"type"`, `"reason"`, `"since"`, `"until"`)"#,
        ));
    }
    let filter = DeliveryFilter {
        state: asked.dead.then_some(DeliveryState::Dead),
        plugin: asked.plugin,
        source: asked.source.map(String::from),
        event_type: asked.event_type,
        reason: asked.reason,
        since: admin.since(asked.since),
        until: admin.until(asked.until),
        ..DeliveryFilter::default()
    };
    let count = if dry_run {
        admin.0.store.count_deliveries(filter).await?
    } else {
        admin.replay_many(&actor, filter).await?
    };
    Ok(Json(Answer { count, dry_run, deliveries: None }))
}

/// The result of a replay of one event.
pub(in crate::admin) enum Replayed {
    Would(usize),
    Made(Vec<DeliveryId>),
}

impl Admin {
    /// Replays the deliveries that the filter selects. Returns the number of new deliveries.
    pub(in crate::admin) async fn replay_many(
        &self,
        actor: &Actor,
        filter: DeliveryFilter,
    ) -> Result<u64, ApiError> {
        let target = described(&filter);
        let (store, orders) = (self.0.store.clone(), self.0.registry.orders());
        let work = async move { Ok(store.replay_deliveries(filter, orders).await?) };
        self.audited(actor, Action::ReplayMany, &target, work, |count| {
            format!("{} created", counted(*count, "delivery"))
        })
        .await
    }

    /// Replays one event.
    pub(in crate::admin) async fn replay_one(
        &self,
        actor: &Actor,
        event: String,
        source: Option<SourceName>,
        plugin: Option<String>,
        dry_run: bool,
    ) -> Result<Replayed, ApiError> {
        // The id of a delivery identifies its event and its plugin.
        let (event, source, plugin) = match self.replayed_by_delivery(&event, source.as_ref()).await? {
            Some(place) => (place.event, Some(place.source), plugin.or(Some(place.plugin))),
            None => (event, source, plugin),
        };
        let id = plugin.as_deref().map(|name| self.plugin_id(name)).transpose()?;
        let target = match &plugin {
            Some(plugin) => format!("{event} for {plugin}"),
            None => event.clone(),
        };
        let admin = self.clone();
        let work = async move { admin.replay_event(&event, source, id, dry_run).await };
        if dry_run {
            return work.await;
        }
        let said = |replayed: &Replayed| match replayed {
            Replayed::Would(count) => format!("{} would be created", counted(*count as u64, "delivery")),
            Replayed::Made(ids) => format!("{} created", counted(ids.len() as u64, "delivery")),
        };
        self.audited(actor, Action::ReplayEvent, &target, work, said).await
    }

    /// The delivery that the id means, unless an event has this id.
    async fn replayed_by_delivery(
        &self,
        id: &str,
        source: Option<&SourceName>,
    ) -> Result<Option<DeliveryPlace>, ApiError> {
        if ids::delivery(id).is_none() || !self.0.store.event(source.cloned(), id).await?.is_empty() {
            return Ok(None);
        }
        Ok(self.place(id).await?.filter(|place| source.is_none_or(|source| *source == place.source)))
    }

    fn plugin_id(&self, name: &str) -> Result<PluginId, ApiError> {
        match self.0.registry.by_name(name) {
            Some(plugin) => Ok(plugin.record.id),
            None => Err(self.no_plugin(name)),
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
                "several sources have an event `{id}` ({}); choose one with `source`",
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
        let orders = self.0.registry.orders();
        Ok(Replayed::Made(self.0.store.replay_event(event.summary.seq, plugins, orders).await?))
    }

    /// The plugins that subscribe to the event now, and those that had a delivery of it and are still known.
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

/// The selection of a filter, in a line.
fn described(filter: &DeliveryFilter) -> String {
    let what = if filter.state == Some(DeliveryState::Dead) { "dead letters" } else { "finished deliveries" };
    let parts = [
        ("plugin", filter.plugin.clone()),
        ("source", filter.source.clone()),
        ("type", filter.event_type.as_ref().map(|pattern| pattern.as_str().to_owned())),
        ("reason", filter.reason.clone()),
        ("since", filter.since.map(|at| at.to_string())),
        ("until", filter.until.map(|at| at.to_string())),
    ];
    parts
        .into_iter()
        .filter_map(|(name, value)| Some(format!(", {name} {}", value?)))
        .fold(what.to_owned(), |text, part| text + &part)
}
