//! `kv` of the package.

use super::{answer, bindings::posthouse::plugin::kv};
use crate::imports::{Call, HostState, kv::KvError};

impl kv::Host for HostState {
    async fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, kv::Error>> {
        match self.kv(Call::KvGet).await {
            Ok(mut kv) => answer(kv.get(&key).await),
            Err(stop) => Err(stop.into()),
        }
    }

    async fn set(&mut self, key: String, value: Vec<u8>) -> wasmtime::Result<Result<(), kv::Error>> {
        match self.kv(Call::KvSet).await {
            Ok(mut kv) => answer(kv.set(key, value).await),
            Err(stop) => Err(stop.into()),
        }
    }

    async fn delete(&mut self, key: String) -> wasmtime::Result<Result<(), kv::Error>> {
        match self.kv(Call::KvDelete).await {
            Ok(mut kv) => answer(kv.delete(key).await),
            Err(stop) => Err(stop.into()),
        }
    }

    async fn list(
        &mut self,
        prefix: String,
        after: Option<String>,
        limit: u32,
    ) -> wasmtime::Result<Result<Vec<kv::Entry>, kv::Error>> {
        let entries = match self.kv(Call::KvList).await {
            Ok(mut kv) => answer(kv.list(&prefix, after.as_deref(), limit).await)?,
            Err(stop) => return Err(stop.into()),
        };
        Ok(entries.map(|list| list.into_iter().map(|(key, value)| kv::Entry { key, value }).collect()))
    }

    async fn increment(&mut self, key: String, by: i64) -> wasmtime::Result<Result<(), kv::Error>> {
        match self.kv(Call::KvIncrement).await {
            Ok(mut kv) => answer(kv.increment(key, by).await),
            Err(stop) => Err(stop.into()),
        }
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
