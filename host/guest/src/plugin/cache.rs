//! The AOT cache keeps the machine code of plugins, so that a restart compiles nothing again.
//!
//! The code runs as part of the daemon. So the folder has mode 0700, and a folder that another user owns or can
//! write to is refused. A file gets its name only once it is complete. The name consists of the SHA-256 of the
//! wasm and a hash of everything that code must match to load in this build of wasmtime.
//!
//! Each file ends with a seal (`posthouse_model::seal`) over its code and its name. Damaged code, and code of another
//! plugin, machine or version, is therefore not loaded: it is removed, and the plugin is compiled again. The
//! seal has no key. Anyone who can write to this folder runs as this user, and could read a key just as the
//! daemon can.

use std::{
    fs::{self, File, OpenOptions},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use posthouse_model::seal::{self, Sealer, Whole};
use tempfile::TempDir;
use wasmtime::{Engine, Precompiled, component::Component};

use super::aot;

/// The files kept that no present revision needs, so that a plugin that is rolled back starts at once.
const SPARE: usize = 8;
/// The most bytes of an AOT file. CPython's has some 60 MB.
pub(super) const LARGEST: u64 = 512 << 20;
/// The most markers kept of compilations during which the daemon died.
const MARKERS: usize = 64;
/// Bytes read at once while a file is sealed.
const PART: usize = 1 << 20;

/// Why the cache can't be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CacheError {
    #[error("the AOT cache `{path}` can't be used: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error(
        "the AOT cache `{0}` is not private: it must be a folder of the user that runs posthouse, mode \
         0700; remove it, and the daemon creates it again"
    )]
    NotPrivate(PathBuf),
}

/// The cache's folder.
pub(super) struct Cache {
    dir: PathBuf,
    /// The hash that code must match to load, hexadecimal.
    fit: String,
}

impl Cache {
    /// Opens the folder, or creates it.
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
        // Files from a posthouse without seals do not match.
        seal::BYTES.hash(&mut hasher);
        let cache = Self { fit: format!("{:016x}", hasher.finish()), dir };
        cache.check()?;
        cache.sweep().map_err(|error| CacheError::Io { path: cache.dir.clone(), error })?;
        Ok(cache)
    }

    /// Returns the code of a revision if its file is present, intact and matching. Another file is removed.
    pub(super) fn get(&self, engine: &Engine, revision: &str) -> Result<Option<Component>, CacheError> {
        self.check()?;
        let path = self.path(revision);
        let Some(sealed) = read(&path) else { return Ok(None) };
        // The seal check and the load use the same memory, since the file is read once.
        let loaded = Whole::of(&sealed, &self.name(revision))
            .map_err(|broken| broken.to_string())
            .and_then(|code| aot::load(engine, code).map_err(|error| format!("{error:#}")));
        match loaded {
            Ok(component) => Ok(Some(component)),
            Err(reason) => {
                tracing::warn!(
                    path = %path.display(),
                    reason,
                    "AOT file is damaged or does not fit; compiling the plugin again"
                );
                drop(fs::remove_file(&path));
                Ok(None)
            }
        }
    }

    /// Returns a folder beside the files for a compiler to write to. Dropping it removes it.
    pub(super) fn scratch(&self) -> Result<TempDir, CacheError> {
        self.check()?;
        tempfile::Builder::new()
            .prefix("compile-")
            .tempdir_in(&self.dir)
            .map_err(|error| CacheError::Io { path: self.dir.clone(), error })
    }

    /// Seals the compiler's output and gives it its name. A crash leaves either the complete file or none.
    pub(super) fn put(&self, revision: &str, file: &Path) -> Result<(), CacheError> {
        let failed = |error| CacheError::Io { path: file.to_owned(), error };
        let mut written = open(file, OpenOptions::new().read(true).append(true)).map_err(failed)?;
        let length = written.metadata().map_err(failed)?.len();
        let code = Engine::detect_precompiled_file(file);
        if length > LARGEST || !matches!(code, Ok(Some(Precompiled::Component))) {
            return Err(failed(io::Error::other("the compiler did not write AOT code of a component")));
        }
        let mut sealer = Sealer::default();
        let mut part = vec![0; PART];
        loop {
            match written.read(&mut part).map_err(failed)? {
                0 => break,
                read => sealer.update(&part[..read]),
            }
        }
        let seal = sealer.seal(&self.name(revision));
        written.write_all(&seal).and_then(|()| written.sync_all()).map_err(failed)?;
        fs::rename(file, self.path(revision)).map_err(failed)?;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(failed)
    }

    /// Returns the path of the marker that a revision is being compiled.
    pub(super) fn marker(&self, revision: &str) -> PathBuf {
        self.dir.join(format!("{revision}-{}.compiling", self.fit))
    }

    /// Removes all files except those of the present revisions and a few of the newest others.
    pub(super) fn prune(&self, present: &[String]) {
        let needed: Vec<_> = present.iter().map(|revision| self.path(revision)).collect();
        for (extension, most) in [("cwasm", SPARE), ("compiling", MARKERS)] {
            let Ok(entries) = fs::read_dir(&self.dir) else { return };
            let mut spare: Vec<(SystemTime, PathBuf)> = entries
                .flatten()
                .filter(|entry| has_extension(&entry.path(), extension) && !needed.contains(&entry.path()))
                .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
                .collect();
            spare.sort_unstable_by(|a, b| b.cmp(a));
            for (_, path) in spare.into_iter().skip(most) {
                drop(fs::remove_file(path));
            }
        }
    }

    fn path(&self, revision: &str) -> PathBuf {
        self.dir.join(self.name(revision))
    }

    fn name(&self, revision: &str) -> String {
        format!("{revision}-{}.cwasm", self.fit)
    }

    /// Checks that no other user can put code here.
    fn check(&self) -> Result<(), CacheError> {
        let folder = fs::symlink_metadata(&self.dir)
            .map_err(|error| CacheError::Io { path: self.dir.clone(), error })?;
        if folder.is_dir() && private(&folder) {
            Ok(())
        } else {
            Err(CacheError::NotPrivate(self.dir.clone()))
        }
    }

    /// Removes what a killed daemon left half done. Another process may be using the folder (`posthouse check`
    /// beside the daemon), so only what is over an hour old is removed.
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

