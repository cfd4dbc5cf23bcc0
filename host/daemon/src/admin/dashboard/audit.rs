//! The audit log: what operators did.

use axum::extract::{Query, State, rejection::QueryRejection};
use maud::html;
use posthouse_store::{AuditEntry, AuditFilter, AuditId};
use serde::Deserialize;

use super::{
    Page, PageError,
    events::{moment, written},
    layout,
};

use crate::admin::{Action, Admin, error::ApiError};

/// Rows on a page.
const ROWS: u32 = 100;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    action: String,
    since: String,
    since_at: String,
    before: Option<i64>,
}

pub(super) async fn page(State(admin): State<Admin>, asked: Result<Query<Asked>, QueryRejection>) -> Page {
    let Query(mut asked) = asked?;
    written(&mut asked.since, &asked.since_at);
    let (entries, wrong) = match found(&admin, &asked).await {
        Ok(entries) => (entries, String::new()),
        Err(error) if error.status.is_client_error() => (Vec::new(), error.message),
        Err(error) => return Err(PageError(error)),
    };
    let narrowed = !asked.action.is_empty() || !asked.since.is_empty();
    let next = entries.last().filter(|_| entries.len() == ROWS as usize).map(|entry| entry.id.0.to_string());
    let shown = html! {
        @if !wrong.is_empty() {
            p.error role="alert" { (wrong) }
        } @else if entries.is_empty() && narrowed {
            p.empty { "No entry matches. " a href="/audit" { "Show all" } "." }
        } @else if entries.is_empty() {
            p.empty { "No entries. Every login, pause, resume, replay and test event is recorded here." }
        } @else {
            div.scroll tabindex="0" role="region" aria-label="Audit log" {
                table.stack {
                    thead { tr { th { "time" } th { "actor" } th { "action" } th { "target" } th { "outcome" } } }
                    tbody {
                        @for entry in &entries {
                            tr {
                                td data-label="time" { (layout::time(entry.at)) }
                                td data-label="actor" { (entry.actor) }
                                td data-label="action" { a.row href=(layout::link("/audit", &[("action", &entry.action)])) { (entry.action) } }
                                td.text data-label="target" { (layout::long(&entry.target)) }
                                td.text data-label="outcome" { (layout::long(entry.outcome.as_deref().unwrap_or("unknown: the daemon stopped before it recorded the outcome"))) }
                            }
                        }
                    }
                }
            }
        }
    };
    let body = html! {
        form.filters.card method="get" action="/audit" role="search" {
            label { "Action"
                select name="action" {
                    option value="" { "all" }
                    @for action in Action::ALL {
                        option value=(action.as_str()) selected[asked.action == action.as_str()] { (action.as_str()) }
                    }
                }
            }
            (layout::moment_field("since", "Since", &asked.since, "24h"))
            div { button { "Filter" } " " a href="/audit" { "Clear" } }
        }
        @if asked.before.is_none() { (layout::live("audit", &shown)) } @else { (shown) }
        @if let Some(next) = next {
            p.pager { a.button.plain rel="next" href=(layout::link("/audit", &[("action", &asked.action), ("since", &asked.since), ("before", &next)])) { "Older" } }
        }
    };
    Ok(layout::page("Audit log", "/audit", &body))
}

async fn found(admin: &Admin, asked: &Asked) -> Result<Vec<AuditEntry>, ApiError> {
    let filter = AuditFilter {
        action: Action::filter(&asked.action)?,
        since: admin.since(moment(&asked.since)?),
        limit: ROWS,
        before: asked.before.map(AuditId),
    };
    Ok(admin.0.store.audit(filter).await?)
}
