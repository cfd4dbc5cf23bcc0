//! `http` of the package.

use posthouse_egress::{Draft, Refusal};

use super::{answer, bindings::posthouse::plugin::http};

use crate::imports::{Call, HostState, Stop, kv::Fault};

impl http::Host for HostState {
    async fn fetch(
        &mut self,
        request: http::Request,
    ) -> wasmtime::Result<Result<http::Response, http::Error>> {
        let ready = match self.pass(Call::HttpFetch, |state| state.http()?.ready(request.into())) {
            Err(Fault::Stop(Stop::Denied(why))) => return Ok(Err(http::Error::Denied(why))),
            other => other,
        };
        let result = match ready {
            Ok(ready) => {
                let (method, url) = ready.target();
                let (result, fetched) = ready.fetch().await;
                self.did.fetched(&method, &url, result.as_ref().ok().map(|response| response.status));
                self.record(fetched);
                result
            }
            Err(fault) => Err(fault),
        };
        answer(result.map(|response| http::Response {
            status: response.status,
            headers: response.headers.into_iter().map(|(name, value)| http::Header { name, value }).collect(),
            body: response.body,
        }))
    }
}

impl From<http::Request> for Draft {
    fn from(request: http::Request) -> Self {
        let headers = request.headers.into_iter().map(|header| (header.name, header.value)).collect();
        Self { method: request.method, url: request.url, headers, body: request.body }
    }
}

impl From<Refusal> for http::Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Denied(text) => Self::Denied(text),
            Refusal::Invalid(text) => Self::Invalid(text),
            Refusal::Limit(text) | Refusal::Unreadable(text) => Self::Limit(text),
            Refusal::Timeout(text) => Self::Timeout(text),
            Refusal::Failed(text) => Self::Failed(text),
        }
    }
}
