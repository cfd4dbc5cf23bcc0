//! `posthouse:plugin@0.2.0`: converts its types to host calls and back, and does nothing else.
//!
//! The interfaces that are as in 0.1 are converted by the files of 0.1, compiled once more for the types of this version.
//! The exports are in [`guest`].

#![allow(clippy::duplicate_mod, reason = "the files of 0.1 are compiled for the types of both versions")]

#[path = "../v0_1/config.rs"]
mod config;
mod decision;
mod fetch;
mod guest;
#[path = "../v0_1/http.rs"]
mod http;
#[path = "../v0_1/kv.rs"]
mod kv;
#[path = "../v0_1/log.rs"]
mod log;
#[path = "../v0_1/outbox.rs"]
mod outbox;
#[path = "../v0_1/sql.rs"]
mod sql;
#[path = "../v0_1/types.rs"]
mod types;

use wasmtime::component::{HasSelf, Linker};

pub(super) use self::guest::{GUEST, Guest, INTERCEPTOR, Linked};
use super::state::HostState;

mod bindings {
    #![allow(missing_docs, unreachable_pub)]
    #![allow(dead_code, reason = "the exports are looked up one by one, and not as the world has them")]
    wasmtime::component::bindgen!({
        path: "../../wit/0.2",
        // Both interfaces. A component may export either.
        world: "complete-plugin",
        // The event is lowered from its place in memory, without a copy.
        ownership: Borrowing { duplicate_if_necessary: true },
        imports: {
            "posthouse:plugin/http.deliver": async | trappable,
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
    bindings::CompletePlugin::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)
}
