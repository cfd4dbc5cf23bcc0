//! `POST /v1/sources/{name}/catch-up`: asks the sender for its events, and compares them with the store. The result is
//! also in `GET /v1/sources`.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Extension, Json,
    extract::{
        Path, State,
        rejection::{JsonRejection, PathRejection},
    },
};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use posthouse_model::{self as model, counted};
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

use super::refusals::{BadBody, Conflict, NotFound};

use crate::admin::{Action, Actor, Admin, Since, error::ApiError};

/// Compares the list of the sender of this source. The arguments are the source, where to begin, and whether nothing
/// may be taken in. The error says why nothing was compared.
pub type Compare = dyn Fn(String, Option<Timestamp>, bool) -> BoxFuture<'static, Result<model::CatchUpReport, String>>
    + Send
    + Sync;

/// The daemon's side of catching up.
#[derive(Clone)]
pub struct CatchUps {
    /// The status of each source that has `catch_up` in config.toml.
    pub statuses: Arc<dyn Fn() -> BTreeMap<String, model::CatchUpStatus> + Send + Sync>,
    /// Compares now.
    pub compare: Arc<Compare>,
}

/// Writes the status of a source as part of another object.
pub(super) fn status<S: Serializer>(
    status: &Option<model::CatchUpStatus>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    status.clone().map(CatchUpStatus::from).serialize(serializer)
}

/// What is known of catching up on a source since the daemon started.
#[derive(Serialize, ToSchema)]
pub(super) struct CatchUpStatus {
    /// What happens to missing events: `report` or `apply`.
    mode: &'static str,
    /// Whether the sender is being asked now.
    running: bool,
    /// The events that the sender lists and that are not here, as of the last comparison. At most 1,000 are counted.
    missing: u64,
    /// When the last complete comparison ended. Null if there was none.
    complete_at: Option<Timestamp>,
    /// Comparisons that were complete.
    complete: u64,
    /// Comparisons that ended early.
    failed: u64,
    /// Requests to the sender.
    requests: u64,
    /// Events that were found to be missing.
    found: u64,
    /// Events that were taken in.
    taken_in: u64,
    /// The result of the last comparison. Null if there was none.
    last: Option<CatchUpReport>,
}

impl From<model::CatchUpStatus> for CatchUpStatus {
    fn from(status: model::CatchUpStatus) -> Self {
        let model::CatchUpStatus {
            mode,
            running,
            last,
            complete_at,
            missing,
            complete,
            failed,
            requests,
            found,
            taken_in,
        } = status;
        let last = last.map(CatchUpReport::from);
        Self { mode, running, missing, complete_at, complete, failed, requests, found, taken_in, last }
    }
}

/// The result of a comparison of a sender's list with the store.
#[derive(Serialize, ToSchema)]
pub(super) struct CatchUpReport {
    /// The result in a sentence.
    summary: String,
    /// Why the sender was asked: `start`, `outage`, `interval` or `operator`.
    reason: &'static str,
    /// Whether missing events were to be taken in.
    takes_in: bool,
    /// When it began.
    began_at: Timestamp,
    /// When it ended.
    ended_at: Timestamp,
    /// The beginning of the time that was to be compared, by the sender's clock.
    from: Timestamp,
    /// The end of that time.
    to: Timestamp,
    /// How far the comparison came.
    compared_to: Timestamp,
    /// Whether it came to the end.
    complete: bool,
    /// Requests to the sender.
    requests: u64,
    /// Events that the sender lists, of types that the source accepts.
    listed: u64,
    /// Those that were here already.
    here: u64,
    /// Those that were not here.
    missing: u64,
    /// Those of the missing ones that no earlier comparison had found.
    found: u64,
    /// Missing events that were taken in.
    taken_in: u64,
    /// Listed events of types that the source does not accept.
    filtered: u64,
    /// Listed events that can't be read.
    unreadable: u64,
    /// Listed events that did not happen in the time that was asked for.
    outside: u64,
    /// Events that are here and that the sender does not list. Null if that is not known.
    unlisted: Option<u64>,
    /// Whether more events happened within a second than are put in order.
    unordered: bool,
    /// The first 100 missing events.
    first_missing: Vec<ListedEvent>,
    /// The ids of the first 100 events that are here and not listed.
    first_unlisted: Vec<String>,
    /// Why it ended early. Null if it came to the end.
    error: Option<String>,
}

