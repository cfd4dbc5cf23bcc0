//! The overview: notices first, then charts of activity over time, then the two ledgers.

use std::time::Duration;

use axum::extract::{Query, State, rejection::QueryRejection};
use maud::{Markup, html};
use posthouse_model::{DeliveryState, HeldReason, OutboxState, counted, noun, turn};
use posthouse_store::Point;
use serde::Deserialize;

use super::{Page, PageError, charts, layout};

use crate::admin::{Admin, api::stats::Stats, error::ApiError};

/// The time ranges of the charts: the parameter's value, the label, the length in seconds, the points.
const WINDOWS: [(&str, &str, u64, u32); 3] =
    [("1h", "hour", 3600, 60), ("6h", "6 hours", 6 * 3600, 60), ("24h", "24 hours", 24 * 3600, 60)];

/// The age in seconds from which an unfinished delivery deserves a notice.
const OLD: i64 = 300;

#[derive(Deserialize)]
pub(super) struct Asked {
    window: Option<String>,
}

pub(super) async fn page(State(admin): State<Admin>, asked: Result<Query<Asked>, QueryRejection>) -> Page {
    let Query(asked) = asked?;
    let word = asked.window.as_deref().unwrap_or("1h");
    let (word, name, seconds, points) =
        WINDOWS.into_iter().find(|(known, ..)| *known == word).unwrap_or(WINDOWS[0]);
    let stats = admin.stats().await?;
    let points =
        admin.0.store.series(Duration::from_secs(seconds), points).await.map_err(PageError::store)?;
    let attention = admin.attention(&stats).await?;
    let body = html! {
        (layout::live("attention", &html! {
            h2 { "Needs attention" }
            ul.attention {
                @for Notice { grave, text } in &attention {
                    li.grave[*grave] { (text) }
                }
                @if attention.is_empty() {
                    li.fine { "Nothing. Events are accepted, every plugin is serving, and there are no dead letters to replay." }
                }
            }
        }))
        h2 { "Last " (name) }
        p {
            @for (other, name, ..) in WINDOWS {
                a.button.plain href=(format!("/?window={other}")) aria-current=[(other == word).then_some("true")] { (name) } " "
            }
        }
        (layout::live("charts", &graphs(&points)))
        (layout::live("ledgers", &ledgers(&stats)))
    };
    Ok(layout::page("Overview", "/", &body))
}

/// Something that an operator should look at.
struct Notice {
    grave: bool,
    text: Markup,
}

