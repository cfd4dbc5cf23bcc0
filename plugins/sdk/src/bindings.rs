//! The unchanged output of wit-bindgen for `wit/0.2/`. The other modules wrap it.

#![allow(missing_docs, unreachable_pub, clippy::all)]

wit_bindgen::generate!({
    path: "../../wit/0.2",
    world: "plugin",
    pub_export_macro: true,
    export_macro_name: "export_plugin",
    default_bindings_module: "posthouse_sdk::bindings",
    additional_derives: [PartialEq],
});
