//! Reads the plugins folder: which plugins have a file there, and whether one has changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs, io,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use posthouse_model::config::PluginSettings;
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

/// Which plugins have a file of another name: `component` in their tables of config.toml.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Components {
    /// The file's name without `.wasm`, by the plugin's name.
    of: BTreeMap<String, String>,
    /// The plugins that have a table and no `component`.
    own: BTreeSet<String>,
}

impl Components {
    /// Reads the tables of plugins.
    pub fn new(plugins: &BTreeMap<String, PluginSettings>) -> Self {
        let mut components = Self::default();
        for (name, settings) in plugins {
            match &settings.component {
                Some(component) => _ = components.of.insert(name.clone(), component.clone()),
                None => _ = components.own.insert(name.clone()),
            }
        }
        components
    }

    /// The name of the file of this plugin.
    pub fn file(&self, plugin: &str) -> String {
        format!("{}.wasm", self.of.get(plugin).map_or(plugin, String::as_str))
    }

    /// Whether the file with this name, without `.wasm`, is a plugin of its own name. A file that other plugins name is
    /// one only if it has a table.
    fn is_plugin(&self, file: &str) -> bool {
        !self.of.contains_key(file) && (self.own.contains(file) || !self.is_component(file))
    }

    fn is_component(&self, file: &str) -> bool {
        self.of.values().any(|component| component == file)
    }
}

/// A plugin's file.
#[derive(Debug)]
pub struct Found {
    /// The plugin's name.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    pub(super) stamp: Stamp,
}

/// A plugin of config.toml that has no file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The plugin's name.
    pub name: String,
    /// The reason, which names the file.
    pub reason: String,
}

/// The files that were found in the folder.
#[derive(Debug, Default)]
pub struct Looked {
    /// The plugins, small files first, because those load fast.
    pub plugins: Vec<Found>,
    /// Files that look like plugins and are none, with the reason.
    pub ignored: Vec<(OsString, &'static str)>,
    /// The plugins whose `component` is missing, by name.
    pub missing: Vec<Missing>,
    /// The files that serve other plugins only, by their names without `.wasm`, each with what it means for a plugin of
    /// that name.
    pub lent: BTreeMap<String, String>,
}

/// Looks through the folder. A missing folder counts as empty.
pub fn look(dir: &Path, components: &Components) -> io::Result<Looked> {
    let mut looked = Looked::default();
    let files = files(dir, &mut looked.ignored)?;
    let found = |name: &str, (path, stamp): &(PathBuf, Stamp)| Found {
        name: name.to_owned(),
        path: path.clone(),
        stamp: *stamp,
    };
    for (file, at) in &files {
        if components.is_plugin(file) {
            looked.plugins.push(found(file, at));
        } else if components.is_component(file) {
            let reason = format!(
                "`{file}.wasm` serves other plugins; add [plugin.{file}] to config.toml to have it as a plugin too, or \
                 forget this one: `posthouse plugins forget {file}`"
            );
            looked.lent.insert(file.clone(), reason);
        } else {
            let why = "the plugin of this name has another `component` in config.toml";
            looked.ignored.push((file_name(&at.0), why));
        }
    }
    for (name, component) in &components.of {
        match files.get(component) {
            Some(at) => looked.plugins.push(found(name, at)),
            None => {
                let reason = format!("`{component}.wasm`, its `component`, is not in the plugins folder");
                looked.missing.push(Missing { name: name.clone(), reason });
            }
        }
    }
    looked.plugins.sort_unstable_by(|a, b| (a.stamp.len, &a.name).cmp(&(b.stamp.len, &b.name)));
    Ok(looked)
}

/// The files that plugins can run, by their names without `.wasm`. Adds others that look like it to `ignored`.
fn files(
    dir: &Path,
    ignored: &mut Vec<(OsString, &'static str)>,
) -> io::Result<BTreeMap<String, (PathBuf, Stamp)>> {
    let mut files = BTreeMap::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        match path.extension().and_then(OsStr::to_str) {
            Some("wasm") => {}
            Some("cwasm") => {
                let why = "posthouse runs no machine code but its own; put the `.wasm` here";
                ignored.push((file_name(&path), why));
                continue;
            }
            _ => continue,
        }
        let Ok(file) = fs::metadata(&path) else { continue };
        match name_of(&path).map(str::to_owned) {
            Some(name) if file.is_file() => _ = files.insert(name, (path, Stamp::of(&file))),
            Some(_) => ignored.push((file_name(&path), "it is not a file")),
            None => {
                let why = "a plugin's name is 1 to 64 of `a-z 0-9 - _` and begins with a letter or digit";
                ignored.push((file_name(&path), why));
            }
        }
    }
    Ok(files)
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
        let looked = look(dir.path(), &Components::default()).unwrap();
        let names: Vec<_> = looked.plugins.iter().map(|found| found.name.as_str()).collect();
        assert_eq!(names, ["a", "link", "big"], "links are plugins, small files come first");
        let mut ignored: Vec<_> = looked.ignored.iter().map(|(name, _)| name.to_str().unwrap()).collect();
        ignored.sort_unstable();
        assert_eq!(ignored, ["Bad.wasm", "folder.wasm", "x.cwasm"]);
    }

    #[test]
    fn one_file_serves_every_plugin_that_names_it_and_itself_if_it_has_a_table() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["forward", "plain", "crm"] {
            fs::write(dir.path().join(name).with_extension("wasm"), b"x").unwrap();
        }
        let looked = |tables: &[(&str, Option<&str>)]| {
            let settings = |component: Option<&str>| PluginSettings {
                component: component.map(str::to_owned),
                ..PluginSettings::default()
            };
            let tables = tables.iter().map(|(name, component)| ((*name).to_owned(), settings(*component)));
            let looked = look(dir.path(), &Components::new(&tables.collect())).unwrap();
            let file = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
            let found: Vec<_> =
                looked.plugins.iter().map(|found| format!("{} {}", found.name, file(&found.path))).collect();
            let missing: Vec<_> = looked.missing.iter().map(|missing| missing.name.clone()).collect();
            (found.join(", "), missing.join(", "), looked.ignored.len())
        };
        let all = |found: &str, missing: &str, ignored| (found.to_owned(), missing.to_owned(), ignored);
        assert_eq!(looked(&[]), all("crm crm, forward forward, plain plain", "", 0));
        let two = [("app", Some("forward")), ("shop", Some("forward"))];
        assert_eq!(looked(&two), all("app forward, crm crm, plain plain, shop forward", "", 0));
        let itself = [("app", Some("forward")), ("forward", None)];
        assert_eq!(looked(&itself), all("app forward, crm crm, forward forward, plain plain", "", 0));
        let other = [("crm", Some("forward"))];
        assert_eq!(looked(&other), all("crm forward, plain plain", "", 1), "crm.wasm is ignored");
        let gone = [("app", Some("nowhere")), ("plain", None)];
        assert_eq!(looked(&gone), all("crm crm, forward forward, plain plain", "app", 0));
        let crossed = [("plain", Some("crm")), ("crm", Some("plain"))];
        assert_eq!(looked(&crossed), all("crm plain, forward forward, plain crm", "", 0));
    }

    #[test]
    fn a_folder_that_is_not_there_is_empty() {
        assert!(look(Path::new("/nowhere/at/all"), &Components::default()).unwrap().plugins.is_empty());
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
