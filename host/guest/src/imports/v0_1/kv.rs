//! `kv` of the package.

use super::bindings::posthouse::plugin::kv;
use crate::imports::{
    call::{HostCall, answered},
    kv::KvError,
    state::HostState,
};

impl kv::Host for HostState {
    async fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, kv::Error>> {
        let found = answered!(self.call(HostCall::KvGet { key }).await?, KvGet)?;
        Ok(found.map(|value| value.map(|value| value.0)).map_err(kv::Error::from))
    }

    async fn set(&mut self, key: String, value: Vec<u8>) -> wasmtime::Result<Result<(), kv::Error>> {
        Ok(answered!(self.call(HostCall::KvSet { key, value }).await?, KvSet)?.map_err(kv::Error::from))
    }

    async fn delete(&mut self, key: String) -> wasmtime::Result<Result<(), kv::Error>> {
        Ok(answered!(self.call(HostCall::KvDelete { key }).await?, KvDelete)?.map_err(kv::Error::from))
    }

    async fn list(
        &mut self,
        prefix: String,
        after: Option<String>,
        limit: u32,
    ) -> wasmtime::Result<Result<Vec<kv::Entry>, kv::Error>> {
        let listed = answered!(self.call(HostCall::KvList { prefix, after, limit }).await?, KvList)?;
        let entry = |(key, value): (String, posthouse_model::Octets)| kv::Entry { key, value: value.0 };
        Ok(listed.map(|list| list.into_iter().map(entry).collect()).map_err(kv::Error::from))
    }

    async fn increment(&mut self, key: String, by: i64) -> wasmtime::Result<Result<(), kv::Error>> {
        let added = answered!(self.call(HostCall::KvIncrement { key, by }).await?, KvIncrement)?;
        Ok(added.map_err(kv::Error::from))
    }
}

impl From<KvError> for kv::Error {
    fn from(error: KvError) -> Self {
        match error {
            KvError::InvalidKey(text) => Self::InvalidKey(text),
            KvError::ValueTooLarge(text) => Self::ValueTooLarge(text),
            KvError::Quota(text) => Self::Quota(text),
            KvError::NotAnInteger(text) => Self::NotAnInteger(text),
        }
    }
}
