//! Checks the files that config.toml names: no file may have two roles. If a plugin's database is the store,
//! the admin token or another plugin's code, the plugin overwrites it.
//!
//! Two paths are the same file if they are equal after links and `..` are resolved, or if device and inode are
//! equal. A file that does not exist yet has no inode, so the daemon checks again after it has created its own
//! files.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

use super::{Config, Finding};

/// The endings of the files that SQLite keeps beside a database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];
/// The endings of all files beside a store.
const BESIDE_STORE: [&str; 5] = ["-wal", "-shm", "-journal", ".lock", ".restoring"];
/// The most links that are followed in a row.
const MOST_LINKS: usize = 40;
/// The most files of a folder that are checked.
const MOST_FILES: usize = 10_000;

/// A path in config.toml.
#[derive(Debug, Clone)]
pub(super) struct Led {
    /// The dotted key.
    pub(super) key: String,
    /// The position of the key; the message is empty.
    pub(super) finding: Finding,
    /// The path itself.
    pub(super) path: PathBuf,
}

/// Every path of config.toml that the daemon writes to, with its position.
#[derive(Debug, Clone)]
pub struct Files {
    config: PathBuf,
    store: PathBuf,
    state: PathBuf,
    plugins: PathBuf,
    certificates: Vec<PathBuf>,
    led: Vec<Led>,
}

impl Files {
    pub(super) fn new(path: &Path, config: &Config, led: Vec<Led>) -> Self {
        let authorities = config.databases.values().filter_map(|database| database.ca.clone());
        Self {
            config: path.to_owned(),
            store: config.store.path.clone(),
            state: config.store.state_dir(),
            plugins: config.plugins.dir.clone(),
            certificates: config.http.ca.iter().cloned().chain(authorities).collect(),
            led,
        }
    }

    /// A finding for each path that already has another role.
    pub fn problems(&self) -> Vec<Finding> {
        let mut taken = self.taken();
        let mut problems = Vec::new();
        for led in &self.led {
            let is_store = led.path == self.store && led.key == "store.url";
            let problem = match led.key.as_str() {
                "mail.url" => self.folder_problem(&led.path),
                _ => self.problem(&led.path, &taken, is_store),
            };
            if let Some(problem) = problem {
                let message = format!("`{}` {problem}; name another", led.key);
                problems.push(Finding { message, ..led.finding.clone() });
            }
            if let Some(name) = led.key.strip_prefix("databases.").and_then(|key| key.strip_suffix(".url")) {
                taken.push(Taken::new(
                    &led.path,
                    format!("the file of [databases.{name}] too"),
                    &BESIDE,
                    false,
                ));
            }
        }
        problems
    }

    /// The files that belong to the host.
    fn taken(&self) -> Vec<Taken> {
        let one = |path: &Path, what: &str| Taken::new(path, what.to_owned(), &[], false);
        let mut taken = vec![
            Taken::new(&self.store, "the file of the store".to_owned(), &BESIDE_STORE, true),
            one(&self.config, "this configuration"),
            one(&self.state.join("admin-token"), "the file of the admin token"),
        ];
        taken.extend(files_in(&self.state.join("keys")).map(|file| one(&file, "the key of a sender")));
        taken.extend(self.certificates.iter().map(|path| one(path, "a file of certificates")));
        for file in files_in(&self.plugins).filter(|file| file.extension().is_some_and(|is| is == "wasm")) {
            taken.push(one(&file, "the code of a plugin"));
        }
        taken.extend(files_in(&self.aot()).map(|file| one(&file, "a file of the AOT cache")));
        taken
    }

    fn aot(&self) -> PathBuf {
        self.state.join("aot")
    }

