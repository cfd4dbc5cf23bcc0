//! `http`: requests made now. They can't be undone, so each carries a key that is the same in every attempt.

use std::sync::Arc;

use posthouse_egress::{Bounds, Draft, PluginHttp, Refusal, WebResponse};
use posthouse_model::{DeliveryId, Env, Fetched, TraceContext, WebRequest, config::Limits};

use super::{kv::Fault, limits::Stop};

impl From<Refusal> for Fault<Refusal> {
    fn from(refusal: Refusal) -> Self {
        Self::Answer(refusal)
    }
}

/// The `Idempotency-Key` of a delivery's n-th request. Those that are made and those that are staged count
/// in one sequence, so that a guest which does the same in every attempt has the same keys.
pub(super) fn key(delivery: DeliveryId, n: u32) -> String {
    format!("{delivery}-{n}")
}

/// HTTP as one call sees it.
pub(super) struct Http<'a> {
    pub(super) plugin_http: &'a Arc<PluginHttp>,
    pub(super) delivery: DeliveryId,
    pub(super) limits: &'a Limits,
    /// Fetches of the attempt, this one included.
    pub(super) fetches: u32,
    /// Requests of the attempt so far.
    pub(super) requests: &'a mut u32,
    /// The span of this request, where it is recorded.
    pub(super) trace: Option<TraceContext>,
    pub(super) env: &'a Env,
}

impl Http<'_> {
    /// Checks a request, and makes it ready to be made: that takes its time, which the state does not.
    pub(super) fn ready(self, draft: Draft) -> Result<Ready, Fault<Refusal>> {
        let most = self.limits.http_fetches;
        if self.fetches as usize > most {
            return Err(Stop::count("http_fetches", most).into());
        }
        let bounds = Bounds::of(self.limits);
        let request = self.plugin_http.check(draft, key(self.delivery, *self.requests + 1), &bounds)?;
        *self.requests += 1;
        let env = self.env.clone();
        Ok(Ready { plugin_http: Arc::clone(self.plugin_http), request, bounds, trace: self.trace, env })
    }
}

/// A request that is ready to be made.
pub(super) struct Ready {
    plugin_http: Arc<PluginHttp>,
    request: WebRequest,
    bounds: Bounds,
    trace: Option<TraceContext>,
    env: Env,
}

impl Ready {
    /// The method and the URL, for the record.
    pub(super) fn target(&self) -> (String, String) {
        (self.request.method.to_string(), self.request.url.clone())
    }

    /// Makes it. What comes second is for the attempt's trace, where there is one.
    pub(super) async fn fetch(self) -> (Result<WebResponse, Fault<Refusal>>, Option<Fetched>) {
        let Self { plugin_http, request, bounds, trace, env } = self;
        let began = trace.map(|trace| (trace, env.now()));
        let result = plugin_http.fetch(&request, &bounds, trace.as_ref()).await;
        let fetched = began.map(|(context, started_at)| Fetched {
            context,
            started_at,
            ended_at: env.now(),
            result: match &result {
                Ok(response) => Ok(response.status),
                Err(refusal) => Err(refusal.word()),
            },
            method: request.method,
            url: request.url,
        });
        (result.map_err(Fault::from), fetched)
    }
}
