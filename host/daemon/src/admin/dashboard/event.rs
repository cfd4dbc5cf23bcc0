//! One event as a timeline: from the request through its deliveries and their attempts to the commit, and to
//! the mails and requests that left afterwards.

use axum::{
    Extension, Form,
    extract::{
        Path, Query, State,
        rejection::{FormRejection, PathRejection, QueryRejection},
    },
};
use jiff::Timestamp;
use maud::{Markup, html};
use posthouse_model::{EventOrigin, OutboxState, Outcome, REDACTED, SourceName, json::laid_out};
use posthouse_store::{AttemptDetail, DeliveryDetail, EventDetail, OutboxSummary};
use serde::Deserialize;

use super::{Done, Page, Said, done, layout, unknown};

use crate::admin::{Actor, Admin, api::replay::Replayed};

pub(super) async fn page(
    State(admin): State<Admin>,
    path: Result<Path<(String, String)>, PathRejection>,
    said: Result<Query<Done>, QueryRejection>,
) -> Page {
    let (Path((source, id)), Query(said)) = (path?, said?);
    let Ok(name) = SourceName::new(&source) else { return Err(unknown(&source)) };
    let mut events = admin.find_events(Some(name), &id).await?;
    if events.is_empty() {
        return Err(unknown(&id));
    }
    let event = events.remove(0);
    let summary = &event.summary;
    let body = html! {
        (said.show())
        div.card {
            dl.facts {
                dt { "type" } dd { a href=(layout::link("/events", &[("type", &summary.event_type)])) { (summary.event_type) } }
                dt { "source" } dd { a href=(layout::source(&summary.source)) { (summary.source) } }
                @if let Some(organization) = &summary.organization {
                    dt { "organization" } dd { a href=(layout::link("/events", &[("organization", organization)])) { (organization) } }
                }
                dt { "received" } dd { (layout::time(summary.received_at)) }
                @if summary.origin == EventOrigin::CatchUp { dt { "origin" } dd { "catch-up: its sender was asked for it; no webhook brought it" } }
                dt { "number" } dd { (summary.seq.0) }
                dt { "body" } dd { (layout::bytes(summary.bytes)) @if let Some(kind) = &event.content_type { ", " (kind) } }
            }
            form method="post" action=(format!("{}/replay", layout::event(&summary.source, &summary.id))) {
                p {
                    button { "Replay" } " "
                    span.soft { "for all plugins that subscribe to it or had a delivery of it; effects happen again" }
                }
            }
        }
        h2 { "Timeline" }
        (layout::live("timeline", &timeline(&event)))
        @if !event.headers.is_empty() {
            h2 { "Headers" }
            (of_headers(&event))
        }
        h2 { "Body" }
        (of_body(&event))
    };
    Ok(layout::page(&summary.id, "/events", &body))
}

#[derive(Deserialize)]
pub(super) struct Again {
    #[serde(default)]
    plugin: String,
}

pub(super) async fn replay(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    path: Result<Path<(String, String)>, PathRejection>,
    form: Result<Form<Again>, FormRejection>,
) -> Page {
    let (Path((source, id)), Form(again)) = (path?, form?);
    let Ok(name) = SourceName::new(&source) else { return Err(unknown(&source)) };
    let plugin = Some(again.plugin).filter(|plugin| !plugin.is_empty());
    let count = match admin.replay_one(&actor, id.clone(), Some(name), plugin, false).await? {
        Replayed::Made(ids) => ids.len(),
        Replayed::Would(count) => count,
    };
    Ok(done(&layout::event(&source, &id), Said::Replayed, count as u64))
}

/// The headers that plugins get.
fn of_headers(event: &EventDetail) -> Markup {
    html! {
        p.soft { "Plugins get these headers of the request." }
        dl.facts { @for (name, value) in &event.headers { dt { (name) } dd { (value) } } }
    }
}

/// The body, laid out and as it was received. Neither view is serialised from parsed values.
fn of_body(event: &EventDetail) -> Markup {
    let bytes = layout::bytes(event.summary.bytes);
    let laid_out = laid_out(&event.body);
    html! {
        @if event.masked {
            p.soft {
                "The signature was valid for all " (bytes) ". Values that " code { "redact" } " names are replaced by "
                code { (REDACTED) } "; the rest is as received."
            }
        } @else {
            p.soft { "The signature was valid for these " (bytes) "." }
        }
        @if let Some(laid_out) = &laid_out {
            details open[event.summary.bytes < 4096] {
                summary { "Formatted: only white space differs" }
                pre tabindex="0" { (laid_out) }
            }
        }
        details open[laid_out.is_none() && event.summary.bytes < 4096] {
            summary { "As received, byte for byte" @if event.masked { ", with masks" } }
            pre tabindex="0" { (event.body) }
        }
    }
}

/// The time since the event was received.
fn offset(start: Timestamp, at: Timestamp) -> Markup {
    let ms = at.duration_since(start).as_secs_f64() * 1000.0;
    html! { span.offset { @if ms >= 0.0 { "+" (layout::millis(ms)) } @else { "−" (layout::millis(-ms)) } } }
}

