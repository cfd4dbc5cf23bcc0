//! The command line. Each command is a file with its `Args` and a `run`. This module lists the commands,
//! starts them, and prints their errors.
//!
//! An error is one line on standard error that names the thing and the fix. Exit codes: 0, 1 failure, 2
//! usage, 78 configuration.

pub mod audit;
pub mod backup;
pub mod catch_up;
pub mod check;
pub mod client;
pub mod compile;
pub mod completions;
pub mod decisions;
pub mod deliveries;
pub mod doctor;
pub mod events;
pub mod init;
mod log;
pub mod outbox;
pub mod output;
pub mod plugins;
pub mod replay;
pub mod restore;
pub mod send;
pub mod senders;
pub mod serve;
pub mod sign;
pub mod source;
pub mod stats;
pub mod table;
pub mod verify;

use std::{
    error::Error,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use posthouse_model::config::{Config, ConfigError, Loaded, ProcessEnvironment, Secrets};

use crate::ingress::BroughtKeys;

/// Verifies webhooks, stores them durably and hands each event to sandboxed WASM plugins.
#[derive(Debug, Parser)]
#[command(name = "posthouse", version, about, max_term_width = 100)]
pub struct Cli {
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE", default_value = "config.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
enum Command {
    /// Write a first config.toml, and print the next steps.
    Init(init::Args),
    /// Run the daemon until SIGTERM or SIGINT; a second signal stops it at once.
    Serve(serve::Args),
    /// Check config.toml and the plugins, and list what each plugin is granted and lacks.
    Check(check::Args),
    /// Check a signature offline, with the daemon's own code, and say why it fails.
    Verify(verify::Args),
    /// Sign a body as a source would, and print the headers.
    Sign(sign::Args),
    /// List the senders that posthouse knows, show how to set one up, or accept the key that a sender brings.
    Senders(senders::Args),
    /// Send a signed sample event to the running daemon, and print the response.
    Send(send::Args),
    /// List events, newest first, or show the history of one.
    Events(events::Args),
    /// List deliveries, newest first, or show one.
    Deliveries(deliveries::Args),
    /// List what interceptors answered, newest first, or show one decision.
    Decisions(decisions::Args),
    /// Replay an event, or all dead letters.
    Replay(replay::Args),
    /// Ask a sender for its events, and compare them with the store.
    CatchUp(catch_up::Args),
    /// List plugins; show, pause, resume or forget one.
    Plugins(plugins::Args),
    /// List the mails and requests in the outbox, newest first; show one; send dead ones again.
    Outbox(outbox::Args),
    /// Print the counts of requests and deliveries; exit with 1 if they do not add up.
    Stats(stats::Args),
    /// Check everything that posthouse needs, with a fix for each problem; exit with 1 if there is one.
    Doctor(doctor::Args),
    /// List operators' actions, newest first.
    Audit(audit::Args),
    /// Back up the store and the plugins' databases to one file, with or without a running daemon.
    Backup(backup::Args),
    /// Restore the store and the plugins' databases from a backup.
    Restore(restore::Args),
    /// Print a completion script for a shell.
    Completions(completions::Args),
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Exit code 1: the command could not do its work.
    #[error("{0}")]
    Failure(String),
    /// Exit code 2: the arguments make no sense.
    #[error("{0}")]
    Usage(String),
    /// Exit code 78: config.toml has an error, for any command that needs it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Exit code 78 as well: settings in config.toml do not fit together.
    #[error("{0}")]
    Misconfigured(String),
}

impl CliError {
    fn code(&self) -> ExitCode {
        match self {
            Self::Failure(_) => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
            Self::Config(_) | Self::Misconfigured(_) => ExitCode::from(78),
        }
    }
}

/// The whole program: parses the arguments, runs the command, prints its error.
pub fn main() -> ExitCode {
    if let Some(code) = compile::run(&std::env::args_os().collect::<Vec<_>>()) {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(refused) => return print_usage(&refused),
    };
    cli.run().unwrap_or_else(|error| {
        complain(&chain(&error));
        error.code()
    })
}

impl Cli {
    fn run(self) -> Result<ExitCode, CliError> {
        let path = &self.config;
        let online = || Ok::<_, CliError>(load(path, Secrets::OfAdmin)?.config);
        match self.command {
            Command::Init(args) => init::run(args, path),
            Command::Serve(args) => serve::run(args, path, load(path, Secrets::All)?),
            Command::Check(args) => check::run(args, path, load(path, Secrets::All)?),
            Command::Verify(args) => verify::run(args, &with_keys(load(path, Secrets::ToVerify)?)?),
            Command::Sign(args) => sign::run(args, &with_keys(load(path, Secrets::OfSources)?)?),
            Command::Senders(args) => senders::run(args, path),
            Command::Send(args) => send::run(args, || with_keys(load(path, Secrets::OfSources)?)),
            Command::Events(args) => events::run(args, &online()?),
            Command::Deliveries(args) => deliveries::run(args, &online()?),
            Command::Decisions(args) => decisions::run(args, &online()?),
            Command::Replay(args) => replay::run(args, &online()?),
            Command::CatchUp(args) => catch_up::run(args, &online()?),
            Command::Plugins(args) => plugins::run(args, &online()?),
            Command::Outbox(args) => outbox::run(args, &online()?),
            Command::Stats(args) => stats::run(args, &online()?),
            Command::Doctor(args) => doctor::run(args, path),
            Command::Audit(args) => audit::run(args, &online()?),
            Command::Backup(args) => backup::run(args, &online()?),
            Command::Restore(args) => restore::run(args, &online()?),
            Command::Completions(args) => completions::run(args),
        }
    }
}

fn load(path: &Path, secrets: Secrets) -> Result<Loaded, ConfigError> {
    Loaded::read(path, &ProcessEnvironment, secrets)
}

/// The configuration, in which each source has the key that its sender brought, if it has no other.
fn with_keys(loaded: Loaded) -> Result<Config, CliError> {
    let mut config = loaded.config;
    let keys = BroughtKeys::new(&config.store.state_dir());
    config.sources = keys.with_keys(&config.sources).map_err(|e| CliError::Failure(e.to_string()))?;
    Ok(config)
}

/// Prints clap's message: help and version unchanged, an error in our own form.
fn print_usage(refused: &clap::Error) -> ExitCode {
    if !refused.use_stderr() {
        let printed = refused.print();
        return if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(1) };
    }
    if refused.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        complain("no command given; `posthouse --help` lists them");
    } else {
        complain(&on_one_line(&refused.render().to_string()));
    }
    ExitCode::from(2)
}

