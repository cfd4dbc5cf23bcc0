//! The committed inputs of the fuzz targets.

use std::fs;

use crate::workspace;

/// Returns the inputs of `fuzz/corpus/<target>` with their paths, in the order of the paths.
///
/// # Panics
/// If the folder can't be read.
#[track_caller]
pub fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = workspace().join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).expect("the folder of a fuzz target");
    let paths = entries.map(|entry| entry.expect("an entry of the folder").path());
    let mut inputs: Vec<_> =
        paths.map(|path| (path.display().to_string(), fs::read(&path).expect("an input"))).collect();
    inputs.sort();
    inputs
}
