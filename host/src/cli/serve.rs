//! `posthouse serve`: sets up the log and runs the daemon.

use std::{io::IsTerminal as _, process::ExitCode};

use tracing::warn;
use tracing_subscriber::EnvFilter;

use super::CliError;
use crate::{
    config::{Loaded, Log, LogFormat},
    daemon,
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
pub fn run(_: Args, loaded: Loaded) -> Result<ExitCode, CliError> {
    start_log(&loaded.config.log)?;
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    daemon::run(loaded.config).map_err(|error| {
        let told = super::chain(&error);
        if error.is_configuration() { CliError::Misconfigured(told) } else { CliError::Failure(told) }
    })?;
    Ok(ExitCode::SUCCESS)
}

fn start_log(log: &Log) -> Result<(), CliError> {
    let (level, wanted_by) = match std::env::var(LEVEL) {
        Ok(level) if !level.is_empty() => (level, LEVEL),
        _ => (log.level.clone(), "`log.level`"),
    };
    let filter = EnvFilter::try_new(&level).map_err(|error| {
        CliError::Misconfigured(format!("{wanted_by} is no filter of the log: {error}; `info` is one"))
    })?;
    // A line that can't be written, the disk being full, is lost: to complain of it in the same place
    // would end the thread that wrote it.
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let started = match log.format {
        LogFormat::Human => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| CliError::Failure(format!("the log can't be started: {error}")))
}
