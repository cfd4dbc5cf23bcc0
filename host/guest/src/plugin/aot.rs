//! Loads machine code. Only this file and `database/sqlite/vfs.rs` contain `unsafe` code.
#![allow(unsafe_code)]

use posthouse_model::seal::Whole;
use wasmtime::{Engine, component::Component};

/// Loads AOT code.
///
/// wasmtime trusts this code as it trusts itself: a forged or damaged file would run as part of the daemon. So
/// this reads the code from memory whose seal was checked, and not from a file that may have changed since. The
/// cache sealed the code after the daemon's own compiler had written it, in a folder that only this user can
/// write to.
///
/// # Errors
/// wasmtime's error, if the code is for another machine, version or configuration.
pub(super) fn load(engine: &Engine, code: Whole<'_>) -> wasmtime::Result<Component> {
    // SAFETY: see above. Only `Engine::precompile_component` wrote these bytes, and the seal shows that they
    // have not changed since.
    unsafe { Component::deserialize(engine, code.bytes()) }
}
