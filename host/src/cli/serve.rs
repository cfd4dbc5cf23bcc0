//! `posthouse serve`: sets up the log and runs the daemon.

use std::{io::IsTerminal as _, path::Path, process::ExitCode};

use tracing::warn;
use tracing_subscriber::{EnvFilter, reload};

use super::CliError;
use crate::{
    config::{Loaded, Log, LogFormat},
    daemon::{self, Relevel, Service},
};

/// In place of `level` of `[log]`, where it is set.
const LEVEL: &str = "POSTHOUSE_LOG";

/// The arguments.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// [`CliError`] where the daemon can't start, or did not end well.
pub fn run(_: Args, path: &Path, loaded: Loaded) -> Result<ExitCode, CliError> {
    let relevel = start_log(&loaded.config.log)?;
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    let service = Service { config: loaded.config, path: path.to_owned(), relevel };
    daemon::run(service).map_err(|error| {
        let told = super::chain(&error);
        if error.is_configuration() { CliError::Misconfigured(told) } else { CliError::Failure(told) }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Starts the log, and returns how it follows another `[log]`.
fn start_log(log: &Log) -> Result<Relevel, CliError> {
    let filter = filter(log).map_err(CliError::Misconfigured)?;
    // A line that can't be written, the disk being full, is lost: to complain of it in the same place
    // would end the thread that wrote it.
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let (started, relevel): (_, Relevel) = match log.format {
        LogFormat::Human => {
            let lines = lines.with_ansi(std::io::stderr().is_terminal()).with_filter_reloading();
            let handle = lines.reload_handle();
            (lines.try_init(), following(move |filter| handle.reload(filter)))
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_filter_reloading();
            let handle = lines.reload_handle();
            (lines.try_init(), following(move |filter| handle.reload(filter)))
        }
    };
    started.map_err(|error| CliError::Failure(format!("the log can't be started: {error}")))?;
    Ok(relevel)
}

fn following(put: impl Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync + 'static) -> Relevel {
    Box::new(move |log| put(filter(log)?).map_err(|error| error.to_string()))
}

/// What the log shows, or why that can't be told.
fn filter(log: &Log) -> Result<EnvFilter, String> {
    let (level, wanted_by) = match std::env::var(LEVEL) {
        Ok(level) if !level.is_empty() => (level, LEVEL),
        _ => (log.level.clone(), "`log.level`"),
    };
    EnvFilter::try_new(&level)
        .map_err(|error| format!("{wanted_by} is no filter of the log: {error}; `info` is one"))
}
