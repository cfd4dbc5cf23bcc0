//! Keys that senders bring themselves (Asana, Notion): the first request to a URL has the key of all that follow.
//!
//! Whoever knows the URL could send that request. So a source awaits a key only if an operator says so, for some
//! minutes, and only while it has none. The key is in a file of the state folder, `keys/NAME` with mode 0600, as
//! the sender wrote it, with a line break after it. It never changes unless an operator removes it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, ErrorKind, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use parking_lot::Mutex;
use posthouse_model::{
    SourceName,
    config::{Secret, Source},
    owner,
};
use posthouse_store::StoreError;

use super::{
    Inbox, Ingress, KeyError, Refusal, Verifier,
    ending::Ending,
    handler::{Route, Routes, Shared},
    refusal::MIN_KEY,
};

/// The folder within the state folder.
const FOLDER: &str = "keys";
/// The most bytes of a file.
const LONGEST: u64 = 2048;

/// The keys that senders brought, and the sources that await one.
pub struct BroughtKeys {
    folder: PathBuf,
    awaiting: Mutex<BTreeMap<SourceName, Awaited>>,
}

/// A source awaits its key.
#[derive(Clone, Copy)]
struct Awaited {
    until: Timestamp,
    /// Whether a request has brought one, which is being written.
    taken: bool,
}

/// Whether a source has a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// config.toml names its secrets.
    Configured,
    /// Its sender brought it.
    Brought,
    /// It has none, and awaits one until this time.
    Awaited(Timestamp),
    /// It has none.
    Missing,
}

/// Why a source can't await a key, or give one up.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// There is no such source.
    #[error("config.toml has no source `{0}`")]
    Unknown(String),
    /// Its sender brings no key, or config.toml names its secrets.
    #[error("source `{0}` has its secrets in config.toml; only a source without `secrets` learns its key")]
    Configured(String),
    /// It has a key already.
    #[error("source `{0}` has a key already; `posthouse senders forget {0}` removes it")]
    HasKey(String),
    /// It has no key that could be removed.
    #[error("source `{0}` has no key that its sender brought")]
    NoKey(String),
    /// The file can't be removed.
    #[error("the key `{path}` can't be removed: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The file can't be read.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl BroughtKeys {
    /// The keys in this state folder.
    pub fn new(state: &Path) -> Self {
        Self { folder: state.join(FOLDER), awaiting: Mutex::default() }
    }

    /// The file for the key of a source.
    pub fn file(&self, source: &SourceName) -> PathBuf {
        self.folder.join(source.as_str())
    }

    /// The sources, each with the key that its sender brought, if config.toml names none.
    ///
    /// # Errors
    /// [`KeyError`] if a file can't be read, or others may read it.
    pub fn with_keys(&self, sources: &[Source]) -> Result<Vec<Source>, KeyError> {
        let with_key = |source: &Source| {
            let mut source = source.clone();
            if source.brings_key {
                source.secrets = self.read(&source.name)?.into_iter().collect();
            }
            Ok(source)
        };
        sources.iter().map(with_key).collect()
    }

    fn read(&self, source: &SourceName) -> Result<Option<Secret>, KeyError> {
        let path = self.file(source);
        let failed = |error: &dyn std::fmt::Display| KeyError::unread(source, &path, error);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&error)),
        };
        let mode = file.metadata().map_err(|error| failed(&error))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(failed(&format_args!(
                "other users may read it (mode {mode:03o}); have the sender make another key"
            )));
        }
        let mut text = String::new();
        file.take(LONGEST).read_to_string(&mut text).map_err(|error| failed(&error))?;
        Ok(Some(Secret::new(text.trim_end())))
    }

    fn write(&self, source: &SourceName, key: &Secret) -> io::Result<()> {
        owner::replace(&self.file(source), 0o600, format!("{}\n", key.expose()).as_bytes())
    }

    /// Takes the right to bring the key of a source. False if it awaits none now.
    fn take(&self, source: &SourceName, now: Timestamp) -> bool {
        match self.awaiting.lock().get_mut(source) {
            Some(awaited) if !awaited.taken && now < awaited.until => {
                awaited.taken = true;
                true
            }
            _ => false,
        }
    }

    /// Gives the right back, because the key could not be written.
    fn give_back(&self, source: &SourceName) {
        if let Some(awaited) = self.awaiting.lock().get_mut(source) {
            awaited.taken = false;
        }
    }

    fn until(&self, source: &SourceName, now: Timestamp) -> Option<Timestamp> {
        self.awaiting.lock().get(source).map(|awaited| awaited.until).filter(|until| now < *until)
    }
}

