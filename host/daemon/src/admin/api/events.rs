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
use posthouse_model::{DeliveryId, EventSeq, Pattern, SourceName, config::Source, emitted_by};
use posthouse_store::{EventDetail, EventFilter, EventPage, Payloads};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ids::delivery, names::Asked, outbox, query, rows};

use crate::admin::{
    Admin, Since,
    error::{ApiError, shown},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    #[serde(rename = "type")]
    event_type: Option<Pattern>,
    source: Option<String>,
    organization: Option<String>,
    id: Option<String>,
    text: Option<String>,
    since: Option<Since>,
    until: Option<Since>,
    limit: Option<u32>,
    before: Option<i64>,
}

pub(super) async fn list(
    State(admin): State<Admin>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
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
    Ok(Json(
        json!({ "events": rows::all::<_, rows::EventSummary>(page.events), "next": page.next, "looked_to": page.looked_to }),
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShowQuery {
    source: Option<SourceName>,
}

pub(super) async fn show(
    State(admin): State<Admin>,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<ShowQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let (Path(id), Query(asked)) = (id?, query?);
    let events = admin.find_events(asked.source, &id).await?;
    Ok(Json(json!({ "events": rows::all::<_, rows::EventDetail>(events) })))
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
        let sources = (self.0.senders.sources)();
        if sources.iter().all(|source| source.redact.is_empty()) {
            return Ok(events);
        }
        // A plugin made an emitted event from the content of other events.
        let causes: Vec<_> =
            events.iter().filter_map(|event| emitted_by(&event.summary.source, &event.summary.id)).collect();
        let payloads = self.0.store.payloads(causes).await?;
        // Runs off the runtime's threads: a payload may be long, and so may its logs.
        let masking = tokio::task::spawn_blocking(move || {
            events.iter_mut().for_each(|event| mask(event, &sources, &payloads));
            events
        });
        Ok(masking.await?)
    }
}

/// Masks what an event shows. An emitted event is masked by the events that it results from, too.
fn mask(event: &mut EventDetail, sources: &[Source], payloads: &HashMap<DeliveryId, Payloads>) {
    let redact = |source: &str| Source::redact_of(sources, source);
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
    for delivery in &mut event.history {
        delivery.summary.error.iter_mut().for_each(|text| mask.text(text));
        for attempt in &mut delivery.attempt_log {
            attempt.error.iter_mut().chain(&mut attempt.trace).for_each(|text| mask.text(text));
            attempt.logs.iter_mut().for_each(|line| mask.text(&mut line.message));
            attempt.did.iter_mut().for_each(|line| mask.text(line));
        }
        delivery.outbox.iter_mut().for_each(|item| outbox::mask(item, &mask));
    }
}
