//! Where plugins run: the only crate that knows wasmtime.
//!
//! ```text
//!   plugin     compiles, loads and calls the guests of the plugin folder; knows how each plugin is doing
//!     │
//!     ▼
//!   imports    what a guest may call: events, keys, SQL, HTTP, mail, log, WASI
//! ```

pub mod imports;
pub mod plugin;
