//! `posthouse verify`: whether a signature is valid according to the daemon's own code, and why not.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use http::Method;
use jiff::Timestamp;
use posthouse_model::config::Config;

use super::{
    CliError, complain,
    output::{body, say},
    source::{addressed, source, unix_seconds},
};

use crate::{
    daemon,
    ingress::{Given, Offline, verify_offline},
};

/// The arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The source in config.toml that the request claims to be from.
    #[arg(long, value_name = "NAME")]
    source: String,
    /// The time of verification, in seconds since 1970; by default now.
    #[arg(long, value_name = "UNIX", value_parser = unix_seconds, allow_negative_numbers = true)]
    at: Option<Timestamp>,
    /// The method of the request.
    #[arg(long, value_name = "METHOD", default_value = "POST")]
    method: Method,
    /// The address that the sender has, where its scheme signs that; by default `url` of the source.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The raw query of the request, without its `?`.
    #[arg(long, value_name = "QUERY")]
    query: Option<String>,
    /// A header of the request; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// A file with the certificate that the daemon would fetch. Its issuer is not checked.
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// A file with the JSON Web Keys that the daemon would fetch.
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,
    /// A file with exactly the bytes of the body; by default standard input.
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
}

/// Prints `valid`, or `invalid: REASON` with exit code 1. Hints to the cause go to standard error.
///
/// # Errors
/// [`CliError`] if there is no such source, or the body can't be read.
pub fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let (source, query) = addressed(source(config, Some(&args.source))?, args.url, args.query);
    let body = body(args.body.as_deref())?;
    let marked =
        body.starts_with(b"\xef\xbb\xbf") || body.starts_with(b"\xff\xfe") || body.starts_with(b"\xfe\xff");
    let at = args.at.unwrap_or_else(|| daemon::env().now());
    let certificate = args.certificate.as_deref().map(file).transpose()?;
    let jwks = args.jwks.as_deref().map(json).transpose()?;
    let given = Given { certificate, jwks };
    let request = Offline { method: args.method, query, headers: args.headers, body: body.into(), given };
    let explanation = verify_offline(&source, &request, at);
    let code = match explanation.verdict {
        Ok(()) => {
            say("valid")?;
            ExitCode::SUCCESS
        }
        Err(reason) => {
            say(format_args!("invalid: {reason}"))?;
            ExitCode::from(1)
        }
    };
    explanation.hints.iter().for_each(|hint| complain(hint));
    if code != ExitCode::SUCCESS && marked {
        complain(
            "the body begins with a byte order mark, and the signature covers it; did the sender send it?",
        );
    }
    Ok(code)
}

fn file(path: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(path)
        .map_err(|error| CliError::Failure(format!("`{}` can't be read: {error}", path.display())))
}

fn json(path: &Path) -> Result<serde_json::Value, CliError> {
    serde_json::from_slice(&file(path)?)
        .map_err(|error| CliError::Failure(format!("`{}` is no JSON: {error}", path.display())))
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim_matches([' ', '\t']).to_owned()))
        }
        _ => Err("write NAME: VALUE".to_owned()),
    }
}
