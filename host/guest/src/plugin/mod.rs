//! The plugin side: the engine runs plugins, the registry lists them, and the watcher replaces them when files
//! change.
//!
//! ```text
//! folder ─► watcher ─► scan ─► loader ─► revision: compile (child) ─► link ─► describe
//!                                │ an outcome
//!                                ▼
//!                              apply ─► the next state of the plugin ─► store ─► list
//!                                                                                 │
//! dispatch ─► registry.get ─► plugin.attempt ─► instance (its place in the pool) ◄┘
//!                                                   └► imports: the state behind its host calls
//! ```
//!
//! Each file imports only files that are listed before it:
//!
//! | file | what |
//! | --- | --- |
//! | `breaker` | counts failures and says when a breaker should open or close |
//! | `state` | what is known of one plugin, and its transitions, which do no I/O |
//! | `config` | what config.toml says about plugins |
//! | `links` | shares the code of one content among the plugins that run it |
//! | `revision` | compiles, links and describes one content of a file |
//! | `running` | runs a revision with the services that it may use: a [`Plugin`] |
//! | `loader` | loads a file and returns an outcome |
//! | `list` | all plugins; a change goes to the store first |
//! | `apply` | puts an outcome into force |
//! | `health` | opens and closes breakers as attempts end |
//! | `scan` | finds out which files are new, changed or gone |
//! | `registry` | ties these together, and is what the daemon calls |
//!
//! A plugin is immutable and replaced as a whole. A running attempt keeps the revision with which it began. A
//! file in the folder that does not load never replaces a revision that works.

mod aot;
mod apply;
mod breaker;
mod cache;
mod compile;
mod componentize;
mod config;
mod engine;
mod folder;
mod health;
mod instance;
mod links;
mod list;
mod loader;
mod registry;
mod report;
mod revision;
mod running;
mod scan;
mod state;
mod watcher;

#[cfg(any(test, feature = "testing"))]
#[allow(clippy::unwrap_used, missing_docs, reason = "for tests: what fails fails the test")]
pub mod testing;
#[cfg(test)]
mod tests;

pub use breaker::Health;
pub use compile::{Given, compile_child};
pub use config::PluginConfig;
pub use engine::{Engine, EngineError, EngineOptions};
pub use folder::{Components, Found, Looked, Missing, ReadError, look};
pub use list::{Loads, PluginError};
pub use registry::Registry;
pub use report::{AttemptFailure, AttemptReport, Finished};
pub use revision::{Inspection, LoadError, inspect};
pub use running::Plugin;
pub use scan::IgnoredFile;
pub use watcher::Watcher;
