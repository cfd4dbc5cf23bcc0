//! posthouse: verifies webhooks, stores them durably, hands each event to sandboxed WASM plugins.
//!
//! ```text
//! L5   main → cli → daemon            composition root: starts in order, drains in reverse
//! L4   ingress │ dispatch │ admin     siblings never import each other
//! L3   plugin → imports               knows wasmtime, never axum
//!      telemetry                      traces: OTLP stands here and nowhere else
//! L2   store │ database │ egress      rows and no HTTP; HTTP and no rows; none knows wasmtime
//! L1   config
//!      listener                       connections of the two listeners: bounds, timeouts, strict HTTP/1.1
//! L0   model                          event, delivery, effects, grant: no I/O, no clock, no tokio
//!      fault                          places where a test has the process die; empty in a release
//!      flood                          a few lines of the log a second, and the rest counted
//!      seal, owner                    a file proven whole; a file that root makes for the daemon
//!      escape                         text from outside, before it reaches the log or a terminal
//! ```
//!
//! Imports point downwards only; `tests/layers.rs` keeps it so.

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
