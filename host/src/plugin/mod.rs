//! Plugins: the engine that runs them, the registry that knows them, the watcher that swaps them.
//!
//! ```text
//! folder ─► watcher ─► registry.scan ─► revision: compile (child) ─► link ─► describe ─► swap the list
//!                                                                                           │
//! dispatch ─► registry.get ─► plugin.attempt ─► instance (its place in the pool) ─► guest ◄─┘
//!                                                   └► imports: the door behind its host calls
//! ```
//!
//! A plugin is immutable and replaced whole: an attempt that runs keeps the revision it began with.
//! Nothing that a file in the folder does takes a revision away that works.

mod aot;
mod breaker;
mod cache;
mod compile;
mod componentize;
mod engine;
mod folder;
mod instance;
mod registry;
mod report;
mod revision;
mod scan;
mod standing;
mod watcher;

#[cfg(test)]
pub(crate) mod tests;

pub use breaker::Health;
pub use compile::{Given, compile_child};
pub use engine::{Engine, EngineError, EngineOptions};
pub use folder::ReadError;
pub(crate) use folder::{Found, look};
pub use registry::{IgnoredFile, Loads, PluginError, Registry};
pub use report::{AttemptFailure, AttemptReport, Finished};
pub use revision::{Inspection, LoadError, inspect};
pub use standing::Plugin;
pub(crate) use watcher::Watcher;
