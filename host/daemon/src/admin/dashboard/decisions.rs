//! Interceptors with their counts, their decisions, and one decision with all that it did.

use axum::extract::{
    Path, Query, State,
    rejection::{PathRejection, QueryRejection},
};
use maud::{Markup, html};
use posthouse_model::{DecisionState, Fallback, Ruling, json::laid_out};
use posthouse_store::{DecisionDetail, DecisionFilter, DecisionSummary};
use serde::Deserialize;

use super::{
    Page, PageError,
    events::{moment, written},
    layout,
};

use crate::admin::{
    Admin,
    api::{
        decisions::{Filter, InterceptorView},
        ids,
    },
    error::ApiError,
};

/// Rows on a page.
const ROWS: u32 = 50;

/// The meaning of each cause of an answer without a decision, and what to do.
const CAUSES: [(Fallback, &str); 8] = [
    (Fallback::NoPlugin, "The plugin is not there, or does not decide about this trigger."),
    (Fallback::Held, "The plugin is held: paused, broken, without a grant, or its breaker is open."),
    (Fallback::Timeout, "The deadline passed. Make the plugin faster, or raise `deadline`."),
    (Fallback::Stopped, "The plugin trapped or reached a limit."),
    (Fallback::Unsure, "The plugin returned `unsure`."),
    (Fallback::Conflict, "Other transactions changed what the plugin read, twice."),
    (Fallback::Invalid, "The decision breaks a limit of the sender."),
    (Fallback::Store, "The store or the database of the plugin could not be used."),
];

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    interceptor: String,
    state: String,
    decision: String,
    since: String,
    since_at: String,
    before: String,
}

impl Asked {
    fn parameters(&self) -> [(&'static str, &str); 4] {
        [
            ("interceptor", &self.interceptor),
            ("state", &self.state),
            ("decision", &self.decision),
            ("since", &self.since),
        ]
    }
}

pub(super) async fn list(State(admin): State<Admin>, asked: Result<Query<Asked>, QueryRejection>) -> Page {
    let Query(mut asked) = asked?;
    written(&mut asked.since, &asked.since_at);
    let (found, wrong) = match found(&admin, &asked).await {
        Ok(found) => (found, String::new()),
        Err(error) if error.status.is_client_error() => (Vec::new(), error.message),
        Err(error) => return Err(PageError(error)),
    };
    let interceptors = admin.interceptor_views();
    let next = found.last().filter(|_| found.len() == ROWS as usize).map(|row| {
        let before = row.id.to_string();
        layout::link("/decisions", &[asked.parameters().as_slice(), &[("before", before.as_str())]].concat())
    });
    let shown = html! {
        @if !wrong.is_empty() {
            p.error role="alert" { (wrong) }
        } @else if found.is_empty() {
            p.empty { "No decision matches. " a href="/decisions" { "Show all" } "." }
        } @else { (rows(&found)) }
    };
    let body = html! {
        @if interceptors.is_empty() {
            p.empty { "config.toml has no interceptor. Add an " code { "[[interceptor]]" } " with its name, path, secrets, triggers and plugin." }
        } @else { (layout::live("interceptors", &counts(&interceptors))) }
        h2 { "Decisions" }
        form.filters.card method="get" action="/decisions" role="search" {
            label { "Interceptor"
                select name="interceptor" {
                    option value="" { "all" }
                    @for one in &interceptors { option value=(one.name) selected[asked.interceptor == one.name] { (one.name) } }
                }
            }
            label { "State"
                select name="state" {
                    option value="" { "all" }
                    @for state in DecisionState::ALL { option value=(state.as_str()) selected[asked.state == state.as_str()] { (state.as_str()) } }
                }
            }
            label { "Decision"
                select name="decision" {
                    option value="" { "all" }
                    @for word in ["ALLOW", "DENY"] { option value=(word) selected[asked.decision == word] { (word) } }
                }
            }
            (layout::moment_field("since", "Since", &asked.since, "24h"))
            div { button { "Filter" } " " a href="/decisions" { "Clear" } }
        }
        @if asked.before.is_empty() { (layout::live("decisions", &shown)) } @else { (shown) }
        @if let Some(next) = next { p.pager { a.button.plain rel="next" href=(next) { "Older" } } }
    };
    Ok(layout::page("Decisions", "/decisions", &body))
}

async fn found(admin: &Admin, asked: &Asked) -> Result<Vec<DecisionSummary>, ApiError> {
    let filter = Filter {
        interceptor: asked.interceptor.clone(),
        state: asked.state.clone(),
        decision: asked.decision.clone(),
    };
    let filter = DecisionFilter {
        since: admin.since(moment(&asked.since)?),
        limit: ROWS,
        before: ids::delivery(&asked.before),
        ..filter.read(admin)?
    };
    admin.decisions(filter).await
}

fn counts(interceptors: &[InterceptorView]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Interceptors" {
            table {
                thead { tr { th { "interceptor" } th { "path" } th { "triggers" } th { "plugin" } th { "on failure" } th.n { "allowed" } th.n { "denied" } th.n { "fallbacks" } th.n { "late" } } }
                tbody {
                    @for one in interceptors {
                        @let to = |more: (&'static str, &str)| layout::link("/decisions", &[("interceptor", &one.name), more]);
                        tr {
                            th scope="row" { (one.name) @if !one.enforce { " " span.soft { "(not enforced)" } } }
                            td { code { (one.path) } }
                            td { (one.triggers.join(", ")) }
                            td { a href=(format!("/plugins/{}", layout::part(&one.plugin))) { (one.plugin) } @if let Some(problem) = &one.problem { div.bad { (problem) } } }
                            td { (one.on_failure) " after " (one.deadline) }
                            td.n { (layout::count(one.allowed, &to(("decision", "ALLOW")))) }
                            td.n { (layout::count(one.denied, &to(("decision", "DENY")))) }
                            td.n { (layout::count(one.fallbacks.values().sum(), &to(("state", "fallback")))) }
                            td.n { (one.late) }
                        }
                    }
                }
            }
        }
    }
}

