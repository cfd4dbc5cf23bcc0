//! `posthouse check`: whether the daemon would start with this config.toml, and what each plugin gets and
//! lacks. It opens no store, listens nowhere and leaves nothing behind.
//!
//! Results go to standard output, errors to standard error.

use std::{path::Path, process::ExitCode};

use posthouse_egress::Egress;
use posthouse_guest::plugin::{self, Components, Engine, EngineOptions, Inspection, LoadError};
use posthouse_model::{
    Grants, Pattern,
    config::{Config, Interceptor, Loaded, PluginSettings, Source},
    counted,
};

use super::{CliError, complain, output::say};

use crate::{
    daemon,
    ingress::{BroughtKeys, Verifier},
};

/// The arguments.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Returns exit code 0 if all is well, 78 if config.toml has an error, 1 if a plugin would not run.
///
/// # Errors
/// [`CliError`] if config.toml has an error, or the plugins can't be read.
pub fn run(_: Args, path: &Path, loaded: Loaded) -> Result<ExitCode, CliError> {
    let Loaded { config, warnings, .. } = loaded;
    for warning in warnings {
        complain(&format!("warning: {warning}"));
    }
    Egress::new(&config.http, daemon::env()).map_err(|error| CliError::Misconfigured(error.to_string()))?;
    // The layer above config makes the keys, so config does not find these errors.
    let keys = BroughtKeys::new(&config.store.state_dir());
    let sources = keys.with_keys(&config.sources).map_err(|e| CliError::Misconfigured(e.to_string()))?;
    let unfit: Vec<_> = sources
        .iter()
        .chain(config.interceptors.iter().map(|interceptor| &interceptor.source))
        .filter_map(|source| Verifier::new(source).err())
        .map(|e| e.to_string())
        .collect();
    if !unfit.is_empty() {
        return Err(CliError::Misconfigured(unfit.join("\n")));
    }
    say(format_args!("{}: ok", path.display()))?;
    if config.sources.is_empty() && config.interceptors.is_empty() {
        complain("warning: config.toml has no [[source]], so the daemon accepts no webhooks");
    }
    sources.iter().try_for_each(tell_source)?;
    config.interceptors.iter().try_for_each(tell_interceptor)?;
    match check_plugins(&config)? {
        (0, _) => Ok(ExitCode::SUCCESS),
        (bad, all) => Err(CliError::Failure(format!(
            "{bad} of {} would not run; see above",
            if config.interceptors.is_empty() {
                counted(all as u64, "plugin")
            } else {
                format!("{all} plugins and interceptors")
            }
        ))),
    }
}

fn tell_source(source: &Source) -> Result<(), CliError> {
    say(format_args!("source {}: {}, scheme {}", source.name, source.path, source.scheme.as_str()))?;
    match (source.brings_key, source.secrets.is_empty()) {
        (false, _) => say(format_args!("  secrets: {}", source.secrets.len()))?,
        (true, false) => say("  secrets: the key that its sender brought")?,
        (true, true) => {
            say("  secrets: none yet")?;
            complain(&format!(
                "warning: source `{0}` has no key yet and refuses every request; run `posthouse senders learn {0}`, \
                 and make the webhook at its sender",
                source.name
            ));
        }
    }
    if !source.headers.is_empty() {
        say(format_args!("  headers for plugins: {}", source.headers.join(", ")))?;
    }
    if let Some(weakness) = source.scheme.weakness() {
        complain(&format!(
            "warning: source `{}`, scheme {}: {weakness}",
            source.name,
            source.scheme.as_str()
        ));
    }
    if let Some(catch_up) = &source.catch_up {
        let every = humantime::format_duration(catch_up.every);
        say(format_args!("  catch-up: {}, every {every}, from {}", catch_up.mode.as_str(), catch_up.url))?;
    }
    say(format_args!("  events: {}", joined(&source.events)))
}