/// clap's paragraphs as one line, without its usage: `--help` prints that.
fn on_one_line(text: &str) -> String {
    let paragraphs = text.split("\n\n").filter(|paragraph| {
        !paragraph.starts_with("Usage:") && !paragraph.starts_with("For more information")
    });
    let lines: Vec<_> =
        paragraphs.map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let said = lines.join("; ");
    format!("{}; see --help", said.strip_prefix("error: ").unwrap_or(&said))
}

/// An error with those of its causes that it does not contain itself.
fn chain(error: &dyn Error) -> String {
    let mut told = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_told = cause.to_string();
        if !told.contains(&cause_told) {
            told = format!("{told}: {cause_told}");
        }
        source = cause.source();
    }
    told
}

/// Prints each line to standard error, after our name.
pub(crate) fn complain(text: &str) {
    let mut stderr = std::io::stderr().lock();
    for line in text.lines().map(table::clean) {
        // An error is ignored: if standard error is closed, it can't be reported.
        let _ = writeln!(stderr, "posthouse: {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_command_line_holds_together() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_refusal_is_one_line_with_its_way_out() {
        for arguments in [&["posthouse", "serv"][..], &["posthouse", "verify"], &["posthouse", "serve", "-x"]]
        {
            let refused = Cli::try_parse_from(arguments).unwrap_err();
            let line = on_one_line(&refused.render().to_string());
            assert!(!line.contains('\n') && !line.contains("Usage") && line.ends_with("--help"), "{line}");
        }
        let refused = Cli::try_parse_from(["posthouse", "serv"]).unwrap_err();
        assert!(on_one_line(&refused.render().to_string()).contains("'serve'"));
    }
}
