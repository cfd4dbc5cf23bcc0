//! `GET /v1/decisions`: what interceptors answered, newest first. `GET /v1/decisions/{id}`: everything about one.
//! `GET /v1/interceptors`: the interceptors of config.toml with their counts.
//!
//! What an interceptor's `redact` names is masked, in the body and in every text that results from it.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
};
use posthouse_model::{DecisionState, Question, config::nearest};
use posthouse_store::{DecisionDetail, DecisionFilter, DecisionSummary};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    ids, outbox, query,
    refusals::{BadRequest, NotFound, UnknownName},
    rows, schemas,
};

use crate::admin::{
    Admin, Since,
    error::{ApiError, shown},
};

/// The filters of the list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only decisions of this interceptor.
    interceptor: Option<String>,
    /// Only decisions in this state.
    #[param(value_type = Option<schemas::DecisionState>)]
    state: Option<String>,
    /// Only what the plugin allowed, or denied.
    #[param(value_type = Option<schemas::DecisionWord>)]
    decision: Option<String>,
    /// Only requests received at this time or later.
    since: Option<Since>,
    /// The most rows.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// Only decisions with a smaller id: the `next` of the previous page.
    #[param(value_type = Option<schemas::DeliveryId>)]
    before: Option<String>,
}

/// A page of decisions.
#[derive(Serialize, ToSchema)]
pub(super) struct DecisionPage {
    /// The decisions, newest first.
    decisions: Vec<rows::Decision>,
    /// The `before` of the next page. Null if there is none.
    next: Option<String>,
}

/// List what interceptors answered, newest first
#[utoipa::path(
    get,
    path = "/v1/decisions",
    operation_id = "listDecisions",
    params(ListQuery),
    responses((status = 200, description = "A page of decisions.", body = DecisionPage), BadRequest, UnknownName),
)]
pub(super) async fn list(
    State(admin): State<Admin>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<DecisionPage>, ApiError> {
    let Query(asked) = query?;
    let before = asked.before.map(|text| {
        let odd =
            || ApiError::bad_request(format!("`before` is `{}`; an example is `dlv_123`", shown(&text)));
        ids::delivery(&text).ok_or_else(odd)
    });
    let filter = Filter {
        interceptor: asked.interceptor.unwrap_or_default(),
        state: asked.state.unwrap_or_default(),
        decision: asked.decision.unwrap_or_default(),
    };
    let filter = DecisionFilter {
        since: admin.since(asked.since),
        limit: query::limit(asked.limit)?,
        before: before.transpose()?,
        ..filter.read(&admin)?
    };
    let rows = admin.decisions(filter.clone()).await?;
    let next = rows.last().filter(|_| rows.len() == filter.limit as usize).map(|row| row.id.to_string());
    Ok(Json(DecisionPage { decisions: rows::all(rows), next }))
}

/// Decisions with one id.
#[derive(Serialize, ToSchema)]
pub(super) struct Decisions {
    /// One decision, or one of each interceptor that has the id.
    decisions: Vec<rows::DecisionDetail>,
}

/// Everything about one decision
#[utoipa::path(
    get,
    path = "/v1/decisions/{id}",
    operation_id = "getDecision",
    params((
        "id" = String, Path, min_length = 1,
        description = "The sender's id of the request, or the id of the decision (`dlv_…`).",
    )),
    responses((status = 200, description = "The decisions.", body = Decisions), BadRequest, NotFound),
)]
pub(super) async fn show(
    State(admin): State<Admin>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Decisions>, ApiError> {
    let Path(id) = id?;
    Ok(Json(Decisions { decisions: rows::all(admin.decision(&id).await?) }))
}

/// The interceptors.
#[derive(Serialize, ToSchema)]
pub(super) struct Interceptors {
    /// The interceptors of config.toml, in its order.
    interceptors: Vec<InterceptorView>,
}

/// List the interceptors
#[utoipa::path(
    get,
    path = "/v1/interceptors",
    operation_id = "listInterceptors",
    responses((status = 200, description = "The interceptors.", body = Interceptors)),
)]
pub(super) async fn interceptors(State(admin): State<Admin>) -> Json<Interceptors> {
    Json(Interceptors { interceptors: admin.interceptor_views() })
}

