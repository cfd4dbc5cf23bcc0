//! The door to the host: its real interfaces in a plugin, the fake of [`crate::testing`] in a plugin's
//! own tests.

#[cfg(target_family = "wasm")]
pub(crate) use crate::bindings::posthouse::plugin::{config, kv, log, outbox};
#[cfg(not(target_family = "wasm"))]
pub(crate) use crate::testing::imports::{config, kv, log, outbox};
