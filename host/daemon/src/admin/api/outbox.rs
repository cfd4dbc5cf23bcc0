//! `GET /v1/outbox`: items of the outbox, newest first. `GET /v1/outbox/{id}`: one of them.
//! `POST /v1/outbox/replay`: tries items that were given up again, with the same Message-ID or
//! Idempotency-Key.

use std::{borrow::Cow, collections::HashMap};

use axum::{
    Extension, Json,
    extract::{
        Path, Query, State,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
};
use posthouse_model::{Mask, OutboxState};
use posthouse_store::{OutboxFilter, OutboxId, OutboxSummary};
use serde::{Deserialize, Serialize};
use utoipa::{
    IntoParams, PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use super::{
    ids, query,
    refusals::{BadBody, BadRequest, Conflict, NotFound},
    rows,
    schemas::{self, Form},
};

use crate::admin::{
    Action, Actor, Admin,
    error::{ApiError, shown},
};

/// The filters of the list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only items in this state.
    #[param(value_type = Option<schemas::OutboxState>)]
    state: Option<String>,
    /// The most rows.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// Only items with a smaller id: the `next` of the previous page.
    #[param(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    before: Option<i64>,
}

/// A page of the outbox.
#[derive(Serialize, ToSchema)]
pub(super) struct OutboxPage {
    /// The items, newest first.
    outbox: Vec<rows::OutboxItem>,
    /// The `before` of the next page. Null if there is none.
    next: Option<i64>,
}

/// List items of the outbox, newest first
#[utoipa::path(
    get,
    path = "/v1/outbox",
    operation_id = "listOutbox",
    params(ListQuery),
    responses((status = 200, description = "A page of the outbox.", body = OutboxPage), BadRequest),
)]
pub(super) async fn list(
    State(admin): State<Admin>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<OutboxPage>, ApiError> {
    let Query(asked) = query?;
    let state = asked.state.map(|name| {
        OutboxState::named(&name).ok_or_else(|| {
            let known = OutboxState::ALL.map(OutboxState::as_str).join(", ");
            ApiError::bad_request(format!("`state` is `{name}`; it can be one of {known}"))
        })
    });
    let filter = OutboxFilter {
        state: state.transpose()?,
        limit: query::limit(asked.limit)?,
        before: asked.before.map(OutboxId),
        ..OutboxFilter::default()
    };
    let items = admin.outbox(filter.clone()).await?;
    let next = items.last().filter(|_| items.len() == filter.limit as usize).map(|item| item.id.0);
    Ok(Json(OutboxPage { outbox: rows::all(items), next }))
}

/// Items of the outbox.
#[derive(Serialize, ToSchema)]
pub(super) struct OutboxItems {
    /// One item, or all that a delivery staged.
    outbox: Vec<rows::OutboxItem>,
}

/// One item of the outbox, or all that a delivery staged
#[utoipa::path(
    get,
    path = "/v1/outbox/{id}",
    operation_id = "getOutbox",
    params((
        "id" = String, Path, min_length = 1,
        description = "The number of an item, its Message-ID or Idempotency-Key, or the id of a delivery.",
    )),
    responses((status = 200, description = "The items.", body = OutboxItems), BadRequest, NotFound),
)]
pub(super) async fn show(
    State(admin): State<Admin>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<OutboxItems>, ApiError> {
    let Path(id) = id?;
    Ok(Json(OutboxItems { outbox: rows::all(admin.outbox_items(&id).await?) }))
}

/// The items to try again.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplayBody {
    /// All items that were given up.
    #[serde(default)]
    dead: bool,
    /// The numbers of the items.
    #[serde(default)]
    #[schema(min_items = 1, max_items = 1000, minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    items: Vec<i64>,
}

/// The forms of a [`ReplayBody`].
pub(super) enum ReplayForms {}

impl PartialSchema for ReplayForms {
    fn schema() -> RefOr<Schema> {
        schemas::forms::<ReplayBody>(&[
            Form { what: "All items that were given up.", needs: "dead", takes: &[] },
            Form { what: "These items.", needs: "items", takes: &[] },
        ])
    }
}

impl ToSchema for ReplayForms {
    fn name() -> Cow<'static, str> {
        "ReplayOutbox".into()
    }
}

/// The result of a replay of outbox items.
#[derive(Serialize, ToSchema)]
#[schema(as = ReplayedOutbox)]
pub(super) struct Replayed {
    /// The number of items that are tried again.
    count: u64,
}

