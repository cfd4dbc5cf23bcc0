//! Turns core modules into components. `wasm32-unknown-unknown` with wit-bindgen builds a core module that
//! contains its world in a custom section. A component is returned unchanged.
//!
//! This runs in the compiler child: the daemon itself never parses files of the plugins folder.

use wit_component::ComponentEncoder;

/// Why a file is not a plugin.
#[derive(Debug, thiserror::Error)]
pub(super) enum ComponentizeError {
    #[error("it is not WebAssembly: it does not begin with `\\0asm`")]
    NotWasm,
    #[error(
        "it is a core module that does not say which world it is made for (it has no `component-type` \
         section); build it with wit-bindgen against `posthouse:plugin`, or as a component"
    )]
    NoWorld,
    #[error("it can't be converted to a component: {0}")]
    Refused(String),
}

/// Returns the file if it is a component, or the component that it encodes.
pub(super) fn componentize(wasm: Vec<u8>) -> Result<Vec<u8>, ComponentizeError> {
    match wasm.get(..8) {
        Some([0, b'a', b's', b'm', _, _, 1, 0]) => Ok(wasm),
        Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => encode(&wasm),
        _ => Err(ComponentizeError::NotWasm),
    }
}

fn encode(module: &[u8]) -> Result<Vec<u8>, ComponentizeError> {
    // wit-bindgen appends a suffix to the section's name.
    if !module.windows(14).any(|bytes| bytes == b"component-type") {
        return Err(ComponentizeError::NoWorld);
    }
    ComponentEncoder::default()
        .module(module)
        .and_then(|encoder| encoder.validate(true).encode())
        .map_err(|error| ComponentizeError::Refused(format!("{error:#}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: &[u8] = b"\0asm\x01\0\0\0";
    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

    #[test]
    fn a_component_stays_as_it_is() {
        assert_eq!(componentize(COMPONENT.to_vec()).unwrap(), COMPONENT);
    }

    #[test]
    fn a_core_module_without_a_world_says_what_to_do() {
        let error = componentize(MODULE.to_vec()).unwrap_err().to_string();
        assert!(error.contains("component-type") && error.contains("wit-bindgen"), "{error}");
    }

    #[test]
    fn what_is_no_wasm_is_named_so() {
        for odd in [&b""[..], b"\0asm", b"#!/bin/sh\n", b"\x7fELF\x02\x01\x01\0"] {
            assert!(matches!(componentize(odd.to_vec()), Err(ComponentizeError::NotWasm)));
        }
    }

    #[test]
    fn a_broken_section_is_refused() {
        let mut module = MODULE.to_vec();
        module.extend_from_slice(b"\0\x12\x0ecomponent-typexyz");
        assert!(matches!(componentize(module), Err(ComponentizeError::Refused(_))));
    }
}