/// An interceptor, and what it answered since the daemon started.
#[derive(Serialize, ToSchema)]
#[schema(as = Interceptor)]
pub(in crate::admin) struct InterceptorView {
    /// The name.
    pub(in crate::admin) name: String,
    /// The path of its requests.
    pub(in crate::admin) path: String,
    /// The number of its secrets.
    pub(in crate::admin) secrets: usize,
    /// The triggers that it answers; `*` means all.
    pub(in crate::admin) triggers: Vec<String>,
    /// The plugin that decides.
    pub(in crate::admin) plugin: String,
    /// The time from a request to its answer.
    pub(in crate::admin) deadline: String,
    /// The answer without a decision: `deny` or `allow`.
    pub(in crate::admin) on_failure: &'static str,
    /// Whether senders get the decision; else they always get ALLOW.
    pub(in crate::admin) enforce: bool,
    /// JSON pointers to the values that are masked.
    pub(in crate::admin) redact: Vec<String>,
    /// Why the plugin can't decide now. Null if it can.
    pub(in crate::admin) problem: Option<String>,
    /// Decisions that allow.
    pub(in crate::admin) allowed: u64,
    /// Decisions that deny.
    pub(in crate::admin) denied: u64,
    /// Answers without a decision, by cause.
    pub(in crate::admin) fallbacks: BTreeMap<String, u64>,
    /// Requests with a known id, which got the recorded answer.
    pub(in crate::admin) repeated: u64,
    /// Decisions that committed after another answer had been sent.
    pub(in crate::admin) late: u64,
    /// Decisions that deny, and were answered with ALLOW because of `enforce = false`.
    pub(in crate::admin) overruled: u64,
}

/// The texts of a filter; an empty one selects all.
#[derive(Default)]
pub(in crate::admin) struct Filter {
    pub(in crate::admin) interceptor: String,
    pub(in crate::admin) state: String,
    pub(in crate::admin) decision: String,
}

impl Filter {
    /// Checks the texts.
    ///
    /// # Errors
    /// 400 for a word that is none of those allowed, 404 for an unknown interceptor.
    pub(in crate::admin) fn read(self, admin: &Admin) -> Result<DecisionFilter, ApiError> {
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let state = given(self.state).map(|name| {
            let known = DecisionState::ALL.map(DecisionState::as_str).join(", ");
            let odd =
                || ApiError::bad_request(format!("`state` is `{}`; it can be one of {known}", shown(&name)));
            DecisionState::named(&name).ok_or_else(odd)
        });
        let allows = given(self.decision).map(|word| match word.as_str() {
            "ALLOW" => Ok(true),
            "DENY" => Ok(false),
            odd => {
                Err(ApiError::bad_request(format!("`decision` is `{}`; it can be ALLOW or DENY", shown(odd))))
            }
        });
        let interceptor = given(self.interceptor);
        if let Some(name) = &interceptor {
            admin.knows_interceptor(name)?;
        }
        Ok(DecisionFilter {
            interceptor,
            state: state.transpose()?,
            allows: allows.transpose()?,
            ..DecisionFilter::default()
        })
    }
}

impl Admin {
    /// Checks the name of an interceptor. One that has left config.toml is no longer known.
    fn knows_interceptor(&self, name: &str) -> Result<(), ApiError> {
        let config = self.config();
        let names = || config.interceptors.iter().map(|interceptor| interceptor.name());
        if names().any(|known| known == name) {
            return Ok(());
        }
        let guess = match nearest(name, names()) {
            Some(near) => format!("; did you mean `{near}`?"),
            None => String::new(),
        };
        Err(ApiError::not_found(format!("config.toml has no interceptor `{}`{guess}", shown(name))))
    }

