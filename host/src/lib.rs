//! posthouse verifies webhooks, stores them durably, and delivers each event to sandboxed WASM plugins.
//!
//! ```text
//! L5   main → cli → daemon            composition root: starts in order, drains in reverse
//! L4   ingress │ dispatch │ admin     siblings never import each other
//! L3   plugin → imports               depends on wasmtime, never on axum
//!      telemetry                      traces: the only module that knows OTLP
//! L2   store │ database │ egress      the first two hold rows, egress speaks HTTP; none depends on wasmtime
//! L1   config
//!      listener                       connections of both listeners: limits, timeouts, strict HTTP/1.1
//! L0   model                          event, delivery, effects, grant: no I/O, no clock, no tokio
//!      fault                          points at which tests kill the process; empty in a release
//!      flood                          writes a few log lines a second, and counts the rest
//!      seal, owner                    checksums of files; files that root makes for the daemon
//!      escape                         escapes outside text for the log and for terminals
//! ```
//!
//! Imports only point downwards, which `tests/layers.rs` checks.

pub mod admin;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod database;
pub mod dispatch;
pub mod egress;
mod escape;
pub mod fault;
mod flood;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod imports;
pub mod ingress;
mod listener;
pub mod model;
mod owner;
pub mod plugin;
mod seal;
pub mod store;
pub mod telemetry;
