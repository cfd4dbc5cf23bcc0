//! A revision is one content of a plugin's file: compiled, linked and described by its guest.
//!
//! ```text
//! file ─► read, SHA-256 ─► AOT code (cache, or compiler child) ─► link ─► instantiate ─► describe ─► check
//! ```
//!
//! Every defect that loading can show is found here, before the plugin gets its first event.

use std::{path::Path, sync::Arc};

use parking_lot::Mutex;
use posthouse_model::{Capability, Job, LogLine, Pattern, Question, Triggers, config::PluginSettings};
use wasmtime::component::Component;

use super::{
    compile::Compiled,
    engine::{Engine, Place},
    folder::{self, Content, ReadError},
    instance::Instance,
    report::{self, AttemptFailure, AttemptReport, Finished},
};

use crate::imports::{Invocation, Linked, Manifest, PluginContext, Tap};

/// The most bytes of a description.
const DESCRIPTION: usize = 256;
/// The most patterns in a manifest.
const PATTERNS: usize = 256;

/// Why a revision does not load.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Its file was not read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It did not compile, or its code could not be loaded.
    #[error("{0}")]
    Compile(String),
    /// It imports something that posthouse does not offer, or lacks the export that makes it a plugin.
    #[error("it does not link: {0}")]
    Link(String),
    /// The guest's `describe` failed.
    #[error("`describe` failed: {error}")]
    Describe {
        /// The error.
        error: String,
        /// The guest's stack, innermost function first.
        trace: Option<String>,
    },
    /// Its manifest is invalid.
    #[error("its manifest is not valid: {0}")]
    Manifest(String),
}

/// A revision that loads, and its manifest.
#[derive(Debug)]
pub struct Inspection {
    /// The SHA-256 of the file, hexadecimal.
    pub revision: String,
    /// One line for people.
    pub description: String,
    /// The subscription: from config.toml if it is set there, else from the plugin.
    pub events: Vec<Pattern>,
    /// The capabilities that it needs to work.
    pub requires: Vec<Capability>,
    /// Those of them that it was not granted.
    pub lacking: Vec<Capability>,
    /// The triggers that it decides about.
    pub intercepts: Triggers,
    /// The lines that it logged during `describe`.
    pub logs: Vec<LogLine>,
    pub(super) code: Code,
}

/// Loads the file of the plugin with this name and asks it for its manifest, without a store and without grants.
///
/// # Errors
/// [`LoadError`] says what is wrong with the plugin.
pub async fn inspect(
    engine: &Engine,
    name: &str,
    path: &Path,
    settings: &PluginSettings,
) -> Result<Inspection, LoadError> {
    let content = read(path).await?;
    load(engine, name, &content, Arc::new(settings.clone())).await
}

/// Reads a plugin's file, off the runtime's threads.
pub(super) async fn read(path: &Path) -> Result<Content, ReadError> {
    let owned = path.to_owned();
    tokio::task::spawn_blocking(move || folder::read(&owned)).await.unwrap_or_else(|error| {
        Err(ReadError::Io { path: path.to_owned(), error: std::io::Error::other(error) })
    })
}

/// Loads one content of a plugin's file.
pub(super) async fn load(
    engine: &Engine,
    plugin: &str,
    content: &Content,
    settings: Arc<PluginSettings>,
) -> Result<Inspection, LoadError> {
    let linked = engine.parts().links.get(&content.revision, link(engine, content)).await?;
    let context = Arc::new(PluginContext {
        plugin: plugin.to_owned(),
        settings: Arc::clone(&settings),
        env: engine.parts().env.clone(),
        kv: None,
        database: None,
        plugin_http: None,
    });
    let place = engine.place_to_load().await;
    let ticking = engine.tick();
    let mut instance = Instance::new(engine, context, Invocation::Describe, place);
    let manifest = instance.describe(&linked).await;
    let logs = instance.state().take_logs();
    let manifest = manifest.map_err(|error| match report::stopped(&error, instance.state(), &logs) {
        AttemptFailure::Stopped { error, trace } => LoadError::Describe { error, trace },
        other => LoadError::Describe { error: format!("{other:?}"), trace: None },
    })?;
    drop((instance, ticking));
    let Checked { description, events, requires, intercepts } =
        check(manifest).map_err(LoadError::Manifest)?;
    if !intercepts.is_empty() && !linked.decides() {
        let problem = "it declares `intercepts`, and does not export the interface `interceptor`";
        return Err(LoadError::Manifest(problem.to_owned()));
    }
    Ok(Inspection {
        revision: content.revision.clone(),
        description,
        events: settings.events.clone().unwrap_or(events),
        lacking: requires.iter().copied().filter(|&need| !settings.grants.allows(need)).collect(),
        requires,
        intercepts,
        logs,
        code: Code { linked, idle: Mutex::default() },
    })
}

