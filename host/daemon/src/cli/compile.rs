//! `posthouse compile`: the child process in which the daemon compiles one plugin, and which ends with the
//! daemon.
//!
//! It is not for people, so it is not part of the visible command line: no help, suggestion or completion
//! contains it.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::Parser;
use posthouse_guest::plugin::{self, Given};

/// The word with which the daemon starts it.
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

/// Compiles, under limits that the process sets for itself, if these arguments of the process ask for that.
/// Errors go to standard error, and the exit code reports them.
pub fn run(arguments: &[OsString]) -> Option<ExitCode> {
    let asked = arguments.get(1..).filter(|asked| asked.first().is_some_and(|word| word == WORD))?;
    let args = Args::try_parse_from(asked).ok()?;
    let given = Given { memory: args.memory, seconds: args.seconds, attached: args.attached };
    let code = plugin::compile_child(&args.wasm, &args.out, given);
    Some(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from))
}
