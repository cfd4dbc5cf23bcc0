//! posthouse verifies webhooks, stores them durably, and delivers each event to sandboxed WASM plugins.
//!
//! Each layer is a crate, so Cargo keeps imports pointing downwards:
//!
//! ```text
//!   posthouse   host/daemon     this crate
//!       │
//!   guest       host/guest      where plugins run: host calls, compiling, loading, calling; knows wasmtime
//!       │
//!   store │ database │ egress   host/store, host/database, host/egress: rows, plugins' rows, HTTP clients
//!       │
//!   model       host/model      events, deliveries, effects, grants, and the settings of config.toml
//! ```
//!
//! The modules of this crate, highest first:
//!
//! ```text
//!   cli → daemon                    the commands; the composition root: starts in order, drains in reverse
//!   catch_up                        asks senders for events that no webhook brought; reads them as ingress does
//!   ingress │ dispatch │ admin      siblings never import each other
//!   telemetry                       traces: the only module that knows OTLP
//!   listener                        connections of both listeners: limits, timeouts, strict HTTP/1.1
//!   flood                           writes a few log lines a second, and counts the rest
//!   escape                          escapes outside text for the log and for terminals
//! ```

pub mod admin;
pub mod catch_up;
pub mod cli;
pub mod daemon;
pub mod dispatch;
mod escape;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod ingress;
mod listener;
mod log_limiter;
mod rate;
pub mod telemetry;
