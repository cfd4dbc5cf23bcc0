//! Reads the input of the offline commands, up to a limit, and prints their output.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use super::{CliError, table};

/// The most bytes of a body: larger than any source may send.
const MOST_BYTES: u64 = 64 << 20;

/// Prints a line, in which everything is escaped that could steer a terminal.
pub(super) fn say(line: impl std::fmt::Display) -> Result<(), CliError> {
    table::print(&format!("{}\n", table::clean(&line.to_string()))).map(drop)
}

/// The text of a file: UTF-8, with or without a byte order mark, or UTF-16 with one, as PowerShell writes it.
///
/// # Errors
/// [`CliError::Failure`] if it is neither.
pub(super) fn text(bytes: Vec<u8>, name: &dyn std::fmt::Display) -> Result<String, CliError> {
    let failed = |what: &str| CliError::Failure(format!("`{name}` {what}; save it as UTF-8"));
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (units, rest) = bytes.as_chunks::<2>();
        let decoded = String::from_utf16(&units.iter().copied().map(unit).collect::<Vec<_>>());
        decoded.ok().filter(|_| rest.is_empty()).ok_or_else(|| failed("begins like UTF-16 and is not"))
    };
    match bytes.as_slice() {
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8(rest.to_vec()).map_err(|_| failed("is not UTF-8")),
        [0, _, ..] | [_, 0, ..] => Err(failed("is UTF-16 without a byte order mark, or not text")),
        _ => String::from_utf8(bytes).map_err(|_| failed("is not UTF-8")),
    }
}

/// The bytes of a file, or of standard input if the file is missing or `-`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_whatever_marks_its_order_of_bytes() {
        let wide =
            |units: &[u16], bytes: fn(u16) -> [u8; 2]| units.iter().flat_map(|unit| bytes(*unit)).collect();
        let units: Vec<u16> = "\u{feff}{\"ä\":\"💌\"}".encode_utf16().collect();
        let cases: [Vec<u8>; 4] = [
            "{\"ä\":\"💌\"}".into(),
            "\u{feff}{\"ä\":\"💌\"}".into(),
            wide(&units, u16::to_le_bytes),
            wide(&units, u16::to_be_bytes),
        ];
        for bytes in cases {
            assert_eq!(text(bytes, &"a.json").unwrap(), "{\"ä\":\"💌\"}");
        }
        for odd in [&[0xff, 0xfe, 0x41][..], &[0xff, 0xfe, 0, 0xd8], b"{\0}\0", b"\0{\0}", b"\xe4"] {
            let said = text(odd.to_vec(), &"a.json").unwrap_err().to_string();
            assert!(said.contains("`a.json`") && said.contains("save it as UTF-8"), "{said}");
        }
        assert_eq!(text(Vec::new(), &"a.json").unwrap(), "");
    }
}
