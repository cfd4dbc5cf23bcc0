//! `GET /v1/sources`: the sources with their ledgers. `POST /v1/sources/{name}/test`: a test event.
//!
//! The daemon signs a test event with the source's first shared secret and posts it to its own listener. So
//! the event passes the same limits and the same check of the signature, and gets the same answer, as any
//! other. No secret is shown, nor anything derived from one.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{
        Path, State,
        rejection::{JsonRejection, PathRejection},
    },
    http::StatusCode,
};
use jiff::Timestamp;
use posthouse_model::{
    CatchUpStatus, EventId, EventType, LastRefusal, RequestCounts, Samples, SenderSamples,
    config::{Config, Rate, Source},
    event_text, json, of_own_type,
};
use posthouse_store::LastEvent;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};
use utoipa::ToSchema;

use super::{
    catch_up::{self, CatchUps},
    keys::{KeyState, Keys},
    refusals::{BadBody, BadRequest, Conflict, NotFound},
    rows, schemas,
    stats::Requests,
};

use crate::admin::{Action, Actor, Admin, error::ApiError};

/// Posts a body with this id, signed for a source.
pub type Post = dyn Fn(&Source, &str, &[u8]) -> Result<Posted, String> + Send + Sync;

/// The daemon's side of the admin API for sources: the daemon knows the listener, and how to sign.
#[derive(Clone)]
pub struct Senders {
    /// The config.toml in force.
    pub config: Arc<dyn Fn() -> Arc<Config> + Send + Sync>,
    /// Signs a body with this id for a source, and posts it to the daemon's own listener. Blocks. The error
    /// says why there was no answer.
    pub post: Arc<Post>,
    /// The keys that senders bring.
    pub keys: Keys,
    /// Asks senders for events that no webhook brought.
    pub catch_ups: CatchUps,
}

/// The answer of the daemon's own listener.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Posted {
    /// The status of the listener's answer.
    pub status: u16,
    /// The body of the listener's answer.
    pub answer: String,
}

/// A source.
#[derive(Serialize, ToSchema)]
#[schema(as = Source)]
pub(in crate::admin) struct SourceView {
    /// Its name in config.toml.
    pub(in crate::admin) name: String,
    /// The path of its webhooks.
    pub(in crate::admin) path: String,
    /// The scheme of its signatures.
    pub(in crate::admin) scheme: String,
    /// Instructions for the sender's dashboard.
    #[serde(skip)]
    #[schema(ignore)]
    pub(in crate::admin) setup: Option<String>,
    /// What the scheme's signatures leave open.
    #[serde(skip)]
    #[schema(ignore)]
    pub(in crate::admin) caution: Option<String>,
    /// The sender's page on its signatures.
    #[serde(skip)]
    #[schema(ignore)]
    pub(in crate::admin) page: Option<String>,
    /// The names of the samples of its sender, if they have no envelope.
    #[serde(skip)]
    #[schema(ignore)]
    pub(in crate::admin) samples: Vec<String>,
    /// Why a signature was last refused.
    #[serde(skip)]
    #[schema(ignore)]
    pub(in crate::admin) last_refusal: Option<LastRefusal>,
    /// The address that the sender has, if config.toml has it.
    #[serde(skip)]
    #[schema(ignore)]
    pub(in crate::admin) url: Option<String>,
    /// The number of its secrets in config.toml.
    pub(in crate::admin) secrets: usize,
    /// Whether it has a key.
    pub(in crate::admin) key: KeyState,
    /// Until when it awaits the key that its sender brings. Null if it awaits none.
    pub(in crate::admin) key_awaited_until: Option<Timestamp>,
    /// The largest difference between the time of a signature and the daemon's clock, such as `5m`.
    pub(in crate::admin) tolerance: String,
    /// The event types that it accepts.
    pub(in crate::admin) events: Vec<String>,
    /// JSON pointers to the values that are masked.
    pub(in crate::admin) redact: Vec<String>,
    /// The rate of signed requests that it may send. Null means no limit.
    #[serde(serialize_with = "rows::rate")]
    #[schema(value_type = Option<rows::Rate>)]
    pub(in crate::admin) rate: Option<Rate>,
    /// Its ledger of requests since the daemon started.
    pub(in crate::admin) requests: Requests,
    /// Its newest event. Null if it has sent none.
    #[serde(serialize_with = "rows::last_event")]
    #[schema(value_type = Option<rows::LastEvent>)]
    pub(in crate::admin) last_event: Option<LastEvent>,
    /// How its sender's list compares with what is here. Null if config.toml has no `catch_up` for it.
    #[serde(serialize_with = "catch_up::status")]
    #[schema(value_type = Option<catch_up::CatchUpStatus>)]
    pub(in crate::admin) catch_up: Option<CatchUpStatus>,
}

