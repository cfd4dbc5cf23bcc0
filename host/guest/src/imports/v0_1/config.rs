//! `config` of the package.

use super::bindings::posthouse::plugin::config;
use crate::imports::{
    call::{HostCall, answered},
    state::HostState,
};

impl config::Host for HostState {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        Ok(answered!(self.call_now(HostCall::ConfigGet { key })?, ConfigGet)?)
    }
}
