//! Sources: their requests, the rejections with their reasons, how to set up the sender, and a test event.

use axum::{
    Extension, Form,
    extract::{
        Path, Query, State,
        rejection::{FormRejection, PathRejection, QueryRejection},
    },
};
use maud::{Markup, html};
use posthouse_model::{CatchUpStatus, EventType, RequestCounts, json};
use serde::{Deserialize, de::IgnoredAny};

use super::{Page, layout};

use crate::admin::{
    Actor, Admin, KeyState,
    api::sources::{SourceView, read},
    error::ApiError,
};

/// The ledger's key for requests that belong to no source.
const NO_SOURCE: &str = "(none)";

/// The type that is sent if none is chosen.
const USUAL: &str = "user.created";

/// The meaning of each reason of a rejection, and what to do.
const REASONS: [(&str, &str); 18] = [
    ("signature-mismatch", "The secret differs from the sender's, or a proxy changes the body."),
    ("timestamp", "A clock is wrong, here or at the sender, or an old request was sent again."),
    ("unsigned", "The request has no signature: a stranger, or another scheme than the source's."),
    ("no-key", "The source has no key yet. Its sender brings one after `posthouse senders learn`."),
    (
        "key-",
        "The request brings a key. Nobody awaits one, the source has one already, or it can't be a key.",
    ),
    ("too-many-events", "One request carries more events than any sender sends at once."),
    ("signature", "None of its signatures is of a kind that this source accepts."),
    ("header", "Its signature headers can't be read: a part is missing, repeated or too long."),
    ("body-too-large", "The body is larger than `server.max_body`."),
    (
        "body-compressed",
        "The body is compressed. Have the sender, or the proxy in between, send it without Content-Encoding.",
    ),
    ("body-", "The body arrived too slowly or incomplete, or is not JSON."),
    ("member", "The body is signed, but has no id or no type."),
    ("bad-", "The id or the type of the event contains characters that are not allowed."),
    ("wrong-method", "A webhook is a POST."),
    (
        "rate-limited",
        "More signed requests than `rate` of the source allows; the response says when to retry.",
    ),
    ("disk-space", "The disk of the store is nearly full. Free some space, and events are accepted again."),
    (
        "backlog",
        "Too many unfinished deliveries: the response asks the sender to retry. See which plugin is behind.",
    ),
    ("store", "The store has stopped: see the overview, and fix the disk."),
];

pub(super) async fn list(State(admin): State<Admin>) -> Page {
    let sources = admin.source_views().await?;
    let now = admin.0.env.now();
    let strays = (admin.0.ledgers)().get(NO_SOURCE).map(|ledger| ledger.snapshot()).unwrap_or_default();
    let shown = html! {
        @if sources.is_empty() {
            p.empty { "config.toml has no source. Add a " code { "[[source]]" } " with its name, path, scheme and secrets." }
        } @else {
            div.scroll tabindex="0" role="region" aria-label="Sources" {
                table {
                    thead { tr { th { "source" } th { "path" } th { "scheme" } th { "last event" } th.n { "received" } th.n { "accepted" } th.n { "rejected" } th.n { "failed" } th.n { "missing" } } }
                    tbody {
                        @for source in &sources {
                            @let href = format!("/sources/{}", layout::part(&source.name));
                            tr {
                                th scope="row" { a.row href=(href) { (source.name) } }
                                td { code { (source.path) } }
                                td { (source.scheme) }
                                td { @match &source.last_event { None => span.soft { "never" }, Some(last) => (layout::ago(last.received_at, now)) } }
                                td.n { (layout::count(source.requests.counts.received, &href)) }
                                td.n { (layout::count(source.requests.counts.accepted, &layout::link("/events", &[("source", &source.name)]))) }
                                td.n { (layout::count(source.requests.counts.rejected.values().sum(), &href)) }
                                td.n { (layout::count(source.requests.counts.failed.values().sum(), &href)) }
                                td.n { @match &source.catch_up { None => span.soft { "–" }, Some(status) => (layout::count(status.missing, &format!("{href}#catch-up"))) } }
                            }
                        }
                    }
                }
            }
        }
        @if strays.received > 0 {
            h2 #none { "Requests to no source: " (strays.received) }
            (refused(&strays))
        }
    };
    Ok(layout::page("Sources", "/sources", &layout::live("sources", &shown)))
}

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(rename = "type")]
    event_type: Option<String>,
}

