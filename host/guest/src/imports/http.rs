//! `http`: requests that are sent during the attempt. They can't be undone, so each has a key that is the same in every
//! attempt.

use posthouse_egress::{Bounds, Draft, PluginHttp, Refusal};
use posthouse_model::{DeliveryId, TraceContext, WebRequest, config::Limits};

use super::{
    call::{Fetch, Target},
    fault::Fault,
    limits::Stop,
};

/// Returns the `Idempotency-Key` of a delivery's n-th request. Fetched and staged requests count in one sequence, so a
/// guest that does the same in every attempt has the same keys.
pub(super) fn key(delivery: DeliveryId, n: u32) -> String {
    format!("{delivery}-{n}")
}

/// The inputs of one fetch.
pub(super) struct Http<'a> {
    pub(super) plugin_http: &'a PluginHttp,
    pub(super) delivery: DeliveryId,
    pub(super) limits: &'a Limits,
    /// The number of fetches in this attempt, with this one.
    pub(super) fetches: u32,
    /// The number of requests in this attempt so far.
    pub(super) requests: &'a mut u32,
    /// The span of this request, if it is recorded.
    pub(super) span: Option<TraceContext>,
}

impl Http<'_> {
    /// Checks a request and sends it.
    pub(super) async fn fetch(self, draft: Draft) -> Result<Fetch, Stop> {
        let (bounds, deliver) = (Bounds::of(self.limits), draft.deliver);
        let request = match Fault::settle(self.check(draft, &bounds))? {
            Ok(request) => request,
            Err(refusal) => return Ok(Fetch { sent: None, result: Err(refusal) }),
        };
        *self.requests += 1;
        let span = self.span.as_ref();
        let result = match deliver {
            true => self.plugin_http.deliver(&request, &bounds, span).await,
            false => self.plugin_http.fetch(&request, &bounds, span).await,
        };
        Ok(Fetch { sent: Some(Target { method: request.method, url: request.url }), result })
    }

    fn check(&self, draft: Draft, bounds: &Bounds) -> Result<WebRequest, Fault<Refusal>> {
        let most = self.limits.http_fetches;
        if self.fetches as usize > most {
            return Err(Stop::count("http_fetches", most).into());
        }
        Ok(self.plugin_http.check(draft, key(self.delivery, *self.requests + 1), bounds)?)
    }
}
