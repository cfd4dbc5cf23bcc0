//! `posthouse sign`: the headers that sign a body as a source would, for curl and for tests.

use std::{path::PathBuf, process::ExitCode};

use http::Method;
use jiff::Timestamp;
use posthouse_model::config::Config;

use super::{
    CliError, complain,
    output::{body, say},
    send::fresh_id,
    source::{addressed, source, unix_seconds},
};

use crate::{
    daemon,
    ingress::{Draft, sign_request},
};

/// The arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The source in config.toml whose secret signs the body.
    #[arg(long, value_name = "NAME")]
    source: String,
    /// The time of signing, in seconds since 1970; by default now.
    #[arg(long, value_name = "UNIX", value_parser = unix_seconds, allow_negative_numbers = true)]
    at: Option<Timestamp>,
    /// The event's id; by default a random one. A scheme without an id in its headers ignores it.
    #[arg(long)]
    id: Option<String>,
    /// The method of the request.
    #[arg(long, value_name = "METHOD", default_value = "POST")]
    method: Method,
    /// The address that the sender has, where its scheme signs that; by default `url` of the source.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The raw query of the request, without its `?`.
    #[arg(long, value_name = "QUERY")]
    query: Option<String>,
    /// The `Content-Type` of the request, where its scheme signs a form in another way.
    #[arg(long, value_name = "TYPE", default_value = "application/json")]
    content_type: String,
    /// A file with exactly the bytes of the body; by default standard input.
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
}

/// Prints one `name: value` a line.
///
/// # Errors
/// [`CliError`] if there is no such source, it can't sign, or the body can't be read.
pub fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let (source, query) = addressed(source(config, Some(&args.source))?, args.url, args.query);
    let body = body(args.body.as_deref())?;
    let env = daemon::env();
    let id = args.id.unwrap_or_else(|| fresh_id(&env));
    let draft = Draft {
        method: &args.method,
        query: query.as_deref(),
        id: &id,
        at: args.at.unwrap_or_else(|| env.now()),
        content_type: &args.content_type,
        body: &body,
    };
    let signed = sign_request(&source, &draft).map_err(|error| CliError::Failure(error.to_string()))?;
    for (name, value) in signed.headers {
        say(format_args!("{name}: {value}"))?;
    }
    if let Some(signed) = signed.query.filter(|signed| Some(signed) != query.as_ref()) {
        complain(&format!("post it with the query `{signed}`, which is signed with it"));
    }
    Ok(ExitCode::SUCCESS)
}
