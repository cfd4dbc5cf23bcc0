//! `GET /v1/deliveries`: deliveries, newest first. `GET /v1/deliveries/{id}`: everything about one.

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
};
use posthouse_model::{DeliveryId, DeliveryState, Pattern};
use posthouse_store::{DeliveryDetail, DeliveryFilter};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    ids,
    names::Asked,
    query,
    refusals::{BadRequest, NotFound, UnknownName},
    rows, schemas,
};

use crate::admin::{
    Admin, Since,
    error::{ApiError, shown},
};

/// The filters of the list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only deliveries in this state.
    #[param(value_type = Option<schemas::DeliveryState>)]
    state: Option<DeliveryState>,
    /// Only deliveries for this plugin.
    plugin: Option<String>,
    /// Only deliveries of events of this source.
    source: Option<String>,
    /// Only deliveries of events of these types.
    #[serde(rename = "type")]
    #[param(value_type = Option<schemas::EventPattern>)]
    event_type: Option<Pattern>,
    /// Only deliveries whose error has the same cause: ids, numbers and quoted values make no difference. Empty:
    /// only deliveries without an error.
    reason: Option<String>,
    /// Only deliveries that finished at this time or later. If a delivery has not finished, the time when it was
    /// made counts.
    since: Option<Since>,
    /// Only deliveries that finished or were made at this time or earlier. A day counts to its end.
    until: Option<Since>,
    /// The most rows.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// The `next` of the previous page.
    #[param(pattern = "^dlv_[0-9]{1,15}$")]
    before: Option<String>,
}

/// A page of deliveries.
#[derive(Serialize, ToSchema)]
pub(super) struct DeliveryPage {
    /// The deliveries, newest first.
    deliveries: Vec<rows::Delivery>,
    /// The `before` of the next page. Null if there is none.
    #[schema(value_type = Option<schemas::DeliveryId>)]
    next: Option<DeliveryId>,
}

/// List deliveries, newest first
#[utoipa::path(
    get,
    path = "/v1/deliveries",
    operation_id = "listDeliveries",
    params(ListQuery),
    responses((status = 200, description = "A page of deliveries.", body = DeliveryPage), BadRequest, UnknownName),
)]
pub(super) async fn list(
    State(admin): State<Admin>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<DeliveryPage>, ApiError> {
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
    Ok(Json(DeliveryPage { deliveries: rows::all(page.deliveries), next: page.next }))
}

/// Everything about one delivery
#[utoipa::path(
    get,
    path = "/v1/deliveries/{id}",
    operation_id = "getDelivery",
    params((
        "id" = String, Path, min_length = 1,
        description = "The id of the delivery (`dlv_…`), or the Message-ID or Idempotency-Key of what it sent.",
    )),
    responses(
        (status = 200, description = "The delivery.", body = rows::DeliveryDetail),
        BadRequest,
        NotFound,
    ),
)]
pub(super) async fn show(
    State(admin): State<Admin>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<rows::DeliveryDetail>, ApiError> {
    let Path(id) = id?;
    Ok(Json(admin.delivery(&id).await?.into()))
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
