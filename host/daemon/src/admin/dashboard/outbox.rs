//! The outbox: mails and requests of plugins, when each leaves or left, and the event of each. Items that
//! were given up can be sent again.

use axum::{
    Extension, Form,
    extract::{
        Query, State,
        rejection::{FormRejection, QueryRejection},
    },
};
use maud::{Markup, html};
use posthouse_model::{OutboxState, counted};
use posthouse_store::{OutboxFilter, OutboxId, OutboxSummary};
use serde::Deserialize;

use super::{Done, Page, PageError, Said, done, layout, unknown};

use crate::admin::{Actor, Admin, error::ApiError};

/// Rows on a page.
const ROWS: u32 = 50;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    state: String,
    id: String,
    before: String,
}

pub(super) async fn page(
    State(admin): State<Admin>,
    asked: Result<Query<Asked>, QueryRejection>,
    said: Result<Query<Done>, QueryRejection>,
) -> Page {
    let (Query(asked), Query(said)) = (asked?, said?);
    if !asked.state.is_empty() && OutboxState::named(&asked.state).is_none() {
        return Err(unknown(&asked.state));
    }
    let (items, wrong) = match found(&admin, &asked).await {
        Ok(items) => (items, String::new()),
        Err(error) if error.status.is_client_error() => (Vec::new(), error.message),
        Err(error) => return Err(PageError(error)),
    };
    let dead = admin
        .0
        .store
        .stats()
        .await
        .map_err(PageError::store)?
        .outbox
        .get(&OutboxState::Dead)
        .copied()
        .unwrap_or(0);
    let next = items.last().filter(|_| items.len() == ROWS as usize).map(|item| item.id.0.to_string());
    let shown = html! {
        @if !wrong.is_empty() {
            p.error role="alert" { (wrong) }
        } @else if items.is_empty() {
            p.empty { "No items. Mails and requests of a plugin appear here when its delivery commits." }
        } @else { (rows(&items)) }
    };
    let body = html! {
        (said.show())
        form.filters.card method="get" action="/outbox" role="search" {
            label { "State"
                select name="state" {
                    option value="" { "all" }
                    @for state in OutboxState::ALL { option value=(state) selected[asked.state == state.as_str()] { (state) } }
                }
            }
            label { "Item, delivery or Message-ID" input type="search" name="id" value=(asked.id) placeholder="dlv_…"; }
            div { button { "Filter" } " " a href="/outbox" { "Clear" } }
        }
        @if dead > 0 {
            form method="post" action="/outbox/replay" {
                p { button { "Send " (if dead == 1 { "the dead item".to_owned() } else { format!("all {}", counted(dead, "dead item")) }) " again" } }
            }
        }
        @if asked.before.is_empty() { (layout::live("outbox", &shown)) } @else { (shown) }
        @if let Some(next) = next {
            p.pager { a.button.plain rel="next" href=(layout::link("/outbox", &[("state", &asked.state), ("before", &next)])) { "Older" } }
        }
    };
    Ok(layout::page("Outbox", "/outbox", &body))
}

async fn found(admin: &Admin, asked: &Asked) -> Result<Vec<OutboxSummary>, ApiError> {
    let state = OutboxState::named(&asked.state);
    if !asked.id.trim().is_empty() {
        let items = admin.outbox_items(&asked.id).await?;
        return Ok(items.into_iter().filter(|item| state.is_none_or(|state| item.state == state)).collect());
    }
    let filter = OutboxFilter {
        state,
        limit: ROWS,
        before: asked.before.parse().ok().map(OutboxId),
        ..OutboxFilter::default()
    };
    admin.outbox(filter).await
}

fn rows(items: &[OutboxSummary]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Outbox" {
            table.stack {
                thead { tr { th { "item" } th { "summary" } th { "state" } th.n { "attempts" } th { "staged" } th { "finished or due" } th { "event" } th { span.hidden { "action" } } } }
                tbody { @for item in items { (row(item)) } }
            }
        }
    }
}

fn row(item: &OutboxSummary) -> Markup {
    html! {
        tr id=(format!("item-{}", item.id.0)) {
            td data-label="item" { (item.id.0) " " span.soft { (item.head.kind()) } }
            td.text data-label="summary" {
                (layout::long(&item.head.summary()))
                @if item.state != OutboxState::Sent { @if let Some(error) = &item.error { div.bad { (layout::long(error)) } } }
            }
            td data-label="state" { (layout::state(item.state.as_str())) }
            td.n data-label="attempts" { (item.attempts) }
            td data-label="staged" { @if let Some(at) = item.staged_at { (layout::time(at)) } }
            td data-label="finished or due" {
                @match (item.finished_at, item.due_at) {
                    (Some(at), _) => { (layout::time(at)) }
                    (None, Some(due)) if item.attempts > 0 => { span.soft { "retry at " } (layout::time(due)) }
                    _ => { span.soft { "now" } }
                }
            }
            td.id data-label="event" {
                @match (&item.source, &item.event) {
                    (Some(source), Some(event)) => {
                        a.row.mono.clip href=(layout::delivery(source, event, item.delivery)) { (event) }
                    }
                    _ => { span.mono { (item.delivery) } }
                }
                @if let Some(plugin) = &item.plugin { div.soft { "by " (plugin) } }
            }
            td data-label="" {
                @if item.state == OutboxState::Dead {
                    form method="post" action="/outbox/replay" {
                        input type="hidden" name="item" value=(item.id.0);
                        button.plain { "Send again" }
                    }
                }
            }
        }
    }
}

/// The item to send again. None means all that were given up.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Again {
    item: Option<i64>,
}

pub(super) async fn replay(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    again: Result<Form<Again>, FormRejection>,
) -> Page {
    let Form(again) = again?;
    let count = admin.replay_outbox(&actor, again.item.into_iter().collect()).await?;
    Ok(done("/outbox", Said::Resent, count))
}
