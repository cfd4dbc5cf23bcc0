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

/// The interface of plugins that decide. A plugin may export it alone, or beside that of the module above.
pub mod deciding {
    wit_bindgen::generate!({
        path: "../../wit/0.2",
        world: "deciding-plugin",
        pub_export_macro: true,
        export_macro_name: "export_interceptor",
        default_bindings_module: "posthouse_sdk::bindings::deciding",
        additional_derives: [PartialEq],
        with: {
            "posthouse:plugin/types@0.2.0": crate::bindings::posthouse::plugin::types,
            "posthouse:plugin/log@0.2.0": crate::bindings::posthouse::plugin::log,
            "posthouse:plugin/config@0.2.0": crate::bindings::posthouse::plugin::config,
            "posthouse:plugin/kv@0.2.0": crate::bindings::posthouse::plugin::kv,
            "posthouse:plugin/sql@0.2.0": crate::bindings::posthouse::plugin::sql,
            "posthouse:plugin/http@0.2.0": crate::bindings::posthouse::plugin::http,
            "posthouse:plugin/outbox@0.2.0": crate::bindings::posthouse::plugin::outbox,
        },
    });
}