/// The answer of a decision in a word, with its badge.
fn word(row: &DecisionSummary) -> Markup {
    match (row.allows, row.cause) {
        (Some(allows), _) => html! { (Ruling::plain(allows).word()) },
        (None, Some(cause)) => html! { span.warn { (cause) } },
        (None, None) => html! { span.soft { "–" } },
    }
}

fn rows(found: &[DecisionSummary]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Decisions" {
            table.stack {
                thead { tr { th { "received" } th { "interceptor" } th { "trigger" } th { "request" } th { "state" } th { "decision" } th.n { "took" } th { "reason" } } }
                tbody {
                    @for row in found {
                        tr {
                            td data-label="received" { (layout::time(row.received_at)) }
                            td data-label="interceptor" { (row.interceptor) }
                            td data-label="trigger" { (row.trigger) }
                            td data-label="request" { a.row href=(format!("/decisions/{}", layout::part(&row.id.to_string()))) { (row.request) } }
                            td data-label="state" { (layout::state(row.state.as_str())) @if row.late { " " span.warn { "late" } } }
                            td data-label="decision" { (word(row)) }
                            td.n data-label="took" { (layout::maybe_millis(row.took_us.map(|us| us as f64 / 1000.0))) }
                            td.text data-label="reason" { (layout::long(row.error.as_deref().unwrap_or_default())) }
                        }
                    }
                }
            }
        }
    }
}

pub(super) async fn page(State(admin): State<Admin>, id: Result<Path<String>, PathRejection>) -> Page {
    let Path(id) = id?;
    let details = admin.decision(&id).await?;
    let body = html! { @for detail in &details { (one(detail)) } };
    let title = details.first().map_or(id, |detail| detail.summary.request.clone());
    Ok(layout::page(&title, "/decisions", &body))
}

fn one(detail: &DecisionDetail) -> Markup {
    let row = &detail.summary;
    let explained = CAUSES.iter().find(|(cause, _)| row.cause == Some(*cause)).map(|(_, text)| *text);
    let body = laid_out(&detail.body).unwrap_or_else(|| detail.body.clone());
    html! {
        div.card {
            dl.facts {
                dt { "interceptor" } dd { a href=(layout::link("/decisions", &[("interceptor", &row.interceptor)])) { (row.interceptor) } }
                dt { "trigger" } dd { (row.trigger) }
                dt { "id" } dd { code { (row.id) } }
                @if let Some(plugin) = &row.plugin { dt { "plugin" } dd { a href=(format!("/plugins/{}", layout::part(plugin))) { (plugin) } } }
                @if let Some(organization) = &row.organization { dt { "organization" } dd { (organization) } }
                dt { "received" } dd { (layout::time(row.received_at)) }
                dt { "state" } dd { (layout::state(row.state.as_str())) @if row.late { " late: it committed after its sender had got another answer" } }
                dt { "decision" } dd { (word(row)) @if let Some(text) = explained { div.soft { (text) } } }
                @if let Some(us) = row.took_us { dt { "took" } dd { (layout::millis(us as f64 / 1000.0)) } }
                @if let Some(revision) = &detail.revision { dt { "revision" } dd { code { (revision) } } }
            }
        }
        @if let Some(error) = &row.error { h2 { "Reason" } p { (error) } }
        @if let Some(answer) = &row.answer { h2 { "Answer" } pre tabindex="0" { (answer) } }
        @if !detail.actions.is_empty() { h2 { "Actions" } ul.did { @for line in &detail.actions { li { (line) } } } }
        @if !detail.logs.is_empty() {
            h2 { "Log" }
            pre tabindex="0" { @for line in &detail.logs { (format!("{:?}", line.level).to_lowercase()) ": " (line.message) "\n" } }
        }
        @if let Some(trace) = &detail.trace { details { summary { "Stack trace" } pre tabindex="0" { (trace) } } }
        @if !detail.outbox.is_empty() {
            h2 { "Outbox" }
            ul { @for item in &detail.outbox { li { a href=(layout::link("/outbox", &[("id", &item.id.0.to_string())])) { (item.head.kind()) " " (item.id.0) } " " (layout::state(item.state.as_str())) " " (item.head.summary()) } } }
        }
        h2 { "Request" }
        pre tabindex="0" { (body) }
    }
}
