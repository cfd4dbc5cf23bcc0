//! `http` of this version.

use super::{bindings::posthouse::plugin::http, http::fetched};
use crate::imports::state::HostState;

impl http::Host for HostState {
    async fn fetch(
        &mut self,
        request: http::Request,
    ) -> wasmtime::Result<Result<http::Response, http::Error>> {
        fetched(self, request.into()).await
    }
}
