//! `posthouse compile`: what the daemon starts to compile one plugin, in a process that ends with it.
//!
//! It is not for people, so the command line that people see does not know it: no help, suggestion or completion
//! names it.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::Parser;

use crate::plugin::{self, Given};

/// The word by which the daemon asks for it.
const WORD: &str = "compile";

/// The arguments.
#[derive(Debug, Parser)]
struct Args {
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

/// Compiles, under limits that the process sets on itself, if these arguments of the process ask for that. What goes
/// wrong is on standard error, and in the exit code.
pub fn run(arguments: &[OsString]) -> Option<ExitCode> {
    let asked = arguments.get(1..).filter(|asked| asked.first().is_some_and(|word| word == WORD))?;
    let args = Args::try_parse_from(asked).ok()?;
    let given = Given { memory: args.memory, seconds: args.seconds, attached: args.attached };
    let code = plugin::compile_child(&args.wasm, &args.out, given);
    Some(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from))
}
