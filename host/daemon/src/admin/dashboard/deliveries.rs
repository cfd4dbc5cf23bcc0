//! The list of deliveries, to which the numbers on the other pages lead.

use axum::extract::{Query, State, rejection::QueryRejection};
use maud::{Markup, html};
use posthouse_model::{DeliveryState, Pattern};
use posthouse_store::{DeliveryFilter, DeliveryPage, DeliverySummary};
use serde::Deserialize;

use super::{
    Page, PageError,
    events::{moment, written},
    layout,
};

use crate::admin::{
    Admin,
    api::{names, query::SEARCH},
    error::ApiError,
};

/// Rows on a page.
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
    since_at: String,
    until: String,
    until_at: String,
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
                    .ok_or_else(|| wrong(&format!("`{word}` is not a state of a delivery")))?,
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
            since: admin.since(moment(&self.since)?),
            until: admin.until(moment(&self.until)?),
            limit: ROWS,
            before: some(&self.before).map(|id| id.parse()).transpose().map_err(|error| wrong(&error))?,
            event: None,
        })
    }
}

pub(super) async fn page(State(admin): State<Admin>, asked: Result<Query<Asked>, QueryRejection>) -> Page {
    let Query(mut asked) = asked?;
    written(&mut asked.since, &asked.since_at);
    written(&mut asked.until, &asked.until_at);
    let (found, said) = match found(&admin, &asked).await {
        Ok(found) => (found, String::new()),
        Err(error) if error.status.is_client_error() => (DeliveryPage::default(), error.message),
        Err(error) => return Err(PageError(error)),
    };
    let plugins: Vec<_> = admin.0.registry.list().iter().map(|plugin| plugin.record.name.clone()).collect();
    let next = found.next.map(|next| {
        let before = next.to_string();
        layout::link("/deliveries", &[asked.parameters().as_slice(), &[("before", before.as_str())]].concat())
    });
    let shown = html! {
        @if found.deliveries.is_empty() && said.is_empty() {
            p.empty { @if next.is_some() { "Nothing found so far." } @else { "No delivery matches. " a href="/deliveries" { "Show all" } "." } }
        } @else if !found.deliveries.is_empty() { (rows(&found.deliveries)) }
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
            label { "Event type" input name="type" value=(asked.event_type) placeholder="user.*"; }
            label { "Source" input name="source" value=(asked.source); }
            label { "Reason (ids and numbers are ignored)" input name="reason" value=(asked.reason); }
            (layout::moment_field("since", "Since", &asked.since, "24h"))
            (layout::moment_field("until", "Until", &asked.until, "now"))
            div { button { "Filter" } " " a href="/deliveries" { "Clear" } }
        }
        @if !said.is_empty() { p.error role="alert" { (said) } }
        @if asked.before.is_empty() { (layout::live("deliveries", &shown)) } @else { (shown) }
    };
    Ok(layout::page("Deliveries", "/deliveries", &body))
}

async fn found(admin: &Admin, asked: &Asked) -> Result<DeliveryPage, ApiError> {
    let filter = asked.filter(admin)?;
    let names = names::Asked {
        source: filter.source.as_deref(),
        plugin: filter.plugin.as_deref(),
        event_type: filter.event_type.as_ref(),
    };
    admin.known(names).await?;
    Ok(admin.0.store.deliveries_within(filter, SEARCH).await?)
}

/// Deliveries as a table.
pub(super) fn rows(deliveries: &[DeliverySummary]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Deliveries" {
            table.stack {
                thead { tr { th { "created" } th { "delivery" } th { "plugin" } th { "type" } th { "state" } th.n { "attempts" } th { "reason" } } }
                tbody {
                    @for delivery in deliveries {
                        tr {
                            td data-label="created" { (layout::time(delivery.made_at)) }
                            td.rev data-label="delivery" { a.row.mono href=(layout::delivery(&delivery.source, &delivery.event, delivery.id)) { (delivery.id) } }
                            td data-label="plugin" { a href=(format!("/plugins/{}", layout::part(&delivery.plugin))) { (delivery.plugin) } }
                            td.type data-label="type" { (delivery.event_type) }
                            td data-label="state" { (layout::state(delivery.state.as_str())) }
                            td.n data-label="attempts" { (delivery.attempts) }
                            td.text data-label="reason" {
                                @if delivery.state != DeliveryState::Done { (layout::long(delivery.error.as_deref().unwrap_or_default())) }
                                @if let Some(held) = &delivery.held { span.warn { (held) } }
                            }
                        }
                    }
                }
            }
        }
    }
}