impl<I: Inbox> Ingress<I> {
    /// Has a source await its key for this long, and returns until when.
    ///
    /// # Errors
    /// [`LearnError`] if there is no such source, or it has a key.
    pub fn await_key(&self, source: &str, within: Duration) -> Result<Timestamp, LearnError> {
        let shared = &*self.0;
        let _one_at_a_time = shared.changing.lock();
        let route = shared.route_of(source).ok_or_else(|| LearnError::Unknown(source.to_owned()))?;
        let mut awaiting = shared.keys.awaiting.lock();
        match &route.learner {
            None => return Err(LearnError::Configured(source.to_owned())),
            Some(_) if route.has_key => return Err(LearnError::HasKey(source.to_owned())),
            Some(_) if awaiting.get(&route.source).is_some_and(|awaited| awaited.taken) => {
                return Err(LearnError::HasKey(source.to_owned()));
            }
            Some(_) => {}
        }
        let until = shared.env.now().saturating_add(within).unwrap_or(Timestamp::MAX);
        awaiting.insert(route.source.clone(), Awaited { until, taken: false });
        Ok(until)
    }

    /// Removes the key that the sender of a source brought. From then on every request of it is refused.
    ///
    /// # Errors
    /// [`LearnError`] if there is no such source or key, or its file can't be removed.
    pub fn forget_key(&self, source: &str) -> Result<(), LearnError> {
        let shared = &*self.0;
        let route = shared.route_of(source).ok_or_else(|| LearnError::Unknown(source.to_owned()))?;
        if route.learner.is_none() {
            return Err(LearnError::Configured(source.to_owned()));
        }
        let path = shared.keys.file(&route.source);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(LearnError::NoKey(source.to_owned()));
            }
            Err(error) => return Err(LearnError::Io { path, error }),
        }
        Ok(shared.rekey(&route.source)?)
    }

    /// Whether a source has a key. None if there is no such source.
    pub fn key_state(&self, source: &str) -> Option<KeyState> {
        let shared = &*self.0;
        let route = shared.route_of(source)?;
        Some(match (&route.learner, route.has_key) {
            (None, _) => KeyState::Configured,
            (Some(_), true) => KeyState::Brought,
            (Some(_), false) => match shared.keys.until(&route.source, shared.env.now()) {
                Some(until) => KeyState::Awaited(until),
                None => KeyState::Missing,
            },
        })
    }
}

impl<I: Inbox> Shared<I> {
    fn route_of(&self, source: &str) -> Option<Arc<Route>> {
        self.routes.load().values().find(|route| route.source.as_str() == source).cloned()
    }