/// The sources of config.toml.
#[derive(Serialize, ToSchema)]
#[schema(as = Sources)]
pub(super) struct SourceList {
    /// The sources, in the order of config.toml.
    sources: Vec<SourceView>,
}

/// List the sources with their ledgers
#[utoipa::path(
    get,
    path = "/v1/sources",
    operation_id = "listSources",
    responses((status = 200, description = "The sources.", body = SourceList)),
)]
pub(super) async fn list(State(admin): State<Admin>) -> Result<Json<SourceList>, ApiError> {
    Ok(Json(SourceList { sources: admin.source_views().await? }))
}

/// One source
#[utoipa::path(
    get,
    path = "/v1/sources/{name}",
    operation_id = "getSource",
    params(("name" = String, Path, min_length = 1, description = "Its name in config.toml.")),
    responses((status = 200, description = "The source.", body = SourceView), BadRequest, NotFound),
)]
pub(super) async fn show(
    State(admin): State<Admin>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<SourceView>, ApiError> {
    let Path(name) = name?;
    Ok(Json(admin.source_view(&name).await?))
}

/// A test event.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TestEvent)]
pub(super) struct TestBody {
    /// The event type.
    #[serde(rename = "type")]
    #[schema(value_type = schemas::EventType)]
    event_type: EventType,
    /// The id of the event. If it is missing, the event gets a new one.
    #[schema(nullable = false, value_type = Option<schemas::EventId>)]
    id: Option<EventId>,
    /// The value of `data`. If it is missing, the sample's is used.
    #[schema(value_type = Value, required = false)]
    data: Option<Box<RawValue>>,
}

/// Send a signed test event
///
/// The daemon signs it with the source's first shared secret and posts it to its own listener.
#[utoipa::path(
    post,
    path = "/v1/sources/{name}/test",
    operation_id = "sendTestEvent",
    params(("name" = String, Path, min_length = 1, description = "Its name in config.toml.")),
    request_body = TestBody,
    responses(
        (status = 200, description = "The listener answered.", body = Sent),
        BadBody,
        NotFound,
        Conflict,
    ),
)]
pub(super) async fn test(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    name: Result<Path<String>, PathRejection>,
    body: Result<Json<TestBody>, JsonRejection>,
) -> Result<Json<Sent>, ApiError> {
    let (Path(name), Json(asked)) = (name?, body?);
    let members = admin.test_body(&asked.event_type, asked.id)?;
    let body = event_text(&members, asked.data.as_deref()).map_err(ApiError::internal)?;
    Ok(Json(admin.send_test(&actor, &name, body).await?))
}

/// The event types that have a sample.
#[derive(Serialize, ToSchema)]
#[schema(as = Samples)]
pub(super) struct SampleTypes {
    /// The types.
    types: Vec<String>,
}

/// List the event types that have a sample
#[utoipa::path(
    get,
    path = "/v1/samples",
    operation_id = "listSamples",
    responses((status = 200, description = "The types.", body = SampleTypes)),
)]
pub(super) async fn samples() -> Result<Json<SampleTypes>, ApiError> {
    Ok(Json(SampleTypes { types: read()?.types().map(ToOwned::to_owned).collect() }))
}

/// The body of a sample, with a new id and the current time
#[utoipa::path(
    get,
    path = "/v1/samples/{type}",
    operation_id = "getSample",
    params(("type" = String, Path, min_length = 1, description = "The event type.")),
    responses((status = 200, description = "The body of an event.", body = Object), BadRequest, NotFound),
)]
pub(super) async fn sample(
    State(admin): State<Admin>,
    event_type: Result<Path<String>, PathRejection>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    let Path(event_type) = event_type?;
    let body = read()?.body(&event_type, &admin.fresh_id(), admin.0.env.now());
    match body {
        Some(body) => Ok(Json(body)),
        None => Err(ApiError::not_found(format!(
            "there is no sample of `{event_type}`; `/v1/samples` lists them"
        ))),
    }
}

/// The built-in samples.
pub(in crate::admin) fn read() -> Result<Samples, ApiError> {
    Samples::read().map_err(ApiError::internal)
}

/// A test event that was sent, with its answer.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct Sent {
    /// The id of the event.
    pub(in crate::admin) id: String,
    /// The event type.
    #[serde(rename = "type")]
    pub(in crate::admin) event_type: String,
    #[serde(flatten)]
    pub(in crate::admin) posted: Posted,
}

impl Admin {
    /// The config.toml in force.
    pub(in crate::admin) fn config(&self) -> Arc<Config> {
        (self.0.senders.config)()
    }