/// Gets a revision's code from the cache or the compiler, and links it.
async fn link(engine: &Engine, content: &Content) -> Result<Linked, LoadError> {
    let parts = engine.parts();
    let failed = |error: &dyn std::error::Error| LoadError::Compile(error.to_string());
    let component = match cached(engine, content, None).await? {
        Some(component) => component,
        None => {
            let compiled = parts.compiler.compile(&parts.cache, &content.revision, &content.wasm).await;
            let compiled = compiled.map_err(|error| failed(&error))?;
            let component = cached(engine, content, Some(compiled)).await?;
            component.ok_or_else(|| LoadError::Compile("its AOT code does not load".to_owned()))?
        }
    };
    Linked::new(&parts.linker, &component).map_err(|error| LoadError::Link(format!("{error:#}")))
}

/// Returns a revision's code from the cache, after adding `compiled` to it. It reads and hashes all of the
/// code, so it runs off the runtime's threads.
async fn cached(
    engine: &Engine,
    content: &Content,
    compiled: Option<Compiled>,
) -> Result<Option<Component>, LoadError> {
    let (engine, revision) = (engine.clone(), content.revision.clone());
    let looked = tokio::task::spawn_blocking(move || {
        let parts = engine.parts();
        if let Some(compiled) = compiled {
            parts.cache.put(&revision, &compiled.file())?;
        }
        parts.cache.get(&parts.wasm, &revision)
    });
    let looked = looked.await.map_err(|error| LoadError::Compile(error.to_string()))?;
    looked.map_err(|error| LoadError::Compile(error.to_string()))
}

/// A manifest that is valid.
struct Checked {
    description: String,
    events: Vec<Pattern>,
    requires: Vec<Capability>,
    intercepts: Triggers,
}

/// Checks a guest's manifest.
fn check(manifest: Manifest) -> Result<Checked, String> {
    let description = manifest.description.trim().to_owned();
    if description.len() > DESCRIPTION {
        return Err(format!("its description has {} bytes; {DESCRIPTION} is the limit", description.len()));
    }
    if description.chars().any(char::is_control) {
        return Err("its description holds a control character; it is one line".to_owned());
    }
    if manifest.events.len() > PATTERNS {
        return Err(format!("it declares {} patterns; {PATTERNS} is the limit", manifest.events.len()));
    }
    let mut events = Vec::new();
    for text in manifest.events {
        let pattern = Pattern::new(&text).map_err(|error| {
            let mut error = error.to_string();
            crate::imports::cut(&mut error, DESCRIPTION);
            error
        })?;
        if !events.contains(&pattern) {
            events.push(pattern);
        }
    }
    let mut requires = Vec::new();
    for capability in manifest.requires {
        if !requires.contains(&capability) {
            requires.push(capability);
        }
    }
    if manifest.intercepts.len() > PATTERNS {
        return Err(format!("it declares {} triggers; {PATTERNS} is the limit", manifest.intercepts.len()));
    }
    let intercepts = Triggers::new(manifest.intercepts.iter().map(String::as_str))
        .map_err(|error| format!("a trigger of `intercepts`: {error}"))?;
    Ok(Checked { description, events, requires, intercepts })
}

/// A revision's code, with the instances kept for reuse.
pub(super) struct Code {
    linked: Arc<Linked>,
    idle: Mutex<Vec<Instance>>,
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Code({})", self.linked.interface())
    }
}

impl Code {
    /// Runs one attempt of a delivery.
    pub(super) async fn attempt(
        &self,
        engine: &Engine,
        context: &Arc<PluginContext>,
        job: &Job,
    ) -> AttemptReport {
        self.attempt_with(engine, context, job, None).await
    }

    /// Runs one attempt of a delivery. Every host call passes `tap`.
    pub(super) async fn attempt_with(
        &self,
        engine: &Engine,
        context: &Arc<PluginContext>,
        job: &Job,
        tap: Option<Box<dyn Tap>>,
    ) -> AttemptReport {
        let place = engine.place().await;
        self.run(engine, context, job, None, place, tap).await
    }

