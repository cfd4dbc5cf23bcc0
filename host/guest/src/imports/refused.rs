//! WASI HTTP, linked and refused: a JavaScript guest imports it by default, and may never call it.
//!
//! Every function stops the attempt that calls it. Other imports that nobody offers are an error when
//! the plugin is loaded.

use wasmtime::component::{Component, Linker, LinkerInstance, ResourceType, types::ComponentItem};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, IoError};

use super::{HostState, limits::Stop};

/// What stands for every resource of WASI HTTP; there is never one of them.
struct Nothing;

/// A linker that offers what the component wants of WASI HTTP too; none where it wants nothing.
pub(super) fn link(
    linker: &Linker<HostState>,
    component: &Component,
) -> wasmtime::Result<Option<Linker<HostState>>> {
    let engine = component.engine();
    let mut extended = None;
    for (name, import) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(interface) = import.ty else { continue };
        if !name.starts_with("wasi:http/") {
            continue;
        }
        let mut instance = extended.get_or_insert_with(|| linker.clone()).instance(name)?;
        for (item, export) in interface.exports(engine) {
            define(&mut instance, name, item, &export.ty)?;
        }
    }
    Ok(extended)
}

fn define(
    instance: &mut LinkerInstance<'_, HostState>,
    interface: &str,
    item: &str,
    ty: &ComponentItem,
) -> wasmtime::Result<()> {
    match ty {
        ComponentItem::ComponentFunc(_) => {
            let call = format!("{interface}#{item}");
            instance.func_new(item, move |_, _, _, _| Err(Stop::NotOffered(call.clone()).into()))
        }
        ComponentItem::Resource(_) => instance.resource(item, resource(item), |_, _| Ok(())),
        _ => Ok(()),
    }
}

/// The streams among them are those of WASI I/O, which is offered.
fn resource(name: &str) -> ResourceType {
    match name {
        "pollable" => ResourceType::host::<DynPollable>(),
        "input-stream" => ResourceType::host::<DynInputStream>(),
        "output-stream" => ResourceType::host::<DynOutputStream>(),
        "io-error" => ResourceType::host::<IoError>(),
        _ => ResourceType::host::<Nothing>(),
    }
}
