//! Plugins: state, grants and recent attempts of each; pause and resume; the ignored files.

use axum::{
    Extension,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
};
use maud::{Markup, html};
use posthouse_guest::plugin::Plugin;
use posthouse_model::{BreakerState, DeliveryState, HeldReason, counted};
use posthouse_store::{DeliveryFilter, PluginRevision, PluginStats, Recent};

use super::{Done, Page, PageError, Said, deliveries, done, layout, unknown};

use crate::admin::{
    Actor, Admin,
    api::{plugins::Deed, query::SEARCH},
};

pub(super) async fn list(State(admin): State<Admin>, said: Result<Query<Done>, QueryRejection>) -> Page {
    let Query(said) = said?;
    let stats = admin.0.store.stats().await.map_err(PageError::store)?.plugins;
    let plugins = admin.0.registry.list();
    let shown = html! {
        @if plugins.is_empty() {
            p.empty { "No plugins. Put a " code { ".wasm" } " file into the plugins folder; the daemon loads it within a second." }
        } @else {
            div.scroll tabindex="0" role="region" aria-label="Plugins" {
                table.stack {
                    thead { tr {
                        th { "plugin" } th { "state" } th { "revision" } th { "subscribes to" }
                        @for state in DeliveryState::ALL { th.n { (state.as_str()) } }
                    } }
                    tbody {
                        @for plugin in &plugins {
                            @let record = &plugin.record;
                            @let counts = stats.iter().find(|counts| counts.plugin == record.name);
                            tr {
                                th.id scope="row" data-label="plugin" { a.row href=(format!("/plugins/{}", layout::part(&record.name))) { (record.name) } div.soft { (record.description) } }
                                td.text data-label="state" { (standing(plugin)) }
                                td.mono.rev data-label="revision" { (short(record.revision.as_deref())) }
                                td data-label="subscribes to" { @for pattern in &record.events { code { (pattern.as_str()) } " " } }
                                @for state in DeliveryState::ALL {
                                    @let href = layout::link("/deliveries", &[("plugin", &record.name), ("state", state.as_str())]);
                                    td.n data-label=(state.as_str()) { (layout::count(counts.and_then(|counts| counts.states.get(&state)).copied().unwrap_or(0), &href)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    };
    let ignored = admin.0.registry.ignored();
    let shown = html! {
        (shown)
        @if !ignored.is_empty() {
            h2 #ignored { "Ignored files" }
            div.scroll tabindex="0" role="region" aria-label="Ignored files" {
                table.stack {
                    thead { tr { th { "file in the plugins folder" } th { "reason" } } }
                    tbody { @for file in &ignored { tr { td.mono data-label="file" { (file.file) } td.text data-label="reason" { (file.reason) } } } }
                }
            }
        }
    };
    let body = html! { (said.show()) (layout::live("plugins", &shown)) };
    Ok(layout::page("Plugins", "/plugins", &body))
}

pub(super) async fn page(
    State(admin): State<Admin>,
    name: Result<Path<String>, PathRejection>,
    said: Result<Query<Done>, QueryRejection>,
) -> Page {
    let (Path(name), Query(said)) = (name?, said?);
    let plugin = admin.plugin(&name).await?;
    let store = &admin.0.store;
    let stats = store.stats().await.map_err(PageError::store)?.plugins;
    let recent = store.recent(plugin.record.id).await.map_err(PageError::store)?;
    let history = store.revisions(plugin.record.id).await.map_err(PageError::store)?;
    let filter = DeliveryFilter { plugin: Some(name.clone()), limit: 10, ..DeliveryFilter::default() };
    let newest = store.deliveries_within(filter, SEARCH).await.map_err(PageError::store)?;
    let counts = stats.iter().find(|counts| counts.plugin == name);
    let body = html! {
        (said.show())
        (layout::live("plugin", &html! {
            (facts(&plugin, counts))
            (buttons(&plugin))
            h2 { "Its grants" }
            (grants(&plugin))
            h2 { "Its recent attempts" }
            (attempts(&recent))
            h2 { "Its revisions" }
            (revisions(&history))
            h2 { "Its recent deliveries" }
            @if newest.deliveries.is_empty() {
                p.empty { "No deliveries. Each event of a type that the plugin subscribes to creates one." }
            } @else { (deliveries::rows(&newest.deliveries)) }
        }))
    };
    Ok(layout::page(&name, "/plugins", &body))
}

pub(super) async fn act(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Page {
    let Path((name, deed)) = path?;
    let (deed, said) = match deed.as_str() {
        "pause" => (Deed::Pause, Said::Paused),
        "resume" => (Deed::Resume, Said::Resumed),
        "forget" => (Deed::Forget, Said::Forgotten),
        odd => return Err(unknown(odd)),
    };
    admin.act(&actor, deed, &name).await?;
    let path = if deed == Deed::Forget {
        "/plugins".to_owned()
    } else {
        format!("/plugins/{}", layout::part(&name))
    };
    Ok(done(&path, said, 1))
}

fn standing(plugin: &Plugin) -> Markup {
    html! {
        @match &plugin.record.held {
            None => { (layout::state("serving")) }
            Some(reason) => { (layout::state("held")) div.warn { (layout::long(&reason.to_string())) } }
        }
        @if let Some(error) = &plugin.record.last_error { div.bad { (layout::long(error)) } }
    }
}

fn short(revision: Option<&str>) -> &str {
    revision.and_then(|revision| revision.get(..12)).unwrap_or("none")
}

fn facts(plugin: &Plugin, counts: Option<&PluginStats>) -> Markup {
    let (record, settings) = (&plugin.record, &plugin.settings);
    html! {
        div.card {
            dl.facts {
                dt { "state" } dd { (standing(plugin)) }
                @if !record.description.is_empty() { dt { "description" } dd { (record.description) } }
                @if let Some(component) = &settings.component { dt { "component" } dd { code { (component) ".wasm" } } }
                dt { "revision" } dd.mono { (record.revision.as_deref().unwrap_or("none")) }
                @if let Some(at) = record.loaded_at { dt { "loaded" } dd { (layout::time(at)) } }
                dt { "subscribes to" } dd {
                    @for pattern in &record.events { a href=(layout::link("/events", &[("type", pattern.as_str())])) { code { (pattern.as_str()) } } " " }
                }
                dt { "circuit breaker" } dd { (breaker(plugin)) }
                @if let Some(counts) = counts {
                    dt { "deliveries" } dd {
                        (layout::count(counts.made, &layout::link("/deliveries", &[("plugin", &record.name)]))) " made: "
                        @for (state, count) in &counts.states {
                            (layout::count(*count, &layout::link("/deliveries", &[("plugin", &record.name), ("state", state.as_str())]))) " " (state.as_str()) " "
                        }
                    }
                }
                dt { "limits" } dd {
                    (counted(settings.retry.attempts.into(), "attempt")) " per delivery, " (settings.concurrency) " at once; per attempt "
                    (humantime::format_duration(settings.limits.time).to_string()) " and " (layout::bytes(settings.limits.memory as u64))
                    @if let Some(rate) = settings.rate { "; " (rate.per_second) " attempts a second, " (rate.burst) " at once after a rest" }
                }
            }
        }
    }
}

fn breaker(plugin: &Plugin) -> Markup {
    let settings = plugin.settings.breaker;
    let pause = |pause| humantime::format_duration(pause).to_string();
    html! {
        @match plugin.trip() {
            _ if settings.failures == 0 => { "off: the plugin is never paused automatically" }
            None => {
                "closed: " (plugin.failures_in_a_row()) " of " (settings.failures)
                " different deliveries failed in a row; then it pauses the plugin for " (pause(settings.pause))
            }
            Some(trip) => {
                span.warn { (trip.state().as_str()) } " since " (layout::time(trip.since)) ": " (trip)
            }
        }
    }
}

fn buttons(plugin: &Plugin) -> Markup {
    let record = &plugin.record;
    let action = |deed: &str| format!("/plugins/{}/{deed}", layout::part(&record.name));
    html! {
        p {
            @if record.paused {
                form.inline method="post" action=(action("resume")) { button #deed { "Resume" } }
            } @else {
                form.inline method="post" action=(action("pause")) { button #deed { "Pause" } }
                @if plugin.breaker() != BreakerState::Closed {
                    form.inline method="post" action=(action("resume")) { button #close { "Resume now" } }
                }
            }
            @if record.held == Some(HeldReason::Gone) {
                form.inline method="post" action=(action("forget")) { button.plain #forget { "Forget the plugin, its keys and its unfinished deliveries" } }
            }
        }
    }
}

fn grants(plugin: &Plugin) -> Markup {
    let (record, settings) = (&plugin.record, &plugin.settings);
    let given = serde_json::to_value(&settings.grants).unwrap_or_default();
    let given: Vec<_> = given
        .as_object()
        .map(|map| map.iter().map(|(k, v)| (k.clone(), v.to_string())).collect())
        .unwrap_or_default();
    html! {
        div.card {
            dl.facts {
                dt { "requires" } dd {
                    @if record.requires.is_empty() { "nothing" }
                    @for capability in &record.requires {
                        @if settings.grants.allows(*capability) { span.good { (capability) " ✓ " } }
                        @else { span.bad { (capability) " is not granted; add " } code { (capability.example()) } " to " code { "[plugin." (record.name) ".grants]" } " " }
                    }
                }
                dt { "granted" } dd {
                    @if given.is_empty() { "only log, config and its own keys" }
                    @for (name, value) in &given { div { (name) " " code { (value) } } }
                }
            }
        }
    }
}

fn revisions(history: &[PluginRevision]) -> Markup {
    html! {
        @if history.is_empty() { p.empty { "No revision was loaded yet." } } @else {
            div.scroll tabindex="0" role="region" aria-label="Revisions" {
                table.stack {
                    thead { tr { th { "revision" } th { "loaded" } th { "until" } th { "ended by" } th { "description" } } }
                    tbody {
                        @for revision in history {
                            tr {
                                td.mono.rev data-label="revision" { (short(Some(&revision.sha256))) }
                                td data-label="loaded" { (layout::time(revision.loaded_at)) }
                                td data-label="until" { @match revision.ended_at { Some(at) => { (layout::time(at)) } None => { "now" } } }
                                td.text data-label="ended by" { (layout::long(revision.ending.as_deref().unwrap_or("serving"))) }
                                td data-label="description" { (revision.description) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn attempts(recent: &Recent) -> Markup {
    html! {
        @if recent.attempts == 0 { p.empty { "The plugin has not run yet." } } @else {
            div.card {
                dl.facts {
                    dt { "attempts" } dd { "the newest " (recent.attempts) }
                    dt { "failed" } dd { (recent.failed) }
                    dt { "duration" } dd {
                        "p50 " (layout::maybe_millis(recent.p50_ms)) ", p95 " (layout::maybe_millis(recent.p95_ms)) ", p99 " (layout::maybe_millis(recent.p99_ms))
                    }
                    dt { "revisions" } dd {
                        @for (revision, count) in &recent.revisions { div { code { (revision) } ": " (counted(*count, "attempt")) } }
                    }
                }
            }
        }
    }
}