/// Try items of the outbox again that were given up
///
/// Each keeps its Message-ID or Idempotency-Key.
#[utoipa::path(
    post,
    path = "/v1/outbox/replay",
    operation_id = "replayOutbox",
    request_body = ReplayForms,
    responses(
        (status = 200, description = "The items will be sent again.", body = Replayed),
        BadBody,
        NotFound,
        Conflict,
    ),
)]
pub(super) async fn replay(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    body: Result<Json<ReplayBody>, JsonRejection>,
) -> Result<Json<Replayed>, ApiError> {
    let Json(ReplayBody { dead, items }) = body?;
    if dead != items.is_empty() {
        return Err(ApiError::bad_request(r#"give either `"dead": true`, for all dead items, or `"items"`"#));
    }
    Ok(Json(Replayed { count: admin.replay_outbox(&actor, items).await? }))
}

/// Masks what an item shows. The parts that the plugin chose may be from any event.
pub(super) fn mask(item: &mut OutboxSummary, mask: &Mask) {
    if mask.hides_words_of_plugins() {
        let chosen = Mask::of_values(&item.head.chosen());
        item.error.iter_mut().for_each(|text| chosen.text(text));
        item.head = item.head.redacted();
    }
    item.head.mask(mask);
    item.error.iter_mut().for_each(|text| mask.text(text));
}

impl Admin {
    /// Items of the outbox, newest first, each masked as its source says.
    pub(in crate::admin) async fn outbox(
        &self,
        filter: OutboxFilter,
    ) -> Result<Vec<OutboxSummary>, ApiError> {
        let mut items = self.0.store.outbox(filter).await?;
        let config = self.config();
        if config.redacts() {
            let of = items.iter().map(|item| item.delivery).collect();
            let payloads = self.0.store.payloads(of).await?;
            // Runs off the runtime's threads, because it parses the payload of each.
            let masking = tokio::task::spawn_blocking(move || {
                let mut masks = HashMap::new();
                for item in &mut items {
                    let of = || {
                        let payloads = payloads.get(&item.delivery).cloned().unwrap_or_default();
                        payloads.mask(|source| config.redact_of(source))
                    };
                    mask(item, &*masks.entry(item.delivery).or_insert_with(of));
                }
                items
            });
            items = masking.await?;
        }
        Ok(items)
    }

    /// The item with this number, or with this Message-ID or Idempotency-Key, or all items that a delivery
    /// staged.
    ///
    /// # Errors
    /// 404 if there is none. It says which other record has the id.
    pub(in crate::admin) async fn outbox_items(&self, id: &str) -> Result<Vec<OutboxSummary>, ApiError> {
        let id = id.trim();
        let filter = match (id.parse(), ids::delivery(id)) {
            (Ok(number), _) => OutboxFilter { id: Some(OutboxId(number)), ..OutboxFilter::default() },
            (Err(_), Some(delivery)) => {
                OutboxFilter { delivery: Some(delivery), limit: query::MOST, ..OutboxFilter::default() }
            }
            (Err(_), None) => return Err(self.no_item(id).await?),
        };
        let mut items = self.outbox(filter).await?;
        let key = |item: &OutboxSummary| item.key.as_deref().is_some_and(|key| same_key(key, id));
        if items.iter().any(key) {
            items.retain(key);
        }
        if items.is_empty() { Err(self.no_item(id).await?) } else { Ok(items) }
    }

    /// The error for a missing item: it says which other record has this id, if any has.
    async fn no_item(&self, id: &str) -> Result<ApiError, ApiError> {
        let shown = shown(id);
        let what = match (self.place(id).await?, self.0.store.event(None, id).await?.is_empty()) {
            (Some(place), _) => format!("`{}` is a delivery that sent nothing", place.id),
            (None, false) => format!("`{shown}` is an event: `posthouse events show {shown}`"),
            (None, true) => self.what_is(id).await?,
        };
        let what =
            if what.is_empty() { "`posthouse outbox` lists items by their numbers".to_owned() } else { what };
        Ok(ApiError::not_found(format!("no item `{shown}` in the outbox; {what}")))
    }

    /// Checks that each of these items exists and was given up.
    async fn given_up(&self, items: &[i64]) -> Result<(), ApiError> {
        for item in items {
            let filter = OutboxFilter { id: Some(OutboxId(*item)), ..OutboxFilter::default() };
            match self.0.store.outbox(filter).await?.first() {
                None => return Err(self.no_item(&item.to_string()).await?),
                Some(found) if found.state != OutboxState::Dead => {
                    return Err(ApiError::conflict(format!(
                        "item {item} of the outbox is `{}`; only a dead item can be sent again",
                        found.state
                    )));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Tries items again that were given up, or all of them if the list is empty. Returns their number.
    pub(in crate::admin) async fn replay_outbox(
        &self,
        actor: &Actor,
        items: Vec<i64>,
    ) -> Result<u64, ApiError> {
        let target = match items.as_slice() {
            [] => "all dead items".to_owned(),
            items => items.iter().map(i64::to_string).collect::<Vec<_>>().join(", "),
        };
        let admin = self.clone();
        let work = async move {
            admin.given_up(&items).await?;
            Ok(admin.0.store.replay_outbox(items.into_iter().map(OutboxId).collect()).await?)
        };
        self.audited(actor, Action::ReplayOutbox, &target, work, |count| format!("{count} to be sent again"))
            .await
    }
}

/// Whether a text is this Message-ID or Idempotency-Key, with or without angle brackets.
fn same_key(key: &str, text: &str) -> bool {
    let bare = |text: &str| text.trim_start_matches('<').trim_end_matches('>').to_owned();
    bare(key) == bare(text)
}
