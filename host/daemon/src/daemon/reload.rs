//! Reloads config.toml while the daemon runs.
//!
//! ```text
//!   SIGHUP, or the file changed ──► read it and every secret ──► is all of it valid?
//!                                                                 │ no: nothing changes, and the log and
//!                                                                 │     `systemctl status` say why
//!                                                                 ▼
//!                                            swap: sources, then plugins, then the log level
//! ```
//!
//! A setting that cannot change while the daemon runs keeps its value until the next start, and the log names
//! it. A request keeps the source that it began with, an attempt the settings that it began with. No request or
//! attempt is dropped.

use std::{os::unix::fs::MetadataExt as _, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use posthouse_guest::plugin::{Registry, Watcher};
use posthouse_model::{
    ReloadLedger,
    config::{Config, ConfigError, Loaded, ProcessEnvironment, Secrets},
};
use tracing::{error, info, warn};

use super::{DaemonError, Relevel, manager, vitals::Vitals};

use crate::ingress::{Ingress, KeyError};

/// How often the file is checked, with or without file events.
const LOOK: Duration = Duration::from_secs(2);
/// How long the file must be unchanged before it is read, because half a configuration may be valid.
const REST: Duration = Duration::from_millis(100);

/// Why a config.toml was rejected. The previous one stays in effect.
#[derive(Debug, thiserror::Error)]
enum Rejected {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("{0}")]
    Log(String),
}

/// Reads config.toml and applies it.
pub(super) struct Reloader {
    pub(super) path: PathBuf,
    /// The current configuration.
    pub(super) config: Arc<ArcSwap<Config>>,
    pub(super) relevel: Relevel,
    pub(super) ingress: Ingress,
    pub(super) registry: Registry,
    pub(super) vitals: Vitals,
    pub(super) ledger: Arc<ReloadLedger>,
}

impl Reloader {
    /// Reads and applies config.toml, or logs why it is rejected.
    pub(super) async fn reload(&self, why: &str) {
        manager::reloading();
        info!(why, "reloading `{}`", self.path.display());
        let applied = self.apply().await;
        self.ledger.count(applied.is_ok());
        match applied {
            Ok(kept) => {
                for key in &kept {
                    warn!(
                        key,
                        "`{key}` can't change while the daemon runs; the new value applies after a restart"
                    );
                }
                let waits = format!("these changes need a restart of the daemon: {}", kept.join(", "));
                self.vitals.complain((!kept.is_empty()).then_some(waits));
                info!("new configuration applied");
            }
            Err(reason) => {
                error!("new configuration rejected, the previous one stays in effect: {reason}");
                self.vitals.complain(Some(format!(
                    "configuration rejected, the previous one is in effect: {reason}"
                )));
            }
        }
        manager::ready(&self.vitals.status().await);
    }

    /// Applies config.toml. Returns the keys whose new values apply after a restart.
    async fn apply(&self) -> Result<Vec<&'static str>, Rejected> {
        let path = self.path.clone();
        let read = move || Loaded::read(&path, &ProcessEnvironment, Secrets::All);
        let read = tokio::task::spawn_blocking(read).await;
        let Loaded { mut config, warnings, .. } =
            read.map_err(|error| Rejected::Log(error.to_string()))??;
        let running = self.config.load_full();
        let kept = keep(&running, &mut config);
        // Steps that may fail run first. Each swaps all of its part or nothing.
        if config.log.level != running.log.level {
            (self.relevel)(&config.log).map_err(Rejected::Log)?;
        }
        if let Err(error) = self.ingress.replace_sources(&config.sources) {
            let _ = (self.relevel)(&running.log);
            return Err(error.into());
        }
        if let Err(error) = self.ingress.replace_interceptors(&config.interceptors) {
            let _ = (self.relevel)(&running.log);
            let _ = self.ingress.replace_sources(&running.sources);
            return Err(error.into());
        }
        for warning in warnings {
            warn!("{warning}");
        }
        self.registry.databases().extend(&config.databases);
        self.config.store(Arc::new(config));
        self.registry.resettle().await;
        Ok(kept)
    }
}

