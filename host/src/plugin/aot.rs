//! The one place that loads machine code, and so one of the two with `unsafe`; `database/sqlite/vfs.rs` is the other.
#![allow(unsafe_code)]

use wasmtime::{Engine, component::Component};

use crate::seal::Whole;

/// Loads AOT code.
///
/// wasmtime trusts what it loads here as it trusts itself: a forged or damaged file would run as part of the
/// daemon. So the code comes from memory that was found whole, not from a file that may be another by now;
/// the cache sealed it when the daemon's own compiler had written it, in a folder that only this user can write
/// to.
///
/// # Errors
/// wasmtime's, where the code is for another machine, version or configuration.
pub(super) fn load(engine: &Engine, code: Whole<'_>) -> wasmtime::Result<Component> {
    // SAFETY: see above; the bytes were written by `Engine::precompile_component` and by nobody else, and are
    // the same bytes as then.
    unsafe { Component::deserialize(engine, code.bytes()) }
}
