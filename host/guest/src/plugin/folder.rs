//! Reads the plugins folder: which files are plugins, and whether one has changed.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

/// The most bytes of a plugin.
const LARGEST: u64 = 64 << 20;
/// The most bytes of a plugin's name.
const NAME: usize = 64;

/// Distinguishes the contents of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: (i64, i64),
    /// The last change of any kind. Unlike `modified`, it can't be set back.
    changed: (i64, i64),
    len: u64,
    inode: (u64, u64),
}

impl Stamp {
    fn of(file: &fs::Metadata) -> Self {
        Self {
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
            len: file.len(),
            inode: (file.dev(), file.ino()),
        }
    }

    /// Whether the file changed less than a second ago, and may be about to change again.
    pub(super) fn is_young(&self, now: Timestamp) -> bool {
        let (seconds, nanoseconds) = self.changed;
        let changed = Timestamp::new(seconds, i32::try_from(nanoseconds).unwrap_or_default());
        changed.is_ok_and(|changed| (0..1000).contains(&now.duration_since(changed).as_millis()))
    }
}

/// A plugin's file.
#[derive(Debug)]
pub struct Found {
    /// Its name: that of the file without `.wasm`.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    pub(super) stamp: Stamp,
}

/// The files that were found in the folder.
#[derive(Debug, Default)]
pub struct Looked {
    /// The plugins, small files first, because those load fast.
    pub plugins: Vec<Found>,
    /// Files that look like plugins and are none, with the reason.
    pub ignored: Vec<(OsString, &'static str)>,
}

/// Looks through the folder. A missing folder counts as empty.
pub fn look(dir: &Path) -> io::Result<Looked> {
    let mut looked = Looked::default();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(looked),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        match path.extension().and_then(OsStr::to_str) {
            Some("wasm") => {}
            Some("cwasm") => {
                let why = "posthouse runs no machine code but its own; put the `.wasm` here";
                looked.ignored.push((file_name(&path), why));
                continue;
            }
            _ => continue,
        }
        let Ok(file) = fs::metadata(&path) else { continue };
        match name_of(&path) {
            Some(name) if file.is_file() => {
                looked.plugins.push(Found { name: name.to_owned(), path, stamp: Stamp::of(&file) });
            }
            Some(_) => looked.ignored.push((file_name(&path), "it is not a file")),
            None => {
                let why = "a plugin's name is 1 to 64 of `a-z 0-9 - _` and begins with a letter or digit";
                looked.ignored.push((file_name(&path), why));
            }
        }
    }
    looked.plugins.sort_unstable_by(|a, b| (a.stamp.len, &a.name).cmp(&(b.stamp.len, &b.name)));
    Ok(looked)
}

/// Returns the plugin's name: the file's stem, if it follows the rule for names.
pub(super) fn name_of(path: &Path) -> Option<&str> {
    let name = path.file_stem()?.to_str()?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let first = name.starts_with(plain);
    let rest = name.chars().all(|c| plain(c) || matches!(c, '-' | '_'));
    (first && rest && name.len() <= NAME).then_some(name)
}

fn file_name(path: &Path) -> OsString {
    path.file_name().unwrap_or_default().to_owned()
}

/// One content of a plugin's file.
pub(super) struct Content {
    pub(super) wasm: Vec<u8>,
    /// Its SHA-256, hexadecimal.
    pub(super) revision: String,
    /// The file's stamp before it was read. The file may have changed since.
    pub(super) stamp: Stamp,
}

/// Why a plugin's file was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file can't be read.
    #[error("`{path}` can't be read: {error}")]
    Io {
        /// The path of the file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The file is larger than a plugin may be.
    #[error("`{0}` is larger than 64 MiB, the most that a plugin may have")]
    TooLarge(PathBuf),
    /// Another program wrote to the file while it was read.
    #[error("`{0}` changed while it was read")]
    Changing(PathBuf),
}

/// Reads a plugin's whole file.
pub(super) fn read(path: &Path) -> Result<Content, ReadError> {
    let failed = |error| ReadError::Io { path: path.to_owned(), error };
    let file = fs::File::open(path).map_err(failed)?;
    let stamp = Stamp::of(&file.metadata().map_err(failed)?);
    if stamp.len > LARGEST {
        return Err(ReadError::TooLarge(path.to_owned()));
    }
    let mut wasm = Vec::with_capacity(stamp.len as usize);
    (&file).take(LARGEST).read_to_end(&mut wasm).map_err(failed)?;
    if Stamp::of(&file.metadata().map_err(failed)?) != stamp || wasm.len() as u64 != stamp.len {
        return Err(ReadError::Changing(path.to_owned()));
    }
    Ok(Content { revision: hex::encode(Sha256::digest(&wasm)), wasm, stamp })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_rule() {
        let long = format!("{}.wasm", "a".repeat(65));
        let cases = [
            ("welcome-email.wasm", Some("welcome-email")),
            ("0_a.wasm", Some("0_a")),
            ("Welcome.wasm", None),
            ("-a.wasm", None),
            ("_a.wasm", None),
            (".hidden.wasm", None),
            ("a b.wasm", None),
            ("a.b.wasm", None),
            ("ä.wasm", None),
            (&long, None),
        ];
        for (file, name) in cases {
            assert_eq!(name_of(Path::new(file)), name, "{file}");
        }
    }

    #[test]
    fn the_folder_gives_plugins_and_names_what_it_ignores() {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in [("big.wasm", 9), ("a.wasm", 1), ("Bad.wasm", 1), ("x.cwasm", 1), ("README", 1)]
        {
            fs::write(dir.path().join(name), vec![0; bytes]).unwrap();
        }
        fs::create_dir(dir.path().join("folder.wasm")).unwrap();
        fs::create_dir(dir.path().join("source")).unwrap();
        std::os::unix::fs::symlink("a.wasm", dir.path().join("link.wasm")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("broken.wasm")).unwrap();
        let looked = look(dir.path()).unwrap();
        let names: Vec<_> = looked.plugins.iter().map(|found| found.name.as_str()).collect();
        assert_eq!(names, ["a", "link", "big"], "links are plugins, small files come first");
        let mut ignored: Vec<_> = looked.ignored.iter().map(|(name, _)| name.to_str().unwrap()).collect();
        ignored.sort_unstable();
        assert_eq!(ignored, ["Bad.wasm", "folder.wasm", "x.cwasm"]);
    }

    #[test]
    fn a_folder_that_is_not_there_is_empty() {
        assert!(look(Path::new("/nowhere/at/all")).unwrap().plugins.is_empty());
    }

    #[test]
    fn a_stamp_changes_with_the_file_and_ages() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.wasm");
        fs::write(&path, b"one").unwrap();
        let first = read(&path).unwrap();
        fs::write(&path, b"two").unwrap();
        let second = read(&path).unwrap();
        assert_ne!(first.stamp, second.stamp);
        assert_ne!(first.revision, second.revision);
        let changed = Timestamp::new(second.stamp.changed.0, second.stamp.changed.1 as i32).unwrap();
        let after = |milliseconds| changed + jiff::SignedDuration::from_millis(milliseconds);
        assert!(second.stamp.is_young(after(999)));
        assert!(!second.stamp.is_young(after(1000)));
        assert!(!second.stamp.is_young(after(-1)), "a clock that was set back makes nothing young");
    }
}
