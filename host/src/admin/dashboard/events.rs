//! Events: a search whose filters stand in the URL.

use axum::extract::{Query, State, rejection::QueryRejection};
use maud::{Markup, html};
use serde::Deserialize;

use super::{Page, PageError, layout};
use crate::{
    admin::{Admin, Since, api::query::SEARCH, error::ApiError},
    model::{EventSeq, Pattern},
    store::{EventFilter, EventPage},
};

/// Rows of a page.
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
    until: String,
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
            since: admin.moment(moment(&self.since)?),
            until: admin.moment(moment(&self.until)?),
            limit: ROWS,
            before: some(&self.before).map(|text| text.parse().map(EventSeq)).transpose().map_err(wrong)?,
        })
    }
}

fn wrong(error: impl std::fmt::Display) -> ApiError {
    ApiError::bad_request(error.to_string())
}

/// A time as people write it; none where nothing is written.
pub(super) fn moment(text: &str) -> Result<Option<Since>, ApiError> {
    if text.trim().is_empty() { Ok(None) } else { text.parse().map(Some).map_err(wrong) }
}

pub(super) async fn page(State(admin): State<Admin>, asked: Result<Query<Asked>, QueryRejection>) -> Page {
    let Query(asked) = asked?;
    let sources: Vec<_> =
        admin.0.store.last_events().await.map_err(PageError::store)?.into_iter().map(|e| e.source).collect();
    let (found, said) = match asked.filter(&admin) {
        Ok(filter) => (admin.0.store.search(filter, SEARCH).await.map_err(PageError::store)?, String::new()),
        Err(error) => (EventPage::default(), error.message),
    };
    let body = html! {
        (form(&asked, &sources))
        @if !said.is_empty() { p.error role="alert" { (said) } }
        @let shown = rows(&asked, &found, said.is_empty());
        // Only the newest page changes by itself.
        @if asked.before.is_empty() { (layout::live("events", &shown)) } @else { (shown) }
    };
    Ok(layout::page("Events", "/events", &body))
}

fn form(asked: &Asked, sources: &[String]) -> Markup {
    html! {
        form.filters.card method="get" action="/events" role="search" {
            label { "Text in the body" input type="search" name="text" value=(asked.text) placeholder="ada@example.com"; }
            label { "Type" input name="type" value=(asked.event_type) placeholder="user.*"; }
            label { "Source"
                select name="source" {
                    option value="" { "all" }
                    @for source in sources {
                        option value=(source) selected[*source == asked.source] { (source) }
                    }
                }
            }
            label { "Organization" input name="organization" value=(asked.organization); }
            label { "Id" input name="id" value=(asked.id); }
            label { "Since" input name="since" value=(asked.since) placeholder="24h"; }
            label { "Until" input name="until" value=(asked.until) placeholder="2026-03-01T12:00:00Z"; }
            div { button { "Search" } " " a href="/events" { "All" } }
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
                    "Nothing so far."
                } @else if narrowed {
                    "No event is like that. " a href="/events" { "Show all" } ", or take a filter away."
                } @else {
                    "No event has come yet. Enter the endpoint of a " a href="/sources" { "source" }
                    " at its sender, or send a test event from there."
                }
            }
        }
        @if !found.events.is_empty() {
            div.scroll tabindex="0" role="region" aria-label="Events" {
                table {
                    thead { tr { th { "received" } th { "type" } th { "event" } th { "source" } th { "organization" } th.n { "bytes" } th { "deliveries" } } }
                    tbody {
                        @for event in &found.events {
                            @let href = layout::event(&event.source, &event.id);
                            tr {
                                td { (layout::time(event.received_at)) }
                                td { a href=(layout::link("/events", &[("type", &event.event_type)])) { (event.event_type) } }
                                td { a.row.mono href=(href) { (event.id) } }
                                td { (event.source) }
                                td {
                                    @if let Some(organization) = &event.organization {
                                        a href=(layout::link("/events", &[("organization", organization)])) { (organization) }
                                    }
                                }
                                td.n { (event.bytes) }
                                td {
                                    @for (state, count) in &event.deliveries {
                                        a href=(href) { span class=(format!("state {state}")) { (count) " " (state) } } " "
                                    }
                                    @if event.deliveries.is_empty() { span.soft { "for nobody" } }
                                }
                            }
                        }
                    }
                }
            }
        }
        p.pager {
            @if let Some(next) = &next {
                a.button.plain href=(next) rel="next" { @if found.events.len() < ROWS as usize { "Look further back" } @else { "Older" } }
                @if let Some(at) = found.looked_to { span.soft { " looked back to " (layout::time(at)) } }
            }
        }
    }
}
