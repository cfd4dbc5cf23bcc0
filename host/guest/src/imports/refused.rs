//! WASI HTTP is linked but not offered. A JavaScript guest imports it by default, and may never call it.
//!
//! Each function ends the attempt that calls it. Any other import that posthouse does not offer is an error when the
//! plugin is loaded.

use wasmtime::component::{Component, Linker, LinkerInstance, ResourceType, types::ComponentItem};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, IoError};

use super::{call::HostCall, state::HostState};

/// The type of every resource of WASI HTTP. None is ever created.
struct Nothing;

/// Returns a linker that also has the functions of WASI HTTP which the component imports. None if it imports none.
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
            let function = format!("{interface}#{item}");
            instance.func_new(item, move |mut store, _, _, _| {
                store.data_mut().call_now(HostCall::WasiHttp { function: function.clone() })?;
                Ok(())
            })
        }
        ComponentItem::Resource(_) => instance.resource(item, resource(item), |_, _| Ok(())),
        _ => Ok(()),
    }
}

/// Returns the type of a resource. Streams and pollables are those of WASI I/O, which is offered.
fn resource(name: &str) -> ResourceType {
    match name {
        "pollable" => ResourceType::host::<DynPollable>(),
        "input-stream" => ResourceType::host::<DynInputStream>(),
        "output-stream" => ResourceType::host::<DynOutputStream>(),
        "io-error" => ResourceType::host::<IoError>(),
        _ => ResourceType::host::<Nothing>(),
    }
}
