//! Guests: the built files, further revisions of the same code, and writing a file in place.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The top folder of the working tree, which contains `Cargo.lock`.
///
/// # Panics
/// If it can't be found.
pub fn workspace() -> PathBuf {
    // Cargo sets the variable for programs that it runs. A program that runs without cargo uses the folder of
    // its build.
    let own = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let top = Path::new(&own).ancestors().find(|folder| folder.join("Cargo.lock").is_file());
    top.expect("a folder with Cargo.lock").to_owned()
}

/// The bytes of a built guest: a test guest, or one of the plugins.
///
/// # Panics
/// If it was not built yet.
#[track_caller]
pub fn guest(name: &str) -> Vec<u8> {
    let file = format!("{name}.wasm");
    let places = ["tests/guests/built", "plugins"].map(|folder| workspace().join(folder).join(&file));
    places
        .iter()
        .find_map(|place| fs::read(place).ok())
        .unwrap_or_else(|| panic!("no guest `{name}` at {places:?}; `cargo xtask guests` builds them"))
}

/// The same guest with another SHA-256 for each `number`. It adds a custom section, which core modules and
/// components may have and which changes nothing.
pub fn new_revision(wasm: &[u8], number: u32) -> Vec<u8> {
    let name = b"revision";
    let content = number.to_le_bytes();
    // Section id 0, its size, then the length of its name. All are below 128, so each is one LEB128 byte.
    let mut section = vec![0, (1 + name.len() + content.len()) as u8, name.len() as u8];
    section.extend_from_slice(name);
    section.extend_from_slice(&content);
    [wasm, &section].concat()
}

/// Writes a file like a careful operator: completely under another name, then renamed.
///
/// # Panics
/// If the folder can't be written.
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
