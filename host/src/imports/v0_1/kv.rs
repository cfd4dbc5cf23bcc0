//! `kv` of the package.

use super::{answer, bindings::posthouse::plugin::kv};
use crate::imports::{Call, Door, kv::KvError};

impl kv::Host for Door {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, kv::Error>> {
        answer(self.pass(Call::KvGet, |door| door.kv()?.get(&key)))
    }

    fn set(&mut self, key: String, value: Vec<u8>) -> wasmtime::Result<Result<(), kv::Error>> {
        answer(self.pass(Call::KvSet, |door| door.kv()?.set(key, value)))
    }

    fn delete(&mut self, key: String) -> wasmtime::Result<Result<(), kv::Error>> {
        answer(self.pass(Call::KvDelete, |door| door.kv()?.delete(key)))
    }

    fn list(
        &mut self,
        prefix: String,
        after: Option<String>,
        limit: u32,
    ) -> wasmtime::Result<Result<Vec<kv::Entry>, kv::Error>> {
        let entries =
            answer(self.pass(Call::KvList, |door| door.kv()?.list(&prefix, after.as_deref(), limit)))?;
        Ok(entries.map(|list| list.into_iter().map(|(key, value)| kv::Entry { key, value }).collect()))
    }

    fn increment(&mut self, key: String, by: i64) -> wasmtime::Result<Result<(), kv::Error>> {
        answer(self.pass(Call::KvIncrement, |door| door.kv()?.increment(key, by)))
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
