//! The audit log: what operators did.

use axum::extract::{Query, State, rejection::QueryRejection};
use maud::html;
use serde::Deserialize;

use super::{Page, PageError, layout};
use crate::{
    admin::Admin,
    store::{AuditFilter, AuditId},
};

/// Rows of a page.
const ROWS: u32 = 100;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    action: String,
    before: Option<i64>,
}

pub(super) async fn page(State(admin): State<Admin>, asked: Result<Query<Asked>, QueryRejection>) -> Page {
    let Query(asked) = asked?;
    let filter = AuditFilter {
        action: (!asked.action.is_empty()).then(|| asked.action.clone()),
        since: None,
        limit: ROWS,
        before: asked.before.map(AuditId),
    };
    let entries = admin.0.store.audit(filter).await.map_err(PageError::store)?;
    let next = entries.last().filter(|_| entries.len() == ROWS as usize).map(|entry| entry.id.0.to_string());
    let shown = html! {
        @if entries.is_empty() {
            p.empty { "Nobody did anything yet. Whoever pauses, resumes, runs again, sends a test event or logs in is written down here." }
        } @else {
            div.scroll tabindex="0" role="region" aria-label="Audit log" {
                table {
                    thead { tr { th { "when" } th { "who" } th { "what" } th { "to what" } th { "what came of it" } } }
                    tbody {
                        @for entry in &entries {
                            tr {
                                td { (layout::time(entry.at)) }
                                td { (entry.actor) }
                                td { a.row href=(layout::link("/audit", &[("action", &entry.action)])) { (entry.action) } }
                                td { (entry.target) }
                                td { (entry.outcome.as_deref().unwrap_or("begun, and no end was written down")) }
                            }
                        }
                    }
                }
            }
        }
    };
    let body = html! {
        @if !asked.action.is_empty() { p { "Only “" (asked.action) "”. " a href="/audit" { "Show all" } } }
        @if asked.before.is_none() { (layout::live("audit", &shown)) } @else { (shown) }
        @if let Some(next) = next {
            p.pager { a.button.plain rel="next" href=(layout::link("/audit", &[("action", &asked.action), ("before", &next)])) { "Older" } }
        }
    };
    Ok(layout::page("Audit log", "/audit", &body))
}
