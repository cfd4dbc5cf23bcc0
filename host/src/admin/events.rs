//! `GET /v1/events`: events, newest first; `GET /v1/events/{id}`: all of one.

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Admin, Since, error::ApiError, query};
use crate::{
    model::{EventSeq, Pattern, SourceName},
    store::{EventDetail, EventFilter},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    #[serde(rename = "type")]
    event_type: Option<Pattern>,
    source: Option<String>,
    organization: Option<String>,
    since: Option<Since>,
    limit: Option<u32>,
    before: Option<i64>,
}

pub(super) async fn list(
    State(admin): State<Admin>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(asked) = query?;
    let filter = EventFilter {
        event_type: asked.event_type,
        source: asked.source,
        organization: asked.organization,
        since: admin.moment(asked.since),
        limit: query::limit(asked.limit)?,
        before: asked.before.map(EventSeq),
    };
    Ok(Json(json!({ "events": admin.0.store.events(filter).await? })))
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
    Ok(Json(json!({ "events": events })))
}

impl Admin {
    /// The events of this id: one, or one of each source that has it.
    pub(super) async fn find_events(
        &self,
        source: Option<SourceName>,
        id: &str,
    ) -> Result<Vec<EventDetail>, ApiError> {
        let events = self.0.store.event(source.clone(), id).await?;
        if !events.is_empty() {
            return Ok(events);
        }
        let at = source.map(|source| format!(" of source `{source}`")).unwrap_or_default();
        Err(ApiError::not_found(format!(
            "no event `{id}`{at} in the store; `posthouse events` lists them, and those older than the \
             retention are gone"
        )))
    }
}
