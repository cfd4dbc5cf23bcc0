//! `posthouse serve`: sets up the log and runs the daemon.

use std::{path::Path, process::ExitCode};

use posthouse_model::config::Loaded;
use tracing::warn;

use super::{CliError, log};

use crate::daemon::{self, Service};

/// The arguments.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// [`CliError`] if the daemon can't start, or did not end well.
pub fn run(_: Args, path: &Path, loaded: Loaded) -> Result<ExitCode, CliError> {
    let relevel = log::start(&loaded.config.log)?;
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    let service = Service { config: loaded.config, path: path.to_owned(), files: loaded.files, relevel };
    daemon::run(service).map_err(|error| {
        let told = super::chain(&error);
        if error.is_configuration() { CliError::Misconfigured(told) } else { CliError::Failure(told) }
    })?;
    Ok(ExitCode::SUCCESS)
}
