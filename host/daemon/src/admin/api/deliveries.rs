//! `GET /v1/deliveries`: deliveries, newest first. `GET /v1/deliveries/{id}`: everything about one.

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
};
use posthouse_model::{DeliveryState, Pattern};
use posthouse_store::{DeliveryDetail, DeliveryFilter};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ids, names::Asked, query, rows};

use crate::admin::{
    Admin, Since,
    error::{ApiError, shown},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    state: Option<DeliveryState>,
    plugin: Option<String>,
    source: Option<String>,
    #[serde(rename = "type")]
    event_type: Option<Pattern>,
    reason: Option<String>,
    since: Option<Since>,
    until: Option<Since>,
    limit: Option<u32>,
    before: Option<String>,
}

pub(super) async fn list(
    State(admin): State<Admin>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(asked) = query?;
    let before = match asked.before {
        None => None,
        Some(id) => Some(id.parse().map_err(|error| ApiError::bad_request(format!("`before`: {error}")))?),
    };
    let names = Asked {
        source: asked.source.as_deref(),
        plugin: asked.plugin.as_deref(),
        event_type: asked.event_type.as_ref(),
    };
    admin.known(names).await?;
    let filter = DeliveryFilter {
        state: asked.state,
        plugin: asked.plugin,
        event: None,
        event_type: asked.event_type,
        source: asked.source,
        reason: asked.reason,
        since: admin.since(asked.since),
        until: admin.until(asked.until),
        limit: query::limit(asked.limit)?,
        before,
    };
    let page = admin.0.store.deliveries_within(filter, query::SEARCH).await?;
    Ok(Json(
        json!({ "deliveries": rows::all::<_, rows::DeliverySummary>(page.deliveries), "next": page.next }),
    ))
}

pub(super) async fn show(
    State(admin): State<Admin>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path(id) = id?;
    Ok(Json(json!(rows::DeliveryDetail::from(admin.delivery(&id).await?))))
}

impl Admin {
    /// Everything about one delivery, masked as the source of its event says. The id may also be that of a
    /// mail or request that the delivery sent.
    pub(in crate::admin) async fn delivery(&self, id: &str) -> Result<DeliveryDetail, ApiError> {
        let Some(place) = self.place(id).await? else { return Err(self.no_delivery(id).await?) };
        let events = self.find_events(Some(place.source), &place.event).await?;
        let mut history = events.into_iter().flat_map(|event| event.history);
        history.find(|delivery| delivery.summary.id == place.id).ok_or_else(|| gone(id))
    }

    /// The error for a missing delivery: it says which other record has this id, if any has.
    async fn no_delivery(&self, id: &str) -> Result<ApiError, ApiError> {
        if ids::delivery(id).is_some() {
            return Ok(gone(id));
        }
        let events = self.0.store.event(None, id).await?;
        let shown = shown(id);
        let what = if events.is_empty() {
            self.what_is(id).await?
        } else {
            format!("`{shown}` is an event: `posthouse events show {shown}` prints its deliveries")
        };
        let what = if what.is_empty() { "an id of a delivery looks like `dlv_123`".to_owned() } else { what };
        Ok(ApiError::not_found(format!("no delivery `{shown}`; {what}")))
    }
}

fn gone(id: &str) -> ApiError {
    ApiError::not_found(format!(
        "no delivery `{}` in the store; `posthouse deliveries` lists them, and those older than the retention \
         are gone",
        shown(id)
    ))
}
