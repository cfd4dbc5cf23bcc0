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
use posthouse_model::{
    EventId, EventType, RequestCounts, Samples,
    config::{Rate, Source},
    event_text, json, of_own_type,
};
use posthouse_store::LastEvent;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json, value::RawValue};

use super::{rows, stats::Requests};

use crate::admin::{Action, Actor, Admin, error::ApiError};

/// Posts a body with this id, signed for a source.
pub type Post = dyn Fn(&Source, &str, &[u8]) -> Result<Posted, String> + Send + Sync;

/// What the daemon gives the admin API about sources: the daemon knows the listener, and how to sign.
#[derive(Clone)]
pub struct Senders {
    /// The sources of the config.toml in force.
    pub sources: Arc<dyn Fn() -> Vec<Source> + Send + Sync>,
    /// Signs a body with this id for a source, and posts it to the daemon's own listener. Blocks. The error
    /// says why there was no answer.
    pub post: Arc<Post>,
}

/// The answer of the daemon's own listener.
#[derive(Debug, Clone, Serialize)]
pub struct Posted {
    /// The status.
    pub status: u16,
    /// The body of the answer.
    pub answer: String,
}

/// A source, as the API shows it.
#[derive(Serialize)]
pub(in crate::admin) struct SourceView {
    pub(in crate::admin) name: String,
    pub(in crate::admin) path: String,
    pub(in crate::admin) scheme: &'static str,
    /// The number of its secrets.
    pub(in crate::admin) secrets: usize,
    pub(in crate::admin) tolerance: String,
    pub(in crate::admin) events: Vec<String>,
    pub(in crate::admin) redact: Vec<String>,
    /// The rate of signed requests that it may send. None means no limit.
    pub(in crate::admin) rate: Option<Rate>,
    /// Its ledger of requests since the daemon started.
    pub(in crate::admin) requests: Requests,
    #[serde(serialize_with = "rows::last_event")]
    pub(in crate::admin) last_event: Option<LastEvent>,
}

pub(super) async fn list(State(admin): State<Admin>) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({ "sources": admin.source_views().await? })))
}

pub(super) async fn show(
    State(admin): State<Admin>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path(name) = name?;
    Ok(Json(json!(admin.source_view(&name).await?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TestBody {
    #[serde(rename = "type")]
    event_type: EventType,
    id: Option<EventId>,
    /// The value of `data`. If it is missing, the sample's is used.
    data: Option<Box<RawValue>>,
}

pub(super) async fn test(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    name: Result<Path<String>, PathRejection>,
    body: Result<Json<TestBody>, JsonRejection>,
) -> Result<Json<Value>, ApiError> {
    let (Path(name), Json(asked)) = (name?, body?);
    let members = admin.test_body(&asked.event_type, asked.id)?;
    let body = event_text(&members, asked.data.as_deref())
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let sent = admin.send_test(&actor, &name, body).await?;
    Ok(Json(json!(sent)))
}

pub(super) async fn samples() -> Result<Json<Value>, ApiError> {
    let samples = read()?;
    Ok(Json(json!({ "types": samples.types().collect::<Vec<_>>() })))
}

pub(super) async fn sample(
    State(admin): State<Admin>,
    event_type: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path(event_type) = event_type?;
    let body = read()?.body(&event_type, &admin.fresh_id(), admin.0.env.now());
    match body {
        Some(body) => Ok(Json(Value::Object(body))),
        None => Err(ApiError::not_found(format!(
            "there is no sample of `{event_type}`; `/v1/samples` lists them"
        ))),
    }
}

/// The built-in samples.
pub(in crate::admin) fn read() -> Result<Samples, ApiError> {
    Samples::read().map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// A test event that was sent, with its answer.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct Sent {
    pub(in crate::admin) id: String,
    #[serde(rename = "type")]
    pub(in crate::admin) event_type: String,
    #[serde(flatten)]
    pub(in crate::admin) posted: Posted,
}

impl Admin {
    /// The source with this name in config.toml.
    pub(in crate::admin) fn source(&self, name: &str) -> Option<Source> {
        (self.0.senders.sources)().into_iter().find(|source| source.name.as_str() == name)
    }

    /// Every source in config.toml.
    pub(in crate::admin) async fn source_views(&self) -> Result<Vec<SourceView>, ApiError> {
        let last = self.0.store.last_events().await?;
        let ledgers = (self.0.ledgers)();
        let view = |source: Source| {
            let name = source.name.as_str().to_owned();
            let counts = ledgers.get(&name).map_or_else(RequestCounts::default, |ledger| ledger.snapshot());
            SourceView {
                path: source.path,
                scheme: source.scheme.as_str(),
                secrets: source.secrets.len(),
                tolerance: humantime::format_duration(source.tolerance).to_string(),
                events: source.events.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
                redact: source.redact.pointers().iter().map(ToString::to_string).collect(),
                rate: source.rate,
                requests: Requests::of(counts),
                last_event: last.iter().find(|event| event.source == name).cloned(),
                name,
            }
        };
        Ok((self.0.senders.sources)().into_iter().map(view).collect())
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
            return Err(ApiError::bad_request("`id` is a text that is not empty and holds no dot"));
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

fn unknown(source: &str) -> ApiError {
    ApiError::not_found(format!("config.toml has no source `{source}`"))
}
