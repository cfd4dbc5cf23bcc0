//! `http`: requests made now. They can't be undone, so each carries a key that is the same in every attempt.

use std::sync::Arc;

use super::{kv::Fault, limits::Stop};
use crate::{
    config::Limits,
    egress::{Bounds, Draft, Outlet, Refusal, WebResponse},
    model::{DeliveryId, WebRequest},
};

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
    pub(super) outlet: &'a Arc<Outlet>,
    pub(super) delivery: DeliveryId,
    pub(super) limits: &'a Limits,
    /// Fetches of the attempt, this one included.
    pub(super) fetches: u32,
    /// Requests of the attempt so far.
    pub(super) requests: &'a mut u32,
}

impl Http<'_> {
    /// Checks a request, and makes it ready to be made: that takes its time, which the door does not.
    pub(super) fn ready(self, draft: Draft) -> Result<Ready, Fault<Refusal>> {
        let most = self.limits.http_fetches;
        if self.fetches as usize > most {
            return Err(Stop::count("http_fetches", most).into());
        }
        let bounds = Bounds::of(self.limits);
        let request = self.outlet.check(draft, key(self.delivery, *self.requests + 1), &bounds)?;
        *self.requests += 1;
        Ok(Ready { outlet: Arc::clone(self.outlet), request, bounds })
    }
}

/// A request that is ready to be made.
pub(super) struct Ready {
    outlet: Arc<Outlet>,
    request: WebRequest,
    bounds: Bounds,
}

impl Ready {
    /// The method and the URL, for the record.
    pub(super) fn target(&self) -> (String, String) {
        (self.request.method.to_string(), self.request.url.clone())
    }

    pub(super) async fn fetch(self) -> Result<WebResponse, Fault<Refusal>> {
        Ok(self.outlet.fetch(&self.request, &self.bounds).await?)
    }
}
