//! The types of `http`, in the versions of the package that have the same ones.

use posthouse_egress::{Draft, Refusal};

use super::bindings::posthouse::plugin::http;
use crate::imports::{
    call::{HostCall, answered},
    state::HostState,
};

/// Makes a request, and returns what the guest gets.
pub(super) async fn fetched(
    state: &mut HostState,
    draft: Draft,
) -> wasmtime::Result<Result<http::Response, http::Error>> {
    let fetch = answered!(state.call(HostCall::HttpFetch(draft)).await?, HttpFetch)?;
    let response = fetch.result.map(|response| http::Response {
        status: response.status,
        headers: response.headers.into_iter().map(|(name, value)| http::Header { name, value }).collect(),
        body: response.body,
    });
    Ok(response.map_err(http::Error::from))
}

impl From<http::Request> for Draft {
    fn from(request: http::Request) -> Self {
        let headers = request.headers.into_iter().map(|header| (header.name, header.value)).collect();
        Self { method: request.method, url: request.url, headers, body: request.body, deliver: false }
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