fn tell_interceptor(interceptor: &Interceptor) -> Result<(), CliError> {
    let Interceptor { source, triggers, plugin, deadline, on_failure, enforce } = interceptor;
    say(format_args!("interceptor {}: {}, plugin {plugin}", interceptor.name(), source.path))?;
    say(format_args!("  secrets: {}", source.secrets.len()))?;
    say(format_args!("  triggers: {triggers}"))?;
    let deadline = humantime::format_duration(*deadline);
    say(format_args!("  without a decision after {deadline}: {}", on_failure.as_str()))?;
    if !enforce {
        say("  not enforced: always ALLOW")?;
    }
    Ok(())
}

/// The interceptors that could not decide with these plugins, each with the reason.
fn unable(config: &Config, inspected: &Each<Inspection, LoadError>) -> Vec<String> {
    let reason = |interceptor: &Interceptor| {
        let plugin = &interceptor.plugin;
        let found = inspected.iter().find(|(name, _)| name == plugin);
        match found.map(|(_, inspected)| inspected) {
            None => Some(format!("there is no plugin `{plugin}`")),
            // That it does not load is reported with the plugin.
            Some(Err(_)) => None,
            Some(Ok(inspection)) if inspection.intercepts.is_empty() => {
                Some(format!("plugin `{plugin}` does not decide: its manifest has no `intercepts`"))
            }
            Some(Ok(inspection)) => match &*interceptor.triggers.beyond(&inspection.intercepts) {
                [] => None,
                beyond => Some(format!(
                    "plugin `{plugin}` does not decide about {}; it decides about {}",
                    beyond.join(", "),
                    inspection.intercepts
                )),
            },
        }
    };
    let told = |interceptor: &Interceptor| {
        Some(format!("interceptor `{}` would not decide: {}", interceptor.name(), reason(interceptor)?))
    };
    config.interceptors.iter().filter_map(told).collect()
}

/// Loads every plugin in the folder, as the daemon would. Returns how many would not run, and how many there
/// are.
fn check_plugins(config: &Config) -> Result<(usize, usize), CliError> {
    let dir = &config.plugins.dir;
    let looked = look(config)?;
    let has_file = |name: &str| looked.plugins.iter().any(|found| found.name == name);
    for (name, _) in config.plugin.iter().filter(|(name, own)| own.component.is_none() && !has_file(name)) {
        complain(&format!(
            "warning: [plugin.{name}] has no effect: `{}` does not exist",
            dir.join(format!("{name}.wasm")).display()
        ));
    }
    for plugin::Missing { name, reason } in &looked.missing {
        complain(&format!("plugin `{name}` does not load: {reason}"));
    }
    for (file, why) in &looked.ignored {
        complain(&format!("warning: `{}` is not a plugin: {why}", dir.join(file).display()));
    }
    let mut bad = looked.missing.len();
    let all = looked.plugins.len() + bad;
    if looked.plugins.is_empty() {
        say(format_args!("no plugins in `{}`", dir.display()))?;
        let unable = unable(config, &Vec::new());
        unable.iter().for_each(|problem| complain(problem));
        return Ok((bad + unable.len(), all + unable.len()));
    }

    let all = all + config.interceptors.len();
    let inspected = inspect_all(config, looked.plugins)?;
    for problem in unable(config, &inspected) {
        complain(&problem);
        bad += 1;
    }
    for (name, inspected) in inspected {
        if !tell_plugin(&name, inspected, config.settings(&name))? {
            bad += 1;
        }
    }
    Ok((bad, all))
}

/// The result for each plugin, by its name.
pub(super) type Each<T, E> = Vec<(String, Result<T, E>)>;

