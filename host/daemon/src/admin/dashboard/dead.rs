//! Dead letters by plugin and cause. Each group can be replayed, after a page with the count.

use axum::{
    Extension, Form,
    extract::{
        Query, State,
        rejection::{FormRejection, QueryRejection},
    },
};
use maud::html;
use posthouse_model::{DeliveryState, says_nothing};
use posthouse_store::DeliveryFilter;
use serde::Deserialize;

use super::{Done, Page, PageError, Said, done, layout};

use crate::admin::{Actor, Admin};

pub(super) async fn page(State(admin): State<Admin>, said: Result<Query<Done>, QueryRejection>) -> Page {
    let Query(said) = said?;
    let groups = admin.0.store.dead_groups().await.map_err(PageError::store)?;
    let left: u64 = groups.iter().map(|group| group.to_replay).sum();
    let shown = html! {
        @if groups.is_empty() {
            p.empty { "No dead letters. A delivery becomes one when its attempts are used up, or when its plugin rejects the event." }
        } @else {
            @if left > 0 { p { a.button href="/replay" { "Replay " (if left == 1 { "it".to_owned() } else { format!("all {left}") }) " …" } } }
            div.scroll tabindex="0" role="region" aria-label="Dead letters by reason" {
                table.stack {
                    thead { tr { th { "plugin" } th { "reason" } th.n { "dead" } th.n { "not replayed" } th { "first" } th { "last" } th { span.hidden { "action" } } } }
                    tbody {
                        @for group in &groups {
                            @let of = [("plugin", group.plugin.as_str()), ("reason", group.reason.as_str())];
                            tr {
                                td data-label="plugin" { a href=(format!("/plugins/{}", layout::part(&group.plugin))) { (group.plugin) } }
                                td.text data-label="reason" {
                                    @if group.reason.is_empty() { span.soft { "no reason given" } }
                                    @else if says_nothing(&group.reason) { (group.reason) span.soft { ", such as " } (layout::long(&group.example)) }
                                    @else { span title=(group.example) { (layout::long(&group.reason)) } }
                                }
                                td.n data-label="dead" { a.row href=(layout::link("/deliveries?state=dead", &of)) { (group.count) } }
                                td.n data-label="not replayed" { (layout::count(group.to_replay, &layout::link("/replay", &of))) }
                                td data-label="first" { @if let Some(at) = group.first_at { (layout::time(at)) } }
                                td data-label="last" { @if let Some(at) = group.last_at { (layout::time(at)) } }
                                td data-label="" { @if group.to_replay > 0 { a.button.plain href=(layout::link("/replay", &of)) { "Replay …" } } }
                            }
                        }
                    }
                }
            }
        }
    };
    let body = html! {
        (said.show())
        p.soft {
            "Reasons that differ only in ids, numbers and quoted values (…) are one cause. "
            "A failed attempt leaves no effects, so a replay is safe. Fix the cause first: deploy a new file of the "
            "plugin, or add the grant that it lacks. Each dead letter is replayed once; a replay that fails becomes "
            "a new dead letter."
        }
        (layout::live("dead", &shown))
    };
    Ok(layout::page("Dead letters", "/dead-letters", &body))
}

/// The dead letters of a group.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Group {
    plugin: String,
    reason: Option<String>,
}

impl Group {
    fn filter(&self) -> DeliveryFilter {
        DeliveryFilter {
            state: Some(DeliveryState::Dead),
            plugin: (!self.plugin.is_empty()).then(|| self.plugin.clone()),
            // An empty reason is a reason: the guest gave none. None selects all reasons.
            reason: self.reason.clone(),
            ..DeliveryFilter::default()
        }
    }
}

pub(super) async fn confirm(State(admin): State<Admin>, group: Result<Query<Group>, QueryRejection>) -> Page {
    let Query(group) = group?;
    let count = admin.0.store.count_deliveries(group.filter()).await.map_err(PageError::store)?;
    let body = html! {
        div.card {
            dl.facts {
                dt { "plugin" } dd { @if group.plugin.is_empty() { "all" } @else { (group.plugin) } }
                dt { "reason" } dd {
                    @match group.reason.as_deref() { None => "any", Some("") => "no reason given", Some(reason) => (reason) }
                }
                dt { "to replay" } dd { strong #count { (count) } }
            }
            @if count == 0 {
                p { "Nothing to replay. " a href="/dead-letters" { "Back" } }
            } @else {
                form method="post" action="/replay" {
                    input type="hidden" name="plugin" value=(group.plugin);
                    @if let Some(reason) = &group.reason { input type="hidden" name="reason" value=(reason); }
                    p { button { "Replay " (count) } " " a.button.plain href="/dead-letters" { "Cancel" } }
                }
            }
        }
    };
    Ok(layout::page("Replay dead letters", "/dead-letters", &body))
}

pub(super) async fn replay(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    group: Result<Form<Group>, FormRejection>,
) -> Page {
    let Form(group) = group?;
    let count = admin.replay_many(&actor, group.filter()).await?;
    Ok(done("/dead-letters", Said::Replayed, count))
}