    fn problem(&self, path: &Path, taken: &[Taken], is_store: bool) -> Option<String> {
        match fs::metadata(path) {
            Ok(there) if there.is_dir() => return Some("is a folder".to_owned()),
            Ok(there) if !there.is_file() => return Some("is no regular file".to_owned()),
            _ => {}
        }
        let spots = Spot::of(path, if is_store { &BESIDE_STORE } else { &BESIDE });
        let own = spots.first()?;
        if own.resolved.starts_with(resolve(&self.aot())) {
            return Some("is in the AOT cache".to_owned());
        }
        if own.resolved.extension().is_some_and(|is| is == "wasm")
            && own.resolved.parent() == Some(resolve(&self.plugins).as_path())
        {
            return Some("is the code of a plugin".to_owned());
        }
        let others = taken.iter().filter(|taken| !(is_store && taken.is_store));
        for taken in others {
            for (at, other) in taken.spots.iter().enumerate() {
                let Some(mine) = spots.iter().position(|spot| spot.is(other)) else { continue };
                return Some(match (mine, at) {
                    (0, 0) => format!("is {}", taken.what),
                    (_, 0) => format!("would have beside it what is {}", taken.what),
                    _ => format!("is, or would have beside it, what belongs to {}", taken.what),
                });
            }
        }
        None
    }

    fn folder_problem(&self, path: &Path) -> Option<String> {
        let folder = resolve(path);
        if folder == resolve(&self.plugins) {
            return Some("is the folder of the plugins".to_owned());
        }
        folder.starts_with(resolve(&self.aot())).then(|| "is in the AOT cache".to_owned())
    }
}

/// A path with a role.
struct Taken {
    /// The file first, then the files beside it.
    spots: Vec<Spot>,
    what: String,
    is_store: bool,
}

impl Taken {
    fn new(path: &Path, what: String, beside: &[&str], is_store: bool) -> Self {
        Self { spots: Spot::of(path, beside), what, is_store }
    }
}

/// The file that a path leads to.
struct Spot {
    resolved: PathBuf,
    /// Device and inode, if the file exists.
    identity: Option<(u64, u64)>,
}

impl Spot {
    /// The file and the files beside it, with these endings.
    fn of(path: &Path, beside: &[&str]) -> Vec<Self> {
        let resolved = resolve(path);
        let ending = |ending: &&str| {
            let mut name = resolved.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        };
        let spot = |resolved: PathBuf| {
            let identity = fs::metadata(&resolved).ok().map(|there| (there.dev(), there.ino()));
            Self { resolved, identity }
        };
        let beside: Vec<_> = beside.iter().map(ending).collect();
        std::iter::once(resolved.clone()).chain(beside).map(spot).collect()
    }

    fn is(&self, other: &Self) -> bool {
        self.resolved == other.resolved || (self.identity.is_some() && self.identity == other.identity)
    }
}

/// The regular files of a folder.
fn files_in(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).take(MOST_FILES).filter(|path| path.is_file())
}

/// The path without links and `..`, whether or not it exists. Returned as an absolute path if links cannot be
/// followed.
fn resolve(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    follow(&absolute, &mut 0).unwrap_or(absolute)
}

fn follow(path: &Path, links: &mut usize) -> io::Result<PathBuf> {
    let mut resolved = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                resolved.pop();
            }
            Component::CurDir => {}
            part => {
                resolved.push(part);
                if let Ok(target) = fs::read_link(&resolved) {
                    *links += 1;
                    if *links > MOST_LINKS {
                        return Err(io::Error::other("too many links"));
                    }
                    resolved.pop();
                    resolved = follow(&resolved.join(target), links)?;
                }
            }
        }
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_path_is_resolved_whether_or_not_anything_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir(root.join("data")).unwrap();
        symlink("data", root.join("link")).unwrap();
        symlink(root.join("link/new.db"), root.join("dangling")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let wanted = root.join("data/new.db");
        for path in
            ["data/new.db", "link/new.db", "link/../data/./new.db", "dangling", "missing/../link/new.db"]
        {
            assert_eq!(resolve(&root.join(path)), wanted, "{path}");
        }
        assert_eq!(resolve(&root.join("loop")), root.join("loop"));
    }
}
