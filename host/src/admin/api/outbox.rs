//! `GET /v1/outbox`: items of the outbox, newest first; `POST /v1/outbox/replay`: those given up are
//! tried again, with the Message-ID or Idempotency-Key they had.

use std::collections::HashMap;

use axum::{
    Extension, Json,
    extract::{
        Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::query;
use crate::{
    admin::{Actor, Admin, error::ApiError},
    store::{OutboxFilter, OutboxId, OutboxSummary},
};

/// Where an item of the outbox can stand.
pub const STATES: [&str; 5] = ["ready", "leased", "waiting", "sent", "dead"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    state: Option<String>,
    limit: Option<u32>,
    before: Option<i64>,
}

pub(super) async fn list(
    State(admin): State<Admin>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(asked) = query?;
    if let Some(odd) = asked.state.as_deref().filter(|state| !STATES.contains(state)) {
        let known = STATES.join(", ");
        return Err(ApiError::bad_request(format!("`state` is `{odd}`; it can be one of {known}")));
    }
    let filter = OutboxFilter {
        state: asked.state,
        limit: query::limit(asked.limit)?,
        before: asked.before.map(OutboxId),
    };
    let items = admin.outbox(filter.clone()).await?;
    let next = items.last().filter(|_| items.len() == filter.limit as usize).map(|item| item.id);
    Ok(Json(json!({ "outbox": items, "next": next })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplayBody {
    #[serde(default)]
    dead: bool,
    #[serde(default)]
    items: Vec<i64>,
}

pub(super) async fn replay(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    body: Result<Json<ReplayBody>, JsonRejection>,
) -> Result<Json<Value>, ApiError> {
    let Json(ReplayBody { dead, items }) = body?;
    if dead != items.is_empty() {
        return Err(ApiError::bad_request(
            r#"say either `"dead": true`, for all that were given up, or `"items"`"#,
        ));
    }
    Ok(Json(json!({ "count": admin.replay_outbox(&actor, items).await? })))
}

impl Admin {
    /// Items of the outbox, newest first, masked as the source of each says.
    pub(in crate::admin) async fn outbox(
        &self,
        filter: OutboxFilter,
    ) -> Result<Vec<OutboxSummary>, ApiError> {
        let mut items = self.0.store.outbox(filter).await?;
        let masked = (self.0.senders.sources)().iter().any(|source| !source.redact.is_empty());
        if masked {
            let of = items.iter().map(|item| item.delivery).collect();
            let payloads = self.0.store.payloads(of).await?;
            let admin = self.clone();
            // Off the runtime's threads: that reads the payload of each.
            let masking = tokio::task::spawn_blocking(move || {
                let mut masks = HashMap::new();
                for item in &mut items {
                    let Some((source, body)) = payloads.get(&item.delivery) else { continue };
                    let Some(source) = admin.source(source) else { continue };
                    let mask = masks.entry(item.delivery).or_insert_with(|| source.redact.mask(body));
                    std::iter::once(&mut item.summary)
                        .chain(&mut item.error)
                        .for_each(|text| mask.text(text));
                }
                items
            });
            items = masking.await?;
        }
        Ok(items)
    }

    /// Tries items again that were given up; all of them where none is named. Returns how many.
    pub(in crate::admin) async fn replay_outbox(
        &self,
        actor: &Actor,
        items: Vec<i64>,
    ) -> Result<u64, ApiError> {
        let target = match items.as_slice() {
            [] => "all that were given up".to_owned(),
            items => items.iter().map(i64::to_string).collect::<Vec<_>>().join(", "),
        };
        let (store, items) = (self.0.store.clone(), items.into_iter().map(OutboxId).collect());
        let work = async move { Ok(store.replay_outbox(items).await?) };
        self.audited(actor, "replay outbox", &target, work, |count| format!("{count} tried again")).await
    }
}
