//! Guests: the built files, another revision of the same code, and how a file is put in place.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The top of the working tree: where `Cargo.lock` is.
///
/// # Panics
/// Where there is none.
pub fn workspace() -> PathBuf {
    // Cargo says it to what it runs. What runs by itself knows where it was built.
    let own = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let top = Path::new(&own).ancestors().find(|folder| folder.join("Cargo.lock").is_file());
    top.expect("a folder with Cargo.lock").to_owned()
}

/// The bytes of a built guest: one made for tests, or one of the plugins.
///
/// # Panics
/// Where it was not built yet.
#[track_caller]
pub fn guest(name: &str) -> Vec<u8> {
    let file = format!("{name}.wasm");
    let places = ["tests/guests/built", "plugins"].map(|folder| workspace().join(folder).join(&file));
    places
        .iter()
        .find_map(|place| fs::read(place).ok())
        .unwrap_or_else(|| panic!("no guest `{name}` at {places:?}; `cargo xtask guests` builds them"))
}

/// The same guest with another SHA-256 for each `number`: a custom section is added, which a core
/// module and a component may both have and which changes nothing.
pub fn new_revision(wasm: &[u8], number: u32) -> Vec<u8> {
    let name = b"revision";
    let content = number.to_le_bytes();
    // Section id 0, its size, then the length of its name; all of them below 128, so one LEB128 byte.
    let mut section = vec![0, (1 + name.len() + content.len()) as u8, name.len() as u8];
    section.extend_from_slice(name);
    section.extend_from_slice(&content);
    [wasm, &section].concat()
}

/// Writes a file as a careful operator does: whole beside its place, then renamed.
///
/// # Panics
/// Where the folder can't be written.
#[track_caller]
pub fn put_in_place(file: &Path, bytes: &[u8]) {
    let beside = file.with_extension("new");
    fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, file)).expect("a file put in place");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_revision_is_the_old_bytes_and_a_custom_section() {
        let wasm = b"\0asm\x01\0\0\0";
        let revised = new_revision(wasm, 7);
        assert!(revised.starts_with(wasm));
        assert_eq!(revised[wasm.len()..], *b"\0\x0d\x08revision\x07\0\0\0");
        assert_ne!(revised, new_revision(wasm, 8));
    }
}