    /// The source with this name in config.toml.
    pub(in crate::admin) fn source(&self, name: &str) -> Option<Source> {
        self.config().sources.iter().find(|source| source.name.as_str() == name).cloned()
    }

    /// The name of a source in config.toml.
    ///
    /// # Errors
    /// 404 if there is none with this name.
    pub(super) fn known_source(&self, name: &str) -> Result<String, ApiError> {
        self.source(name).map(|source| source.name.as_str().to_owned()).ok_or_else(|| unknown(name))
    }

    /// Every source in config.toml.
    pub(in crate::admin) async fn source_views(&self) -> Result<Vec<SourceView>, ApiError> {
        let last = self.0.store.last_events().await?;
        let ledgers = (self.0.ledgers)();
        let samples = SenderSamples::read().map_err(ApiError::internal)?;
        let catch_ups = (self.0.senders.catch_ups.statuses)();
        let view = |source: Source| {
            let name = source.name.as_str().to_owned();
            let counts = ledgers.get(&name).map_or_else(RequestCounts::default, |ledger| ledger.snapshot());
            let (key, key_awaited_until) = (self.0.senders.keys.state)(&name);
            SourceView {
                path: source.path,
                scheme: source.scheme.as_str().to_owned(),
                setup: source.scheme.about.setup.clone(),
                caution: source.scheme.weakness().map(ToOwned::to_owned),
                page: source.scheme.about.page.clone(),
                samples: samples.names(source.scheme.as_str()).map(ToOwned::to_owned).collect(),
                last_refusal: ledgers.get(&name).and_then(|ledger| ledger.last_refusal()),
                url: source.url,
                secrets: source.secrets.len(),
                key,
                key_awaited_until,
                tolerance: humantime::format_duration(source.tolerance).to_string(),
                events: source.events.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
                redact: source.redact.pointers().iter().map(ToString::to_string).collect(),
                rate: source.rate,
                requests: Requests::of(counts),
                last_event: last.iter().find(|event| event.source == name).cloned(),
                catch_up: catch_ups.get(&name).cloned(),
                name,
            }
        };
        Ok(self.config().sources.iter().cloned().map(view).collect())
    }

    /// One source in config.toml.
    pub(in crate::admin) async fn source_view(&self, name: &str) -> Result<SourceView, ApiError> {
        self.source_views().await?.into_iter().find(|source| source.name == name).ok_or_else(|| unknown(name))
    }

    /// A new id for a test event.
    pub(in crate::admin) fn fresh_id(&self) -> String {
        format!("evt_{:016x}{:016x}", self.0.env.random_u64(), self.0.env.random_u64())
    }

    /// The members of a test event: those of the type's sample, or the bare envelope if the type has no
    /// sample.
    pub(in crate::admin) fn test_body(
        &self,
        event_type: &EventType,
        id: Option<EventId>,
    ) -> Result<Map<String, Value>, ApiError> {
        let id = id.map_or_else(|| self.fresh_id(), |id| id.as_str().to_owned());
        let now = self.0.env.now();
        let sample = read()?.body(event_type.as_str(), &id, now);
        Ok(sample.unwrap_or_else(|| of_own_type(event_type.as_str(), &id, now)))
    }

    /// Sends a test event: signs these bytes and posts them to the daemon's own listener.
    pub(in crate::admin) async fn send_test(
        &self,
        actor: &Actor,
        source: &str,
        body: String,
    ) -> Result<Sent, ApiError> {
        let source = self.source(source).ok_or_else(|| unknown(source))?;
        let texts = json::members(&body, ["id", "type"]).map(|member| member.and_then(json::string));
        let [id, event_type] = texts.map(|text| text.unwrap_or_default().into_owned());
        if id.is_empty() || id.contains('.') {
            return Err(ApiError::bad_request("`id` is a text that is not empty and contains no dot"));
        }
        let target = format!("{} {event_type} {id}", source.name);
        let post = Arc::clone(&self.0.senders.post);
        let work = async move {
            let key = id.clone();
            let posted = tokio::task::spawn_blocking(move || post(&source, &key, body.as_bytes()))
                .await
                .unwrap_or_else(|error| Err(error.to_string()))
                .map_err(|error| ApiError::new(StatusCode::CONFLICT, error))?;
            Ok(Sent { id, event_type, posted })
        };
        self.audited(actor, Action::SendTestEvent, &target, work, |sent| {
            format!("answered with {}", sent.posted.status)
        })
        .await
    }
}

pub(super) fn unknown(source: &str) -> ApiError {
    ApiError::not_found(format!("config.toml has no source `{source}`"))
}
