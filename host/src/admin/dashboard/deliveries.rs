//! Deliveries and the outbox as lists: what the numbers of the other pages count.

use axum::{
    Extension,
    extract::{Query, State, rejection::QueryRejection},
};
use maud::{Markup, html};
use serde::Deserialize;

use super::{Done, Page, PageError, Said, done, events::moment, layout};
use crate::{
    admin::{Actor, Admin, OUTBOX_STATES, api::query::SEARCH, error::ApiError},
    model::{DeliveryState, Pattern},
    store::{DeliveryFilter, DeliverySummary, OutboxFilter, OutboxId},
};

/// Rows of a page.
const ROWS: u32 = 50;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    state: String,
    plugin: String,
    source: String,
    #[serde(rename = "type")]
    event_type: String,
    reason: String,
    since: String,
    until: String,
    before: String,
}

impl Asked {
    fn parameters(&self) -> [(&'static str, &str); 7] {
        [
            ("state", &self.state),
            ("plugin", &self.plugin),
            ("source", &self.source),
            ("type", &self.event_type),
            ("reason", &self.reason),
            ("since", &self.since),
            ("until", &self.until),
        ]
    }

    fn filter(&self, admin: &Admin) -> Result<DeliveryFilter, ApiError> {
        let wrong = |text: &dyn std::fmt::Display| ApiError::bad_request(text.to_string());
        let some = |text: &str| (!text.trim().is_empty()).then(|| text.trim().to_owned());
        let state = match some(&self.state) {
            None => None,
            Some(word) => Some(
                DeliveryState::ALL
                    .into_iter()
                    .find(|state| state.as_str() == word)
                    .ok_or_else(|| wrong(&format!("`{word}` is no state of a delivery")))?,
            ),
        };
        Ok(DeliveryFilter {
            state,
            plugin: some(&self.plugin),
            source: some(&self.source),
            event_type: some(&self.event_type)
                .map(|text| Pattern::new(&text))
                .transpose()
                .map_err(|error| wrong(&error))?,
            reason: (!self.reason.is_empty()).then(|| self.reason.clone()),
            since: admin.moment(moment(&self.since)?),
            until: admin.moment(moment(&self.until)?),
            limit: ROWS,
            before: some(&self.before).map(|id| id.parse()).transpose().map_err(|error| wrong(&error))?,
            event: None,
        })
    }
}

pub(super) async fn page(State(admin): State<Admin>, asked: Result<Query<Asked>, QueryRejection>) -> Page {
    let Query(asked) = asked?;
    let filter = asked.filter(&admin)?;
    let found = admin.0.store.deliveries_within(filter, SEARCH).await.map_err(PageError::store)?;
    let plugins: Vec<_> = admin.0.registry.list().iter().map(|plugin| plugin.record.name.clone()).collect();
    let next = found.next.map(|next| {
        let before = next.to_string();
        layout::link("/deliveries", &[asked.parameters().as_slice(), &[("before", before.as_str())]].concat())
    });
    let shown = html! {
        @if found.deliveries.is_empty() {
            p.empty { @if next.is_some() { "Nothing so far." } @else { "No delivery is like that. " a href="/deliveries" { "Show all" } "." } }
        } @else { (rows(&found.deliveries)) }
        p.pager { @if let Some(next) = &next { a.button.plain href=(next) rel="next" { "Older" } } }
    };
    let body = html! {
        form.filters.card method="get" action="/deliveries" {
            label { "State"
                select name="state" {
                    option value="" { "all" }
                    @for state in DeliveryState::ALL {
                        option value=(state.as_str()) selected[state.as_str() == asked.state] { (state.as_str()) }
                    }
                }
            }
            label { "Plugin"
                select name="plugin" {
                    option value="" { "all" }
                    @for plugin in &plugins { option value=(plugin) selected[*plugin == asked.plugin] { (plugin) } }
                }
            }
            label { "Type" input name="type" value=(asked.event_type) placeholder="user.*"; }
            label { "Source" input name="source" value=(asked.source); }
            label { "Reason (ids and numbers make no difference)" input name="reason" value=(asked.reason); }
            label { "Since" input name="since" value=(asked.since) placeholder="24h"; }
            label { "Until" input name="until" value=(asked.until); }
            div { button { "Filter" } " " a href="/deliveries" { "All" } }
        }
        @if asked.before.is_empty() { (layout::live("deliveries", &shown)) } @else { (shown) }
    };
    Ok(layout::page("Deliveries", "", &body))
}

/// Deliveries as a table.
pub(super) fn rows(deliveries: &[DeliverySummary]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Deliveries" {
            table {
                thead { tr { th { "made" } th { "delivery" } th { "plugin" } th { "type" } th { "state" } th.n { "attempts" } th { "what went wrong" } } }
                tbody {
                    @for delivery in deliveries {
                        tr {
                            td { (layout::time(delivery.made_at)) }
                            td { a.row.mono href=(layout::event(&delivery.source, &delivery.event)) { (delivery.id) } }
                            td { a href=(format!("/plugins/{}", layout::part(&delivery.plugin))) { (delivery.plugin) } }
                            td { (delivery.event_type) }
                            td { (layout::state(delivery.state.as_str())) }
                            td.n { (delivery.attempts) }
                            td {
                                (delivery.error.as_deref().unwrap_or_default())
                                @if let Some(held) = &delivery.held { span.warn { (held) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct OutboxAsked {
    state: String,
    before: String,
}

pub(super) async fn outbox(
    State(admin): State<Admin>,
    asked: Result<Query<OutboxAsked>, QueryRejection>,
    said: Result<Query<Done>, QueryRejection>,
) -> Page {
    let (Query(asked), Query(said)) = (asked?, said?);
    if !asked.state.is_empty() && !OUTBOX_STATES.contains(&asked.state.as_str()) {
        return Err(super::unknown(&asked.state));
    }
    let before = asked.before.parse().ok().map(OutboxId);
    let filter =
        OutboxFilter { state: (!asked.state.is_empty()).then(|| asked.state.clone()), limit: ROWS, before };
    let items = admin.outbox(filter).await?;
    let dead =
        admin.0.store.stats().await.map_err(PageError::store)?.outbox.get("dead").copied().unwrap_or(0);
    let next = items.last().filter(|_| items.len() == ROWS as usize).map(|item| item.id.0.to_string());
    let shown = html! {
        @if items.is_empty() {
            p.empty { "Nothing here. What plugins send goes through the outbox once their delivery has committed." }
        } @else {
            div.scroll tabindex="0" role="region" aria-label="Outbox" {
                table {
                    thead { tr { th { "item" } th { "kind" } th { "state" } th.n { "tries" } th { "what" } th { "what went wrong" } } }
                    tbody {
                        @for item in &items {
                            tr {
                                td { (item.id.0) } td { (item.kind) } td { (layout::state(&item.state)) } td.n { (item.attempts) }
                                td { (item.summary) } td { (item.error.as_deref().unwrap_or_default()) }
                            }
                        }
                    }
                }
            }
        }
    };
    let body = html! {
        (said.show())
        p {
            a href="/outbox" aria-current=[asked.state.is_empty().then_some("true")] { "all" } " "
            @for state in OUTBOX_STATES {
                a href=(format!("/outbox?state={state}")) aria-current=[(asked.state == state).then_some("true")] { (state) } " "
            }
        }
        @if dead > 0 {
            form method="post" action="/outbox/replay" {
                p { button { "Try the " (dead) " given up again" } }
            }
        }
        @if before.is_none() { (layout::live("outbox", &shown)) } @else { (shown) }
        @if let Some(next) = next {
            p.pager { a.button.plain rel="next" href=(layout::link("/outbox", &[("state", &asked.state), ("before", &next)])) { "Older" } }
        }
    };
    Ok(layout::page("Outbox", "/outbox", &body))
}

pub(super) async fn replay(State(admin): State<Admin>, Extension(actor): Extension<Actor>) -> Page {
    let count = admin.replay_outbox(&actor, Vec::new()).await?;
    Ok(done("/outbox", Said::Resent, count))
}
