//! The functions that a guest can call.
//!
//! ```text
//! guest ─► v0_1, v0_2, wasi     convert the types of WIT to a HostCall, and a HostAnswer back
//!            └► path      HostState::call: every call of every guest passes here, once
//!                 ├► views     what is kept of the calls: counts, log, actions, requests for the trace
//!                 └► log, config, kv, sql, http, outbox, emit, wasi     answer, and stage effects
//! ```
//!
//! Nothing here takes effect: writes, mails and events are staged in the attempt's effects, which the commit takes over.
//! Only a fetch can't be undone.
//!
//! Files that belong to one version of the WIT package are in a folder of that version. [`guest`] chooses the version by
//! the interface that a component exports.

mod actions;
mod call;
mod config;
mod emit;
mod fault;
mod guest;
mod http;
mod kv;
mod limits;
mod log;
mod outbox;
mod path;
mod refused;
mod sql;
mod state;
mod v0_1;
mod v0_2;
mod views;
mod wasi;

use wasmtime::component::Linker;

pub(crate) use call::Tap;
#[cfg(test)]
pub(crate) use call::{HostAnswer, HostCall, Kind, MailDraft, Stdio};
pub(crate) use guest::{Failure, Guest, Linked, Manifest};
pub(crate) use kv::KvSource;
pub(crate) use limits::{CORE_INSTANCES, HANDLES, MEMORIES, Stop, TABLE_ELEMENTS, TABLES, cut, size};
pub(crate) use log::last_words;
pub(crate) use state::{HostState, Invocation, PluginContext};

/// Offers everything in this folder to guests.
pub(crate) fn link(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    wasi::link(linker)?;
    v0_1::link(linker)?;
    v0_2::link(linker)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{collections::BTreeMap, future::ready, time::Duration};

    use parking_lot::Mutex;

    use futures_util::future::Either;
    use posthouse_model::{KvVersion, config::Limits};
    use posthouse_store::{Entries, Reading, Value};

    use super::KvSource;

    /// The limits as config.toml has them by default.
    pub(crate) fn limits() -> Limits {
        Limits {
            time: Duration::from_secs(8),
            memory: 64 << 20,
            log_lines: 1000,
            log_line: 8 << 10,
            reason: 4 << 10,
            kv_key: 512,
            kv_value: 256 << 10,
            kv_total: 64 << 20,
            http_fetches: 100,
            http_time: Duration::from_secs(5),
            http_request: 1 << 20,
            http_response: 1 << 20,
            http_headers: 16 << 10,
            staged_items: 1000,
            staged_bytes: 4 << 20,
            sql_rows: 10_000,
            sql_bytes: 4 << 20,
            hostcall: 4 << 20,
        }
    }

    /// Committed data in memory.
    #[derive(Default)]
    pub(crate) struct MemoryKv(Mutex<BTreeMap<String, (Vec<u8>, KvVersion)>>);

    impl MemoryKv {
        pub(crate) fn of(data: &BTreeMap<String, Vec<u8>>) -> Self {
            let kv = Self::default();
            data.iter().for_each(|(key, value)| kv.put(key, value));
            kv
        }

        pub(crate) fn put(&self, key: &str, value: &[u8]) {
            let mut data = self.0.lock();
            let version = data.values().map(|(_, version)| version.0).max().unwrap_or(0) + 1;
            data.insert(key.to_owned(), (value.to_vec(), KvVersion(version)));
        }

        pub(crate) fn version(&self, key: &str) -> Option<KvVersion> {
            self.0.lock().get(key).map(|(_, version)| *version)
        }
    }

    impl KvSource for MemoryKv {
        fn get<'a>(&'a self, key: &'a str) -> Reading<'a, Value> {
            Either::Left(ready(Ok(self.0.lock().get(key).cloned())))
        }

        fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>, limit: u32) -> Reading<'a, Entries> {
            let data = self.0.lock();
            let wanted = |key: &str| key.starts_with(prefix) && after.is_none_or(|after| key > after);
            let found = data.iter().filter(|(key, _)| wanted(key)).take(limit as usize);
            let found = found.map(|(key, (value, version))| (key.clone(), value.clone(), *version)).collect();
            Either::Left(ready(Ok(found)))
        }

        fn bytes(&self) -> u64 {
            self.0.lock().iter().map(|(key, (value, _))| (key.len() + value.len()) as u64).sum()
        }
    }
}