    /// Keeps the key that a request brings, if its source awaits one.
    ///
    /// # Errors
    /// The end of the request, if the key is refused or can't be written.
    pub(super) async fn learn(&self, route: &Route, key: Secret) -> Result<(), Ending> {
        let not_awaited = || Ending::from(Refusal::KeyNotAwaited);
        let learner = route.learner.as_ref().filter(|_| !route.has_key).ok_or_else(not_awaited)?;
        // Strangers learn nothing by an unfit key: it is refused in the same way.
        if !is_fit(learner, &key) {
            return Err(Refusal::UnfitKey.into());
        }
        if !self.keys.take(&route.source, self.env.now()) {
            return Err(not_awaited());
        }
        let (keys, source) = (Arc::clone(&self.keys), route.source.clone());
        let written = tokio::task::spawn_blocking(move || keys.write(&source, &key)).await;
        let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
        let applied = match written {
            Ok(()) => self.rekey(&route.source).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = applied {
            self.keys.give_back(&route.source);
            return Err(StoreError::Io(format!("the key that the sender brought: {error}")).into());
        }
        self.keys.awaiting.lock().remove(&route.source);
        tracing::info!(source = %route.source, "the sender brought its key, and it is in use now");
        Ok(())
    }

    /// Gives the route of a source the key that is in its file now.
    fn rekey(&self, source: &SourceName) -> Result<(), KeyError> {
        let _one_at_a_time = self.changing.lock();
        let Some(route) = self.route_of(source.as_str()) else { return Ok(()) };
        let Some(learner) = &route.learner else { return Ok(()) };
        let with_key = self.keys.with_keys(std::slice::from_ref(&**learner))?;
        let mut routes = Routes::clone(&self.routes.load());
        for source in &with_key {
            let route = route.with_verifier(Verifier::new(source)?);
            routes.insert(route.path.clone(), Arc::new(route));
        }
        self.routes.store(Arc::new(routes));
        Ok(())
    }
}

/// Whether a text that a sender brings can be the key of this source.
fn is_fit(source: &Source, key: &Secret) -> bool {
    let text = key.expose();
    let with_key = Source { secrets: vec![key.clone()], ..source.clone() };
    text.len() >= MIN_KEY
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && Verifier::new(&with_key).is_ok()
}

#[cfg(test)]
mod tests {
    use posthouse_model::config::Scheme;

    use super::*;

    use crate::ingress::fixtures;

    const KEY: &str = "a487172713dfa9f0ff51466f8a6aa84a";

    fn source() -> Source {
        Source {
            scheme: Scheme::named("asana").unwrap(),
            secrets: Vec::new(),
            brings_key: true,
            ..fixtures::source("standard-webhooks")
        }
    }

    #[test]
    fn a_key_is_its_owners_alone_and_reads_back() {
        let state = tempfile::tempdir().unwrap();
        let keys = BroughtKeys::new(state.path());
        let source = source();
        assert!(keys.with_keys(std::slice::from_ref(&source)).unwrap()[0].secrets.is_empty());
        keys.write(&source.name, &Secret::new(KEY)).unwrap();
        let file = keys.file(&source.name);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(&state.path().join("keys"))), (0o600, 0o700));
        let read = keys.with_keys(std::slice::from_ref(&source)).unwrap();
        assert_eq!(read[0].secrets, [Secret::new(KEY)]);
        // config.toml decides where a source names its secrets.
        let configured = Source { brings_key: false, ..source.clone() };
        assert!(keys.with_keys(&[configured]).unwrap()[0].secrets.is_empty());

        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let error = keys.with_keys(&[source]).unwrap_err().to_string();
        assert!(error.contains("other users may read it (mode 640)") && !error.contains(KEY), "{error}");
    }

    #[test]
    fn a_key_that_nobody_could_mean_is_unfit() {
        let source = source();
        assert!(is_fit(&source, &Secret::new(KEY)));
        for text in
            ["", "short", "fifteen-letters", &"a".repeat(32), "${A_PLACEHOLDER}", "with a blank in it"]
        {
            assert!(!is_fit(&source, &Secret::new(text)), "{text}");
        }
    }

    #[test]
    fn a_key_is_awaited_for_a_while_and_taken_once() {
        let keys = BroughtKeys::new(Path::new("unused"));
        let name = source().name;
        let at = |second| Timestamp::from_second(second).unwrap();
        assert!(!keys.take(&name, at(10)));
        keys.awaiting.lock().insert(name.clone(), Awaited { until: at(100), taken: false });
        assert_eq!((keys.until(&name, at(99)), keys.until(&name, at(100))), (Some(at(100)), None));
        assert!(!keys.take(&name, at(100)), "its time is over");
        assert!(keys.take(&name, at(99)));
        assert!(!keys.take(&name, at(99)), "another request has brought it");
        keys.give_back(&name);
        assert!(keys.take(&name, at(99)));
    }
}