/// Reads a file that only this user can write to. Returns none if it is missing or anything else.
fn read(path: &Path) -> Option<Vec<u8>> {
    let file = open(path, OpenOptions::new().read(true)).ok()?;
    let there = file.metadata().ok()?;
    if !there.is_file() || !private(&there) || there.len() > LARGEST + seal::BYTES as u64 {
        return None;
    }
    let mut bytes = Vec::with_capacity(there.len() as usize);
    file.take(there.len()).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Opens a file, and does not follow a link.
fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    options.custom_flags(flags.bits().cast_signed()).open(path)
}

fn has_extension(path: &Path, wanted: &str) -> bool {
    path.extension().is_some_and(|extension| extension == wanted)
}

/// Whether this user owns it and no other user can write to it.
fn private(entry: &fs::Metadata) -> bool {
    entry.uid() == rustix::process::geteuid().as_raw() && entry.mode() & 0o022 == 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

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

    /// Puts a component with some code, as the compiler writes it, into a cache under this name. Returns its
    /// code.
    fn put(cache: &Cache, engine: &Engine, revision: &str) -> Vec<u8> {
        let component = wat::parse_str(
            r#"(component
                (core module $m (func (export "run") (result i32) (i32.const 42)))
                (core instance $i (instantiate $m))
                (func (export "run") (result u32) (canon lift (core func $i "run"))))"#,
        );
        let code = engine.precompile_component(&component.unwrap()).unwrap();
        let scratch = cache.scratch().unwrap();
        let file = scratch.path().join("out.cwasm");
        fs::write(&file, &code).unwrap();
        cache.put(revision, &file).unwrap();
        code
    }

    #[test]
    fn code_with_any_single_bit_changed_is_dropped_and_never_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine();
        let cache = Cache::open(dir.path().join("aot"), &engine).unwrap();
        let code = put(&cache, &engine, "a");
        let path = cache.path("a");
        assert!(cache.get(&engine, "a").unwrap().is_some());
        let whole = fs::read(&path).unwrap();
        assert_eq!(Whole::of(&whole, &cache.name("a")).unwrap().bytes(), code);

        let seed = posthouse_harness::seed();
        let mut random = StdRng::seed_from_u64(seed);
        let bits = whole.len() as u64 * 8;
        eprintln!("{bits} bits, seed {seed}");
        let of_seal = bits - 8 * seal::BYTES as u64..bits;
        let mut altered = whole.clone();
        for bit in of_seal.chain((0..10_000).map(|_| random.random_range(0..bits))) {
            let (at, mask) = ((bit / 8) as usize, 1 << (bit % 8));
            altered[at] ^= mask;
            assert!(Whole::of(&altered, &cache.name("a")).is_err(), "bit {bit}, seed {seed}");
            if bit % 16 == 0 {
                fs::write(&path, &altered).unwrap();
                assert!(cache.get(&engine, "a").unwrap().is_none(), "bit {bit}, seed {seed}");
                assert!(!path.exists(), "bit {bit}, seed {seed}");
            }
            altered[at] ^= mask;
        }
        fs::write(&path, &whole).unwrap();
        assert!(cache.get(&engine, "a").unwrap().is_some());
    }

    #[test]
    fn code_that_is_cut_swapped_unsealed_or_of_another_fit_is_dropped_and_never_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine();
        let cache = Cache::open(dir.path().join("aot"), &engine).unwrap();
        let code = put(&cache, &engine, "a");
        let whole = fs::read(cache.path("a")).unwrap();
        let other = Cache { dir: cache.dir.clone(), fit: "0".repeat(16) };
        let cut = |bytes: usize| whole[..bytes].to_vec();
        for (place, bytes) in [
            (cache.path("b"), whole.clone()),
            (other.path("a"), whole.clone()),
            (cache.path("a"), code),
            (cache.path("a"), Vec::new()),
            (cache.path("a"), cut(1)),
            (cache.path("a"), cut(whole.len() / 2)),
            (cache.path("a"), cut(whole.len() - 1)),
            (cache.path("a"), [&whole[..], b"x"].concat()),
        ] {
            fs::write(&place, &bytes).unwrap();
            let (cache, revision) = match &place {
                place if *place == other.path("a") => (&other, "a"),
                place if *place == cache.path("b") => (&cache, "b"),
                _ => (&cache, "a"),
            };
            assert!(cache.get(&engine, revision).unwrap().is_none(), "{place:?}, {} bytes", bytes.len());
            assert!(!place.exists(), "{place:?}, {} bytes", bytes.len());
        }
    }

    #[test]
    fn a_link_in_the_cache_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine();
        let cache = Cache::open(dir.path().join("aot"), &engine).unwrap();
        put(&cache, &engine, "a");
        let moved = dir.path().join("moved");
        fs::rename(cache.path("a"), &moved).unwrap();
        std::os::unix::fs::symlink(&moved, cache.path("a")).unwrap();
        assert!(cache.get(&engine, "a").unwrap().is_none());
        put(&cache, &engine, "a");
        assert!(cache.get(&engine, "a").unwrap().is_some(), "newly compiled code takes its place");
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
