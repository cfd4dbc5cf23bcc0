//! Access to the host: its real interfaces in a plugin, the fake of [`crate::testing`] in a plugin's own
//! tests.

#[cfg(target_family = "wasm")]
pub(crate) use crate::bindings::posthouse::plugin::{config, http, kv, log, outbox, sql};
#[cfg(not(target_family = "wasm"))]
pub(crate) use crate::testing::imports::{config, http, kv, log, outbox, sql};
