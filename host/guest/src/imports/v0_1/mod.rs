//! `posthouse:plugin@0.1.0`: converts its types to host calls and back, and does nothing else.
//!
//! An interface with more than one or two calls has a file. The exports are in [`guest`].

mod guest;
mod http;
mod kv;
mod outbox;
mod sql;

use posthouse_model::LogLevel;
use wasmtime::component::{HasSelf, Linker};

pub(super) use self::guest::{GUEST, Guest, Linked};
use super::{
    call::{HostCall, answered},
    state::HostState,
};

mod bindings {
    #![allow(missing_docs, unreachable_pub)]
    wasmtime::component::bindgen!({
        path: "../../wit/0.1",
        world: "plugin",
        // The event is lowered from its place in memory, without a copy.
        ownership: Borrowing { duplicate_if_necessary: true },
        imports: {
            "posthouse:plugin/http.fetch": async | trappable,
            "posthouse:plugin/kv.delete": async | trappable,
            "posthouse:plugin/kv.get": async | trappable,
            "posthouse:plugin/kv.increment": async | trappable,
            "posthouse:plugin/kv.list": async | trappable,
            "posthouse:plugin/kv.set": async | trappable,
            "posthouse:plugin/sql.execute": async | trappable,
            "posthouse:plugin/sql.query": async | trappable,
            default: trappable,
        },
        exports: { default: async },
    });
}

use bindings::posthouse::plugin::{config, log, types};

/// Offers the package's interfaces to guests.
pub(super) fn link(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    bindings::Plugin::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)
}

impl types::Host for HostState {}

impl log::Host for HostState {
    fn write(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        let level = match level {
            log::Level::Trace => LogLevel::Trace,
            log::Level::Debug => LogLevel::Debug,
            log::Level::Info => LogLevel::Info,
            log::Level::Warn => LogLevel::Warn,
            log::Level::Error => LogLevel::Error,
        };
        self.call_now(HostCall::LogWrite { level, message })?;
        Ok(())
    }
}

impl config::Host for HostState {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        Ok(answered!(self.call_now(HostCall::ConfigGet { key })?, ConfigGet)?)
    }
}
