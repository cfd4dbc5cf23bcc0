//! The search for events. Its filters are in the URL.

use axum::extract::{Query, State, rejection::QueryRejection};
use maud::{Markup, html};
use posthouse_model::{EventSeq, Pattern};
use posthouse_store::{EventFilter, EventPage};
use serde::Deserialize;

use super::{Page, PageError, layout};

use crate::admin::{Admin, Since, api::names, error::ApiError};

/// Rows on a page.
const ROWS: u32 = 50;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    #[serde(rename = "type")]
    event_type: String,
    source: String,
    organization: String,
    id: String,
    text: String,
    since: String,
    since_at: String,
    until: String,
    until_at: String,
    before: String,
}

impl Asked {
    fn parameters(&self) -> [(&'static str, &str); 7] {
        [
            ("text", &self.text),
            ("type", &self.event_type),
            ("source", &self.source),
            ("organization", &self.organization),
            ("id", &self.id),
            ("since", &self.since),
            ("until", &self.until),
        ]
    }

    fn filter(&self, admin: &Admin) -> Result<EventFilter, ApiError> {
        let some = |text: &str| (!text.trim().is_empty()).then(|| text.trim().to_owned());
        Ok(EventFilter {
            event_type: some(&self.event_type).map(|text| Pattern::new(&text)).transpose().map_err(wrong)?,
            source: some(&self.source),
            organization: some(&self.organization),
            id: some(&self.id),
            text: some(&self.text),
            since: admin.since(moment(&self.since)?),
            until: admin.until(moment(&self.until)?),
            limit: ROWS,
            before: some(&self.before).map(|text| text.parse().map(EventSeq)).transpose().map_err(wrong)?,
        })
    }
}

fn wrong(error: impl std::fmt::Display) -> ApiError {
    ApiError::bad_request(error.to_string())
}

/// Uses the picker's value if the text field is empty.
pub(super) fn written(text: &mut String, picked: &str) {
    if text.trim().is_empty() {
        picked.clone_into(text);
    }
}

/// Parses a time. None if the field is empty.
pub(super) fn moment(text: &str) -> Result<Option<Since>, ApiError> {
    if text.trim().is_empty() { Ok(None) } else { text.parse().map(Some).map_err(wrong) }
}

pub(super) async fn page(State(admin): State<Admin>, asked: Result<Query<Asked>, QueryRejection>) -> Page {
    let Query(mut asked) = asked?;
    written(&mut asked.since, &asked.since_at);
    written(&mut asked.until, &asked.until_at);
    let sources: Vec<_> =
        admin.0.store.last_events().await.map_err(PageError::store)?.into_iter().map(|e| e.source).collect();
    let (found, said) = match found(&admin, &asked).await {
        Ok(found) => (found, String::new()),
        Err(error) if error.status.is_client_error() => (EventPage::default(), error.message),
        Err(error) => return Err(PageError(error)),
    };
    let body = html! {
        (form(&asked, &sources))
        @if !said.is_empty() { p.error role="alert" { (said) } }
        @let shown = rows(&asked, &found, said.is_empty());
        // Only the newest page updates automatically.
        @if asked.before.is_empty() { (layout::live("events", &shown)) } @else { (shown) }
    };
    Ok(layout::page("Events", "/events", &body))
}

async fn found(admin: &Admin, asked: &Asked) -> Result<EventPage, ApiError> {
    let filter = asked.filter(admin)?;
    let names = names::Asked {
        source: filter.source.as_deref(),
        event_type: filter.event_type.as_ref(),
        ..names::Asked::default()
    };
    admin.known(names).await?;
    admin.search(filter).await
}

fn form(asked: &Asked, sources: &[String]) -> Markup {
    html! {
        form.filters.card method="get" action="/events" role="search" {
            label { "Text in the body" input type="search" name="text" value=(asked.text) placeholder="ada@example.com"; }
            label { "Event type" input name="type" value=(asked.event_type) placeholder="user.*"; }
            label { "Source"
                select name="source" {
                    option value="" { "all" }
                    @for source in sources {
                        option value=(source) selected[*source == asked.source] { (source) }
                    }
                }
            }
            label { "Organization" input name="organization" value=(asked.organization); }
            label { "Id of an event or delivery" input name="id" value=(asked.id); }
            (layout::moment_field("since", "Since", &asked.since, "24h, yesterday"))
            (layout::moment_field("until", "Until", &asked.until, "2026-11-30 14:00"))
            div { button { "Search" } " " a href="/events" { "Clear" } }
        }
    }
}

fn rows(asked: &Asked, found: &EventPage, asks_well: bool) -> Markup {
    let next = found.next.map(|next| {
        let before = next.0.to_string();
        layout::link("/events", &[asked.parameters().as_slice(), &[("before", before.as_str())]].concat())
    });
    let narrowed = asked.parameters().iter().any(|(_, value)| !value.is_empty());
    html! {
        @if found.events.is_empty() && asks_well {
            div.empty {
                @if next.is_some() {
                    "Nothing found so far."
                } @else if narrowed {
                    "No event matches. " a href="/events" { "Show all" } ", or remove a filter."
                } @else {
                    "No event yet. Enter the endpoint of a " a href="/sources" { "source" }
                    " at its sender, or send a test event from its page."
                }
            }
        }
        @if !found.events.is_empty() {
            div.scroll tabindex="0" role="region" aria-label="Events" {
                table.stack {
                    thead { tr { th { "received" } th { "type" } th { "event" } th { "source" } th { "organization" } th.n { "bytes" } th { "deliveries" } } }
                    tbody {
                        @for event in &found.events {
                            @let href = layout::event(&event.source, &event.id);
                            tr {
                                td data-label="received" { (layout::time(event.received_at)) }
                                td.type data-label="type" { a href=(layout::link("/events", &[("type", &event.event_type)])) { (event.event_type) } }
                                td.id data-label="event" { a.row.mono.clip href=(href) { (event.id) } }
                                td data-label="source" { (event.source) }
                                td data-label="organization" {
                                    @if let Some(organization) = &event.organization {
                                        a href=(layout::link("/events", &[("organization", organization)])) { (organization) }
                                    }
                                }
                                td.n data-label="bytes" { (event.bytes) }
                                td data-label="deliveries" {
                                    @for (state, count) in &event.deliveries {
                                        a href=(href) { span class=(format!("state {state}")) { (count) " " (state) } } " "
                                    }
                                    @if event.deliveries.is_empty() { span.soft { "none: no plugin subscribes" } }
                                }
                            }
                        }
                    }
                }
            }
        }
        p.pager {
            @if let Some(next) = &next {
                a.button.plain href=(next) rel="next" { @if found.events.len() < ROWS as usize { "Search further back" } @else { "Older" } }
                @if let Some(at) = found.looked_to { span.soft { " searched back to " (layout::time(at)) } }
            }
        }
    }
}
