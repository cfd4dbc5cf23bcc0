//! The one place that loads machine code, and so one of the two with `unsafe`; `database/sqlite/vfs.rs` is the other.
#![allow(unsafe_code)]

use std::path::Path;

use wasmtime::{Engine, component::Component};

/// Loads AOT code.
///
/// wasmtime trusts what it loads here as it trusts itself: a forged file would run as part of the daemon.
/// So this is called by the cache alone, with files in a folder that only this user can write to (the
/// cache checks that each time), which the daemon's own compiler wrote whole before they got their name.
pub(super) fn load(engine: &Engine, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: see above; the file was written by `Engine::precompile_component` and by nobody else.
    unsafe { Component::deserialize_file(engine, path) }
}