pub(super) async fn page(
    State(admin): State<Admin>,
    name: Result<Path<String>, PathRejection>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Page {
    let (Path(name), Query(asked)) = (name?, asked?);
    let event_type = asked.event_type.unwrap_or_else(|| USUAL.to_owned());
    let chosen = EventType::new(&event_type).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let body = admin.test_body(&chosen, None)?;
    let payload = serde_json::to_string_pretty(&body).unwrap_or_default();
    shown(&admin, &name, &event_type, &payload, &html! {}).await
}

#[derive(Deserialize)]
pub(super) struct TestForm {
    payload: String,
}

pub(super) async fn test(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    name: Result<Path<String>, PathRejection>,
    form: Result<Form<TestForm>, FormRejection>,
) -> Page {
    let (Path(name), Form(form)) = (name?, form?);
    if let Err(error) = serde_json::from_str::<IgnoredAny>(&form.payload) {
        return wrong(&admin, &name, &form.payload, &format!("The payload is not JSON: {error}")).await;
    }
    let [event_type] = json::members(&form.payload, ["type"]);
    let event_type = event_type.and_then(json::string).unwrap_or(USUAL.into());
    match admin.send_test(&actor, &name, form.payload.clone()).await {
        Ok(sent) => {
            let good = (200..300).contains(&sent.posted.status);
            let said = html! {
                div #sent class=(if good { "said" } else { "error" }) role="status" {
                    "The daemon answered " strong { (sent.posted.status) } " " code { (sent.posted.answer) } ". "
                    a href=(layout::event(&name, &sent.id)) { "Show " (sent.id) }
                }
            };
            shown(&admin, &name, &event_type, &form.payload, &said).await
        }
        Err(error) => wrong(&admin, &name, &form.payload, &error.message).await,
    }
}

async fn wrong(admin: &Admin, name: &str, payload: &str, said: &str) -> Page {
    shown(admin, name, USUAL, payload, &html! { p.error role="alert" { (said) } }).await
}

