//! `posthouse:plugin@0.1.0`: converts its types to host calls and back, and does nothing else.
//!
//! Each interface has a file. The exports are in [`guest`].

mod config;
mod fetch;
mod guest;
mod http;
mod kv;
mod log;
mod outbox;
mod sql;
mod types;

use wasmtime::component::{HasSelf, Linker};

pub(super) use self::guest::{GUEST, Guest, Linked};
use super::state::HostState;

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

/// Offers the package's interfaces to guests.
pub(super) fn link(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    bindings::Plugin::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)
}
