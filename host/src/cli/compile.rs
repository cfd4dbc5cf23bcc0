//! `posthouse compile`: what the daemon starts to compile one plugin, in a process that ends with it.

use std::{path::PathBuf, process::ExitCode};

use super::CliError;

/// The arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The plugin.
    wasm: PathBuf,
    /// Where its machine code goes.
    out: PathBuf,
}

/// Compiles, under limits that the process sets on itself.
///
/// # Errors
/// None: what goes wrong is on standard error, and in the exit code.
pub fn run(args: Args) -> Result<ExitCode, CliError> {
    let code = crate::plugin::compile_child(&args.wasm, &args.out);
    Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from))
}