impl Admin {
    async fn attention(&self, stats: &Stats) -> Result<Vec<Notice>, ApiError> {
        let mut notices = Vec::new();
        let mut notice = |grave, text| notices.push(Notice { grave, text });
        if let Some(reason) = self.0.store.failure() {
            notice(
                true,
                html! { "The store has stopped: " (reason) ". Fix the disk, then restart the daemon." },
            );
        }
        if let Some(by) = self.0.env.set_back() {
            notice(
                true,
                html! {
                    "The system clock was set back by " (counted(by.as_secs().unsigned_abs(), "second")) ". posthouse continues with the time it had; correct the clock."
                },
            );
        }
        if let Some(short) = self.0.store.shortage() {
            notice(true, html! { "Events are answered 503: " (short) ". Free some space." });
        }
        if let Some(trouble) = self.0.store.trouble() {
            notice(
                true,
                html! { "The last write failed: " (trouble) ". Free some space on the store's disk; posthouse then continues automatically." },
            );
        }
        if let (true, Some(most)) = (stats.store.oversize, stats.store.max_bytes) {
            notice(
                false,
                html! {
                    "The store uses " (layout::bytes(stats.store.live_bytes)) ", more than " code { "max_size" } " ("
                    (layout::bytes(most)) "), and holds nothing that may be removed. Replay the dead letters, or raise " code { "max_size" } "."
                },
            );
        }
        for problem in &stats.problems {
            notice(
                true,
                html! { "The counts do not add up: " (problem) ". This is a bug of posthouse; please report it." },
            );
        }
        for plugin in self.0.registry.list() {
            let record = &plugin.record;
            let href = format!("/plugins/{}", layout::part(&record.name));
            match &record.held {
                Some(reason) => notice(
                    !matches!(reason, HeldReason::Paused),
                    html! {
                        a href=(href) { (record.name) } " is held: " (reason)
                    },
                ),
                None => {
                    if let Some(error) = &record.last_error {
                        notice(
                            false,
                            html! { "A newer file of " a href=(href) { (record.name) } " does not load: " (layout::long(error)) },
                        );
                    }
                }
            }
        }
        let ignored = self.0.registry.ignored().len() as u64;
        if ignored > 0 {
            notice(
                false,
                html! {
                    (layout::count(ignored, "/plugins#ignored")) " " (noun(ignored, "file")) " in the plugins folder "
                    (if ignored == 1 { "is" } else { "are" }) " ignored."
                },
            );
        }
        let left: u64 = self.0.store.dead_groups().await?.iter().map(|group| group.to_replay).sum();
        if left > 0 {
            notice(
                true,
                html! {
                    (layout::count(left, "/dead-letters")) " " (noun(left, "dead letter")) " not replayed."
                },
            );
        }
        let dead = stats.store.outbox.get(&OutboxState::Dead).copied().unwrap_or(0);
        if dead > 0 {
            notice(
                true,
                html! {
                    (layout::count(dead, "/outbox?state=dead")) " " (noun(dead, "item")) " of the outbox could not be sent."
                },
            );
        }
        let now = self.0.env.now();
        for plugin in &stats.store.plugins {
            if let Some(oldest) = plugin.oldest_open
                && now.duration_since(oldest).as_secs() > OLD
            {
                let href = layout::link("/deliveries", &[("plugin", &plugin.plugin)]);
                notice(
                    false,
                    html! {
                        a href=(href) { (plugin.plugin) } " is behind: its oldest unfinished delivery was created "
                        (layout::ago(oldest, now)) "."
                    },
                );
            }
        }
        if stats.store.replays_waiting > 0 {
            let waiting = stats.store.replays_waiting;
            notice(
                false,
                html! {
                    (layout::count(waiting, "/deliveries?state=waiting")) " replayed " (noun(waiting, "delivery")) " "
                    (turn(waiting)) "; new events run first."
                },
            );
        }
        for (source, requests) in &stats.requests {
            let (rejected, failed) = (sum(&requests.counts.rejected), sum(&requests.counts.failed));
            let href = layout::source(source);
            if failed > 0 {
                notice(
                    true,
                    html! { (layout::count(failed, &href)) " " (noun(failed, "request")) " to " (source) " failed since the start." },
                );
            }
            if rejected > 0 && rejected * 20 > requests.counts.received {
                notice(
                    false,
                    html! { (layout::count(rejected, &href)) " of " (counted(requests.counts.received, "request")) " to " (source) " rejected since the start." },
                );
            }
        }
        Ok(notices)
    }
}

fn sum(counts: &std::collections::BTreeMap<String, u64>) -> u64 {
    counts.values().sum()
}

fn graphs(points: &[Point]) -> Markup {
    let total = |of: &dyn Fn(&Point) -> u64| points.iter().map(of).sum::<u64>();
    let (events, completed, failed) =
        (total(&|point| point.events), total(&|point| point.completed), total(&|point| point.failed));
    let minutes = points.iter().map(|point| point.minutes).sum::<u64>().max(1);
    let highest = |of: fn(&Point) -> Option<f64>| {
        layout::maybe_millis(points.iter().filter_map(of).max_by(f64::total_cmp))
    };
    let unfinished = |point: &Point| Some(point.unfinished as f64);
    let open = points.last().map_or(0, |point| point.unfinished);
    html! {
        div.grid {
            (charts::columns(points, &html! {
                strong { "Events received: " (events) }
                (format!("{:.1} per minute", events as f64 / minutes as f64))
            }, "/events", &|point| [point.events, 0]))
            (charts::columns(points, &html! {
                strong { "Deliveries finished: " (completed + failed) }
                (completed) " done, " span.key.failed { (failed) " dead" }
            }, "/deliveries", &|point| [point.completed, point.failed]))
            (charts::lines(points, &html! {
                strong { "Attempt duration (p50, p95, p99)" }
                "highest: "
                span.key.p50 { "p50 " (highest(|point| point.p50_ms)) } " · "
                span.key.p95 { "p95 " (highest(|point| point.p95_ms)) } " · "
                span.key.p99 { "p99 " (highest(|point| point.p99_ms)) }
            }, "/deliveries", layout::millis, &[("p99", &|p| p.p99_ms), ("p95", &|p| p.p95_ms), ("p50", &|p| p.p50_ms)]))
            (charts::lines(points, &html! {
                strong { "Unfinished deliveries: " (open) }
                "highest: " (points.iter().map(|point| point.unfinished).max().unwrap_or(0))
            }, "/deliveries", charts::whole, &[("line", &unfinished)]))
        }
    }
}