    /// Asks for a decision about a question, which is that of the job. It is due at the deadline.
    pub(super) async fn decide(
        &self,
        engine: &Engine,
        context: &Arc<PluginContext>,
        job: &Job,
        question: &Question,
        deadline: std::time::Instant,
    ) -> AttemptReport {
        let place = engine.place_to_decide().await;
        self.run(engine, context, job, Some((question, deadline)), place, None).await
    }

    /// Whether the revision decides.
    pub(super) fn decides(&self) -> bool {
        self.linked.decides()
    }

    /// Runs the guest in this place: it handles the event of the job, or decides about a question.
    async fn run(
        &self,
        engine: &Engine,
        context: &Arc<PluginContext>,
        job: &Job,
        question: Option<(&Question, std::time::Instant)>,
        place: Place,
        tap: Option<Box<dyn Tap>>,
    ) -> AttemptReport {
        let started_at = context.env.now();
        let begun = std::time::Instant::now();
        let ticking = engine.tick();
        let invocation = Invocation::Handle(job.delivery);
        let resting = if context.settings.reuse > 1 { self.idle.lock().pop() } else { None };
        let mut instance = match resting {
            Some(mut instance) => {
                instance.again(invocation, place);
                instance
            }
            None => Instance::new(engine, Arc::clone(context), invocation, place),
        };
        if let Some(tap) = tap {
            instance.state().tap(tap);
        }
        let returned = match question {
            None => instance.handle(&self.linked, job).await.map(|handled| handled.map(|()| None)),
            Some((question, deadline)) => {
                let decided = instance.decide(&self.linked, job, question, deadline).await;
                decided.map(|decided| decided.map(Some))
            }
        };
        let duration = begun.elapsed();
        drop(ticking);
        let state = instance.state();
        let (logs, fetched) = (state.take_logs(), state.take_fetched());
        tracing::trace!(
            plugin = context.plugin,
            delivery = %job.delivery,
            ?duration,
            calls = ?state.calls().collect::<Vec<_>>(),
            "attempt ended"
        );
        let result = match returned {
            Ok(Ok(decision)) => {
                let (effects, transaction) = state.finish();
                Ok(Finished { effects, transaction, decision })
            }
            Ok(Err(failure)) => Err(report::failed(failure, context.settings.limits.reason)),
            Err(error) => Err(report::stopped(&error, state, &logs)),
        };
        let actions = state.take_actions();
        if result.is_ok() {
            self.keep(engine, context, instance);
        }
        AttemptReport { result, started_at, duration, logs, fetched, actions }
    }

    /// Keeps an instance for reuse if it may serve again and a place is free.
    fn keep(&self, engine: &Engine, context: &PluginContext, mut instance: Instance) {
        if instance.served() < context.settings.reuse
            && let Some(place) = engine.place_to_rest()
        {
            instance.rest(place);
            self.idle.lock().push(instance);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(description: &str, events: &[&str]) -> Manifest {
        Manifest {
            description: description.to_owned(),
            events: events.iter().map(|text| (*text).to_owned()).collect(),
            requires: vec![Capability::Mail, Capability::Mail],
            intercepts: vec!["PRE_SIGNUP".to_owned(), "PRE_SIGNUP".to_owned()],
        }
    }

    #[test]
    fn a_manifest_is_checked_and_freed_of_doubles() {
        let Checked { description, events, requires, intercepts } =
            check(manifest(" greets \n", &["user.*", "user.*", "*"])).unwrap();
        assert_eq!(intercepts.to_string(), "PRE_SIGNUP");
        assert_eq!(description, "greets");
        assert_eq!(events.iter().map(Pattern::as_str).collect::<Vec<_>>(), ["user.*", "*"]);
        assert_eq!(requires, [Capability::Mail]);
    }

    #[test]
    fn a_manifest_that_makes_no_sense_is_refused() {
        let many = vec!["*"; PATTERNS + 1];
        let cases = [
            (manifest("two\nlines", &["*"]), "control character"),
            (manifest(&"x".repeat(DESCRIPTION + 1), &["*"]), "257 bytes"),
            (manifest("", &["user*"]), "`user*` is not a pattern"),
            (manifest("", &many), "257 patterns"),
        ];
        let odd = Manifest { intercepts: vec!["PRE SIGNUP".to_owned()], ..manifest("", &[]) };
        for (manifest, says) in cases.into_iter().chain([(odd, "a trigger of `intercepts`")]) {
            let Err(error) = check(manifest) else { panic!("{says}") };
            assert!(error.contains(says), "{error}");
        }
    }
}
