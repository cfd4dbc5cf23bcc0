//! `posthouse compile`: what the daemon starts to compile one plugin, in a process that ends with it.

use std::{path::PathBuf, process::ExitCode};

use super::CliError;
use crate::plugin::{self, Given};

/// The arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The plugin.
    wasm: PathBuf,
    /// Where its machine code goes.
    out: PathBuf,
    /// Bytes of memory that it may use.
    #[arg(long, default_value_t = 4 << 30)]
    memory: u64,
    /// Seconds of CPU that it may use.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// End when standard input does.
    #[arg(long)]
    attached: bool,
}

/// Compiles, under limits that the process sets on itself.
///
/// # Errors
/// None: what goes wrong is on standard error, and in the exit code.
pub fn run(args: Args) -> Result<ExitCode, CliError> {
    let given = Given { memory: args.memory, seconds: args.seconds, attached: args.attached };
    let code = plugin::compile_child(&args.wasm, &args.out, given);
    Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from))
}
