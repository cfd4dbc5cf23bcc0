//! `posthouse completions SHELL`: the script with which a shell completes the command line.

use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use super::{Cli, CliError, table};

/// The arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell.
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// [`CliError::Failure`] if standard output can't be written.
pub fn run(args: Args) -> Result<ExitCode, CliError> {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "posthouse", &mut script);
    table::print(&String::from_utf8_lossy(&script))
}
