//! Dead letters: by plugin and cause, each group to be run again once its cause is mended, with a count
//! first.

use axum::{
    Extension, Form,
    extract::{
        Query, State,
        rejection::{FormRejection, QueryRejection},
    },
};
use maud::html;
use serde::Deserialize;

use super::{Done, Page, PageError, Said, done, layout};
use crate::{
    admin::{Actor, Admin},
    model::DeliveryState,
    store::DeliveryFilter,
};

pub(super) async fn page(State(admin): State<Admin>, said: Result<Query<Done>, QueryRejection>) -> Page {
    let Query(said) = said?;
    let groups = admin.0.store.dead_groups().await.map_err(PageError::store)?;
    let left: u64 = groups.iter().map(|group| group.to_replay).sum();
    let shown = html! {
        @if groups.is_empty() {
            p.empty { "No delivery was given up. One is when its attempts are used up, or when its plugin refuses it for good." }
        } @else {
            @if left > 0 { p { a.button href="/replay" { "Run all " (left) " again …" } } }
            div.scroll tabindex="0" role="region" aria-label="Dead letters by reason" {
                table {
                    thead { tr { th { "plugin" } th { "reason" } th.n { "dead" } th.n { "not run again" } th { "first" } th { "last" } th { "" span.soft { "do" } } } }
                    tbody {
                        @for group in &groups {
                            @let of = [("plugin", group.plugin.as_str()), ("reason", group.reason.as_str())];
                            tr {
                                td { a href=(format!("/plugins/{}", layout::part(&group.plugin))) { (group.plugin) } }
                                td { @if group.reason.is_empty() { span.soft { "nothing was said" } } @else { span title=(group.example) { (group.reason) } } }
                                td.n { a.row href=(layout::link("/deliveries?state=dead", &of)) { (group.count) } }
                                td.n { (layout::count(group.to_replay, &layout::link("/replay", &of))) }
                                td { @if let Some(at) = group.first_at { (layout::time(at)) } }
                                td { @if let Some(at) = group.last_at { (layout::time(at)) } }
                                td { @if group.to_replay > 0 { a.button.plain href=(layout::link("/replay", &of)) { "Run again …" } } }
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
            "Reasons that differ only in ids, numbers and quoted values (…) are one. Nothing of a failed attempt took effect, so running it again is safe. Mend the cause first: put the "
            "plugin's new file in place, or add the grant that it lacks. Each is run again once; what dies again is "
            "a dead letter of its own."
        }
        (layout::live("dead", &shown))
    };
    Ok(layout::page("Dead letters", "/dead-letters", &body))
}

/// Which dead letters.
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
            // An empty reason is one: nothing was said. That of all groups is not there at all.
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
                    @match group.reason.as_deref() { None => "any", Some("") => "nothing was said", Some(reason) => (reason) }
                }
                dt { "to run again" } dd { strong #count { (count) } }
            }
            @if count == 0 {
                p { "There is nothing to run again. " a href="/dead-letters" { "Back" } }
            } @else {
                form method="post" action="/replay" {
                    input type="hidden" name="plugin" value=(group.plugin);
                    @if let Some(reason) = &group.reason { input type="hidden" name="reason" value=(reason); }
                    p { button { "Run " (count) " again" } " " a.button.plain href="/dead-letters" { "Leave them" } }
                }
            }
        }
    };
    Ok(layout::page("Run dead letters again", "/dead-letters", &body))
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
