//! The plugin side: the engine runs plugins, the registry lists them, and the watcher replaces them when files
//! change.
//!
//! ```text
//! folder ─► watcher ─► registry.scan ─► revision: compile (child) ─► link ─► describe ─► swap the list
//!                                                                                           │
//! dispatch ─► registry.get ─► plugin.attempt ─► instance (its place in the pool) ─► guest ◄─┘
//!                                                   └► imports: the state behind its host calls
//! ```
//!
//! A plugin is immutable and replaced as a whole. A running attempt keeps the revision with which it began. A
//! file in the folder that does not load never replaces a revision that works.

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

#[cfg(any(test, feature = "testing"))]
#[allow(clippy::unwrap_used, missing_docs, reason = "for tests: what fails fails the test")]
pub mod testing;
#[cfg(test)]
mod tests;

pub use breaker::Health;
pub use compile::{Given, compile_child};
pub use engine::{Engine, EngineError, EngineOptions};
pub use folder::ReadError;
pub use folder::{Found, look};
pub use registry::{IgnoredFile, Loads, PluginError, Registry};
pub use report::{AttemptFailure, AttemptReport, Finished};
pub use revision::{Inspection, LoadError, inspect};
pub use standing::Plugin;
pub use watcher::Watcher;