impl From<model::CatchUpReport> for CatchUpReport {
    fn from(report: model::CatchUpReport) -> Self {
        let (summary, complete) = (report.summary(), report.is_complete());
        let model::CatchUpReport {
            reason,
            takes_in,
            began_at,
            ended_at,
            from,
            to,
            compared_to,
            requests,
            listed,
            here,
            missing,
            found,
            taken_in,
            filtered,
            unreadable,
            outside,
            unlisted,
            unordered,
            first_missing,
            first_unlisted,
            error,
        } = report;
        let first_missing = first_missing.into_iter().map(ListedEvent::from).collect();
        Self {
            summary,
            reason: reason.as_str(),
            takes_in,
            began_at,
            ended_at,
            from,
            to,
            compared_to,
            complete,
            requests,
            listed,
            here,
            missing,
            found,
            taken_in,
            filtered,
            unreadable,
            outside,
            unlisted,
            unordered,
            first_missing,
            first_unlisted,
            error,
        }
    }
}

/// An event in a sender's list.
#[derive(Serialize, ToSchema)]
pub(super) struct ListedEvent {
    /// The sender's id.
    id: String,
    /// The event type.
    #[serde(rename = "type")]
    event_type: String,
    /// When it happened, as the sender says.
    occurred_at: Timestamp,
}

impl From<model::ListedEvent> for ListedEvent {
    fn from(event: model::ListedEvent) -> Self {
        let model::ListedEvent { id, event_type, occurred_at } = event;
        Self { id, event_type, occurred_at }
    }
}

/// What to compare.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CatchUp)]
pub(super) struct Body {
    /// Compare events that happened at this time or later. If it is missing, the comparison begins where the last one
    /// ended. It never reaches back to a time whose events may have been removed from the store.
    #[schema(nullable = false)]
    since: Option<Since>,
    /// Take nothing in, whatever the mode of the source.
    #[serde(default)]
    dry_run: bool,
}

/// Ask the sender for its events, and compare them with the store
///
/// Takes missing events in if the mode of the source is `apply`. It may take minutes, and waits for a comparison that
/// runs already.
#[utoipa::path(
    post,
    path = "/v1/sources/{name}/catch-up",
    operation_id = "catchUp",
    params(("name" = String, Path, min_length = 1, description = "Its name in config.toml.")),
    request_body = Body,
    responses(
        (status = 200, description = "The comparison has ended.", body = CatchUpReport),
        BadBody,
        NotFound,
        Conflict,
    ),
)]
pub(super) async fn compare(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    name: Result<Path<String>, PathRejection>,
    body: Result<Json<Body>, JsonRejection>,
) -> Result<Json<CatchUpReport>, ApiError> {
    let (Path(name), Json(Body { since, dry_run })) = (name?, body?);
    let since = admin.since(since);
    Ok(Json(admin.catch_up(&actor, &name, since, dry_run).await?.into()))
}

impl Admin {
    /// Compares the list of a source's sender.
    pub(in crate::admin) async fn catch_up(
        &self,
        actor: &Actor,
        source: &str,
        since: Option<Timestamp>,
        dry_run: bool,
    ) -> Result<model::CatchUpReport, ApiError> {
        let source = self.source(source).ok_or_else(|| super::sources::unknown(source))?;
        let compared = (self.0.senders.catch_ups.compare)(source.name.as_str().to_owned(), since, dry_run);
        let work = async move { compared.await.map_err(ApiError::conflict) };
        if dry_run {
            return work.await;
        }
        let target = match since {
            Some(since) => format!("{} since {since}", source.name),
            None => source.name.to_string(),
        };
        self.audited(actor, Action::CatchUp, &target, work, |report| {
            format!("{} missing, {} taken in", counted(report.missing, "event"), report.taken_in)
        })
        .await
    }
}
