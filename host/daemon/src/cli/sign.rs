//! `posthouse sign`: the headers that sign a body as a source would, for curl and for tests.

use std::{path::PathBuf, process::ExitCode};

use jiff::Timestamp;
use posthouse_model::config::Config;

use super::{
    CliError,
    output::{body, say},
    send::fresh_id,
    source::{source, unix_seconds},
};

use crate::{daemon, ingress::sign};

/// The arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The source of config.toml whose secret signs.
    #[arg(long, value_name = "NAME")]
    source: String,
    /// The time of signing, in seconds since 1970; by default now.
    #[arg(long, value_name = "UNIX", value_parser = unix_seconds, allow_negative_numbers = true)]
    at: Option<Timestamp>,
    /// The event's id; by default a new one. A scheme without an id in its headers ignores it.
    #[arg(long)]
    id: Option<String>,
    /// A file with the body, byte for byte; by default standard input.
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
}

/// Prints one `name: value` a line.
///
/// # Errors
/// [`CliError`] if there is no such source, it can't sign, or the body can't be read.
pub fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let source = source(config, Some(&args.source))?;
    let body = body(args.body.as_deref())?;
    let env = daemon::env();
    let id = args.id.unwrap_or_else(|| fresh_id(&env));
    let headers = sign(source, &id, args.at.unwrap_or_else(|| env.now()), &body)
        .map_err(|error| CliError::Failure(error.to_string()))?;
    for (name, value) in headers {
        say(format_args!("{name}: {value}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