fn ledgers(stats: &Stats) -> Markup {
    let since = stats.started_at.to_string();
    let store = &stats.store;
    html! {
        h2 { "Requests since " (layout::time(stats.started_at)) }
        div.scroll tabindex="0" role="region" aria-label="Requests" {
            table {
                thead { tr {
                    th { "source" }
                    @for title in ["received", "accepted", "duplicate", "filtered", "rejected", "failed", "active"] {
                        th.n { (title) }
                    }
                } }
                tbody {
                    @for (source, requests) in stats.requests.iter().filter(|(source, requests)| !source.starts_with('(') || requests.counts.received > 0) {
                        @let href = layout::source(source);
                        @let counts = &requests.counts;
                        tr {
                            th scope="row" { a.row href=(href) { (source) } }
                            td.n { (layout::count(counts.received, &href)) }
                            td.n { (layout::count(counts.accepted, &layout::link("/events", &[("source", source), ("since", &since)]))) }
                            @for count in [counts.duplicate, counts.filtered, sum(&counts.rejected), sum(&counts.failed)] {
                                td.n { (layout::count(count, &href)) }
                            }
                            td.n { (requests.under_way) }
                        }
                    }
                }
            }
        }
        h2 { "Deliveries, total" }
        div.scroll tabindex="0" role="region" aria-label="Deliveries" {
            table {
                thead { tr {
                    th { "plugin" } th.n { "created" }
                    @for state in DeliveryState::ALL { th.n { (state.as_str()) } }
                } }
                tbody {
                    @for plugin in &store.plugins {
                        @let of = |state: &str| layout::link("/deliveries", &[("plugin", &plugin.plugin), ("state", state)]);
                        tr {
                            th scope="row" { a.row href=(format!("/plugins/{}", layout::part(&plugin.plugin))) { (plugin.plugin) } }
                            td.n { (layout::count(plugin.made, &of(""))) }
                            @for state in DeliveryState::ALL {
                                td.n { (layout::count(plugin.states.get(&state).copied().unwrap_or(0), &of(state.as_str()))) }
                            }
                        }
                    }
                    tr {
                        th scope="row" { "all" }
                        td.n { (layout::count(store.made, "/deliveries")) }
                        @for state in DeliveryState::ALL {
                            td.n { (layout::count(store.states.get(&state).copied().unwrap_or(0), &format!("/deliveries?state={}", state.as_str()))) }
                        }
                    }
                }
            }
        }
        p.soft {
            @if stats.balanced { "All counts add up. " } @else { span.bad { "The counts do not add up; see above. " } }
            "Outbox: "
            @for (state, count) in &store.outbox { (layout::count(*count, &format!("/outbox?state={state}"))) " " (state) " " }
            @if let (Some(file), Some(log)) = (store.store_bytes, store.wal_bytes) {
                "· Store: " (layout::bytes(file + log))
                " (file " (layout::bytes(file)) ", write-ahead log " (layout::bytes(log)) ")"
            }
            @if let Some(free) = store.disk_free_bytes { ", " (layout::bytes(free)) " free on the disk" }
        }
        h2 { "Deliveries by event type, last 24 hours" }
        @if store.by_type.is_empty() {
            p.empty { "No deliveries. To send a test event, choose a " a href="/sources" { "source" } "." }
        } @else {
            div.scroll tabindex="0" role="region" aria-label="Deliveries by event type" {
                table {
                    thead { tr {
                        th { "type" }
                        @for title in ["total", "done", "dead", "average", "p50", "p95", "p99"] { th.n { (title) } }
                    } }
                    tbody {
                        @for row in &store.by_type {
                            @let of = |state: &str| layout::link("/deliveries", &[("type", &row.event_type), ("since", "24h"), ("state", state)]);
                            tr {
                                th scope="row" { a.row href=(layout::link("/events", &[("type", &row.event_type), ("since", "24h")])) { (row.event_type) } }
                                td.n { (layout::count(row.total, &of(""))) }
                                td.n { (layout::count(row.completed, &of("done"))) }
                                td.n { (layout::count(row.failed, &of("dead"))) }
                                @for ms in [row.average_ms, row.p50_ms, row.p95_ms, row.p99_ms] { td.n { (layout::maybe_millis(ms)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}
