//! `GET /v1/events`: a search, newest first. `GET /v1/events/{id}`: everything about one event.
//!
//! This module masks what a source's `redact` names, for all code that shows an event: in the body, and in
//! every text that results from handling it.

use std::collections::HashMap;

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
};
use jiff::Timestamp;
use posthouse_model::{DeliveryId, EventSeq, Pattern, SourceName, config::Config, emitted_by};
use posthouse_store::{EventDetail, EventFilter, EventPage, Payloads};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    ids::delivery,
    names::Asked,
    outbox, query,
    refusals::{BadRequest, NotFound, UnknownName},
    rows, schemas,
};

use crate::admin::{
    Admin, Since,
    error::{ApiError, shown},
};

/// The filters of a search.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only events of these types.
    #[serde(rename = "type")]
    #[param(value_type = Option<schemas::EventPattern>)]
    event_type: Option<Pattern>,
    /// Only events of this source.
    source: Option<String>,
    /// Only events of this organization.
    organization: Option<String>,
    /// Only the event with this id of the sender. The id of a delivery, a Message-ID or an Idempotency-Key finds
    /// the event that it belongs to.
    id: Option<String>,
    /// Only events with this text in the body. The search compares bytes and ignores the case of ASCII letters.
    text: Option<String>,
    /// Only events received at this time or later.
    since: Option<Since>,
    /// Only events received at this time or earlier. A day counts to its end.
    until: Option<Since>,
    /// The most rows.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// Only events with a smaller `seq`: the `next` of the previous page.
    #[param(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    before: Option<i64>,
}

/// A page of a search.
#[derive(Serialize, ToSchema)]
#[schema(as = EventPage)]
pub(super) struct Page {
    /// The events, newest first.
    events: Vec<rows::Event>,
    /// The `before` of the next page. Null if the search has ended.
    #[schema(value_type = Option<i64>)]
    next: Option<EventSeq>,
    /// How far back the search has looked. Null if it has looked at all events.
    looked_to: Option<Timestamp>,
}

/// Search events, newest first
///
/// A call searches for about half a second, and `next` says where to continue. A page may be short or empty
/// and still have a `next`.
#[utoipa::path(
    get,
    path = "/v1/events",
    operation_id = "listEvents",
    params(ListQuery),
    responses((status = 200, description = "A page of events.", body = Page), BadRequest, UnknownName),
)]
pub(super) async fn list(
    State(admin): State<Admin>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Page>, ApiError> {
    let Query(asked) = query?;
    let names =
        Asked { source: asked.source.as_deref(), event_type: asked.event_type.as_ref(), ..Asked::default() };
    admin.known(names).await?;
    let filter = EventFilter {
        event_type: asked.event_type,
        source: asked.source,
        organization: asked.organization,
        id: asked.id,
        text: asked.text.filter(|text| !text.is_empty()),
        since: admin.since(asked.since),
        until: admin.until(asked.until),
        limit: query::limit(asked.limit)?,
        before: asked.before.map(EventSeq),
    };
    let page = admin.search(filter).await?;
    Ok(Json(Page { events: rows::all(page.events), next: page.next, looked_to: page.looked_to }))
}

/// The choice among the events with the id.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ShowQuery {
    /// The source, if several have an event with this id.
    #[param(value_type = Option<schemas::SourceName>)]
    source: Option<SourceName>,
}

/// The events with one id.
#[derive(Serialize, ToSchema)]
pub(super) struct Events {
    /// One event, or one of each source that has the id.
    events: Vec<rows::EventDetail>,
}

/// Everything about one event
#[utoipa::path(
    get,
    path = "/v1/events/{id}",
    operation_id = "getEvent",
    params(
        (
            "id" = String, Path, min_length = 1,
            description = "The sender's id, the id of one of its deliveries (`dlv_…`), or the Message-ID or \
                           Idempotency-Key of what a delivery sent.",
        ),
        ShowQuery,
    ),
    responses((status = 200, description = "The event.", body = Events), BadRequest, NotFound),
)]

