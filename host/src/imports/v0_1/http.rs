//! `http` of the package.

use super::bindings::posthouse::plugin::http;
use crate::imports::{Call, Door};

impl http::Host for Door {
    async fn fetch(
        &mut self,
        _request: http::Request,
    ) -> wasmtime::Result<Result<http::Response, http::Error>> {
        self.denied(Call::HttpFetch, http::Error::Denied)
    }
}