/// Gives `new` the values of `running` that cannot change. Returns the keys whose values differed.
fn keep(running: &Config, new: &mut Config) -> Vec<&'static str> {
    // A new section does not compile until its author decides whether a reload swaps it.
    let Config {
        server: _,
        admin: _,
        store: _,
        mail: _,
        databases: _,
        http: _,
        log: _,
        telemetry: _,
        plugins: _,
        schemes: _,
        sources: _,
        interceptors: _,
        plugin: _,
    } = running;
    let mut kept = Vec::new();
    // A new database is available at once. Changing one would leave markers behind in the old database.
    for (name, settings) in &running.databases {
        match new.databases.get_mut(name) {
            Some(changed) if changed != settings => {
                changed.clone_from(settings);
                kept.push("databases");
            }
            _ => {}
        }
    }
    kept.dedup();
    macro_rules! keep {
        ($($key:literal: $($field:ident).+;)+) => {$(
            if new.$($field).+ != running.$($field).+ {
                new.$($field).+.clone_from(&running.$($field).+);
                kept.push($key);
            }
        )+};
    }
    keep! {
        "server.listen": server.listen;
        "server.max_body": server.max_body;
        "server.max_requests": server.max_requests;
        "server.header_timeout": server.header_timeout;
        "server.body_timeout": server.body_timeout;
        "server.idle_timeout": server.idle_timeout;
        "server.trusted_proxies": server.trusted_proxies;
        "server.shutdown_timeout": server.shutdown_timeout;
        "admin.listen": admin.listen;
        "admin.token": admin.token;
        "admin.hosts": admin.hosts;
        "store.url": store.path;
        "store.state": store.state;
        "store.retention": store.retention;
        "store.max_backlog": store.max_backlog;
        "store.min_free": store.min_free;
        "store.max_size": store.max_size;
        "mail.url": mail.target;
        "mail.retry": mail.retry;
        "http.ca": http.ca;
        "http.nameservers": http.nameservers;
        "http.timeout": http.timeout;
        "http.retry": http.retry;
        "http.retry_after": http.retry_after;
        "log.format": log.format;
        "telemetry.otlp": telemetry.otlp;
        "telemetry.header": telemetry.header;
        "telemetry.sample": telemetry.sample;
        "telemetry.service_name": telemetry.service_name;
        "plugins.dir": plugins.dir;
        "plugins.rescan": plugins.rescan;
        "plugins.instances": plugins.instances;
        "plugins.compile": plugins.compile;
    }
    kept
}

/// Waits for reasons to reload.
pub(super) struct Reasons {
    hangup: tokio::signal::unix::Signal,
    path: PathBuf,
    watcher: Watcher,
    seen: Option<Stamp>,
}

/// Identifies a version of the file without reading it: device, inode, size, time of the last change.
type Stamp = (u64, u64, u64, i64, i64);

impl Reasons {
    pub(super) fn new(path: PathBuf) -> Result<Self, DaemonError> {
        let hangup = super::on_signal(tokio::signal::unix::SignalKind::hangup())?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let watcher = Watcher::new(folder.map_or_else(|| PathBuf::from("."), PathBuf::from));
        let seen = stamp(&path);
        Ok(Self { hangup, path, watcher, seen })
    }

    /// Waits for the next reason, and returns it for the log.
    pub(super) async fn next(&mut self) -> &'static str {
        loop {
            self.watcher.arm();
            // This reload reads changes made before it; the next one sees later changes.
            let now = stamp(&self.path);
            if now.is_some() && now != self.seen {
                tokio::time::sleep(REST).await;
                if stamp(&self.path) == now {
                    self.seen = now;
                    return "the file has changed";
                }
                continue;
            }
            tokio::select! {
                _ = self.hangup.recv() => {
                    self.seen = stamp(&self.path);
                    return "SIGHUP";
                }
                () = self.watcher.changed(LOOK) => {}
            }
        }
    }
}

fn stamp(path: &std::path::Path) -> Option<Stamp> {
    let file = std::fs::metadata(path).ok()?;
    Some((file.dev(), file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use posthouse_model::config::Environment;

    use super::*;

    struct Nothing;

    impl Environment for Nothing {
        fn variable(&self, _: &str) -> Option<OsString> {
            None
        }
    }

    fn config(text: &str) -> Config {
        Loaded::parse(text, std::path::Path::new("config.toml"), &Nothing, Secrets::All).unwrap().config
    }

    #[test]
    fn what_can_not_change_is_named_and_keeps_its_value() {
        let running = config("");
        let mut new = config(
            "[server]\nlisten = \"127.0.0.1:1\"\nmax_body = \"2MiB\"\n[store]\nurl = \"sqlite:other.db\"\n\
             [log]\nlevel = \"debug\"\nformat = \"json\"\n[plugins]\ndir = \"other\"\nconcurrency = 3",
        );
        let kept = keep(&running, &mut new);
        assert_eq!(kept, ["server.listen", "server.max_body", "store.url", "log.format", "plugins.dir"]);
        let mut expected = running.clone();
        expected.log.level = "debug".to_owned();
        expected.plugins.defaults.concurrency = 3;
        assert_eq!(new, expected);
    }

    #[test]
    fn nothing_is_named_where_only_what_can_change_does() {
        let running = config("");
        let mut new = config("[log]\nlevel = \"warn\"\n[plugin.a]\nreuse = 2\n[plugin.a.config]\nb = 1");
        assert!(keep(&running, &mut new.clone()).is_empty());
        assert!(keep(&new.clone(), &mut new).is_empty());
    }
}
