//! Loads one file of the plugins folder, and returns the result. It changes no plugin.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use posthouse_model::config::PluginSettings;
use tokio::sync::Notify;

use super::{
    folder::{Content, Found, ReadError, Stamp},
    revision::{self, Inspection, LoadError},
    running::Services,
};

/// A plugin's file, which has been read.
pub(super) struct File {
    path: PathBuf,
    /// The stamp of its content; of the file if it could not be read.
    pub(super) stamp: Stamp,
    content: Result<Content, ReadError>,
}

/// The result of loading a file.
pub(super) enum Outcome {
    /// It loads.
    Loads(Box<Inspection>),
    /// It does not load.
    Refused {
        /// The SHA-256 of its content, hexadecimal. None if it could not be read.
        sha256: Option<String>,
        /// The reason.
        error: String,
    },
    /// It does not load, but it changed less than a second ago, so it may be half written.
    Young,
    /// It changed or left while it was being loaded.
    Outdated,
}

impl File {
    /// Reads a file.
    pub(super) async fn read(found: Found) -> Self {
        let Found { path, stamp, .. } = found;
        let content = revision::read(&path).await;
        let stamp = content.as_ref().map_or(stamp, |content| content.stamp);
        Self { path, stamp, content }
    }

    /// The SHA-256 of its content, hexadecimal. None if it could not be read.
    pub(super) fn sha256(&self) -> Option<&str> {
        self.content.as_ref().ok().map(|content| &*content.revision)
    }

    /// Compiles the content, and asks the plugin with this name for its manifest. `changed` says that the file
    /// may have changed. If it has, this stops.
    pub(super) async fn load(
        self,
        services: &Services,
        name: &str,
        settings: Arc<PluginSettings>,
        changed: &Notify,
    ) -> Outcome {
        let Self { path, stamp, content } = self;
        let (sha256, loaded) = match content {
            Ok(content) => tokio::select! {
                loaded = revision::load(&services.engine, name, &content, settings) => {
                    (Some(content.revision), loaded)
                }
                () = outdated(&path, &content, changed) => return Outcome::Outdated,
            },
            Err(error) => (None, Err(LoadError::Read(error))),
        };
        match loaded {
            Ok(inspection) => Outcome::Loads(Box::new(inspection)),
            Err(LoadError::Read(ReadError::Changing(_))) => Outcome::Young,
            Err(_) if stamp.is_young(services.env.now()) => Outcome::Young,
            Err(error) => Outcome::Refused { sha256, error: error.to_string() },
        }
    }
}

/// Returns once the file is gone or its content has changed. A new timestamp alone does not count.
async fn outdated(path: &Path, content: &Content, changed: &Notify) {
    loop {
        changed.notified().await;
        match revision::read(path).await {
            Ok(now) if now.revision == content.revision => {}
            // Another program is writing to it. The next notification shows the result.
            Err(ReadError::Changing(_)) => {}
            _ => return,
        }
    }
}