    /// Decisions, newest first, masked as their interceptors say.
    pub(in crate::admin) async fn decisions(
        &self,
        filter: DecisionFilter,
    ) -> Result<Vec<DecisionSummary>, ApiError> {
        let mut rows = self.0.store.decisions(filter).await?;
        // Without the body, a value is known only by its form. Texts were masked when they were recorded; an answer
        // may repeat what it was asked.
        let config = self.config();
        for row in &mut rows {
            let mask = config.redact_of(&source(&row.interceptor)).mask(b"{}");
            row.answer.iter_mut().chain(&mut row.error).for_each(|text| mask.text(text));
        }
        Ok(rows)
    }

    /// Everything about the decisions with this id, masked as their interceptors say.
    ///
    /// # Errors
    /// 404 if there is none.
    pub(in crate::admin) async fn decision(&self, id: &str) -> Result<Vec<DecisionDetail>, ApiError> {
        let mut details = self.0.store.decision(id).await?;
        if details.is_empty() {
            let what = self.what_is(id).await?;
            let what = if what.is_empty() { "`posthouse decisions` lists them".to_owned() } else { what };
            return Err(ApiError::not_found(format!("no decision `{}` in the store; {what}", shown(id))));
        }
        let config = self.config();
        let masking = tokio::task::spawn_blocking(move || {
            for detail in &mut details {
                let mask =
                    config.redact_of(&source(&detail.summary.interceptor)).mask(detail.body.as_bytes());
                if let Some(body) = mask.body() {
                    detail.body = body.to_owned();
                }
                let summary = &mut detail.summary;
                let texts = summary.answer.iter_mut().chain(&mut summary.error).chain(&mut detail.trace);
                texts.chain(&mut detail.actions).for_each(|text| mask.text(text));
                detail.logs.iter_mut().for_each(|line| mask.text(&mut line.message));
                detail.outbox.iter_mut().for_each(|item| outbox::mask(item, &mask));
            }
            details
        });
        Ok(masking.await?)
    }

    /// The interceptors of config.toml, in its order.
    pub(in crate::admin) fn interceptor_views(&self) -> Vec<InterceptorView> {
        let mut counts = self.0.decided.snapshot();
        let config = self.config();
        let views = config.interceptors.iter().map(|interceptor| {
            let source = &interceptor.source;
            let counts = counts.remove(interceptor.name()).map(|(counts, _)| counts).unwrap_or_default();
            let fallbacks = counts.fallbacks.iter();
            InterceptorView {
                name: interceptor.name().to_owned(),
                path: source.path.clone(),
                secrets: source.secrets.len(),
                triggers: interceptor.triggers.texts().map(str::to_owned).collect(),
                plugin: interceptor.plugin.clone(),
                deadline: humantime::format_duration(interceptor.deadline).to_string(),
                on_failure: interceptor.on_failure.as_str(),
                enforce: interceptor.enforce,
                redact: source.redact.pointers().iter().map(ToString::to_string).collect(),
                problem: self.problem_of(interceptor),
                allowed: counts.allowed,
                denied: counts.denied,
                fallbacks: fallbacks.map(|(cause, count)| (cause.to_string(), *count)).collect(),
                repeated: counts.repeated,
                late: counts.late,
                overruled: counts.overruled,
            }
        });
        views.collect()
    }

    /// Why the plugin of an interceptor can't decide.
    fn problem_of(&self, interceptor: &posthouse_model::config::Interceptor) -> Option<String> {
        let name = &interceptor.plugin;
        let Some(plugin) = self.0.registry.by_name(name) else {
            return Some(format!("there is no plugin `{name}`"));
        };
        if let Some(held) = &plugin.record.held {
            return Some(format!("plugin `{name}` is held: {held}"));
        }
        match plugin.intercepts() {
            None => Some(format!("plugin `{name}` does not decide: it does not export `interceptor`")),
            Some(triggers) => match &*interceptor.triggers.beyond(triggers) {
                [] => None,
                beyond => Some(format!("plugin `{name}` does not decide about {}", beyond.join(", "))),
            },
        }
    }
}

/// An interceptor as the source of its requests.
fn source(interceptor: &str) -> String {
    format!("{}{interceptor}", Question::SOURCE)
}