async fn shown(admin: &Admin, name: &str, event_type: &str, payload: &str, said: &Markup) -> Page {
    let source = admin.source_view(name).await?;
    let samples = read()?;
    let body = html! {
        (said)
        (layout::live("source", &facts(&source)))
        @if let Some(status) = &source.catch_up {
            h2 #catch-up { "Catch-up" }
            (layout::live("catch-up-status", &catch_up(status)))
        }
        h2 { "Set up the sender" }
        (advice(&source))
        h2 #test { "Send a test event" }
        @if !source.samples.is_empty() {
            div.card {
                p { "Each of these sends a sample in the form of this sender, signed with the source's first secret:" }
                @for sample in &source.samples { p { code { "posthouse send " (sample) " --source " (source.name) } } }
            }
        } @else { div.card.stack {
            form method="get" action=(format!("/sources/{}", layout::part(name))) {
                label for="type" { "Event type of the sample" }
                select #type name="type" data-go {
                    @for known in samples.types() { option value=(known) selected[known == event_type] { (known) } }
                }
                noscript { button.plain { "Load" } }
            }
            form method="post" action=(format!("/sources/{}/test", layout::part(name))) {
                p { label for="payload" { "Payload" } textarea #payload name="payload" spellcheck="false" { (payload) } }
                p { button #send { "Sign and send" } " " span.soft { "Signed with the source's first secret and posted to the daemon's own listener. An id is accepted once." } }
            }
        } }
    };
    Ok(layout::page(name, "/sources", &body))
}

fn facts(source: &SourceView) -> Markup {
    let counts = &source.requests.counts;
    html! {
        div.card {
            dl.facts {
                dt { "last event" } dd {
                    @match &source.last_event {
                        None => "none yet",
                        Some(last) => {
                            (layout::time(last.received_at)) " "
                            @if let Some(id) = &last.id { a href=(layout::event(&source.name, id)) { (id) } }
                        }
                    }
                }
                dt { "requests since the start" } dd {
                    (counts.received) " received: "
                    a href=(layout::link("/events", &[("source", &source.name)])) { (counts.accepted) " accepted" }
                    ", " (counts.duplicate) " duplicate, " (counts.filtered) " filtered"
                }
                @if let Some(refusal) = &source.last_refusal {
                    dt { "signature last refused" } dd #refusal { (layout::time(refusal.at)) ": " (refusal.why) }
                }
                dt { "accepts" } dd { @for pattern in &source.events { code { (pattern) } " " } }
                dt { "clock tolerance" } dd { (source.tolerance) }
                @if let Some(rate) = source.rate { dt { "rate limit" } dd { (rate.per_second) " signed requests a second, bursts of " (rate.burst) } }
                dt { "secrets" } dd {
                    @match (source.key, source.key_awaited_until) {
                        (KeyState::Configured, _) => { (source.secrets) ", never shown" }
                        (KeyState::Brought, _) => { "the key that the sender brought, never shown" }
                        (KeyState::Awaited, Some(until)) => { "awaits the key that the sender brings until " (layout::time(until)) }
                        (KeyState::Awaited | KeyState::Missing, _) => { span.warn { "none yet; the sender brings one after " code { "posthouse senders learn " (source.name) } } }
                    }
                }
                @if !source.redact.is_empty() { dt { "redacted" } dd { @for pointer in &source.redact { code { (pointer) } " " } } }
            }
            @if !counts.rejected.is_empty() || !counts.failed.is_empty() {
                h3 { "Rejected and failed requests" }
                (refused(counts))
            }
        }
    }
}

/// How the sender's list compares with what is here.
fn catch_up(status: &CatchUpStatus) -> Markup {
    html! {
        div.card {
            @match &status.last {
                None => p.soft { "The sender is being asked for the first time since the daemon started." },
                Some(last) => {
                    @if status.missing > 0 || last.error.is_some() { p.error role="status" { (last.summary()) } } @else { p { (last.summary()) } }
                    dl.facts {
                        dt { "mode" } dd { (status.mode) @if status.running { ", running now" } }
                        dt { "compared" } dd { (layout::time(last.from)) " to " (layout::time(last.compared_to)) }
                        dt { "ended" } dd { (layout::time(last.ended_at)) ", " (last.reason.as_str()) }
                        dt { "listed" } dd { (last.listed) ": " (last.here) " here, " (last.missing) " missing, " (last.taken_in) " taken in" }
                        @if let Some(unlisted) = last.unlisted { dt { "here, not listed" } dd { (unlisted) } }
                        @if last.filtered > 0 { dt { "other types" } dd { (last.filtered) } }
                        @if last.unreadable > 0 { dt { "unreadable" } dd { (last.unreadable) } }
                        dt { "missing now" } dd { (status.missing) }
                        dt { "since the start" } dd { (status.complete) " comparisons, " (status.failed) " ended early; " (status.found) " missing, " (status.taken_in) " taken in" }
                    }
                    @if !last.first_missing.is_empty() {
                        div.scroll tabindex="0" role="region" aria-label="Missing events" {
                            table {
                                thead { tr { th { "missing event" } th { "type" } th { "occurred" } } }
                                tbody {
                                    @for event in &last.first_missing {
                                        tr { td { code { (event.id) } } td { (event.event_type) } td { (layout::time(event.occurred_at)) } }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The rejected and failed requests, by reason.
fn refused(counts: &RequestCounts) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Rejected and failed requests" {
            table {
                thead { tr { th { "reason" } th.n { "requests" } th { "meaning" } } }
                tbody {
                    @for (reason, count) in counts.rejected.iter().chain(&counts.failed) {
                        tr { td { code { (reason) } } td.n { (count) } td.text { (meaning(reason)) } }
                    }
                }
            }
        }
    }
}

/// The meaning of a reason, if it is known here.
fn meaning(reason: &str) -> &'static str {
    REASONS
        .into_iter()
        .find(|(part, _)| reason.contains(part))
        .map_or("See the log of the daemon; `posthouse verify` checks one request offline.", |(_, text)| text)
}

fn advice(source: &SourceView) -> Markup {
    html! {
        div.card {
            ol {
                @match &source.url {
                    Some(url) => li { "In the sender's dashboard, add an endpoint: " code { (url) } ", as config.toml has it. The sender signs this address." },
                    None => li { "In the sender's dashboard, add an endpoint: the public TLS address of this machine, followed by " code { (source.path) } "." },
                }
                @if let Some(setup) = &source.setup {
                    li {
                        (setup)
                        @if let Some(page) = source.page.as_ref().filter(|page| page.starts_with("https://")) { " " a href=(page) rel="noreferrer" { "The sender's page" } "." }
                    }
                }
                @if source.key == KeyState::Configured {
                    li {
                        "Copy the secret that it shows to the place that config.toml names for the secrets of this source, and reload. "
                        "The scheme is " code { (source.scheme) } "."
                    }
                }
                @if let Some(caution) = &source.caution { li { strong { "Mind this: " } (caution) } }
                li { "Choose the event types that you want; this source accepts" @for pattern in &source.events { " " code { (pattern) } } "." }
                li { "Send a test event from there, or from here, and watch it among the " a href=(layout::link("/events", &[("source", &source.name)])) { "events" } "." }
            }
        }
    }
}