pub(super) async fn show(
    State(admin): State<Admin>,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<ShowQuery>, QueryRejection>,
) -> Result<Json<Events>, ApiError> {
    let (Path(id), Query(asked)) = (id?, query?);
    let events = admin.find_events(asked.source, &id).await?;
    Ok(Json(Events { events: rows::all(events) }))
}

impl Admin {
    /// A page of a search. With the id of a delivery, or of a mail or request that it sent, it finds the
    /// delivery's event.
    pub(in crate::admin) async fn search(&self, filter: EventFilter) -> Result<EventPage, ApiError> {
        let found = self.0.store.search(filter.clone(), query::SEARCH).await?;
        if found.events.is_empty()
            && let Some(place) = self.place(filter.id.as_deref().unwrap_or_default()).await?
            && filter.source.as_deref().is_none_or(|source| source == place.source.as_str())
        {
            let (id, source) = (Some(place.event), Some(String::from(place.source)));
            return Ok(self.0.store.search(EventFilter { id, source, ..filter }, query::SEARCH).await?);
        }
        Ok(found)
    }

    /// The events with this id: one, or one of each source that has it; masked as the source says. The id of
    /// a delivery, or of a mail or request that it sent, leads to the delivery's event.
    pub(in crate::admin) async fn find_events(
        &self,
        source: Option<SourceName>,
        id: &str,
    ) -> Result<Vec<EventDetail>, ApiError> {
        let mut events = self.0.store.event(source.clone(), id).await?;
        if events.is_empty()
            && let Some(place) = self.place(id).await?
            && source.as_ref().is_none_or(|source| *source == place.source)
        {
            events = self.0.store.event(Some(place.source), &place.event).await?;
        }
        if events.is_empty() {
            let what = self.what_is(id).await?;
            if !what.is_empty() {
                return Err(ApiError::not_found(format!("no event `{}`; {what}", shown(id))));
            }
            let at = source.map(|source| format!(" of source `{source}`")).unwrap_or_default();
            return Err(ApiError::not_found(format!(
                "no {} `{}`{at} in the store; `posthouse events` lists events, and those older than the \
                 retention are gone",
                if delivery(id).is_some() { "delivery" } else { "event" },
                shown(id)
            )));
        }
        let config = self.config();
        if !config.redacts() {
            return Ok(events);
        }
        // A plugin made an emitted event from the content of other events.
        let causes: Vec<_> =
            events.iter().filter_map(|event| emitted_by(&event.summary.source, &event.summary.id)).collect();
        let payloads = self.0.store.payloads(causes).await?;
        // Runs off the runtime's threads: a payload may be long, and so may its logs.
        let masking = tokio::task::spawn_blocking(move || {
            events.iter_mut().for_each(|event| mask(event, &config, &payloads));
            events
        });
        Ok(masking.await?)
    }
}

/// Masks what an event shows. An emitted event is masked by the events that it results from, too.
fn mask(event: &mut EventDetail, config: &Config, payloads: &HashMap<DeliveryId, Payloads>) {
    let redact = |source: &str| config.redact_of(source);
    let mut mask = redact(&event.summary.source).mask(event.body.as_bytes());
    let received = event.body.clone();
    if let Some(body) = mask.body() {
        event.body = body.to_owned();
    }
    if let Some(cause) = emitted_by(&event.summary.source, &event.summary.id) {
        mask = mask.and(payloads.get(&cause).cloned().unwrap_or_default().mask(redact));
        mask.text(&mut event.body);
    }
    event.masked = event.body != received;
    event
        .headers
        .iter_mut()
        .map(|(_, value)| value)
        .chain(&mut event.content_type)
        .for_each(|text| mask.text(text));
    for delivery in &mut event.history {
        delivery.summary.error.iter_mut().for_each(|text| mask.text(text));
        for attempt in &mut delivery.attempt_log {
            attempt.error.iter_mut().chain(&mut attempt.trace).for_each(|text| mask.text(text));
            attempt.logs.iter_mut().for_each(|line| mask.text(&mut line.message));
            attempt.actions.iter_mut().for_each(|line| mask.text(line));
        }
        delivery.outbox.iter_mut().for_each(|item| outbox::mask(item, &mask));
    }
}
