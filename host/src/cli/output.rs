//! What the offline commands read, bounded, and print.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use super::{CliError, table};

/// The most bytes of a body: more than any source may send.
const MOST_BYTES: u64 = 64 << 20;

/// Prints a line, with all escaped in it that could steer a terminal.
pub(super) fn say(line: impl std::fmt::Display) -> Result<(), CliError> {
    table::print(&format!("{}\n", table::clean(&line.to_string()))).map(drop)
}

/// The bytes of a file, or of standard input where none or `-` is named.
pub(super) fn body(file: Option<&Path>) -> Result<Vec<u8>, CliError> {
    let file = file.filter(|path| *path != Path::new("-"));
    let name = file.map_or("standard input".to_owned(), |path| format!("`{}`", path.display()));
    let mut bytes = Vec::new();
    let read = match file {
        Some(path) => File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes)),
        None => io::stdin().lock().take(MOST_BYTES + 1).read_to_end(&mut bytes),
    };
    read.map_err(|error| CliError::Failure(format!("{name} can't be read: {error}")))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(CliError::Failure(format!("{name} is longer than {MOST_BYTES} bytes")));
    }
    Ok(bytes)
}