fn timeline(event: &EventDetail) -> Markup {
    let start = event.summary.received_at;
    html! {
        ol.timeline {
            @if let Some(at) = event.summary.occurred_at {
                li { "Occurred, by the sender's clock" (offset(start, at)) div.soft { (layout::time(at)) } }
            }
            li.good {
                "Received: signature verified, on disk, answered" (offset(start, start))
                div.soft { (layout::time(start)) }
                @if let Some(trace) = &event.trace { div.soft { "Trace " code { (trace) } } }
            }
            @if event.history.is_empty() {
                li { "No plugin subscribes to it, so there is no delivery. Deploy a plugin, then replay the event." }
            }
            @for delivery in &event.history { (of_delivery(start, delivery)) }
        }
    }
}

fn of_delivery(start: Timestamp, delivery: &DeliveryDetail) -> Markup {
    let summary = &delivery.summary;
    let plugin = format!("/plugins/{}", layout::part(&summary.plugin));
    let class = match summary.state.as_str() {
        "done" => "good",
        "dead" => "bad",
        "waiting" | "held" => "warn",
        _ => "",
    };
    let mut told: Vec<(u32, &str)> = Vec::new();
    html! {
        li id=(summary.id) {
            "Delivery " code { (summary.id) } " for " a href=(plugin) { (summary.plugin) } " made" (offset(start, summary.made_at))
            @if let Some(first) = summary.replay_of { div.soft { "a replay of " a href=(format!("#{first}")) { code { (first) } } } }
        }
        @for attempt in &delivery.attempt_log {
            @let reason = attempt.error.as_deref().unwrap_or_default();
            @let before = told.iter().find(|(_, earlier)| *earlier == reason && !reason.is_empty()).map(|(number, _)| *number);
            (of_attempt(start, attempt, before))
            @if before.is_none() { ({ told.push((attempt.number, reason)); "" }) }
        }
        li class=(class) {
            (layout::state(summary.state.as_str())) " "
            @match (summary.finished_at, summary.due_at) {
                (Some(at), _) => {
                    @if class == "good" { "Committed: all effects, in one transaction" } @else { "Dead letter" }
                    (offset(start, at))
                }
                (None, Some(at)) => { @if summary.attempts > 0 { "next attempt " } @else { "due " } (layout::time(at)) }
                (None, None) => {}
            }
            @if let Some(held) = &summary.held { div.warn { (held) } }
            // A delivery that was given up without an attempt shows its reason itself.
            @if class == "bad" { @if let Some(error) = summary.error.as_deref().filter(|error| told.iter().all(|(_, told)| told != error)) { div.bad { (error) } } }
        }
        @for item in &delivery.outbox { (of_item(start, item)) }
    }
}

/// One attempt. `same_as` is the attempt before it that failed for the same reason.
fn of_attempt(start: Timestamp, attempt: &AttemptDetail, same_as: Option<u32>) -> Markup {
    let class = match attempt.outcome {
        Outcome::Done => "good",
        Outcome::Retry => "warn",
        Outcome::Rejected => "bad",
    };
    html! {
        li class=(class) {
            "Attempt " (attempt.number) " " (layout::state(attempt.outcome.as_str())) " in "
            (layout::millis(attempt.duration_us as f64 / 1000.0)) (offset(start, attempt.started_at))
            @if let Some(revision) = &attempt.revision { span.soft { " revision " code { (revision) } } }
            @match (&attempt.error, same_as) {
                (Some(_), Some(number)) => { div.soft { "the same reason as attempt " (number) } }
                (Some(error), None) => { div { (error) } }
                (None, _) => {}
            }
            @if !attempt.actions.is_empty() {
                ul.did { @for line in &attempt.actions { li { (line) } } }
            }
            @if !attempt.logs.is_empty() {
                pre tabindex="0" {
                    @for line in &attempt.logs { (format!("{:?}", line.level).to_lowercase()) ": " (line.message) "\n" }
                }
            }
            @if let Some(trace) = &attempt.trace {
                details { summary { "Stack trace" } pre tabindex="0" { (trace) } }
            }
        }
    }
}

fn of_item(start: Timestamp, item: &OutboxSummary) -> Markup {
    let class = match item.state {
        OutboxState::Sent => "good",
        OutboxState::Dead => "bad",
        OutboxState::Waiting => "warn",
        OutboxState::Ready | OutboxState::Leased => "",
    };
    html! {
        li class=(class) {
            "Outbox: " (item.head.kind()) " " a href=(layout::link("/outbox", &[("id", &item.id.0.to_string())])) { (item.id.0) } " " (layout::state(item.state.as_str()))
            @if let Some(at) = item.finished_at { (offset(start, at)) }
            @if let (Some(at), None, 1..) = (item.due_at, item.finished_at, item.attempts) { " retry at " (layout::time(at)) }
            div { (item.head.summary()) }
            @if let Some(error) = &item.error { div.bad { (error) } }
        }
    }
}
