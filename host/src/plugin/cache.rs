//! The AOT cache: machine code of plugins, kept so that a start compiles nothing again.
//!
//! What lies here runs as part of the daemon, so the folder is mode 0700 and is refused where somebody
//! else owns it or could write to it. A file gets its name only once it is whole; its name is the
//! SHA-256 of the wasm it was made of and a hash of everything that makes code fit this build of wasmtime.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use tempfile::TempDir;
use wasmtime::{Engine, Precompiled, component::Component};

use super::aot;

/// Files kept that no present revision needs: a plugin that is rolled back starts at once.
const SPARE: usize = 8;
/// Bytes of the largest AOT file. CPython makes one of some 60 MB.
const LARGEST: u64 = 1 << 30;

/// Why the cache can't be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CacheError {
    #[error("the AOT cache `{path}` can't be used: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error(
        "the AOT cache `{0}` is not private: it must be a folder of the user that runs posthouse, mode \
         0700; remove it, and it is made anew"
    )]
    NotPrivate(PathBuf),
}

/// The folder.
pub(super) struct Cache {
    dir: PathBuf,
    /// What code has to fit, hexadecimal.
    fit: String,
}

impl Cache {
    /// Opens the folder, or makes it.
    pub(super) fn open(dir: PathBuf, engine: &Engine) -> Result<Self, CacheError> {
        let failed = |error| CacheError::Io { path: dir.clone(), error };
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let cache = Self { fit: format!("{:016x}", hasher.finish()), dir };
        cache.check()?;
        cache.sweep().map_err(|error| CacheError::Io { path: cache.dir.clone(), error })?;
        Ok(cache)
    }

    /// The code of a revision, where it is here and fits.
    pub(super) fn get(&self, engine: &Engine, revision: &str) -> Result<Option<Component>, CacheError> {
        self.check()?;
        let path = self.path(revision);
        let ours = fs::symlink_metadata(&path).is_ok_and(|file| file.is_file() && private(&file));
        if !ours {
            return Ok(None);
        }
        match aot::load(engine, &path) {
            Ok(component) => Ok(Some(component)),
            Err(error) => {
                tracing::warn!(path = %path.display(), error = %format!("{error:#}"), "dropped AOT code that does not load");
                drop(fs::remove_file(&path));
                Ok(None)
            }
        }
    }

    /// A folder beside the files, for a compiler to write into; it goes when it is dropped.
    pub(super) fn scratch(&self) -> Result<TempDir, CacheError> {
        self.check()?;
        tempfile::Builder::new()
            .prefix("compile-")
            .tempdir_in(&self.dir)
            .map_err(|error| CacheError::Io { path: self.dir.clone(), error })
    }

    /// Takes in what a compiler wrote.
    pub(super) fn put(&self, revision: &str, file: &Path) -> Result<(), CacheError> {
        let failed = |error| CacheError::Io { path: file.to_owned(), error };
        let length = fs::symlink_metadata(file).map_err(failed)?.len();
        let code = Engine::detect_precompiled_file(file);
        if length > LARGEST || !matches!(code, Ok(Some(Precompiled::Component))) {
            return Err(failed(io::Error::other("the compiler wrote no AOT code of a component")));
        }
        fs::rename(file, self.path(revision)).map_err(failed)
    }

    /// Removes all but what the present revisions need and a few of the youngest others.
    pub(super) fn prune(&self, present: &[String]) {
        let needed: Vec<_> = present.iter().map(|revision| self.path(revision)).collect();
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        let mut spare: Vec<(SystemTime, PathBuf)> = entries
            .flatten()
            .filter(|entry| is_code(&entry.path()) && !needed.contains(&entry.path()))
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        spare.sort_unstable_by(|a, b| b.cmp(a));
        for (_, path) in spare.into_iter().skip(SPARE) {
            drop(fs::remove_file(path));
        }
    }

    fn path(&self, revision: &str) -> PathBuf {
        self.dir.join(format!("{revision}-{}.cwasm", self.fit))
    }

    /// That nobody else can put code here.
    fn check(&self) -> Result<(), CacheError> {
        let folder = fs::symlink_metadata(&self.dir)
            .map_err(|error| CacheError::Io { path: self.dir.clone(), error })?;
        if folder.is_dir() && private(&folder) {
            Ok(())
        } else {
            Err(CacheError::NotPrivate(self.dir.clone()))
        }
    }

    /// Removes what a daemon that was killed left half done. Another one may be at work here (`posthouse
    /// check` beside the daemon), so only what is old goes.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)?.flatten() {
            let old = entry
                .metadata()
                .and_then(|folder| folder.modified())
                .is_ok_and(|then| then.elapsed().is_ok_and(|age| age.as_secs() > 3600));
            if old && entry.file_name().as_encoded_bytes().starts_with(b"compile-") {
                drop(fs::remove_dir_all(entry.path()));
            }
        }
        Ok(())
    }
}

fn is_code(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "cwasm")
}

/// Whether only this user can write to it.
fn private(entry: &fs::Metadata) -> bool {
    entry.uid() == rustix::process::geteuid().as_raw() && entry.mode() & 0o022 == 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn engine() -> Engine {
        Engine::new(&super::super::engine::settings()).unwrap()
    }

    #[test]
    fn the_folder_is_made_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/aot");
        Cache::open(path.clone(), &engine()).unwrap();
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("aot");
        let cache = Cache::open(path.clone(), &engine()).unwrap();
        for mode in [0o770, 0o707, 0o777] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(
                matches!(Cache::open(path.clone(), &engine()), Err(CacheError::NotPrivate(_))),
                "{mode:o}"
            );
            assert!(cache.get(&engine(), "a").is_err(), "it is checked each time");
        }
    }

    #[test]
    fn a_link_is_no_cache() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("aot");
        std::os::unix::fs::symlink(dir.path(), &path).unwrap();
        assert!(matches!(Cache::open(path, &engine()), Err(CacheError::NotPrivate(_))));
    }

    #[test]
    fn what_is_no_aot_code_is_not_taken_in_and_not_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path().join("aot"), &engine()).unwrap();
        let file = dir.path().join("code");
        fs::write(&file, b"not code").unwrap();
        assert!(cache.put("a", &file).is_err());
        fs::write(cache.path("a"), b"not code").unwrap();
        assert!(cache.get(&engine(), "a").unwrap().is_none());
        assert!(!cache.path("a").exists(), "what does not load is dropped");
    }

    #[test]
    fn code_of_present_revisions_outlasts_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path().join("aot"), &engine()).unwrap();
        for n in 0..SPARE + 10 {
            fs::write(cache.path(&format!("{n:064x}")), b"x").unwrap();
        }
        let present = format!("{:064x}", 0);
        fs::File::open(cache.path(&present)).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        cache.prune(std::slice::from_ref(&present));
        assert!(cache.path(&present).exists());
        assert_eq!(fs::read_dir(&cache.dir).unwrap().count(), SPARE + 1);
    }
}
