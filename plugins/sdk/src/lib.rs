//! The SDK for posthouse plugins in Rust.
//!
//! A plugin is a type with two functions: one declares what it wants, the other handles one event.
//!
//! ```
//! use posthouse_sdk::{Delivery, Event, Failure, Manifest, Plugin, info, kv};
//!
//! struct Signups;
//!
//! impl Plugin for Signups {
//!     fn manifest() -> Manifest {
//!         Manifest::new("counts sign-ups").on(["user.created", "user.signup"])
//!     }
//!
//!     fn handle(event: Event, _delivery: Delivery) -> Result<(), Failure> {
//!         let user = event.user()?;
//!         kv::increment("signups", 1)?;
//!         info!("{} signed up", user.id);
//!         Ok(())
//!     }
//! }
//!
//! posthouse_sdk::plugin!(Signups);
//! ```
//!
//! The changes of `handle` take effect if, and only if, it returns `Ok`. So it may return early at any point
//! with `?`. Attempts share no memory, unless the operator set `reuse`. Then statics persist, and plugins
//! should not depend on them.
//!
//! Built for a target other than WebAssembly, the same code talks to the fake host of [`testing`].

#[cfg(any(test, target_family = "wasm"))]
mod arena;
#[doc(hidden)]
pub mod bindings;
pub mod config;
pub mod decide;
pub mod event;
mod failure;
mod host;
pub mod http;
pub mod kv;
pub mod log;
mod manifest;
pub mod outbox;
pub mod sql;
pub mod template;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
pub mod time;

pub use bindings::posthouse::plugin::types::{
    Capability, Delay, Delivery, Event, Failure, Manifest, Timestamp,
};

/// A plugin.
pub trait Plugin {
    /// Describes the plugin. The host calls it once when it loads a revision, without grants.
    fn manifest() -> Manifest;

    /// Handles one event, in one attempt.
    ///
    /// # Errors
    /// A [`Failure`] drops everything that was staged. Its kind says whether to retry.
    fn handle(event: Event, delivery: Delivery) -> Result<(), Failure>;
}

/// Exports this type as the plugin of this crate, which must be a `cdylib`.
#[macro_export]
macro_rules! plugin {
    ($plugin:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            struct ExportedPlugin;

            impl $crate::bindings::exports::posthouse::plugin::guest::Guest for ExportedPlugin {
                fn describe() -> $crate::Manifest {
                    $crate::log::panics();
                    <$plugin as $crate::Plugin>::manifest()
                }

                fn handle(event: $crate::Event, delivery: $crate::Delivery) -> Result<(), $crate::Failure> {
                    $crate::log::panics();
                    <$plugin as $crate::Plugin>::handle(event, delivery)
                }
            }

    $crate::bindings::export_plugin!(ExportedPlugin with_types_in $crate::bindings);
        };

        #[cfg(not(target_family = "wasm"))]
        const _: fn() -> $crate::Manifest = <$plugin as $crate::Plugin>::manifest;
    };
}

/// The plugin in plugins/README.md compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