/// Loads these plugins, as the daemon would.
fn inspect_all(
    config: &Config,
    mut plugins: Vec<plugin::Found>,
) -> Result<Each<Inspection, LoadError>, CliError> {
    let failed = |error: &dyn std::fmt::Display| CliError::Failure(error.to_string());
    // Uses its own cache: code that another user compiles must not be among the code that the daemon trusts.
    let cache = tempfile::tempdir().map_err(|error| failed(&error))?;
    let options = EngineOptions {
        cache_dir: cache.path().join("aot"),
        instances: 1,
        compiler: EngineOptions::this_binary(),
        compile: config.plugins.compile,
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| failed(&error))?;
    let engine = Engine::new(options, daemon::env()).map_err(|error| failed(&error))?;
    plugins.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let inspected = plugins
        .iter()
        .map(|found| {
            let settings = config.settings(&found.name);
            let inspected = runtime.block_on(plugin::inspect(&engine, &found.name, &found.path, settings));
            (found.name.clone(), inspected)
        })
        .collect();
    runtime.shutdown_background();
    Ok(inspected)
}

/// Each plugin of the folder, with the lines of config.toml that it lacks, or the reason why it does not
/// load.
pub(super) fn inspected(config: &Config) -> Result<Each<Vec<String>, String>, CliError> {
    let looked = look(config)?;
    let lines =
        |inspection: Inspection| inspection.lacking.iter().map(|lack| lack.example().to_string()).collect();
    let told = |(name, result): (String, Result<Inspection, LoadError>)| {
        (name, result.map(lines).map_err(|error| super::chain(&error)))
    };
    let missing = looked.missing.into_iter().map(|plugin::Missing { name, reason }| (name, Err(reason)));
    Ok(inspect_all(config, looked.plugins)?.into_iter().map(told).chain(missing).collect())
}

/// Looks through the plugins folder.
fn look(config: &Config) -> Result<plugin::Looked, CliError> {
    let dir = &config.plugins.dir;
    plugin::look(dir, &Components::new(&config.plugin)).map_err(|error| {
        CliError::Failure(format!(
            "the plugins folder `{}` can't be read: {error}; check `[plugins] dir`",
            dir.display()
        ))
    })
}

/// Reports on a plugin, and returns whether it would run.
fn tell_plugin(
    name: &str,
    inspected: Result<Inspection, LoadError>,
    settings: &PluginSettings,
) -> Result<bool, CliError> {
    let PluginSettings { grants, component, .. } = settings;
    let inspection = match inspected {
        Ok(inspection) => inspection,
        Err(error) => {
            complain(&format!("plugin `{name}` does not load: {}", super::chain(&error).replace('\n', "; ")));
            return Ok(false);
        }
    };
    let revision = inspection.revision.get(..12).unwrap_or(&inspection.revision);
    let of = component.as_ref().map(|component| format!(" of {component}.wasm")).unwrap_or_default();
    say(format_args!("plugin {name}: revision {revision}{of}"))?;
    say(format_args!("  {}", inspection.description))?;
    say(format_args!("  events: {}", joined(&inspection.events)))?;
    if !inspection.intercepts.is_empty() {
        say(format_args!("  intercepts: {}", inspection.intercepts))?;
    }
    if let Some(mail) = &grants.mail {
        say(format_args!("  granted: mail from {} to {}", mail.from.join(", "), mail.to.join(", ")))?;
    }
    if let Some(database) = &grants.database {
        say(format_args!("  granted: sql on database {database}"))?;
    }
    for target in &grants.http {
        say(format_args!("  granted: http to {target}"))?;
    }
    if !grants.emit.is_empty() {
        say(format_args!("  granted: emit {}", joined(&grants.emit)))?;
    }
    for source in &grants.signatures {
        say(format_args!("  granted: the signatures of source {source}"))?;
    }
    if *grants == Grants::default() {
        say("  granted: nothing beyond log, config and kv")?;
    }
    for lacking in &inspection.lacking {
        complain(&format!(
            "plugin `{name}` lacks the grant `{lacking}` and would be held; add to [plugin.{name}.grants]: {}",
            lacking.example()
        ));
    }
    Ok(inspection.lacking.is_empty())
}

fn joined(patterns: &[Pattern]) -> String {
    if patterns.is_empty() {
        return "none".to_owned();
    }
    patterns.iter().map(Pattern::as_str).collect::<Vec<_>>().join(", ")
}
